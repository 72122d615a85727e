"""What each bucket started from and reached, what every choice is worth, and which features matter."""

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from btcai.pictures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SOFT,
    axis_label,
    blank,
    legend_below,
    line_key,
    panels,
    patch_keys,
    plain,
)
from btcai.report.agreement import WORDS, agreement, shares, shown_first
from btcai.report.curves import MEASURES
from btcai.report.figures import BUCKET_COLOURS, bucket_head
from btcai.report.formats import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEATURES_SHOWN = 10
_LOSSES = {
    "valid_forecast_loss_fresh": ("from scratch, untrained", "o", "white"),
    "valid_forecast_loss_handed_over": ("as handed over, untrained", "D", ORANGE),
    "valid_forecast_loss": ("trained", "o", INK),
}
"""Field of metrics.json -> its name, marker and fill."""
_MEASURE_COLOURS = dict(zip(MEASURES, (GREY, BLUE, ORANGE), strict=True))
_VERDICTS = {"better": GREEN, "worse": RED, "not told apart": SOFT, "too few seeds": "#AAAAAA"}


def handed_frac(found: Mapping[str, Any]) -> float:
    """Share of the way from the untrained network's loss to the trained one's that the hand-over alone went; nan
    where nothing was handed over, or nothing was gained."""
    fresh, handed, trained = (float(found.get(name) or "nan") for name in _LOSSES)
    gain = fresh - trained
    return (fresh - handed) / gain if isfinite(gain) and gain > 0 else float("nan")


def transfer_figure(trained: Mapping[str, Mapping[str, Any]], title: str) -> "Figure | None":
    """Per bucket: forecast losses on the validation span before and after training, and what training took; None where
    no loss was measured."""
    trained = {name: found for name, found in trained.items() if any(found.get(loss) is not None for loss in _LOSSES)}
    if not trained:
        return None
    figure = blank(title, 1.5 + 0.55 * len(trained))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
    for axes in (left, right):
        plain(axes)
        axes.grid(visible=False, axis="y")
    for place, (bucket, found) in enumerate(trained.items()):
        _losses(left, place, bucket, found)
        times = float(found.get("decision_times") or 0.0)
        right.barh(place, times / 1e3, height=0.5, color=BUCKET_COLOURS[bucket], alpha=0.8)
        right.annotate(
            _rounds(found), (times / 1e3, place), (4, 0), textcoords="offset points", va="center", fontsize=8, color=INK
        )
    left.set_yticks(range(len(trained)), list(trained), fontsize=9)
    left.set_ylim(len(trained) - 0.4, -0.6)
    right.margins(x=0.5)
    axis_label(left, x="forecast loss on the validation span (lower is better)")
    axis_label(right, x="decision times trained on, thousands")
    keys = [
        line_key(label, marker=marker, color=INK, markerfacecolor=fill, linestyle="", markersize=6)
        for label, marker, fill in _LOSSES.values()
    ]
    legend_below(figure, keys)
    return figure


def _losses(axes: "Axes", place: int, bucket: str, found: Mapping[str, Any]) -> None:
    colour = BUCKET_COLOURS[bucket]
    known = [float(found[name]) for name in _LOSSES if found.get(name) is not None]
    axes.plot([min(known), max(known)], [place, place], color=colour, linewidth=1.6, alpha=0.5, zorder=1)
    for name, (_, marker, fill) in _LOSSES.items():
        if found.get(name) is not None:
            face = colour if fill == INK else fill
            axes.plot([found[name]], [place], marker, color=colour, markerfacecolor=face, markersize=7, zorder=2)
    share = handed_frac(found)
    text = "nothing handed over" if found.get("valid_forecast_loss_handed_over") is None else ""
    if isfinite(share):
        text = f"hand-over alone: {percent(share, 0)} of the way"
    axes.annotate(
        text, (0.99, place), (0, 8), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
        fontsize=8, color=SOFT,
    )  # fmt: skip


def _rounds(found: Mapping[str, Any]) -> str:
    rounds = int(found.get("rounds") or 0)
    told = {None: "", 0.0: ", not converged", 1.0: ", converged"}[found.get("converged")]
    return f"{rounds} round{'' if rounds == 1 else 's'}{told}"


