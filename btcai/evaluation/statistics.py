"""How sure a figure of merit is: stationary-bootstrap intervals (Politis and Romano 1994), seeded by argument.

Daily returns in, annual figures out. Days are drawn for all strategies together, so that differences are paired.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from btcai.evaluation.metrics import MIN_PERIODS, NO_SPREAD
from btcai.evaluation.resampling import METRICS, block_length, resampled_figures
from btcai.schema import BoolArray, FloatArray

RESAMPLES = 10_000
LEVEL = 0.95


class Interval(NamedTuple):
    """Percentile interval; both ends nan where the data are insufficient."""

    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Bootstrap:
    """METRICS of k strategies on the same resampled days."""

    days: int
    draws: FloatArray
    """(resamples, len(METRICS), k)"""
    risky: BoolArray
    """(k,) whether the strategy's returns vary; otherwise they are what cash earns."""

    def interval(self, metric: str, strategy: int = 0, *, level: float = LEVEL) -> Interval:
        """UNKNOWN below MIN_PERIODS days or where the returns do not vary."""
        if self.days < MIN_PERIODS or not self.risky[strategy]:
            return UNKNOWN
        return _percentiles(self._of(metric, strategy), level)

    def difference(self, metric: str, strategy: int, other: int, *, level: float = LEVEL) -> Interval:
        """Of strategy's metric minus the other's, paired; one without variance counts as in resampled_figures."""
        if self.days < MIN_PERIODS:
            return UNKNOWN
        return _percentiles(self._of(metric, strategy) - self._of(metric, other), level)

    def _of(self, metric: str, strategy: int) -> FloatArray:
        found: FloatArray = self.draws[:, METRICS.index(metric), strategy]
        return found


def bootstrapped(
    returns: FloatArray,
    periods_per_year: float,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    block_days: float | None = None,
) -> Bootstrap:
    """Of returns (m, k); block_days as resampling.block_length chooses where not given."""
    days, strategies = returns.shape
    if days < MIN_PERIODS:
        nothing = np.full((1, len(METRICS), strategies), np.nan)
        return Bootstrap(days=days, draws=nothing, risky=np.zeros(strategies, np.bool_))
    block = block_length(returns) if block_days is None else block_days
    return Bootstrap(
        days=days,
        draws=resampled_figures(returns, periods_per_year, block_days=block, seed=seed, resamples=resamples),
        risky=returns.std(axis=0, ddof=1) > NO_SPREAD,
    )


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
    pair = np.stack([returns, baseline_returns], axis=1)
    return bootstrapped(pair, periods_per_year, seed=seed, resamples=resamples).difference("sharpe", 0, 1, level=level)


def _percentiles(draws: FloatArray, level: float) -> Interval:
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(draws, (tail, 100.0 - tail), method="inverted_cdf")  # one of the draws
    return Interval(float(low), float(high))
