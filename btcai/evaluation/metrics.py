"""Figures of merit of one equity path and its closed trades: pure functions; undefined is nan, never a sentinel.

Letters: n bars, m days, k closed trades. `equity_usdt` (n,) is marked at every bar's close; returns are simple. A ratio
needs MIN_PERIODS returns and some variance, what trades earn on average MIN_TRADES of them, otherwise it is nan:
"insufficient data".
"""

from typing import NamedTuple

import numpy as np

from btcai.schema import BAR_NS, BARS_PER_DAY, BARS_PER_YEAR, FloatArray, IntArray

DAY_NS = 86_400 * 1_000_000_000
DAYS_PER_YEAR = 365
"""periods_per_year of daily returns on a market that never closes."""
MIN_PERIODS = 20
"""Fewer returns than this give no ratio: a Sharpe of a fortnight is noise."""
MIN_TRADES = 5
"""Fewer closed trades than this have no average: a win rate of 100 % of two is an anecdote."""
NO_SPREAD = 1e-12
"""A standard deviation of returns up to this is rounding, not variance."""


class Drawdown(NamedTuple):
    """The deepest fall below an earlier peak: its depth 0 .. 1 and the bars from that peak to recovery or the end."""

    frac: float
    bars: int


def utc_days(close_ts_ns: IntArray) -> IntArray:
    """UTC day number (n,) of each bar; the bar that closes at midnight belongs to the day it ends."""
    days: IntArray = (close_ts_ns - 1) // DAY_NS
    return days


def daily_returns(equity_usdt: FloatArray, close_ts_ns: IntArray, start_equity_usdt: float) -> FloatArray:
    """Simple returns (m,) from one UTC day's last bar to the next's; the first day counts from start_equity_usdt.

    A part of a day at either end counts as a day, so that the days compound to the whole path's net return.
    """
    if len(equity_usdt) == 0:
        return np.empty(0)
    days = utc_days(close_ts_ns)
    last_of_day = np.append(np.flatnonzero(np.diff(days)), len(days) - 1)
    levels = np.concatenate(([start_equity_usdt], equity_usdt[last_of_day]))
    return levels[1:] / levels[:-1] - 1.0


def net_return(equity_usdt: FloatArray, start_equity_usdt: float) -> float:
    """Gain over the whole path as a share of the start; nan without bars."""
    return float(equity_usdt[-1] / start_equity_usdt - 1.0) if len(equity_usdt) else float("nan")


def years(n_bars: int) -> float:
    """Length of n_bars 5-minute bars in years of 365 days."""
    return n_bars / BARS_PER_YEAR


def cagr(equity_usdt: FloatArray, start_equity_usdt: float, span_years: float) -> float:
    """Compound growth a year; nan for less than MIN_PERIODS days, where annualising only magnifies noise."""
    if len(equity_usdt) == 0 or span_years * DAYS_PER_YEAR < MIN_PERIODS:
        return float("nan")
    ratio = float(equity_usdt[-1]) / start_equity_usdt
    return float(ratio ** (1.0 / span_years) - 1.0) if ratio > 0 else -1.0


def sharpe(returns: FloatArray, periods_per_year: float) -> float:
    """mean / std (ddof 1) * sqrt(periods_per_year), no risk-free rate; nan below MIN_PERIODS or without variance."""
    if len(returns) < MIN_PERIODS:
        return float("nan")
    spread = float(np.std(returns, ddof=1))
    return float(np.mean(returns)) / spread * periods_per_year**0.5 if spread > NO_SPREAD else float("nan")


def sortino(returns: FloatArray, periods_per_year: float) -> float:
    """mean / root mean square of the losses * sqrt(periods_per_year); nan below MIN_PERIODS or without a loss."""
    if len(returns) < MIN_PERIODS:
        return float("nan")
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2)))
    return float(np.mean(returns)) / downside * periods_per_year**0.5 if downside > NO_SPREAD else float("nan")


def max_drawdown(equity_usdt: FloatArray) -> Drawdown:
    """The deepest drawdown of (n,) positive equity; Drawdown(0, 0) when it never falls, frac nan without bars."""
    if len(equity_usdt) == 0:
        return Drawdown(float("nan"), 0)
    depth = drawdown_path(equity_usdt)
    trough = int(np.argmax(depth))
    if depth[trough] <= 0.0:
        return Drawdown(0.0, 0)
    peak = trough - int(np.argmax(depth[trough::-1] <= 0.0))  # the last bar at its peak before the trough
    recovered = np.flatnonzero(depth[trough:] <= 0.0)
    end = trough + int(recovered[0]) if len(recovered) else len(depth) - 1
    return Drawdown(float(depth[trough]), end - peak)


