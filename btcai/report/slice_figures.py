"""Where a bucket earned and lost: by regime, month, weekday and hour."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from btcai.pictures import GREEN, INK, RED, axis_label, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_MARKED_MOST = 13
"""Parts up to which the trades of each are counted over its bar."""


def slices_figure(slices: pd.DataFrame, title: str) -> "Figure":
    """A panel per slicing of slices.slice_table: what each part of it adds to the net return."""
    groups = list(slices.groupby("slicing", sort=False))
    rows = -(-len(groups) // _COLUMNS)
    figure, grid = panels(rows, _COLUMNS, title, height=2.2)
    for place, (slicing, parts) in enumerate(groups):
        axes = grid[divmod(place, _COLUMNS)]
        axes.set_title(f"by {slicing}", fontsize=9.5, color=INK)
        _bars(axes, parts)
    for place in range(len(groups), rows * _COLUMNS):
        grid[divmod(place, _COLUMNS)].set_axis_off()
    for axes in grid[:, 0]:
        axis_label(axes, y="of the start's equity, %")
    return figure


def _bars(axes: "Axes", parts: pd.DataFrame) -> None:
    """Gains up, losses down; above each bar how many lots were opened in the part."""
    gains = 100 * parts["net_contribution"].to_numpy(np.float64)
    places = np.arange(len(parts))
    axes.bar(places, gains, 0.75, color=np.where(gains > 0, GREEN, RED))
    axes.axhline(0.0, color=INK, linewidth=0.8)
    names = parts["part"].astype(str).tolist()
    step = max(1, len(parts) // 8)
    turned = 35 if max(map(len, names)) * len(names[::step]) > 36 else 0
    axes.set_xticks(places[::step], names[::step], rotation=turned, ha="right" if turned else "center", fontsize=8)
    if len(parts) <= _MARKED_MOST:
        for place, gain, trades in zip(places, gains, parts["trades"], strict=True):
            axes.annotate(
                f"{trades:,}", (place, max(gain, 0.0)), (0, 2), textcoords="offset points", ha="center", fontsize=7
            )
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.15)
    low, high = axes.get_ylim()
    axes.set_ylim(low, max(high, 0.12 * (high - low)))  # room for the counts where all is lost
