"""A chain on one screen."""

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from btcai.reasoning.records import Reasoning, Step
from btcai.reasoning.words import signed

_SAID = 0.2
"""A score times its confidence is coloured from here on."""


def rendered(reasoning: Reasoning) -> RenderableType:
    """Every step with its score, its confidence and its evidence, the decision first and last."""
    closed = datetime.fromtimestamp(reasoning.close_ts_ns // 1_000_000_000, UTC)
    action = reasoning.action.lower().replace("_", " ")
    head = Text.assemble(
        (f"{reasoning.bucket}, close of {closed:%Y-%m-%d %H:%M} UTC: ", ""),
        (action, "bold"),
        f"; components together {signed(reasoning.conviction, 2)} (-1 bearish, 1 bullish)",
    )
    table = Table(pad_edge=False, box=None, padding=(0, 1, 0, 0))
    table.add_column("step", style="dim", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("sure", justify="right", no_wrap=True)
    table.add_column("because", overflow="fold")
    for step in reasoning.steps:
        table.add_row(step.name.replace("_", " "), _score(step), _sure(step), step.sentence)
    made = f"Account: {reasoning.account}. Model {reasoning.model_version}, data {reasoning.data_version[:12]}."
    return Group(head, table, Text(made, style="dim"))


def _score(step: Step) -> Text:
    if step.score is None or step.confidence is None:
        return Text("")
    said = step.score * step.confidence
    style = "green" if said >= _SAID else "red" if said <= -_SAID else ""
    return Text(signed(step.score, 2), style=style)


def _sure(step: Step) -> str:
    return "" if step.confidence is None else f"{step.confidence:.0%}"
