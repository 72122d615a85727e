"""Figures as PNG bytes, and the one style of the report's: sizes, colours, axes, legends."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GREY, GRID = "#333333", "#666666", "#8A8A8A", "#DDDDDD"
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
"""Of Okabe and Ito's palette, told apart by colour-blind readers."""

WIDTH_INCHES, DPI = 10.0, 110
"""Together the width of the report's page in pixels."""

DAY_NS = 86_400 * 1_000_000_000


def png_bytes(figure: "Figure") -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # its default names the library's version
    return buffer.getvalue()


def blank(title: str, height: float) -> "Figure":
    """An empty figure as wide as the page, `height` inches high."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=INK)
    return figure


def canvas(title: str, height: float) -> tuple["Figure", "Axes"]:
    """One plain axes in a figure as wide as the page."""
    figure = blank(title, height)
    axes = figure.add_subplot()
    plain(axes)
    axes.tick_params(labelsize=9)
    return figure, axes


def panels(
    rows: int,
    columns: int,
    title: str,
    height: float,
    *,
    sharex: Literal["none", "col"] = "none",
    ratios: Sequence[float] | None = None,
) -> tuple["Figure", NDArray[np.object_]]:
    """Plain axes (rows, columns) in one figure as wide as the page, each row `height` inches; ratios: of the rows."""
    figure = blank(title, 0.9 + height * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, height_ratios=ratios)
    for axes in grid.flat:
        plain(axes)
        axes.tick_params(labelsize=8)
    return figure, grid


def plain(axes: "Axes") -> None:
    """A light grid behind, two spines."""
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def date_axis(axes: "Axes", maxticks: int = 9) -> None:
    """UTC dates below, which values in days since 1970 or datetime64 are read as."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=maxticks)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def days(close_ts_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Stamps in UTC ns as matplotlib counts dates: days since 1970."""
    return np.asarray(close_ts_ns / DAY_NS, np.float64)


def thousands(axes: "Axes") -> None:
    """30000 on the y axis -> 30,000."""
    from matplotlib.ticker import StrMethodFormatter

    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def axis_label(axes: "Axes", *, x: str | None = None, y: str | None = None) -> None:
    """Labels of a small panel."""
    if x is not None:
        axes.set_xlabel(x, fontsize=8.5, color=INK)
    if y is not None:
        axes.set_ylabel(y, fontsize=8.5, color=INK)


def say(axes: "Axes", text: str) -> None:
    """In the middle of a panel that has nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8.5, color=SOFT)


def corner(axes: "Axes", text: str) -> None:
    """What a panel rests on, in its upper right corner, readable over whatever is drawn there."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    axes.text(
        0.98, 0.96, text, transform=axes.transAxes, fontsize=7.5, va="top", ha="right", color=INK, bbox=box, zorder=9
    )


def legend_below(figure: "Figure", keys: "Sequence[Artist]", ncols: int | None = None) -> None:
    """One legend for all panels, in which it hides nothing."""
    figure.legend(
        handles=list(keys),
        loc="outside lower center",
        ncols=ncols or len(keys),
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
    )


def line_key(label: str, **style: Any) -> "Artist":
    """A line or a marker of the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def patch_keys(colours: Mapping[str, str]) -> "list[Artist]":
    """Areas of the legend: label -> colour."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=colour, edgecolor="#BBBBBB", linewidth=0.6, label=label) for label, colour in colours.items()
    ]


def heat_map(
    axes: "Axes",
    values: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    signed: bool = True,
) -> None:
    """values (R, C) as colours, a text in each cell; signed: violet below zero and orange above, else white to blue."""
    axes.grid(visible=False)
    most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    low, cmap = (-2.0 * most, "PuOr_r") if signed else (0.0, "Blues")  # twice as far as needed: texts stay readable
    axes.imshow(values, cmap=cmap, vmin=low, vmax=2.0 * most, aspect="auto")
    for (row, column), _ in np.ndenumerate(values):
        axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=9, color="#111111")
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
