"""The results drawn, every strategy in a style of its own; figures without pyplot's state."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from btcai.evaluation.metrics import drawdown_path
from btcai.evaluation.result import label
from btcai.evaluation.rows import Row
from btcai.pictures import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SOFT, canvas, date_axis
from btcai.report.formats import DID_NOT_TRADE, between, percent, ratio
from btcai.schema import BUCKETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = tuple[str, str | tuple[int, tuple[int, ...]], float]
"""Colour, dashes, width in points."""

BUCKET_COLOURS: Mapping[str, str] = dict(zip(BUCKETS, (RED, ORANGE, GREEN, BLUE), strict=True))

_STYLES: Mapping[str, Style] = {
    **{bucket: (colour, "-", 1.8) for bucket, colour in BUCKET_COLOURS.items()},
    "portfolio": ("#000000", "-", 1.3),
    "cash": ("#777777", ":", 1.2),
    "buy_and_hold": ("#222222", "--", 1.2),
    "volatility_targeted": ("#777777", "--", 1.2),
    "momentum_90d": ("#777777", "-.", 1.2),
}
_OTHERS: tuple[Style, ...] = tuple(
    (colour, dashes, 1.2)
    for dashes in ((0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
    for colour in (PURPLE, "#56B4E9", "#8C6D31", "#222222")
)
"""Of strategies without a style of their own, in their order."""
_PALE = "#C9C9C9"


def styles_of(strategies: Sequence[str]) -> dict[str, Style]:
    """A style for each: buckets in colours, baselines thinner and dashed."""
    others = [name for name in strategies if name not in _STYLES]
    return {name: _STYLES.get(name) or _OTHERS[others.index(name) % len(_OTHERS)] for name in strategies}


def bucket_head(axes: "Axes", bucket: str) -> None:
    """A panel's title: the bucket, in its colour."""
    axes.set_title(bucket, fontsize=9.5, color=BUCKET_COLOURS[bucket], fontweight="bold")


def equity_figure(daily: pd.DataFrame, title: str) -> "Figure":
    """Growth of 1 USDT, logarithmic; `daily` (m, strategies) of equity / start, indexed by UTC date.

    The picture reaches as far down as those it is about; a baseline that fell further leaves it.
    """
    figure, axes = canvas(title, height=_height(daily, 5.0))
    low = max(float(daily.min().min()), 0.85 * float(daily[_about(daily)].min().min()))
    gains = [f"{label(name)} {percent(daily[name].iloc[-1] - 1)}" for name in daily.columns]
    _paths(axes, daily, _told(gains, daily.min() < low), _named(daily))
    axes.set_yscale("log")
    axes.set_ylabel("growth of 1 USDT after costs (log scale)")
    _plain_ticks(axes, min(1.0, low), max(1.0, float(daily.max().max())))
    return figure


def drawdown_figure(daily: pd.DataFrame, title: str) -> "Figure":
    """Percent below the highest equity so far, per strategy; as far down as equity_figure."""
    figure, axes = canvas(title, height=_height(daily, 3.6))
    start = pd.DataFrame(1.0, index=daily.index[:1], columns=daily.columns)
    below = pd.concat([start, daily]).apply(lambda path: -100.0 * drawdown_path(path.to_numpy()))
    low = max(float(below.min().min()), 1.25 * float(below[_about(below)].min().min()))
    labels = _told([label(name) for name in daily.columns], below.min() < low)
    _paths(axes, below.iloc[1:], labels, _named(daily))
    axes.set_ylabel("below the peak of daily closes, %")
    deepest = max(1.0, -low)
    axes.set_ylim(-1.03 * deepest, 0.02 * deepest)
    return figure


def _about(daily: pd.DataFrame) -> list[str]:
    """The strategies that a picture is about: buckets, and what they have to beat first. All where none is there."""
    names = [name for name in daily.columns if name in _STYLES]
    return names or list(daily.columns)


def _told(labels: Sequence[str], left: "pd.Series[bool]") -> list[str]:
    return [f"{text} (leaves below)" if out else text for text, out in zip(labels, left, strict=True)]


