"""How sure a Sharpe ratio is: stationary-bootstrap intervals (Politis and Romano 1994), seeded by argument.

Block lengths follow Politis and White 2004 (corrected 2009), as `arch` computes them. Daily returns in, annual
ratios out.
"""

import math
from typing import NamedTuple

import numpy as np

from btcai.evaluation.metrics import MIN_PERIODS, NO_SPREAD, sharpe
from btcai.schema import FloatArray

RESAMPLES = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """Percentile interval; both ends nan where the data are insufficient."""

    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"))


def sharpe_interval(
    returns: FloatArray, periods_per_year: float, *, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Percentile interval of the Sharpe ratio of returns (m,); UNKNOWN where the ratio itself is nan."""
    if not np.isfinite(sharpe(returns, periods_per_year)):
        return UNKNOWN
    draws = _bootstrap((returns,), periods_per_year, seed, resamples)
    return _percentiles(draws[:, 0], level)


def sharpe_difference_interval(
    returns: FloatArray,
    baseline_returns: FloatArray,
    periods_per_year: float,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Interval of sharpe(returns) - sharpe(baseline_returns), both (m,) on the same days and resampled together.

    A series without variance counts as ratio 0: that is what holding cash earns. UNKNOWN below MIN_PERIODS days.
    """
    if len(returns) != len(baseline_returns):
        raise ValueError(
            f"paired returns must cover the same days, were {len(returns)} and {len(baseline_returns)}; "
            "run both over the same span"
        )
    if len(returns) < MIN_PERIODS:
        return UNKNOWN
    draws = _bootstrap((returns, baseline_returns), periods_per_year, seed, resamples)
    return _percentiles(draws[:, 0] - draws[:, 1], level)


def _bootstrap(series: tuple[FloatArray, ...], periods_per_year: float, seed: int, resamples: int) -> FloatArray:
    """Ratios (resamples, len(series)) of jointly resampled days; a resample without variance counts as 0."""
    from arch.bootstrap import StationaryBootstrap  # slow to import, and only reports need it

    block = max(_block_length(one) for one in series)
    bootstrap = StationaryBootstrap(block, *series, seed=np.random.default_rng(seed))
    days = np.stack([np.asarray(bootstrap.update_indices()) for _ in range(resamples)])  # (resamples, m)
    ratios = np.zeros((resamples, len(series)))
    for column, one in enumerate(series):
        drawn = one[days]
        spread = drawn.std(axis=1, ddof=1)
        np.divide(drawn.mean(axis=1), spread, out=ratios[:, column], where=spread > NO_SPREAD)
    return ratios * math.sqrt(periods_per_year)


def _block_length(returns: FloatArray) -> int:
    """Mean block length in whole days, at least 1; 1 for a series without variance."""
    from arch.bootstrap import optimal_block_length

    if np.ptp(returns) == 0.0:
        return 1
    length = float(optimal_block_length(returns)["stationary"].iloc[0])
    return max(1, round(length)) if np.isfinite(length) else 1


def _percentiles(draws: FloatArray, level: float) -> Interval:
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(draws, (tail, 100.0 - tail))
    return Interval(float(low), float(high))
