"""What MLflow's pages say in words: the results of a run, what a bucket's model is and how to use it. Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from btcai.config import BucketConfig
from btcai.evaluation.judge import Row
from btcai.features.table import WARMUP_BARS
from btcai.report.formats import COLUMNS, flag, percent, ratio, sealed_words
from btcai.report.record import judgement_of
from btcai.submission import Judged, Submission

NAN = float("nan")


def results(found: Mapping[str, Any]) -> str:
    """metrics.json of the evaluation -> a verdict per bucket, then every strategy's figures beside each other."""
    judgement = judgement_of(found)
    span = f"{found['market']}, {found['first_day']} to {found['last_day']}, {judgement.severity} costs"
    verdicts = "\n".join(f"- **{verdict.bucket}**: {verdict.text}" for verdict in judgement.verdicts)
    paragraphs = [
        f"{span}; {sealed_words(found['sealed_span']['looks'])}.",
        verdicts,
        _table(judgement.judged_rows()),
        "The whole report is `report/index.html` among the artifacts.",
    ]
    return "\n\n".join(paragraphs)


def _table(rows: Iterable[Row]) -> str:
    """The columns of every other table of results; what a reader must know of a row is said in its first cell."""
    head = [column.head.replace("-\n", "-").replace("\n", " ") for column in COLUMNS]
    lines = [head, ["---" for _ in head]]
    for row in rows:
        first, *cells = (column.text(row) for column in COLUMNS)
        lines.append([f"{first} ({flag(row)})" if flag(row) else first, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def model_card(bucket: str, settings: BucketConfig, name: str) -> str:
    """What the registered model of a bucket is, whatever its version."""
    needed = settings.lookback_bars + WARMUP_BARS
    horizons = ", ".join(map(str, settings.horizons_bars))
    facts = [
        f"Decides for the **{bucket}** bucket of btcai: 5-minute Bitcoin bars in, one decision out.",
        f"In: a frame with `open_time` (UTC), `open`, `high`, `low`, `close`, `volume`; the newest {needed:,} bars at "
        f'least (lookback {settings.lookback_bars:,}, warm-up {WARMUP_BARS:,}). Optional `params={{"account": JSON}}`, '
        "as for `btcai decide --account`. Out: one row: the action, its size, the chance of each action, and the "
        f"predicted log return over {horizons} bars (mean, standard deviation, quantiles).",
        f'```python\nimport mlflow\nmodel = mlflow.pyfunc.load_model("models:/{name}@champion")\n'
        "decision = model.predict(bars)\n```",
        "Aliases: `champion` decides, `challenger` is the newest run's, `previous` was champion before. The tag `edge` "
        "says whether an advantage over every baseline was shown; `none` stays on paper. The ONNX graphs, for ONNX "
        f"Runtime, are in `data/{bucket}`: `mlflow artifacts download --artifact-uri models:/{name}@champion`.",
    ]
    return "\n\n".join(facts)


def version_card(submission: Submission, bucket: str) -> str:
    """What one version was made from and how it was judged."""
    judged, history = submission.judged[bucket], submission.history
    facts = [
        judged.verdict or f"edge: {judged.edge}",
        _figures(judged),
        f"Trained with profile `{submission.config.profile}` on `{history.market}`, {history.rows:,} bars, "
        f"{history.first} to {history.last}. Trace it back with: `btcai registry show {bucket}`",
    ]
    return "\n\n".join(facts)


def _figures(judged: Judged) -> str:
    figures = {name: judged.metrics.get(name, NAN) for name in ("net_return", "sharpe", "max_drawdown_frac", "trades")}
    return (
        f"Walk-forward score {ratio(judged.score, 4)}; on the test span net return {percent(figures['net_return'])}, "
        f"Sharpe {ratio(figures['sharpe'])}, max drawdown {percent(figures['max_drawdown_frac'])}, "
        f"{ratio(figures['trades'], 0)} trades, after all costs."
    )
