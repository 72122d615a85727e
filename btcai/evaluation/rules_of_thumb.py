"""Plain rules that anyone could have followed: targets of a span from the marks before each decision, nothing fitted.

Each rule: (data, span) -> (targets (n,), note); targets as in targets.py, the note says where history was too short.
Daily decisions fall on the span's first bar, so that no rule idles, then on every midnight UTC; others on their clock.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from btcai.evaluation.metrics import DAYS_PER_YEAR
from btcai.schema import BAR_NS, BARS_PER_DAY, FloatArray, IntArray, MarketData, Span

TARGET_VOLATILITY = 0.30
"""A year; the position is capped at 1, so calm markets are held whole."""
VOLATILITY_DAYS = 30
MOMENTUM_DAYS = (14, 28, 90)
REVERSAL_BARS = 12
BOLLINGER_DAYS, BOLLINGER_STDS = 20, 2.0

Targets = tuple[FloatArray, str]


def cash(data: MarketData, span: Span) -> Targets:
    """Never buy."""
    return np.full(len(span), np.nan), ""


def buy_and_hold(data: MarketData, span: Span) -> Targets:
    """Buy with everything at the first chance and never sell."""
    targets = np.full(len(span), np.nan)
    targets[0] = 1.0
    return targets, ""


def volatility_targeted(data: MarketData, span: Span) -> Targets:
    """TARGET_VOLATILITY / the volatility of the last VOLATILITY_DAYS daily returns, at most 1, once a day."""
    rows = _clock_bars(data, span, BARS_PER_DAY)
    return _decided(span, rows, _calm_share(data, rows), VOLATILITY_DAYS * BARS_PER_DAY)


def momentum(data: MarketData, span: Span, days: int) -> Targets:
    """All in while the price is above where it was so many days ago, else out, once a day."""
    rows = _clock_bars(data, span, BARS_PER_DAY)
    return _decided(span, rows, _is_above(data, rows, days), days * BARS_PER_DAY)


def momentum_ensemble(data: MarketData, span: Span) -> Targets:
    """The mean of the momentum positions over each of MOMENTUM_DAYS, once a day."""
    rows = _clock_bars(data, span, BARS_PER_DAY)
    return _decided(span, rows, _ensemble(data, rows), max(MOMENTUM_DAYS) * BARS_PER_DAY)


def momentum_volatility_targeted(data: MarketData, span: Span) -> Targets:
    """That mean times the volatility-targeted position: time-series momentum (Moskowitz, Ooi, Pedersen 2012)."""
    rows = _clock_bars(data, span, BARS_PER_DAY)
    days = max(*MOMENTUM_DAYS, VOLATILITY_DAYS)
    return _decided(span, rows, _ensemble(data, rows) * _calm_share(data, rows), days * BARS_PER_DAY)


def reversal(data: MarketData, span: Span) -> Targets:
    """All in for an hour after one in which the price fell, else out: right before costs, ruinous after them."""
    rows = _clock_bars(data, span, REVERSAL_BARS)
    then, now = _marks(data, rows, REVERSAL_BARS, 1).T
    return _decided(span, rows, np.where(np.isnan(then), np.nan, now < then), REVERSAL_BARS)


def bollinger(data: MarketData, span: Span) -> Targets:
    """In below the lower band of BOLLINGER_DAYS daily marks, out at their mean (Bollinger 2001), once a day."""
    rows = _clock_bars(data, span, BARS_PER_DAY)
    marks = _marks(data, rows, BARS_PER_DAY, BOLLINGER_DAYS - 1)
    mean, lower = marks.mean(axis=1), marks.mean(axis=1) - BOLLINGER_STDS * marks.std(axis=1)
    between = np.where(marks[:, -1] >= mean, 0.0, np.nan)
    return _decided(span, rows, np.where(marks[:, -1] < lower, 1.0, between), (BOLLINGER_DAYS - 1) * BARS_PER_DAY)


RULES_OF_THUMB: dict[str, Callable[[MarketData, Span], Targets]] = {
    "cash": cash,
    "buy_and_hold": buy_and_hold,
    "volatility_targeted": volatility_targeted,
    **{f"momentum_{days}d": partial(momentum, days=days) for days in MOMENTUM_DAYS},
    "momentum_ensemble": momentum_ensemble,
    "momentum_volatility_targeted": momentum_volatility_targeted,
    "reversal_1h": reversal,
    "bollinger_20d": bollinger,
}
"""By their names in every table, from the plainest."""


def _clock_bars(data: MarketData, span: Span, every_bars: int) -> IntArray:
    """Bars (m,) of decisions: the span's first, then those that close where a UTC day's every_bars-th bar does."""
    on_clock = data.bars.close_ts_ns[span.first : span.stop] % (every_bars * BAR_NS) == 0
    return np.union1d([span.first], np.flatnonzero(on_clock) + span.first).astype(np.int64)


def _marks(data: MarketData, rows: IntArray, step_bars: int, steps: int) -> FloatArray:
    """Marks (m, steps + 1) at each row and each of the steps before it, oldest first; nan before the history."""
    before = rows[:, None] - step_bars * np.arange(steps, -1, -1)
    marks: FloatArray = np.where(before >= 0, data.mark[np.maximum(before, 0)], np.nan)
    return marks


def _is_above(data: MarketData, rows: IntArray, days: int) -> FloatArray:
    """1 where the mark is above that of so many days ago, else 0; nan before the history."""
    marks = _marks(data, rows, days * BARS_PER_DAY, 1)
    above: FloatArray = np.where(np.isnan(marks[:, 0]), np.nan, marks[:, 1] > marks[:, 0])
    return above


def _ensemble(data: MarketData, rows: IntArray) -> FloatArray:
    """Mean of the momentum positions (m,); nan where the longest is."""
    mean: FloatArray = np.mean([_is_above(data, rows, days) for days in MOMENTUM_DAYS], axis=0)
    return mean


def _calm_share(data: MarketData, rows: IntArray) -> FloatArray:
    """The share (m,) that aims at TARGET_VOLATILITY; nan before the history."""
    marks = _marks(data, rows, BARS_PER_DAY, VOLATILITY_DAYS)
    volatility = np.std(np.diff(np.log(marks), axis=1), axis=1, ddof=1) * DAYS_PER_YEAR**0.5
    share: FloatArray = np.minimum(1.0, TARGET_VOLATILITY / np.maximum(volatility, 1e-9))
    return share


def _decided(span: Span, rows: IntArray, shares: FloatArray, reach_bars: int) -> Targets:
    """Shares (m,) on their bars of the span (n,), and a note when the history was too short at the start."""
    targets = np.full(len(span), np.nan)
    targets[rows - span.first] = shares
    if (missing := int((rows < reach_bars).sum())) == 0:
        return targets, ""
    days = f"{reach_bars / BARS_PER_DAY:.3g} days"
    return targets, f"in cash for the first {missing} of {len(rows)} decisions: needs {days} of history"
