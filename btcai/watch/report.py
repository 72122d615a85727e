"""What drift.py found, as files and as a table: metrics.json, table.csv, drift.png."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from btcai.schema import IntArray
from btcai.watch.drift import Drift, FeatureDrift

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN = 12


def write_drift(folder: Path, drift: Drift, close_ts_ns: IntArray) -> None:
    """Three files; the same drift gives the same bytes."""
    record = json.dumps(_record(drift, close_ts_ns), indent=2, allow_nan=False)
    (folder / "metrics.json").write_text(f"{record}\n", encoding="utf-8")
    table = io.StringIO()
    writer = csv.DictWriter(table, [*asdict(drift.features[0]), "is_unusual"], lineterminator="\n")
    writer.writeheader()
    for found in by_distance(drift):
        writer.writerow({**asdict(found), "is_unusual": found.is_unusual})
    (folder / "table.csv").write_text(table.getvalue(), encoding="utf-8")
    (folder / "drift.png").write_bytes(_picture(drift, _days(drift, close_ts_ns)))


def by_distance(drift: Drift) -> list[FeatureDrift]:
    """The strangest first: distance over the largest that the training span shows."""
    return sorted(drift.features, key=lambda found: found.ks / max(found.largest_ks, 1e-9), reverse=True)


def drift_view(drift: Drift, close_ts_ns: IntArray) -> "RenderableType":
    """The verdict, and the SHOWN strangest features."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(pad_edge=False)
    for head in ("feature", "KS", "usual", "largest", "PSI"):
        table.add_column(head, justify="left" if head == "feature" else "right")
    for found in by_distance(drift)[:SHOWN]:
        style = "bold red" if found.is_unusual else ""
        figures = (found.ks, found.usual_ks, found.largest_ks, found.psi)
        table.add_row(Text(found.name, style=style), *(f"{figure:.3f}" for figure in figures))
    return Group(
        Text(
            f"{_days(drift, close_ts_ns)} against {len(drift.window_scores)} windows of the training span", style="dim"
        ),
        table,
        Text(verdict(drift), style="bold red" if drift.has_drifted else "green"),
    )


def verdict(drift: Drift) -> str:
    """One line."""
    unusual = sum(found.is_unusual for found in drift.features)
    low, high = min(drift.window_volatilities), max(drift.window_volatilities)
    word = "drifted" if drift.has_drifted else "steady"
    return (
        f"{word}: {unusual} of {len(drift.features)} features are further off than "
        f"in any window of the training span; mean distance {drift.score:.3f}, of windows up to "
        f"{max(drift.window_scores):.3f} (chance {drift.chance:.2f}); volatility {drift.volatility:.0%} a year, of "
        f"windows {low:.0%} to {high:.0%}"
    )


def _record(drift: Drift, close_ts_ns: IntArray) -> dict[str, object]:
    return {
        "days": _days(drift, close_ts_ns),
        "drifted": drift.has_drifted,
        "score": drift.score,
        "largest_window_score": max(drift.window_scores),
        "chance": drift.chance,
        "features": len(drift.features),
        "unusual_features": sum(found.is_unusual for found in drift.features),
        "volatility": drift.volatility,
        "window_volatility_low": min(drift.window_volatilities),
        "window_volatility_high": max(drift.window_volatilities),
    }


def _days(drift: Drift, close_ts_ns: IntArray) -> str:
    first, last = (
        np.datetime64(int(close_ts_ns[row]), "ns").astype("datetime64[D]")
        for row in (drift.window.first, drift.window.stop - 1)
    )
    return f"{first} to {last}"


def _picture(drift: Drift, days: str) -> bytes:
    """Each feature's distance on the range that is usual, the strangest on top."""
    from matplotlib.figure import Figure

    found = by_distance(drift)[::-1]
    figure = Figure(figsize=(9.0, 1.4 + 0.2 * len(found)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(found):
        axes.plot([0.0, one.largest_ks], [place, place], color="#CCCCCC", linewidth=4.0, solid_capstyle="butt")
        axes.plot([one.usual_ks], [place], "|", color="#666666", markersize=7)
        axes.plot([one.ks], [place], "o", color="#D55E00" if one.is_unusual else "#0072B2", markersize=4.5)
    axes.set_yticks(range(len(found)), [one.name for one in found], fontsize=7)
    axes.set_ylim(-1, len(found))
    axes.set_xlim(left=0.0)
    axes.set_xlabel("Kolmogorov-Smirnov distance to the training span; grey: its own windows, tick: their median")
    axes.set_title(f"{'Drifted' if drift.has_drifted else 'Steady'}: {days}", loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()