def ablation_figure(scores: pd.DataFrame, title: str) -> "Figure | None":
    """Gain of every arm over what is configured with its 95 % interval, a panel per subject; None without any."""
    subjects = {name: rows for name, group in scores.groupby("subject") if len(rows := _compared(group))}
    if not subjects:
        return None
    most = max(map(len, subjects.values()))
    figure, grid = panels(1, len(subjects), title, height=0.9 + 0.24 * most)
    for axes, (subject, rows) in zip(grid[0], subjects.items(), strict=True):
        _gains(axes, rows)
        axes.set_title(str(subject), fontsize=9.5, color=INK)
    axis_label(grid[0, 0], x="gain over what is configured, score, 95 % interval over seeds")
    keys = [
        line_key(label, marker="o", color=colour, linewidth=1.6, markersize=4) for label, colour in _VERDICTS.items()
    ]
    legend_below(figure, keys)
    return figure


def _compared(rows: pd.DataFrame) -> pd.DataFrame:
    """With the largest budget, over all buckets where that was worked out, else each bucket's."""
    rows = rows[(rows["share"] == rows["share"].max()) & rows["gain"].notna()]
    return rows[rows["bucket"] == "all"] if (rows["bucket"] == "all").any() else rows


def _gains(axes: "Axes", rows: pd.DataFrame) -> None:
    for place, row in enumerate(rows.to_dict("records")):
        colour = _VERDICTS.get(str(row["verdict"]), INK)
        axes.plot([row["gain_low"], row["gain_high"]], [place, place], color=colour, linewidth=1.6)
        axes.plot([row["gain"]], [place], "o", color=colour, markersize=4.5)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    names = rows["arm"].where(rows["bucket"] == "all", rows["arm"] + ", " + rows["bucket"])
    axes.set_yticks(range(len(rows)), names.tolist(), fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def importance_figure(measures: Mapping[str, pd.DataFrame], title: str) -> "Figure":
    """Per bucket the features with the largest mean share, each measure in % of its own sum over all features."""
    columns = min(2, len(measures))
    rows = -(-len(measures) // columns)
    figure, grid = panels(rows, columns, title, height=3.3)
    for place, (bucket, table) in enumerate(measures.items()):
        axes = grid[divmod(place, columns)]
        bucket_head(axes, bucket)
        _bars(axes, table)
        ranks = agreement(table).ranks
        told = "\n".join(f"{WORDS[one]} - {WORDS[other]}: {ranks[one, other]:.2f}" for one, other in ranks)
        axes.text(
            0.98, 0.03, f"rank correlations\n{told}", transform=axes.transAxes, ha="right", fontsize=7.5, color=SOFT
        )
    for axes in grid.flat[len(measures) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axis_label(axes, x="share of the measure's sum over all features, %")
    keys = patch_keys({WORDS[name]: colour for name, colour in _MEASURE_COLOURS.items()})
    keys.append(line_key("standard error of the permutation's", color=INK, linewidth=1.0))
    legend_below(figure, keys)
    return figure


def _bars(axes: "Axes", table: pd.DataFrame) -> None:
    """Three bars a feature, best feature on top."""
    chosen, height = shown_first(table, FEATURES_SHOWN), 0.26
    shown = 100 * shares(table).loc[chosen.index]
    # The error is in the permutation's own unit, its share in that of the sum.
    unit = shown["permutation"].abs().max() / (chosen["permutation"].abs().max() or 1.0)
    for k, (name, colour) in enumerate(_MEASURE_COLOURS.items()):
        error = unit * chosen["permutation_error"] if name == "permutation" else None
        places = np.arange(len(chosen)) + (k - 1) * height
        axes.barh(places, shown[name], height, color=colour, xerr=error, error_kw={"ecolor": INK, "elinewidth": 0.9})
    axes.set_yticks(range(len(chosen)), chosen["feature"].tolist(), fontsize=7.5)
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.axvline(0.0, color=INK, linewidth=0.6)
    low, high = float(shown.min().min()), float(shown.max().max())
    axes.set_xlim(min(0.0, 1.05 * low), 1.12 * high)  # errors may be far wider
