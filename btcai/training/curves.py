"""The curves of a training: a bar and lines while it runs, files when it has ended."""

import csv
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from btcai.training.health import collapse
from btcai.training.play import Validation
from btcai.training.trainer import Row

log = logging.getLogger(__name__)

Curves = list[dict[str, float | str]]
"""A row per update of every phase."""


def record(curves: Curves, rows: Iterable[Row], phase: str, updates: int) -> None:
    """Run a phase to its end, keeping its rows: a live bar in a terminal, and a line at every validation anywhere.

    A row tells its update where it is another than the row's number: updates that were rolled back are made again.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    known: str | None = None
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        shown = progress.add_task(phase, total=updates)
        for number, row in enumerate(rows, start=1):
            update = row.get("update", number)
            curves.append({"phase": phase, "update": update, **row})
            progress.update(shown, completed=update)
            if figures := _validated(row):
                log.info("%s %s %d/%d  %s", phase, _bar(update / updates), update, updates, figures)
            if "valid_share_hold" in row:
                collapsed = collapse({name.removeprefix("valid_"): value for name, value in row.items()})
                curves[-1]["collapsed"] = collapsed or ""
                if collapsed and collapsed != known:
                    _tell_collapse(phase, int(update), collapsed)
                known = collapsed


def write(out: Path, metrics: dict[str, float], judged: Validation, curves: Curves) -> None:
    """metrics.json (strict: nan becomes null; `collapsed` names how, or is null) and curves.csv."""
    clean: dict[str, float | str | None] = {
        name: value if np.isfinite(value) else None for name, value in metrics.items()
    }
    clean["collapsed"] = collapse(asdict(judged))
    (out / "metrics.json").write_text(json.dumps(clean, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    names = list(dict.fromkeys(name for row in curves for name in row))
    with (out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names or ["phase", "update"])
        writer.writeheader()
        writer.writerows(curves)


def _tell_collapse(phase: str, update: int, collapsed: str) -> None:
    """A policy that is flat may be the honest one, where costs eat what it could earn; the others never are."""
    if collapsed == "flat":
        log.info("%s: trades nothing yet by update %d", phase, update)
    else:
        log.warning("%s: the policy has collapsed by update %d: %s", phase, update, collapsed)


def _bar(done: float) -> str:
    """A bar of 20 characters for logs and pipes."""
    filled = round(20 * done)
    return "[" + "#" * filled + "." * (20 - filled) + "]"


def _validated(row: Row) -> str:
    """What a row says of the validation span, with the KL and entropy beside; empty where it was not measured."""
    if not any(name.startswith("valid") for name in row):
        return ""
    names = [name for name in row if name.startswith(("valid", "kl", "entropy")) and "share_" not in name]
    return " ".join(f"{name} {row[name] + 0.0:.4g}" for name in names)  # + 0: no -0
