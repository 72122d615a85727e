"""What each closed trade earned and why, and what was predicted when it was entered.

Profit, in USDT, is split into five parts that add up to it. Of a trade: q BTC (below 0: short), filled at E and X; e
and x the market's prices there without costs; m_e and m_x the mean marks around entry and exit; h bars held; F fees;
drift: the mean return of a bar over the span. f is the fixed size: as many BTC of the trade's side as the mean
notional of all trades buys at e.

    drift      f * e * drift * h                     what such a position earns from the span's drift alone
    direction  f * (m_x - m_e) - drift               what the market did beyond its drift, in favour or against
    timing     f * ((m_e - e) + (x - m_x))           entered and left at better prices than around that time, or worse
    sizing     (q - f) * (x - e)                     larger where it paid, or where it cost
    costs      q * (e - E) + q * (X - x) - F         spread, impact and fees; at most 0, but for resting entries

Their sum is q * (X - E) - F, the profit. Two columns of a trade are means: a lot that left in parts has its mean exit
price and the bar of its last part. Funding is the account's and in no trade.
"""

import math

import numpy as np
import pandas as pd

from btcai.schema import QUANTILE_LEVELS, Float32Array, FloatArray, IntArray, MarketData, Span

PARTS = ("drift_usdt", "direction_usdt", "timing_usdt", "sizing_usdt", "costs_usdt")

_LOW, _HIGH = 0, len(QUANTILE_LEVELS) - 1


def split_profits(
    trades: pd.DataFrame, data: MarketData, span: Span, *, window_bars: int, stop_loss_frac: float
) -> pd.DataFrame:
    """Closed trades of a backtest over the span (result.TRADE_COLUMNS) -> PARTS, a row per trade; they add up.

    Prices around an entry or exit: the marks of the window_bars bars before its bar opened and of as many from then
    on, as far as they lie in the span. stop_loss_frac is the bucket's: where a bar reached the stop, that is the
    price without costs.
    """
    entry_bar, exit_bar = (_bars(data, trades[name]) for name in ("entry_ts_ns", "exit_ts_ns"))
    btc, entry, leave, profit = (
        trades[name].to_numpy(np.float64) for name in ("btc", "entry_price", "exit_price", "profit_usdt")
    )
    entry_free = data.bars.open[entry_bar]
    exit_free = _exit_without_costs(data, exit_bar, np.sign(btc), entry, leave, stop_loss_frac)
    fixed = np.sign(btc) * float(np.mean(np.abs(btc) * entry_free)) / entry_free if len(trades) else btc
    around_entry, around_exit = (_mean_mark(data, span, bars, window_bars) for bars in (entry_bar, exit_bar))
    marks = data.mark[span.first : span.stop]
    drift_frac = float(np.mean(np.diff(marks) / marks[:-1]))
    drift = fixed * entry_free * drift_frac * (exit_bar - entry_bar)
    fees = btc * (leave - entry) - profit
    parts = (
        drift,
        fixed * (around_exit - around_entry) - drift,
        fixed * ((around_entry - entry_free) + (exit_free - around_exit)),
        (btc - fixed) * (exit_free - entry_free),
        btc * (entry_free - entry) + btc * (leave - exit_free) - fees,
    )
    return pd.DataFrame(dict(zip(PARTS, parts, strict=True)), index=trades.index)


