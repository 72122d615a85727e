"""Agents trained on every fold, as a table, a CSV file and a picture."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from btcai.evaluation.result import label
from btcai.experiments.refitting import PathRow, Plan
from btcai.pictures import png_bytes
from btcai.schema import FloatArray

if TYPE_CHECKING:
    from rich.table import Table


def write(rows: Sequence[PathRow], plan: Plan, folder: Path) -> tuple[Path, ...]:
    """SCHEME.csv and SCHEME.png; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / f"{plan.name}.csv", folder / f"{plan.name}.png"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(PathRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    picture.write_bytes(_png(rows, plan))
    return table, picture


def view(rows: Sequence[PathRow]) -> "Table":
    """A row per strategy: its figures over all histories, median and worst."""
    from rich.table import Table

    table = Table(
        "strategy", "histories", "net return, median", "worst", "Sharpe, median", "worst", "deepest drawdown", "trades"
    )
    for name in dict.fromkeys(row.strategy for row in rows):
        mine = [row for row in rows if row.strategy == name]
        nets, sharpes = (np.array([getattr(row, figure) for row in mine]) for figure in ("net_return", "sharpe"))
        table.add_row(
            label(name), str(len(mine)), f"{np.median(nets):+.1%}", f"{nets.min():+.1%}",
            _ratio(sharpes, 50), _ratio(sharpes, 0),
            f"{max(row.max_drawdown_frac for row in mine):.1%}", f"{np.median([row.trades for row in mine]):.0f}",
        )  # fmt: skip
    return table


def _ratio(values: FloatArray, percentile: float) -> str:
    """A percentile; undefined where any is, as of who did not trade."""
    return f"{np.percentile(values, percentile):.2f}" if np.isfinite(values).all() else "undefined"


def _png(rows: Sequence[PathRow], plan: Plan) -> bytes:
    """A dot for each history, a row for each strategy."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.strategy for row in rows))
    figure = Figure(figsize=(8.0, 1.2 + 0.4 * len(names)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(reversed(names)):
        nets = [100 * row.net_return for row in rows if row.strategy == name]
        axes.plot(nets, [place] * len(nets), linestyle="", marker="o", markersize=5, alpha=0.6, color="#0072B2")
    axes.axvline(0.0, color="#222222", linewidth=0.8)
    axes.set_yticks(range(len(names)), [label(name) for name in reversed(names)])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("net return of a history after costs, %")
    histories = "one history" if len(plan.paths) == 1 else f"{len(plan.paths)} histories"
    axes.set_title(f"Trained anew on each of {len(plan.folds)} folds: {histories}", loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return png_bytes(figure)