def _height(daily: pd.DataFrame, least: float) -> float:
    """Inches that the legend beside the axes needs."""
    return max(least, 0.9 + 0.205 * len(daily.columns))


def sharpe_figure(rows: Sequence[Row], title: str) -> "Figure":
    """Every strategy's annual Sharpe ratio with its 95 % interval: what can be told apart from luck.

    As far to the left as those it is about; figures further out are written at the edge.
    """
    figure, axes = canvas(title, height=1.4 + 0.3 * len(rows))
    axes.grid(False, axis="y")
    axes.axvline(0.0, color=INK, linewidth=0.8)
    low, high = _sharpe_range(rows)
    styles = styles_of([row.strategy for row in rows])
    for place, row in enumerate(reversed(rows)):
        colour, _, _ = styles[row.strategy]
        if not np.isfinite(row.sharpe):
            _note(axes, 0.0, place, DID_NOT_TRADE if row.did_not_trade else "too few days, or no variance")
        elif row.sharpe < low:
            _note(axes, low, place, f"further left: {ratio(row.sharpe)} ({between(row.sharpe_low, row.sharpe_high)})")
        else:
            axes.plot([row.sharpe_low, row.sharpe_high], [place, place], color=colour, linewidth=2.2)
            axes.plot([row.sharpe], [place], "o" if row.is_bucket else "D", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [label(row.strategy) for row in reversed(rows)])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlim(low, high)
    axes.set_xlabel("annual Sharpe ratio of daily returns, bar = 95 % interval")
    return figure


def _sharpe_range(rows: Sequence[Row]) -> tuple[float, float]:
    """Ends of the axis: the intervals of those the picture is about with some room, zero inside."""
    about = [row for row in rows if row.strategy in _STYLES and np.isfinite(row.sharpe)]
    shown = about or [row for row in rows if np.isfinite(row.sharpe)]
    ends = [0.0, *(end for row in shown for end in (row.sharpe_low, row.sharpe_high, row.sharpe) if np.isfinite(end))]
    highs = [row.sharpe_high for row in rows if np.isfinite(row.sharpe_high)]
    room = 0.1 * (max(ends) - min(ends)) or 1.0
    return min(ends) - room, max([*ends, *highs]) + room


def _note(axes: "Axes", x: float, place: int, text: str) -> None:
    axes.annotate(text, (x, place), (6, 0), textcoords="offset points", va="center", fontsize=8.5, color=SOFT)


def _named(equity: pd.DataFrame) -> list[str]:
    """Whom a picture names, for nobody tells seventeen lines apart: those it is about, of the rest who ends highest."""
    about = _about(equity)
    others = equity.drop(columns=about).iloc[-1]
    return [*about, str(others.idxmax())] if len(others) else about


def _paths(axes: "Axes", daily: pd.DataFrame, labels: Sequence[str], named: Sequence[str]) -> None:
    """A line each, the named ones in their styles, buckets on top, in the table's order; the others pale."""
    dates, styles = daily.index.to_numpy(), styles_of(list(daily.columns))
    pale = [name for name in daily.columns if name not in named]
    for place, name in enumerate(pale):
        first = f"{len(pale)} others: see the table" if place == 0 else "_"
        axes.plot(dates, daily[name].to_numpy(), color=_PALE, linewidth=0.8, label=first, zorder=1)
    for name, text in zip(daily.columns, labels, strict=True):
        if name in named:
            colour, dashes, width = styles[name]
            order = 3 if name in BUCKETS else 2
            values = daily[name].to_numpy()
            axes.plot(dates, values, color=colour, linestyle=dashes, linewidth=width, label=text, zorder=order)
    axes.margins(x=0.01)
    axes.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False, labelcolor=INK, handlelength=2.6
    )
    date_axis(axes)


def _plain_ticks(axes: "Axes", low: float, high: float) -> None:
    """Round levels such as 0.9, 1, 1.1 in place of powers of ten, which hide all that matters here."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

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