def drawdown_path(equity_usdt: FloatArray) -> FloatArray:
    """Share (n,) below the highest equity so far, 0 .. 1."""
    path: FloatArray = 1.0 - equity_usdt / np.maximum.accumulate(equity_usdt)
    return path


def underwater_bars(equity_usdt: FloatArray) -> int:
    """Bars from a peak of (n,) equity to recovery or the end, where that took longest; 0 when it never falls.

    At least Drawdown.bars: the longest wait need not be for the deepest fall.
    """
    if len(equity_usdt) == 0:
        return 0
    peaks = np.flatnonzero(drawdown_path(equity_usdt) <= 0.0)
    waits = np.diff(peaks)  # 1: from a peak to a higher one, without a fall
    return int(max(waits[waits > 1].max(initial=0), len(equity_usdt) - 1 - peaks[-1]))


def calmar(cagr_frac: float, drawdown_frac: float) -> float:
    """Growth a year / deepest drawdown; nan when either is unknown or nothing was ever lost."""
    return cagr_frac / drawdown_frac if drawdown_frac > 0.0 else float("nan")


def win_rate(trade_returns: FloatArray) -> float:
    """Share of closed trades (k,) that made money after all costs; nan below MIN_TRADES."""
    return float(np.mean(trade_returns > 0.0)) if len(trade_returns) >= MIN_TRADES else float("nan")


def profit_factor(trade_profits_usdt: FloatArray) -> float:
    """Money won / money lost over closed trades (k,); nan below MIN_TRADES or without a losing one."""
    lost = -float(np.sum(np.minimum(trade_profits_usdt, 0.0)))
    if len(trade_profits_usdt) < MIN_TRADES or lost <= 0.0:
        return float("nan")
    return float(np.sum(np.maximum(trade_profits_usdt, 0.0))) / lost


def expectancy(trade_values: FloatArray) -> float:
    """Mean of closed trades (k,) after all costs, in their unit: net returns or USDT; nan below MIN_TRADES."""
    return float(np.mean(trade_values)) if len(trade_values) >= MIN_TRADES else float("nan")


def mean_holding_bars(entry_ts_ns: IntArray, exit_ts_ns: IntArray) -> float:
    """Bars from entry to exit, a mean over closed trades (k,); nan without one."""
    return float(np.mean(exit_ts_ns - entry_ts_ns)) / BAR_NS if len(entry_ts_ns) else float("nan")


def turnover_per_year(traded_usdt: float, equity_usdt: FloatArray) -> float:
    """Notional bought plus sold a year / mean equity: 2 is one full round trip a year; nan without bars."""
    if len(equity_usdt) == 0:
        return float("nan")
    return traded_usdt / float(np.mean(equity_usdt)) / years(len(equity_usdt))


def exposure_frac(position_frac: FloatArray) -> float:
    """Mean share of equity in the market, long or short; nan without bars."""
    return float(np.mean(np.abs(position_frac))) if len(position_frac) else float("nan")


def cost_frac(costs_usdt: float, start_equity_usdt: float) -> float:
    """All costs paid (fees, spread, impact, funding) as a share of the starting equity."""
    return costs_usdt / start_equity_usdt


def gross_return(equity_usdt: FloatArray, start_equity_usdt: float, costs_usdt: float) -> float:
    """Net return plus all costs paid as a share of the start: the gain of the same trades without costs, to first order
    (what was paid would have been invested too); nan without bars."""
    return net_return(equity_usdt, start_equity_usdt) + cost_frac(costs_usdt, start_equity_usdt)


def break_even_cost_bps(gross_profit_usdt: float, traded_usdt: float) -> float:
    """The cost a side, in basis points of the notional, that would eat the profit before costs; nan without trades.

    Below 0 where the trades lost before costs: no cost is low enough.
    """
    return 1e4 * gross_profit_usdt / traded_usdt if traded_usdt > 0.0 else float("nan")


def capture(net_return_frac: float, n_bars: int, goal_frac: float, goal_days: float) -> float:
    """Gain compounded to the goal's period / the goal: 1 reaches it; nan for less than MIN_PERIODS days, as `cagr`."""
    if n_bars < MIN_PERIODS * BARS_PER_DAY:
        return float("nan")
    growth = max(0.0, 1.0 + net_return_frac)
    return float(growth ** (goal_days * BARS_PER_DAY / n_bars) - 1.0) / goal_frac
