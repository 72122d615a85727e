"""What a forecast has to beat: no direction, volatility as it was of late, and fat tails.

Log return over h bars ~ scale * s_t * sqrt(h) * Student-t(degrees) around 0, s_t^2 the exponentially weighted mean of
squared one-bar log returns up to t (RiskMetrics 1996, with a Student-t in the normal's place). Scale and degrees of
freedom are the likeliest ones of the training span, and s_t forgets as fast as gave the lowest CRPS there, which is
what it is judged by: on real bars the likeliest memory was worse by 1 % at a day. Each horizon for itself.
"""

from dataclasses import dataclass
from math import lgamma, log, pi

import numpy as np
import pandas as pd

from btcai.evaluation.crps import student_t_crps
from btcai.schema import BARS_PER_DAY, BoolArray, FloatArray, IntArray, MarketData, Span

HALF_LIVES_BARS = tuple(BARS_PER_DAY * 2**power // 48 for power in range(12))
"""Half an hour to 43 days; lambda = 0.5 ** (1 / half life)."""

SAMPLE = 4_000
"""Evenly spread outcomes of the training span that are fitted to, at most."""

DEGREES = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0)
"""Degrees of freedom of which one is chosen: up to 1 there is no mean, from 30 it is nearly a normal."""

_STEPS = 12
"""Of the fixed point: the scale is right to .01 % then."""


@dataclass(frozen=True, kw_only=True)
class VolatilityForecast:
    """The fitted forecast of one horizon."""

    horizon_bars: int
    half_life_bars: int
    scale: float
    """Of the Student-t, in units of s_t * sqrt(horizon)."""
    degrees: float

    def scales(self, data: MarketData, bars: IntArray) -> FloatArray:
        """Scale (D,) of the Student-t of the log return that follows each bar (D,)."""
        return np.asarray(self.scale * np.sqrt(self.horizon_bars) * ewma_volatility(data, self.half_life_bars)[bars])


def ewma_volatility(data: MarketData, half_life_bars: float) -> FloatArray:
    """(T,) standard deviation of one bar's log return as known at its close; nan before the first one.

    A bar that is missing, and the one after it, whose return is of more than a bar, weigh nothing.
    """
    present = np.asarray(data.bars.present)
    change = np.diff(np.log(data.mark), prepend=np.nan)
    change[~(present & np.concatenate([[False], present[:-1]]))] = np.nan
    variance = pd.Series(change**2).ewm(halflife=half_life_bars, adjust=False, ignore_na=True).mean()
    return np.asarray(np.sqrt(variance.to_numpy(np.float64)))


def fit_volatility_forecasts(
    data: MarketData, train: Span, horizons_bars: tuple[int, ...]
) -> dict[int, VolatilityForecast]:
    """Horizon -> its forecast, from the bars of the training span alone (those before it are read for s_t)."""
    seen = data.until(train.stop)
    volatility = {half_life: ewma_volatility(seen, half_life) for half_life in HALF_LIVES_BARS}
    return {horizon: _fit(seen, train, horizon, volatility) for horizon in sorted(set(horizons_bars))}


def _fit(data: MarketData, train: Span, horizon: int, volatility: dict[int, FloatArray]) -> VolatilityForecast:
    last = train.stop - horizon - 1
    bars = np.unique(np.linspace(train.first, last, min(SAMPLE, last - train.first + 1)).astype(np.int64))
    known: BoolArray = np.asarray(data.bars.present[bars] & data.bars.present[bars + horizon])
    bars = bars[known]
    outcome = np.log(data.mark[bars + horizon] / data.mark[bars]) / np.sqrt(horizon)
    found = []
    for half_life, spread in volatility.items():
        usable = np.isfinite(spread[bars]) & (spread[bars] > 0.0)
        y, per_bar = outcome[usable], spread[bars][usable]
        scale, degrees = likeliest_student_t(y / per_bar)
        found.append((float(student_t_crps(y, scale * per_bar, degrees).mean()), half_life, scale, degrees))
    _, half_life, scale, degrees = min(found)
    return VolatilityForecast(horizon_bars=horizon, half_life_bars=half_life, scale=scale, degrees=degrees)


def likeliest_student_t(x: FloatArray) -> tuple[float, float]:
    """(scale, degrees) of the likeliest Student-t around 0 for x (n,).

    For each of DEGREES the scale is the fixed point of its likelihood equation, which is expectation maximisation
    (Liu and Rubin 1995, eq. 5).
    """
    square, degrees = x[:, None] ** 2, np.array(DEGREES)
    variance = np.full(len(degrees), np.median(square) / 0.5)
    for _ in range(_STEPS):
        variance = ((degrees + 1.0) * square / (degrees + square / variance)).mean(axis=0)
    constant = np.array([lgamma((nu + 1) / 2) - lgamma(nu / 2) - 0.5 * log(pi * nu) for nu in DEGREES])
    spread = (degrees + 1.0) / 2 * np.log1p(square / (degrees * variance)).mean(axis=0)
    loss = spread + 0.5 * np.log(variance) - constant
    best = int(loss.argmin())
    return float(np.sqrt(variance[best])), DEGREES[best]
