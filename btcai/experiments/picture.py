"""The comparison drawn: learning curves of the arms, a panel a bucket, and what each arm gains."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from btcai.experiments.arms import BASE
from btcai.experiments.statistics import interquartile_mean
from btcai.experiments.table import Found, Row
from btcai.pictures import png_bytes
from btcai.schema import BUCKETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#222222", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#777777")
_MARKS = "osD^vP*X"


def ablation_png(found: Found, rows: Sequence[Row]) -> bytes:
    """Upper row: score against decision times, a panel a bucket. Below: the gain of each arm with the most budget."""
    from matplotlib.figure import Figure

    buckets = [bucket for bucket in BUCKETS if any(trial.bucket == bucket for trial in found)]
    figure = Figure(
        figsize=(max(3.2 * len(buckets), 8.0), 4.2 + 0.28 * len(_arms(found))), dpi=110, layout="constrained"
    )
    ratios = [3.4, 0.8 + 0.28 * len(_arms(found))]
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=ratios)[:, 0]
    panels = upper.subplots(1, len(buckets), sharey=True, squeeze=False)[0]
    for axes, bucket in zip(panels, buckets, strict=True):
        _curves(axes, found, bucket)
    panels[0].set_ylabel("score, interquartile mean")
    handles, labels = _legend(panels)
    upper.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    _gains(lower.subplots(), rows)
    return png_bytes(figure)


def _arms(found: Found) -> list[str]:
    names = sorted({trial.arm for trial in found})
    return [BASE, *(name for name in names if name != BASE)]


def _curves(axes: "Axes", found: Found, bucket: str) -> None:
    """The arms' scores over the decision times that training met, with every seed as a faint mark."""
    for place, arm in enumerate(_arms(found)):
        mine = {t: o for t, o in found.items() if (t.bucket, t.arm) == (bucket, arm)}
        if not mine:
            continue
        met = sorted({outcome.measured.decisions for outcome in mine.values()})
        scores = [[o.measured.score for o in mine.values() if o.measured.decisions == count] for count in met]
        colour, mark = _COLOURS[place % len(_COLOURS)], _MARKS[place // len(_COLOURS) % len(_MARKS)]
        means = [float(interquartile_mean(np.array(one))) for one in scores]
        axes.plot(met, means, marker=mark, markersize=4, linewidth=1.4, color=colour, label=arm)
        for count, one in zip(met, scores, strict=True):
            axes.plot([count] * len(one), one, linestyle="", marker=mark, markersize=2.5, color=colour, alpha=0.35)
    axes.set_xscale("log")
    budgets = sorted({outcome.measured.decisions for trial, outcome in found.items() if trial.bucket == bucket})
    axes.set_xticks(budgets, [f"{count / 1e3:,.0f}" for count in budgets], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_title(bucket, fontsize=10)
    axes.set_xlabel("decision times trained on, thousands")
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)


def _legend(panels: Sequence["Axes"]) -> tuple[list[object], list[str]]:
    known: dict[str, object] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    return list(known.values()), list(known)


def _gains(axes: "Axes", rows: Sequence[Row]) -> None:
    """Of each arm with the most budget, over all buckets where there are several: its gain with the interval."""
    most = max((row.share for row in rows), default=0.0)
    of_all = [row for row in rows if row.share == most and row.gain is not None]
    shown = [row for row in of_all if row.bucket == "all"] or of_all
    for place, row in enumerate(shown):
        assert row.gain is not None
        axes.plot([row.gain.low, row.gain.high], [place, place], color="#333333", linewidth=1.4)
        axes.plot([row.gain.value], [place], marker="o", markersize=4, color="#333333")
    axes.axvline(0.0, color="#777777", linewidth=0.8)
    axes.set_yticks(
        range(len(shown)), [row.arm if row.bucket == "all" else f"{row.arm}, {row.bucket}" for row in shown]
    )
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(f"gain over what is configured, {most:g} of the budget, 95 % interval over seeds")
    axes.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6)
