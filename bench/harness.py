"""A bench by name: its lines as they are measured, kept in reports/bench/NAME.jsonl once all are there."""

import importlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench import BENCHES
from bench.line import Line
from bench.stopwatch import Stopwatch
from btcai.config import Config
from btcai.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger("btcai.bench")  # handled as everything that the command line starts

RESULTS = Path("reports/bench")
_SAID: Mapping[object, str] = {True: "yes", False: "no", None: "-"}


def run(name: str, repeats: int, config: Config, root: Path, only: str = "") -> Iterator[Line]:
    """Measure bench `name`, or the parts of it that `only` names, comma-separated, and yield its lines.

    ConfigError names the benches, or the parts, that there are.
    """
    if name not in BENCHES:
        raise ConfigError(f"a bench must be one of {', '.join(BENCHES)}, was {name}; run: btcai bench {BENCHES[0]}")
    if repeats < 1:
        raise ConfigError(f"repeats must be >= 1, was {repeats}; run: btcai bench {name}")
    bench = importlib.import_module(f"bench.{name}")
    parts = _parts(name, getattr(bench, "PARTS", ()), getattr(bench, "ON_REQUEST", ()), only)
    lines = bench.lines(Stopwatch(repeats), config, root, *([parts] if parts else []))
    (root / RESULTS).mkdir(parents=True, exist_ok=True)
    results, draft = root / RESULTS / f"{name}.jsonl", root / RESULTS / f".{name}.jsonl.new"
    try:
        with draft.open("w", encoding="utf-8") as kept:
            for line in lines:
                kept.write(f"{as_json(line)}\n")
                logger.info("%s: %s %s", line.name, _number(line.value), line.unit)
                yield line
        draft.replace(results)
    finally:
        draft.unlink(missing_ok=True)


def _parts(name: str, known: tuple[str, ...], on_request: tuple[str, ...], only: str) -> tuple[str, ...]:
    """The parts asked for, in the bench's order; without `only` all but those on request; none where it has none."""
    asked = {part.strip() for part in only.split(",")} if only else set(known) - set(on_request)
    if unknown := sorted(asked - set(known)):
        there = f"be among {', '.join(known)}" if known else f"be left out, as {name} has no parts"
        raise ConfigError(f"--only must {there}, was {', '.join(unknown)}; run: btcai bench {name}")
    return tuple(part for part in known if part in asked)


def as_json(line: Line) -> str:
    """One line of strict JSON."""
    return json.dumps(line.as_dict(), allow_nan=False)


def as_table(lines: list[Line]) -> "Table":
    """The same for people."""
    from rich.table import Table
    from rich.text import Text

    table = Table(pad_edge=False)
    for head in ("name", "value", "unit", "reference", "its value", "ratio", "goal", "met", "idle"):
        table.add_column(head, justify="right" if head in ("value", "its value", "ratio") else "left")
    for line in lines:
        table.add_row(
            line.name,
            _number(line.value),
            line.unit,
            line.reference or "-",
            _number(line.reference_value),
            _number(line.ratio),
            line.goal or "-",
            _SAID[line.met],
            _SAID[line.more.get("idle")],
        )
        if line.note:
            table.add_row("", "", "", Text(line.note, style="dim"))
    if any(line.more.get("idle") is False for line in lines):
        table.caption = "idle no: measured beside other work, whose share of the figure is not known"
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
