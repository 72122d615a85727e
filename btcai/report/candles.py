"""Bars as candles of a length that fits a picture."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from btcai.pictures import GREY, days
from btcai.schema import BAR_NS, BAR_SECONDS, Bars, IntArray, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTHS_BARS = (1, 3, 6, 12, 48, 144, 288, 864, 2016)
"""5, 15, 30 minutes, 1, 4, 12 hours, 1, 3, 7 days."""


def length_for(n_bars: int, most: int = 240) -> int:
    """The shortest of LENGTHS_BARS that makes at most so many candles of n_bars; the longest where none does."""
    return next((length for length in LENGTHS_BARS if n_bars <= most * length), LENGTHS_BARS[-1])


def candle_of(close_ts_ns: IntArray, length_bars: int) -> IntArray:
    """The candle (n,) that each bar belongs to, on the absolute clock: the bar that closes with it is its last."""
    return np.asarray((close_ts_ns - 1) // (length_bars * BAR_NS), np.int64)


def candles(bars: Bars, span: Span, length_bars: int) -> pd.DataFrame:
    """The span's present bars as open, high, low, close, indexed by candle_of; none where all are missing."""
    rows = slice(span.first, span.stop)
    present = np.asarray(bars.present[rows])
    names = ("open", "high", "low", "close")
    columns = {name: np.asarray(getattr(bars, name)[rows])[present] for name in names}
    which = candle_of(np.asarray(bars.close_ts_ns[rows])[present], length_bars)
    how = dict(zip(names, ("first", "max", "min", "last"), strict=True))
    return pd.DataFrame(columns).groupby(which).agg(how)


def draw_candles(axes: "Axes", found: pd.DataFrame, length_bars: int) -> None:
    """Wicks from low to high; bodies white where the price rose and grey where it fell. x is in days since 1970."""
    width = length_bars * BAR_SECONDS / 86_400
    middle = days((found.index.to_numpy() * length_bars * BAR_NS) + length_bars * BAR_NS // 2)
    axes.vlines(middle, found["low"], found["high"], color=GREY, linewidth=0.7, zorder=1)
    rise = (found["close"] - found["open"]).to_numpy()
    axes.bar(
        middle,
        rise,
        0.7 * width,
        bottom=found["open"],
        color=np.where(rise >= 0, "white", "#B5B5B5"),
        edgecolor=GREY,
        linewidth=0.6,
        zorder=2,
    )


def span_between(close_ts_ns: IntArray, within: Span, first_ns: float, last_ns: float) -> Span:
    """The bars of `within` that close from first_ns to last_ns, one at least."""
    closes = np.asarray(close_ts_ns[within.first : within.stop])
    first = min(int(np.searchsorted(closes, first_ns)), len(closes) - 1)
    stop = int(np.searchsorted(closes, last_ns, side="right"))
    return Span(within.first + first, within.first + max(stop, first + 1))
