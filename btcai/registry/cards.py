"""What MLflow's pages say in words: the results of a run, what a bucket's model is and how to use it. Markdown."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from btcai import paths, usage
from btcai.config import BucketConfig
from btcai.evaluation.rows import Row
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import file_sha256
from btcai.registry.submission import Judged, Submission
from btcai.report.formats import COLUMNS, between, cost_text, duration, flag, percent, percents, ratio, sealed_words
from btcai.report.record import judgement_of

NAN = float("nan")

CONTRACT = (
    "The graphs take raw features, which they scale themselves, and put out calibrated log returns: `io` in "
    "manifest.json says of each input and output what, its shape, unit and order; `mlflow/README.md` has code."
)
"""How to run the graphs without btcai."""


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
        f"Runtime, are in `data/{bucket}`: `mlflow artifacts download --artifact-uri models:/{name}@champion`. "
        + CONTRACT,
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


def full_card(submission: Submission, bucket: str, name: str) -> str:
    """One version in full, model_card.md: what it is for and not for, figures, limits, data, how it was made."""
    sections = {
        "Verdict": submission.judged[bucket].verdict or f"edge: {submission.judged[bucket].edge}",
        "Intended use": _use(submission, bucket),
        "Figures": _figures_table(submission.judged[bucket]),
        "Limits": LIMITS.format(costs=_costs(submission)),
        "Data": _data(submission),
        "How it was made": _made(submission, bucket),
        "Files": _files(submission, bucket),
        "How to use it": _loading(bucket, name),
    }
    return "\n\n".join([f"# {name}", *(f"## {head}\n\n{text}" for head, text in sections.items())]) + "\n"


LIMITS = """\
- Simulated fills at {costs}: no order book, no queue, no outage of an exchange, no other trader who reacts.
- One market: what earned on it may not on another, nor on it tomorrow. Intervals of the past bind no new regime.
- Forecast intervals are calibrated on the validation span; where `unfamiliarity` is above 1 they are guesses.
- The best of several versions looks better than it is: the verdict counts every trial, the figures do not."""


def _costs(submission: Submission) -> str:
    market = submission.config.market
    return f"{market.severity} costs ({cost_text(market.severities[market.severity])})"


def _use(submission: Submission, bucket: str) -> str:
    settings, edge = submission.config.buckets[bucket], submission.judged[bucket].edge
    horizons = ", ".join(duration(bars) for bars in settings.horizons_bars)
    paper = (
        "It may leave paper." if edge == "proven" else "It stays on paper: no advantage over the baselines is shown."
    )
    return (
        f"Decides every {duration(settings.patch_bars)} whether the {bucket} bucket buys, sells, closes or holds "
        f"Bitcoin, up to {settings.max_lots} lots, and predicts the return over {horizons}. {paper} Not for other "
        f"assets, other bars than 5-minute ones, or fewer than {settings.lookback_bars + WARMUP_BARS:,} of them; no "
        "advice to anyone."
    )


def _figures_table(judged: Judged) -> str:
    """Test span, after all costs; an interval where one was computed."""
    found = {**dict.fromkeys(_FIGURES, NAN), **judged.metrics}
    rows = [
        ("walk-forward score", ratio(judged.score, 4), ""),
        ("net return", percent(found["net_return"]), ""),
        ("return a year", percent(found["cagr"]), percents(found["cagr_low"], found["cagr_high"])),
        ("Sharpe ratio", ratio(found["sharpe"]), between(found["sharpe_low"], found["sharpe_high"])),
        (
            "largest drawdown",
            percent(found["max_drawdown_frac"]),
            percents(found["max_drawdown_low"], found["max_drawdown_high"]),
        ),
        ("trades", ratio(found["trades"], 0), ""),
        ("winning trades", percent(found["win_rate"]), ""),
        ("time in the market", percent(found["exposure_frac"]), ""),
        ("costs, of the start equity", percent(found["cost_frac"]), ""),
        ("break-even cost a side, bp", ratio(found["break_even_bps"]), ""),
    ]
    lines = [f"| {' | '.join(row)} |" for row in [("test span, net", "value", "95 % interval"), ("---",) * 3, *rows]]
    return "\n".join(lines)


_FIGURES = (
    *("net_return", "cagr", "cagr_low", "cagr_high", "sharpe", "sharpe_low", "sharpe_high", "max_drawdown_frac"),
    *("max_drawdown_low", "max_drawdown_high", "trades", "win_rate", "exposure_frac", "cost_frac", "break_even_bps"),
)


def _data(submission: Submission) -> str:
    history, splits = submission.history, submission.config.splits
    dvc = f", DVC `{history.dvc_md5}`" if history.dvc_md5 else ""
    return (
        f"`{history.market}`: {history.rows:,} five-minute bars, {history.first} to {history.last}, content sha256 "
        f"`{history.data_version}`{dvc}. Trained, chosen and judged on spans in this order of time, with the longest "
        f"horizon ({submission.config.purge_bars:,} bars) and an embargo of {splits.embargo_bars:,} between them; the "
        "last span is sealed."
    )


def _made(submission: Submission, bucket: str) -> str:
    lineage = submission.lineage
    dirty = ", with changes of its own (kept as code/btcai in the model)" if lineage.get("git_dirty") == "true" else ""
    facts = {
        "trained": _when(submission, bucket),
        "by": f"`btcai run --profile {submission.config.profile}`, seed {submission.config.seed}",
        "git commit": f"`{lineage['git_commit']}`{dirty}" if "git_commit" in lineage else "",
        "code": f"`{submission.code_version}`",
        "inputs": f"`{submission.input_hash}`",
        "on": ", ".join(lineage[key] for key in ("libraries", "platform") if key in lineage),
        "again": f"`btcai registry show {bucket}` prints the commands while it is champion",
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact)


def _when(submission: Submission, bucket: str) -> str:
    """From the samples of the machine that a training leaves; nothing where there are none."""
    rows = usage.read(submission.root / paths.TRAIN / bucket / usage.FILE)
    if not rows:
        return ""
    began, ended = (datetime.fromtimestamp(row["unix_s"], UTC) for row in (rows[0], rows[-1]))
    return f"{began:%Y-%m-%d %H:%M} to {ended:%H:%M} UTC, {rows[-1]['elapsed_s']:.0f} s"


def _files(submission: Submission, bucket: str) -> str:
    path = submission.root / paths.CANDIDATE / bucket / "manifest.json"
    digests = json.loads(path.read_text(encoding="utf-8"))["sha256"] | {path.name: file_sha256(path)}
    return "\n".join(
        ["| file | sha256 |", "| --- | --- |", *(f"| {name} | `{sha}` |" for name, sha in digests.items())]
    )


def _loading(bucket: str, name: str) -> str:
    return (
        f'In Python, wherever MLflow\'s store is: `mlflow.pyfunc.load_model("models:/{name}@champion").predict(bars)`, '
        "bars as `open_time` (UTC), `open`, `high`, `low`, `close`, `volume`. On the command line: "
        f"`btcai decide --bucket {bucket} --bars FILE`. In ONNX Runtime: encoder.onnx and head.onnx, or policy.onnx. "
        f"{CONTRACT} No file here is a pickle."
    )
