"""What the components of a bucket's reasoning said over time, and what each of them was worth."""

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from btcai.evaluation.voices import Voices
from btcai.pictures import GREEN, INK, RED, SOFT, axis_label, blank, date_axis, days, plain
from btcai.schema import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEPS = 240
"""Columns of the strip at most: each the mean of as many decisions."""


def reasoning_figure(found: Voices, title: str) -> "Figure":
    """A row per component: its score over time, weighted by its confidence, and its worth with the interval beside."""
    k = len(found.names)
    figure = blank(title, 1.9 + 0.3 * k)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    _strip(figure, left, found)
    plain(right)
    right.grid(visible=False, axis="y")
    for place in range(k):
        low, high = found.worth_low[place], found.worth_high[place]
        colour = GREEN if low > 0 else RED if high < 0 else SOFT
        right.plot([low, high], [place, place], color=colour, linewidth=2.0)
        right.plot([found.worth[place]], [place], "o", color=colour, markersize=5)
    right.axvline(0.0, color=INK, linewidth=0.8)
    right.tick_params(labelsize=8.5)
    axis_label(right, x=fill(f"worth: {found.worth_unit}, bar: 95 % interval for all components together", 26))
    left.set_yticks(range(k), [name.replace("_", " ") for name in found.names], fontsize=8.5)
    left.set_ylim(k - 0.5, -0.5)
    return figure


def binned(values: FloatArray, steps: int) -> FloatArray:
    """Means (steps, K) over equal runs of the D rows, in their order; as they are where there are fewer."""
    if len(values) <= steps:
        return values
    edges = np.linspace(0, len(values), steps + 1).astype(np.int64)
    counts = np.diff(edges)[:, None]
    return np.asarray(np.add.reduceat(values, edges[:-1], axis=0) / counts)


def _strip(figure: "Figure", axes: "Axes", found: Voices) -> None:
    said = binned(found.scores * found.confidence, _STEPS)
    first, last = days(found.close_ts_ns[[0, -1]])  # decisions are evenly spaced
    edges = np.linspace(first, max(last, first + 1e-3), len(said) + 1)
    most = float(np.abs(said).max()) or 1.0
    rows = np.arange(len(found.names) + 1) - 0.5
    mesh = axes.pcolormesh(edges, rows, said.T, cmap="PuOr_r", vmin=-most, vmax=most, rasterized=True)
    date_axis(axes)
    axis_label(axes, x="UTC")
    axes.tick_params(colors=INK, labelsize=8.5)
    bar = figure.colorbar(mesh, ax=axes, location="top", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label("score x confidence: below 0 speaks for falling prices, above for rising", fontsize=8.5, color=INK)
    bar.ax.tick_params(labelsize=8)
