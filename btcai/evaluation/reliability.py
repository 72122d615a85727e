"""Do the forecasts mean what they say? Predicted quantiles beside the outcomes of the test span, per horizon."""

import math
from dataclasses import dataclass

import numpy as np

from btcai.calibration import MIN_INDEPENDENT, coverage
from btcai.config import BucketConfig
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.statistics import LEVEL
from btcai.schema import QUANTILE_LEVELS, BoolArray, FloatArray, IntArray, MarketData, Span

INTERVAL_FRAC = QUANTILE_LEVELS[-1] - QUANTILE_LEVELS[0]
"""Share of outcomes that the outer pair of quantiles promises to hold."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """One horizon's forecasts beside their outcomes; shares are 0 .. 1, undefined figures nan.

    observed (Q,): share of outcomes at or below each predicted quantile; low, high (Q,): where that share falls in 95 %
    of cases when the forecasts are right and only `apart` outcomes tell.
    """

    horizon_bars: int
    outcomes: int
    """Decisions whose horizon ends inside the span."""
    apart: int
    """Outcomes that do not overlap: decisions come more often than a horizon ends."""
    observed: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    coverage_frac: float
    """Share of outcomes inside the 90 % interval."""
    coverage_low: float
    coverage_high: float
    pinball_ratio: float
    """Mean pinball loss / that of a forecast which knows sigma alone: below 1 the model knows more."""
    information_coefficient: float
    """Correlation of predicted mean and outcome, both in units of sigma * sqrt(horizon)."""
    information_noise: float
    """95 % of the correlations of a forecast that knows nothing lie within +- this."""

    @property
    def is_judged(self) -> bool:
        """Whether there are enough outcomes to call the forecasts right or wrong."""
        return self.apart >= MIN_INDEPENDENT


def reliability(
    result: BacktestResult, data: MarketData, bucket: BucketConfig, history: Span
) -> tuple[Reliability, ...]:
    """One record per horizon, shortest first, from the forecasts that a backtest's decisions rested on.

    `history` is where the reference gets its quantiles: the training span's outcomes in units of sigma * sqrt(horizon).
    ValueError for a result without forecasts.
    """
    if result.encoded is None:
        raise ValueError("a reliability needs the forecasts of a bucket's backtest, was a baseline's result")
    horizons = np.asarray(bucket.horizons_bars)
    unit = sigma_of(data, result.decisions, horizons)
    outcome, known = outcomes(data, result.span, result.decisions, horizons)
    past, seen = outcomes(data, history, np.arange(history.first, history.stop), horizons)
    mean, quantiles = result.encoded.mean / unit, result.encoded.quantiles / unit[..., None]
    return tuple(
        _horizon(
            int(horizon), bucket.patch_bars, outcome[rows, h], mean[rows, h], quantiles[rows, h], past[seen[:, h], h]
        )
        for h, (horizon, rows) in enumerate(zip(horizons, known.T, strict=True))
    )


def _horizon(
    horizon: int, patch_bars: int, outcome: FloatArray, mean: FloatArray, quantiles: FloatArray, past: FloatArray
) -> Reliability:
    """n outcomes, means (n,) and quantiles (n, Q) of one horizon, and the outcomes before them: all of one unit."""
    apart = int(len(outcome) // max(1.0, horizon / patch_bars))
    below = (outcome[:, None] <= quantiles).mean(axis=0) if len(outcome) else np.full(len(QUANTILE_LEVELS), np.nan)
    low, high = expected_shares(np.asarray(QUANTILE_LEVELS), apart)
    (inside_low,), (inside_high,) = expected_shares(np.array([INTERVAL_FRAC]), apart)
    held = coverage(
        outcome[:, None], np.ones((len(outcome), 1), np.bool_), quantiles[:, :1], quantiles[:, -1:]
    )  # of the outer pair
    return Reliability(
        horizon_bars=horizon,
        outcomes=len(outcome),
        apart=apart,
        observed=tuple(below.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        coverage_frac=float(held[0]),
        coverage_low=float(inside_low),
        coverage_high=float(inside_high),
        pinball_ratio=_pinball_ratio(outcome, quantiles, past),
        information_coefficient=_correlation(mean, outcome),
        information_noise=1.96 / math.sqrt(apart) if apart else float("nan"),
    )


def outcomes(data: MarketData, span: Span, bars: IntArray, horizons_bars: IntArray) -> tuple[FloatArray, BoolArray]:
    """Log returns of the mark after each bar in units of sigma * sqrt(horizon), and whether they are known: (D, H).

    The targets that training learns (agent.task.forecast_targets): known where the horizon ends inside the span and
    neither end is a missing bar.
    """
    ends = bars[:, None] + horizons_bars
    present = data.bars.present
    known = (ends < span.stop) & present[bars][:, None]
    ends = np.minimum(ends, span.stop - 1)
    known &= present[ends]
    return np.log(data.mark[ends] / data.mark[bars][:, None]) / sigma_of(data, bars, horizons_bars), known


def sigma_of(data: MarketData, bars: IntArray, horizons_bars: IntArray) -> FloatArray:
    """Standard deviation (D, H) of the log return over each horizon, were bars independent."""
    return np.asarray(data.sigma)[bars][:, None] * np.sqrt(horizons_bars)


def expected_shares(levels: FloatArray, apart: int) -> tuple[FloatArray, FloatArray]:
    """Low and high end (Q,) of the share that `apart` independent outcomes show with chance LEVEL at true levels."""
    if apart == 0:
        return np.zeros(len(levels)), np.ones(len(levels))
    from scipy.stats import binom  # slow to import, and only reports need it

    tail = (1.0 - LEVEL) / 2
    return binom.ppf(tail, apart, levels) / apart, binom.ppf(1.0 - tail, apart, levels) / apart


def _pinball_ratio(outcome: FloatArray, quantiles: FloatArray, past: FloatArray) -> float:
    if not len(outcome) or not len(past):
        return float("nan")
    return pinball(outcome, quantiles) / pinball(outcome, np.quantile(past, QUANTILE_LEVELS))


def pinball(outcome: FloatArray, quantiles: FloatArray) -> float:
    """Mean pinball loss of quantiles (n, Q) or (Q,) at QUANTILE_LEVELS for outcomes (n,)."""
    error, level = outcome[:, None] - quantiles, np.asarray(QUANTILE_LEVELS)
    return float(np.maximum(level * error, (level - 1.0) * error).mean())


def _correlation(forecast: FloatArray, outcome: FloatArray) -> float:
    if len(outcome) < 3 or np.ptp(forecast) == 0.0 or np.ptp(outcome) == 0.0:
        return float("nan")
    return float(np.corrcoef(forecast, outcome)[0, 1])
