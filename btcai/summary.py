"""What the commands print: decisions, what each bucket trained, the table of results, where everything is."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from btcai import paths, usage
from btcai.records import promotions
from btcai.records.champions import Standing
from btcai.schema import BAR_SECONDS, BUCKETS, QUANTILE_LEVELS, Action, Decision

INTERVAL = f"{QUANTILE_LEVELS[-1] - QUANTILE_LEVELS[0]:.0%} interval"
TRAINED = ("rounds", "decision_times", "env_steps")
"""What the table says of a trained bucket's effort, by its metrics.json; how long it took is in its system.csv."""
LOSSES = ("fresh", "handed_over")
"""What its forecasts lost on the validation span before training: from scratch, and as they were handed over."""


def decision_json(decision: Decision, standing: Standing | None) -> str:
    """One line of strict JSON: the Decision's fields (its forecasts are of log returns, quantiles at QUANTILE_LEVELS),
    the action by name, and whether an edge is proven."""
    fields = asdict(decision) | {"action": decision.action.name, "edge": edge_of(standing)}
    return json.dumps(fields, allow_nan=False)


def edge_of(standing: Standing | None) -> str:
    """proven or none; a bundle that nobody judged has none."""
    return standing.edge if standing else "none"


def decision_view(
    decision: Decision, standing: Standing | None, account: str, *, age: str = "", market: str = ""
) -> RenderableType:
    """A decision with everything it rests on.

    age (bar_age) is said beside the bar it was decided at, market is that of the bars trained on, where known.
    """
    closed = datetime.fromtimestamp(decision.close_ts_ns // 1_000_000_000, UTC)
    facts = _pairs()
    facts.add_row("decided at", f"close of {closed:%Y-%m-%d %H:%M} UTC" + (f", {age}" if age else ""))
    size = f", a lot of {decision.size_frac:.2%} of equity" if decision.action is Action.BUY else ""
    facts.add_row("action", Text(f"{_spoken(decision.action)}{size}", style="bold"))
    if decision.note:
        facts.add_row("rule", Text(decision.note, style="yellow"))
    chances = (f"{_spoken(action)} {decision.probabilities[action]:.1%}" for action in Action)
    facts.add_row("probabilities", ", ".join(chances))
    facts.add_row("market", _familiar(decision.unfamiliarity))
    facts.add_row("account", account)
    facts.add_row(
        "model", f"{decision.bucket} {decision.model_version}" + (f", version {standing.version}" if standing else "")
    )
    facts.add_row("trained on", f"{market + ', ' if market else ''}bars {decision.data_version[:12]}")
    return Group(facts, _forecasts(decision), _edge_note(decision, standing))


def _familiar(unfamiliarity: float) -> str:
    said = "familiar" if unfamiliarity <= 1 else "unfamiliar"
    return f"{said} ({unfamiliarity:.2f}; 1 is exceeded one time in a hundred)"


def bar_age(close_ts_ns: int, now_ns: int, patch_bars: int) -> str:
    """How long ago a decision's bar closed; old once the next decision time, patch_bars later, has passed too."""
    minutes = (now_ns - close_ts_ns) / 60e9
    if minutes < 0:
        return f"{_ago(-minutes)} ahead of this computer's clock"
    old = ": old bars" if minutes * 60 >= patch_bars * BAR_SECONDS else ""
    return f"closed {_ago(minutes)} ago{old}"


def _ago(minutes: float) -> str:
    """200 -> "3 h": whole units, of the largest that it holds two of."""
    for unit, size in (("days", 1440.0), ("h", 60.0)):
        if minutes >= 2 * size:
            return f"{minutes // size:.0f} {unit}"
    return f"{minutes // 1:.0f} min"


def _forecasts(decision: Decision) -> Table:
    from btcai.report.formats import duration

    title = f"Predicted simple return, {decision.intervals} intervals"
    table = Table(title=title, title_justify="left", pad_edge=False)
    for head in ("horizon", "mean", "std", INTERVAL):
        table.add_column(head, justify="right")
    for forecast in decision.forecasts:
        said = forecast.simple
        interval = f"{said.quantiles[0]:+.2%} .. {said.quantiles[-1]:+.2%}"
        table.add_row(duration(forecast.horizon_bars), f"{said.mean:+.3%}", f"{said.std:.2%}", interval)
    return table


def _edge_note(decision: Decision, standing: Standing | None) -> Text:
    if edge_of(standing) == "proven":
        return Text(f"Edge proven on the test folds: {decision.bucket} may leave paper.", style="green")
    note = "stays on paper; holding cash or a volatility-targeted position is the recommended action."
    return Text(f"No proven edge: {decision.bucket} {note}", style="yellow")


def _spoken(action: Action) -> str:
    return action.name.lower().replace("_", " ")


def _pairs() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    return table


def trained_view(root: Path) -> RenderableType | None:
    """What each bucket trained, whether that converged, and what its forecasts lose; None before the first training.

    Whole at 80 columns.
    """
    from rich.box import SIMPLE_HEAD
    from rich.padding import Padding

    table = Table(
        title="Trained",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("bucket", no_wrap=True)
    forecasts = ("loss from\nscratch", "handed\nover", "trained")
    for head in ("rounds", "decision\ntimes", "env\nsteps", "time", "con-\nverged", *forecasts):
        table.add_column(head, justify="right", no_wrap=True)
    for bucket in BUCKETS:
        path = root / paths.TRAIN / bucket / "metrics.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            seconds = usage.elapsed_s(path.with_name(usage.FILE))
            effort = [*(_number(found.get(key)) for key in TRAINED), "-" if seconds is None else f"{seconds:,.0f} s"]
            converged = {None: "-", 0.0: "no", 1.0: "yes"}[found.get("converged")]  # None: nobody asked
            losses = [found.get(f"valid_forecast_loss_{name}") for name in LOSSES] + [found.get("valid_forecast_loss")]
            table.add_row(bucket, *effort, converged, *("-" if loss is None else f"{loss:.4f}" for loss in losses))
    return Padding(table, (0, 0, 1, 0)) if table.row_count else None


def _number(value: float | None) -> str:
    """573440 -> "573 k", 36556800 -> "36.6 M"; None is a dash."""
    if value is None:
        return "-"
    return f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:,.0f}"


def results_view(found: dict[str, Any]) -> RenderableType:
    """metrics.json of the evaluation -> the one table, a verdict per bucket."""
    from btcai.report.formats import sealed_words
    from btcai.report.record import judgement_of
    from btcai.report.report import rich_table

    judgement = judgement_of(found)
    looks = sealed_words(found["sealed_span"]["looks"])
    span = f"{found['market']}, {found['first_day']} to {found['last_day']}; {looks}"
    verdicts = _pairs()
    for verdict in judgement.verdicts:
        verdicts.add_row(verdict.bucket, Text(verdict.text, style="green" if verdict.edge == "proven" else ""))
    return Group(Text(span, style="dim"), rich_table(judgement.judged_rows(), "Test span"), "", verdicts)


def places_view(root: Path, pages: Mapping[str, str]) -> Table:
    """Where the report, the models and the pages (services.pages) are, and the command that shows each."""
    table = _pairs()
    table.add_row("report", f"{paths.EVALUATION}/index.html   (the table again: btcai report)")
    placed = [bucket for bucket in BUCKETS if (root / paths.CHAMPION / bucket).is_dir()]
    table.add_row("models", f"{paths.CHAMPION}/{{{','.join(placed)}}}" if placed else f"none yet in {paths.CHAMPION}")
    for bucket, change in promotions.pins(root / paths.PROMOTIONS).items():
        release = f"btcai registry unpin {bucket} --because TEXT"
        table.add_row("by hand", f"{bucket} stays at version {change.after.pinned}: {change.because}   ({release})")
    table.add_row("decide", "btcai decide --bucket scalping --bars FILE")
    for name, address in pages.items():
        table.add_row(name, address)
    return table
