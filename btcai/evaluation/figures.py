"""The report's pictures as PNG bytes that depend on nothing but the numbers: no pyplot state, no stamps inside."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from btcai.evaluation.formats import DID_NOT_TRADE, percent
from btcai.evaluation.judge import Row
from btcai.evaluation.metrics import drawdown_path
from btcai.evaluation.result import label
from btcai.pictures import png_bytes
from btcai.schema import BUCKETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers; baselines also differ in their dashes.
STYLES: Mapping[str, tuple[str, str, float]] = {
    "scalping": ("#D55E00", "-", 1.8),
    "short": ("#E69F00", "-", 1.8),
    "medium": ("#009E73", "-", 1.8),
    "long": ("#0072B2", "-", 1.8),
    "cash": ("#777777", ":", 1.2),
    "buy_and_hold": ("#222222", "--", 1.2),
    "volatility_targeted": ("#777777", "--", 1.2),
    "momentum_90d": ("#777777", "-.", 1.2),
}
_OTHER = ("#CC79A7", "-", 1.4)
GRID = "#DDDDDD"
INK = "#333333"
SOFT = "#666666"
WIDTH_INCHES = 10.0
DPI = 110
"""Together the width of the report's page in pixels."""


def equity_png(daily: pd.DataFrame, title: str) -> bytes:
    """Growth of 1 USDT, logarithmic; `daily` (m, strategies) of equity / start, indexed by UTC date."""
    figure, axes = _canvas(title, height=5.0)
    _paths(axes, daily, [f"{label(name)} {percent(daily[name].iloc[-1] - 1)}" for name in daily.columns])
    axes.set_yscale("log")
    axes.set_ylabel("growth of 1 USDT after costs (log scale)")
    _plain_ticks(axes, daily)
    return png_bytes(figure)


def drawdown_png(daily: pd.DataFrame, title: str) -> bytes:
    """Percent below the highest equity so far, per strategy."""
    figure, axes = _canvas(title, height=3.6)
    start = pd.DataFrame(1.0, index=daily.index[:1], columns=daily.columns)
    below = pd.concat([start, daily]).apply(lambda path: -100.0 * drawdown_path(path.to_numpy()))
    _paths(axes, below.iloc[1:], [label(name) for name in daily.columns])
    axes.set_ylabel("below the peak of daily closes, %")
    axes.set_ylim(top=0.02 * max(1.0, -float(below.min().min())))
    return png_bytes(figure)


def sharpe_png(rows: Sequence[Row], title: str) -> bytes:
    """Every strategy's annual Sharpe ratio with its 95 % interval: what can be told apart from luck."""
    figure, axes = _canvas(title, height=1.4 + 0.34 * len(rows))
    axes.grid(False, axis="y")
    axes.axvline(0.0, color=INK, linewidth=0.8)
    for place, row in enumerate(reversed(rows)):
        colour, _, _ = STYLES.get(row.strategy, _OTHER)
        if np.isfinite(row.sharpe):
            axes.plot([row.sharpe_low, row.sharpe_high], [place, place], color=colour, linewidth=2.2)
            axes.plot([row.sharpe], [place], "o" if row.is_bucket else "D", color=colour, markersize=6)
        else:
            why = DID_NOT_TRADE if row.did_not_trade else "too few days, or no variance"
            axes.annotate(why, (0.0, place), (6, 0), textcoords="offset points", va="center", fontsize=8.5, color=SOFT)
    axes.set_yticks(range(len(rows)), [label(row.strategy) for row in reversed(rows)])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("annual Sharpe ratio of daily returns, bar = 95 % interval")
    return png_bytes(figure)


def _canvas(title: str, height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    plain(axes)
    axes.tick_params(labelsize=9)
    return figure, axes


def plain(axes: "Axes") -> None:
    """A light grid behind, two spines."""
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _paths(axes: "Axes", daily: pd.DataFrame, labels: Sequence[str]) -> None:
    """One line per strategy, buckets on top of the baselines; the legend in the table's order."""
    dates = daily.index.to_numpy()
    for name, text in zip(daily.columns, labels, strict=True):
        colour, dashes, width = STYLES.get(name, _OTHER)
        order = 3 if name in BUCKETS else 2
        values = daily[name].to_numpy()
        axes.plot(dates, values, color=colour, linestyle=dashes, linewidth=width, label=text, zorder=order)
    axes.margins(x=0.01)
    axes.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False, labelcolor=INK, handlelength=2.6
    )
    _dates(axes)


def _dates(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _plain_ticks(axes: "Axes", daily: pd.DataFrame) -> None:
    """Round levels such as 0.9, 1, 1.1 in place of powers of ten, which hide all that matters here."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    low, high = min(1.0, float(daily.min().min())), max(1.0, float(daily.max().max()))
    if high / low < 3.0:
        levels = np.asarray(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    else:
        levels = np.concatenate([np.array([1.0, 2.0, 5.0]) * 10.0**power for power in range(-9, 10)])
    axes.yaxis.set_major_locator(FixedLocator([float(level) for level in levels if level > 0]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    margin = (high / low) ** 0.05
    axes.set_ylim(low / margin, high * margin)
    axes.axhline(1.0, color=INK, linewidth=0.6)
