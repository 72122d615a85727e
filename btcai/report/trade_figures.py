"""Where a bucket bought and sold on the market's candles, and one of its trades at close range."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from btcai.evaluation.result import BacktestResult
from btcai.pictures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    axis_label,
    blank,
    date_axis,
    days,
    legend_below,
    line_key,
    plain,
    thousands,
)
from btcai.report.candles import candle_of, candles, draw_candles, length_for, span_between
from btcai.report.formats import duration, percent
from btcai.schema import BAR_NS, BoolArray, FloatArray, MarketData, Span

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINKED_MOST = 200
"""Trades up to which a line joins each entry with its exit, and stops are drawn."""
_LEAST_BARS = 24
"""Shown before and after a trade at least."""


def trades_figure(result: BacktestResult, data: MarketData, stop_loss_frac: float, title: str) -> "Figure | None":
    """Candles of the whole span with every closed lot, and below the share of equity held; None without a trade.

    stop_loss_frac: how far against the entry a lot is closed; 0: nowhere.
    """
    trades = result.trades
    if trades.empty:
        return None
    figure = blank(title, 6.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4.2, 1))
    length = length_for(len(result.span))
    for axes in (upper, lower):
        plain(axes)
    draw_candles(upper, candles(data.bars, result.span, length), length)
    is_few = len(trades) <= LINKED_MOST
    if is_few:
        _links(upper, trades)
        _stops(upper, trades, stop_loss_frac)
    _marks(upper, trades, size=float(np.clip(46.0 * (60.0 / len(trades)) ** 0.5, 9.0, 46.0)))
    thousands(upper)
    axis_label(upper, y=f"price, USDT (candles of {duration(length)})")
    _exposure(lower, result, length)
    axis_label(lower, y="held,\n% of equity", x="UTC")
    date_axis(lower)
    ends = days(result.close_ts_ns[[0, -1]])
    lower.set_xlim(ends[0], ends[1])
    legend_below(figure, _keys(trades, stops=is_few and stop_loss_frac > 0))
    return figure


def example_figure(result: BacktestResult, data: MarketData, stop_loss_frac: float, title: str) -> "Figure | None":
    """The closed lot of median return (the earlier of two) with the market around it; None without a trade."""
    if result.trades.empty:
        return None
    row = median_trade(result.trades)
    trade = result.trades.iloc[row]
    held_ns = max(float(trade["exit_ts_ns"] - trade["entry_ts_ns"]), _LEAST_BARS * BAR_NS)
    around = trade["entry_ts_ns"] - 0.6 * held_ns, trade["exit_ts_ns"] + 0.6 * held_ns
    span = span_between(data.bars.close_ts_ns, result.span, *around)
    stop = float(stop_levels(result.trades.iloc[[row]], stop_loss_frac)[0]) if stop_loss_frac > 0 else float("nan")
    figure = blank(f"{title}\n{told(trade, stop)}", 4.6)
    axes = figure.add_subplot()
    plain(axes)
    length = length_for(len(span), most=160)
    draw_candles(axes, candles(data.bars, span, length), length)
    _zoomed(axes, result, row, span, data, stop)
    thousands(axes)
    axis_label(axes, y=f"price, USDT (candles of {duration(length)})", x="UTC")
    date_axis(axes)
    ends = days(np.asarray(data.bars.close_ts_ns)[[span.first, span.stop - 1]])
    axes.set_xlim(ends[0] - 1e-3, ends[1] + 1e-3)
    keys = _keys(result.trades.iloc[[row]], stops=stop_loss_frac > 0)
    if len(result.trades) > 1:
        keys.append(line_key("other lots", marker="o", color=GREY, linestyle="", markersize=4, alpha=0.6))
    legend_below(figure, keys)
    return figure


def median_trade(trades: pd.DataFrame) -> int:
    """The row of median net return, the lower middle one of an even number."""
    order = np.argsort(trades["net_return"].to_numpy(), kind="stable")
    return int(order[(len(order) - 1) // 2])


def _zoomed(axes: "Axes", result: BacktestResult, row: int, span: Span, data: MarketData, stop: float) -> None:
    """One trade with its stop, where that is near (nan: there is none), the other lots faintly."""
    others = result.trades.drop(result.trades.index[row])
    ends = np.asarray(data.bars.close_ts_ns)[[span.first, span.stop - 1]]
    for side in ("entry", "exit"):
        inside = others[others[f"{side}_ts_ns"].between(ends[0], ends[1])]
        when, price = days(inside[f"{side}_ts_ns"].to_numpy()), inside[f"{side}_price"]
        axes.scatter(when, price, s=16, marker="o", color=GREY, alpha=0.6, linewidths=0, zorder=3)
    trade = result.trades.iloc[[row]]
    low, high = axes.get_ylim()
    _links(axes, trade)
    _marks(axes, trade, size=90.0)
    if low - 0.5 * (high - low) < stop < high + 0.5 * (high - low):  # a far one would squeeze the candles
        axes.axhline(stop, color=RED, linewidth=0.9, linestyle="--", zorder=2)


def told(trade: "pd.Series[float]", stop: float) -> str:
    """A trade in words: what was bought or sold short, when it was closed, what it earned, where its stop was."""
    opened = "bought" if trade["btc"] > 0 else "sold short"
    stopped = f"; stop at {stop:,.0f}" if np.isfinite(stop) else ""
    return (
        f"{abs(trade['btc']):.4g} BTC {opened} at {trade['entry_price']:,.0f}, closed at {trade['exit_price']:,.0f}: "
        f"{percent(trade['net_return'], 2)} after costs, {trade['profit_usdt']:,.2f} USDT{stopped}"
    )


def _marks(axes: "Axes", trades: pd.DataFrame, size: float) -> None:
    """Entries at the price they filled at, long ones pointing up; exits by what the lot gained after costs."""
    is_long, gained = trades["btc"].to_numpy() > 0, trades["net_return"].to_numpy() > 0
    for rows, marker, colour in ((is_long, "^", BLUE), (~is_long, "v", ORANGE)):
        _scatter(axes, trades[rows], "entry", marker, colour, size)
    for rows, colour in ((gained, GREEN), (~gained, RED)):
        _scatter(axes, trades[rows], "exit", "o", colour, 0.6 * size)


def _scatter(axes: "Axes", trades: pd.DataFrame, side: str, marker: str, colour: str, size: float) -> None:
    when, price = days(trades[f"{side}_ts_ns"].to_numpy()), trades[f"{side}_price"].to_numpy()
    axes.scatter(when, price, s=size, marker=marker, color=colour, edgecolors="white", linewidths=0.4, zorder=5)


def _links(axes: "Axes", trades: pd.DataFrame) -> None:
    from matplotlib.collections import LineCollection

    begins, ends = (_points(trades, side) for side in ("entry", "exit"))
    colours = np.where(trades["net_return"].to_numpy() > 0, GREEN, RED).tolist()
    lines = list(np.stack([begins, ends], axis=1))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=1.0, alpha=0.6, zorder=4))


def _points(trades: pd.DataFrame, side: str) -> FloatArray:
    """(k, 2): days since 1970, price."""
    return np.column_stack([days(trades[f"{side}_ts_ns"].to_numpy()), trades[f"{side}_price"].to_numpy()])


def stop_levels(trades: pd.DataFrame, stop_loss_frac: float) -> FloatArray:
    """The price (k,) at which each lot would be closed against its entry: below a long one's, above a short one's."""
    side = np.sign(trades["btc"].to_numpy())
    return np.asarray(trades["entry_price"].to_numpy() * (1.0 - side * stop_loss_frac))


def _stops(axes: "Axes", trades: pd.DataFrame, stop_loss_frac: float) -> None:
    if stop_loss_frac > 0:
        low, high = axes.get_ylim()
        levels = stop_levels(trades, stop_loss_frac)
        shown: BoolArray = (levels > low) & (levels < high)  # far ones would squeeze the candles
        begins, ends = (days(trades[f"{side}_ts_ns"].to_numpy())[shown] for side in ("entry", "exit"))
        axes.hlines(levels[shown], begins, ends, color=RED, linewidth=0.9, linestyle="--", zorder=3)
        axes.set_ylim(low, high)


def _exposure(axes: "Axes", result: BacktestResult, length_bars: int) -> None:
    """Mean share of equity held in each candle."""
    by = candle_of(result.close_ts_ns, length_bars)
    held = pd.Series(100.0 * result.position_frac).groupby(by).mean()
    when = days((held.index.to_numpy() + 1) * length_bars * BAR_NS)
    axes.fill_between(when, held.to_numpy(), step="pre", color=BLUE, alpha=0.45, linewidth=0)
    axes.axhline(0.0, color=INK, linewidth=0.6)


def _keys(trades: pd.DataFrame, *, stops: bool) -> "list[Artist]":
    """Of what is there."""
    is_long, gained = trades["btc"] > 0, trades["net_return"] > 0
    marks: Sequence[tuple[bool, str, str, str]] = (
        (bool(is_long.any()), "^", BLUE, "lot bought"),
        (bool((~is_long).any()), "v", ORANGE, "lot sold short"),
        (bool(gained.any()), "o", GREEN, "closed with a gain after costs"),
        (bool((~gained).any()), "o", RED, "closed with a loss"),
    )
    keys = [
        line_key(label, marker=marker, color=colour, linestyle="", markersize=6)
        for there, marker, colour, label in marks
        if there
    ]
    return keys + ([line_key("stop", color=RED, linewidth=0.9, linestyle="--")] if stops else [])