def predicted_and_actual(
    trades: pd.DataFrame,
    data: MarketData,
    decisions: IntArray,
    mean: Float32Array,
    quantiles: Float32Array,
    horizons_bars: tuple[int, ...],
) -> pd.DataFrame:
    """Each trade beside the forecast of the decision it was entered on, over the horizon nearest to its holding.

    decisions (D,) bars; mean (D, H) and quantiles (D, H, Q) of the log return, as bundle.Encoded has them. Columns:
    held_bars, horizon_bars; predicted, low, high: mean and outer quantiles; actual: log return of the mark over that
    horizon, nan past the history's end; inside: actual in low .. high, nan where it is not known; earned: log return
    between the trade's fills, of its side.
    """
    decided = entry_decisions(trades, data, decisions)
    held = _bars(data, trades["exit_ts_ns"]) - _bars(data, trades["entry_ts_ns"])
    horizons = np.asarray(horizons_bars)
    nearest = np.abs(np.log(horizons) - np.log(np.maximum(held, 1))[:, None]).argmin(axis=1)
    start, stop = decisions[decided], decisions[decided] + horizons[nearest]
    known = stop < len(data)
    ends = data.mark[np.minimum(stop, len(data) - 1)]
    actual = np.where(known, np.log(ends / data.mark[start]), np.nan)
    low, high = (quantiles[decided, nearest, level].astype(np.float64) for level in (_LOW, _HIGH))
    fills = np.log(trades["exit_price"].to_numpy(np.float64) / trades["entry_price"].to_numpy(np.float64))
    columns = {
        "held_bars": held,
        "horizon_bars": horizons[nearest],
        "predicted": mean[decided, nearest].astype(np.float64),
        "low": low,
        "high": high,
        "actual": actual,
        "inside": np.where(known, (actual >= low) & (actual <= high), np.nan),
        "earned": np.sign(trades["btc"].to_numpy(np.float64)) * fills,
    }
    return pd.DataFrame(columns, index=trades.index)


def entry_decisions(trades: pd.DataFrame, data: MarketData, decisions: IntArray) -> IntArray:
    """Which of the decisions (D,), ascending bars, each trade (k,) was entered on: the last before its entry's bar.

    An order fills in a later bar than it is given. ValueError for a trade before the first decision.
    """
    entry_bar = _bars(data, trades["entry_ts_ns"])
    decided = np.searchsorted(decisions, entry_bar, side="left") - 1
    if len(trades) and decided.min() < 0:
        raise ValueError(f"a trade was entered at bar {entry_bar.min()}, before the first decision at {decisions[0]}")
    return decided.astype(np.int64)


def _bars(data: MarketData, close_ts_ns: "pd.Series[int]") -> IntArray:
    """Rows of the bars that close then; ValueError where there is none."""
    stamps = close_ts_ns.to_numpy(np.int64)
    rows = np.searchsorted(data.bars.close_ts_ns, stamps)
    if not np.array_equal(np.take(data.bars.close_ts_ns, rows, mode="clip"), stamps):
        raise ValueError("trades must lie on the market's bars, some do not; pass the market they were made on")
    return rows.astype(np.int64)


def _exit_without_costs(
    data: MarketData, bar: IntArray, side: FloatArray, entry: FloatArray, leave: FloatArray, stop_loss_frac: float
) -> FloatArray:
    """The market's price (k,) at each exit, as market.fills takes it: the open, a stop the bar reached, or the fill.

    The nearest of them that is not worse than the fill; a target is filled at its own price, which nothing beats.
    """
    bars = data.bars
    stop = entry * (1.0 - side * stop_loss_frac)
    reached = np.where(side > 0.0, bars.low[bar] <= stop, bars.high[bar] >= stop) & (stop_loss_frac > 0.0)
    better = [np.where(side * (price - leave) >= 0.0, side * price, np.inf) for price in (bars.open[bar], stop)]
    better[1] = np.where(reached, better[1], np.inf)
    nearest = np.minimum(*better)
    return np.where(np.isfinite(nearest), side * nearest, leave)


def _mean_mark(data: MarketData, span: Span, bar: IntArray, window_bars: int) -> FloatArray:
    """Mean mark (k,) of bars bar - window_bars .. bar + window_bars - 1, those inside the span."""
    if window_bars < 1:
        raise ValueError(f"window_bars must be at least 1, was {window_bars}")
    marks = data.mark[span.first : span.stop]
    total = np.concatenate(([0.0], np.cumsum(marks - marks[0])))  # of differences: sums of prices would lose digits
    first = np.clip(bar - window_bars - span.first, 0, len(span) - 1)
    stop = np.clip(bar + window_bars - span.first, first + 1, len(span))
    return np.asarray(marks[0] + (total[stop] - total[first]) / (stop - first))


def totals(parts: pd.DataFrame) -> dict[str, float]:
    """Sum of each part over all trades, and `profit_usdt`, their sum."""
    sums = {name: float(parts[name].sum()) for name in PARTS}
    return {**sums, "profit_usdt": math.fsum(sums.values())}
