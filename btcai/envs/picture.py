"""A picture of one account's walk: price and fills, lots, equity and transfers, costs, drawdown."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btcai.envs.recording import LIQUIDATED, OPENED, ORDERED, STOPPED, TARGET, Fill, Walk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, GREY = "#333333", "#DDDDDD", "#8A8A8A"
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"  # Okabe and Ito's palette

_EXITS = {
    ORDERED: ("x", INK, "closed by an order"),
    TARGET: ("D", GREEN, "target reached"),
    STOPPED: ("s", RED, "stopped"),
    LIQUIDATED: ("X", PURPLE, "liquidated"),
}
_SIZE_INCHES = (12.0, 11.0)
_DPI = 100


def account_figure(walk: Walk) -> "Figure":
    """The walk as five panels over UTC time, 1200 pixels wide."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained", facecolor="white")
    panels = figure.subplots(5, 1, sharex=True, height_ratios=(3.4, 1, 2.2, 1.2, 1.2))
    when = walk.close_ts_ns.astype("datetime64[ns]")
    for axes, draw in zip(panels, (_price, _lots, _equity, _costs, _drawdown), strict=True):
        _plain(axes)
        draw(axes, when, walk)
    locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    panels[-1].set_xlabel("UTC", color=INK)
    panels[0].set_xlim(when[0], when[-1] if len(when) > 1 else when[0] + np.timedelta64(5, "m"))
    figure.align_ylabels(panels)
    panels[0].set_title(_title(walk), loc="left", fontsize=11, color=INK)
    return figure


def pixels(figure: "Figure") -> NDArray[np.uint8]:
    """The figure as uint8 (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _title(walk: Walk) -> str:
    growth = walk.equity_usdt * walk.start_equity_usdt[0] / walk.start_equity_usdt
    exits = sum(fill.cause != OPENED for fill in walk.fills)
    return (
        f"One account over {len(walk.bar) - 1:,} bars: {len(walk.fills) - exits} entries, {exits} exits, "
        f"{growth[-1] / growth[0] - 1:+.2%} without transfers"
    )


def _price(axes: "Axes", when: NDArray[np.datetime64], walk: Walk) -> None:
    axes.plot(when, walk.mark_usdt, color=GREY, linewidth=0.9, label="mark", zorder=1)
    entries = [fill for fill in walk.fills if fill.cause == OPENED]
    _links(axes, when, walk, {fill.entry_bar: fill for fill in entries})
    _mark(axes, when, walk, [fill for fill in entries if fill.btc > 0], "^", BLUE, "long lot opened")
    _mark(axes, when, walk, [fill for fill in entries if fill.btc < 0], "v", ORANGE, "short lot opened")
    for cause, (marker, colour, label) in _EXITS.items():
        fills = [fill for fill in walk.fills if fill.cause == cause]
        _mark(axes, when, walk, fills, marker, colour, label)
    _thousands(axes)
    axes.set_ylabel("price, USDT", color=INK)
    _legend(axes)


def _mark(
    axes: "Axes", when: NDArray[np.datetime64], walk: Walk, fills: list[Fill], marker: str, colour: str, label: str
) -> None:
    if fills:
        rows = [fill.bar - int(walk.bar[0]) for fill in fills]
        prices = [fill.price_usdt for fill in fills]
        edge = {} if marker == "x" else {"edgecolors": "white", "linewidths": 0.5}
        axes.scatter(when[rows], prices, s=46, marker=marker, color=colour, label=label, zorder=3, **edge)  # type: ignore[arg-type]


def _links(axes: "Axes", when: NDArray[np.datetime64], walk: Walk, entries: dict[int, Fill]) -> None:
    """A thin line from each lot's entry to each of its exits, in the colour of its side."""
    from matplotlib.collections import LineCollection
    from matplotlib.dates import date2num

    lines, colours = [], []
    for fill in walk.fills:
        if fill.cause != OPENED:
            entry = entries[fill.entry_bar]
            ends = date2num(when[[entry.bar - walk.bar[0], fill.bar - walk.bar[0]]])  # type: ignore[no-untyped-call]
            lines.append([(ends[0], entry.price_usdt), (ends[1], fill.price_usdt)])
            colours.append(BLUE if entry.btc > 0 else ORANGE)
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=0.8, alpha=0.55, zorder=2))


def _lots(axes: "Axes", when: NDArray[np.datetime64], walk: Walk) -> None:
    from matplotlib.ticker import MaxNLocator

    signed = np.where(walk.held_btc < 0, -walk.n_lots, walk.n_lots)
    for part, colour, label in (
        (np.maximum(signed, 0), BLUE, "long"),
        (np.minimum(signed, 0), ORANGE, "short"),
    ):
        if part.any():
            axes.fill_between(when, part, step="post", color=colour, alpha=0.6, linewidth=0, label=label)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.set_ylabel("open lots", color=INK)
    _legend(axes)


def _equity(axes: "Axes", when: NDArray[np.datetime64], walk: Walk) -> None:
    axes.plot(when, walk.equity_usdt, color=BLUE, linewidth=1.3, label="equity")
    moved = np.diff(walk.transferred_usdt, prepend=walk.transferred_usdt[0])
    if moved.any():
        growth = walk.equity_usdt * walk.start_equity_usdt[0] / walk.start_equity_usdt
        axes.plot(when, growth, color=INK, linewidth=1.1, linestyle="--", label="without transfers")
    for rows, marker, colour, label in (
        (np.flatnonzero(moved > 0), "^", GREEN, "deposit"),
        (np.flatnonzero(moved < 0), "v", RED, "withdrawal"),
    ):
        if len(rows):
            axes.scatter(when[rows], walk.equity_usdt[rows], s=46, marker=marker, color=colour, label=label, zorder=3)
    _thousands(axes)
    axes.set_ylabel("equity, USDT", color=INK)
    _legend(axes)


def _costs(axes: "Axes", when: NDArray[np.datetime64], walk: Walk) -> None:
    axes.plot(when, walk.costs_usdt, color=RED, linewidth=1.3, label="all costs so far")
    if walk.funding_usdt.any():
        axes.plot(when, walk.funding_usdt, color=PURPLE, linewidth=1.1, linestyle="--", label="of which funding")
    _thousands(axes)
    axes.set_ylabel("costs, USDT", color=INK)
    _legend(axes)


def _drawdown(axes: "Axes", when: NDArray[np.datetime64], walk: Walk) -> None:
    axes.fill_between(when, -100.0 * walk.drawdown_frac, color=RED, alpha=0.35, linewidth=0)
    axes.set_ylim(top=0.0)
    axes.set_ylabel("below the peak, %", color=INK)


def _plain(axes: "Axes") -> None:
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _thousands(axes: "Axes") -> None:
    from matplotlib.ticker import StrMethodFormatter

    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _legend(axes: "Axes") -> None:
    """Beside the panel, so that it hides nothing."""
    handles: list[Any] = axes.get_legend_handles_labels()[0]
    if handles:
        axes.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), fontsize=9, frameon=False, labelcolor=INK)
