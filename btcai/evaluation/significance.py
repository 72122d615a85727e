"""Is a Sharpe ratio more than luck: probabilistic and deflated Sharpe ratio, and how long a record has to be.

Bailey and López de Prado, "The Sharpe ratio efficient frontier" (2012) and "The deflated Sharpe ratio" (2014). Annual
ratios in and out, a single period's inside; skew and kurtosis of the returns count in the error. Undefined is nan:
fewer than metrics.MIN_PERIODS returns, or none that vary.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from btcai.evaluation.metrics import sharpe
from btcai.schema import FloatArray

LEVEL = 0.95
FEW_TRIALS = 10
"""Ratios of fewer trials than this say too little of their spread: two alike would deflate by nothing."""

_LEAST_APART = 1e-6
_NORMAL = NormalDist()


class _Record(NamedTuple):
    periods: int
    sharpe: float
    """Of one period."""
    error: float
    """Standard error of `sharpe` times sqrt(periods - 1)."""


def probabilistic_sharpe(returns: FloatArray, periods_per_year: float, *, benchmark_sharpe: float = 0.0) -> float:
    """Probability that the true ratio of returns (m,) is above an annual benchmark (2012, eq. 11)."""
    record = _record(returns, periods_per_year)
    surplus = record.sharpe - benchmark_sharpe / math.sqrt(periods_per_year)
    return _normal_cdf(surplus * math.sqrt(record.periods - 1) / record.error) if record.error > 0 else float("nan")


def deflated_sharpe(
    returns: FloatArray, periods_per_year: float, *, trial_sharpes: FloatArray, n_trials: int | None = None
) -> float:
    """Probability that the true ratio is above what the best of all trials shows by luck alone (2014, eq. 2)."""
    hurdle = luck_sharpe(len(returns), periods_per_year, trial_sharpes=trial_sharpes, n_trials=n_trials)
    return probabilistic_sharpe(returns, periods_per_year, benchmark_sharpe=hurdle)


def luck_sharpe(
    periods: int, periods_per_year: float, *, trial_sharpes: FloatArray, n_trials: int | None = None
) -> float:
    """Annual ratio that the best of n_trials without skill is expected to show (2014, eq. 1, with a largest variance).

    Trials that are mostly in a market that rises have its ratio without any skill: their mean, where it is above 0, is
    part of it. trial_sharpes (N,) annual, nan where a trial had none; n_trials counts every trial, N where not given.
    Their variance says how far luck spreads them: trials that have much in common spread less than independent ones,
    whose variance is 1 / periods. A larger one is no luck but costs and lack of skill that differ, and fewer than
    FEW_TRIALS say nothing: both count as independent.
    """
    n = len(trial_sharpes) if n_trials is None else n_trials
    independent = periods_per_year / max(1, periods - 1)
    spread = math.sqrt(_apart(trial_sharpes, independent) * independent)
    return _without_skill(trial_sharpes) + spread * expected_maximum(n)


def luck_p_value(
    returns: FloatArray, periods_per_year: float, *, trial_sharpes: FloatArray, n_trials: int | None = None
) -> float:
    """Probability that the best of n_trials without skill shows a ratio like that of returns (m,); 0 without trials.

    The ratio of `returns` is one of trial_sharpes: whoever judges a ledger's best chose it among all, and without it
    what is left has a smaller mean and spread, by which luck looks like skill (of the best of 12 without any 12 % pass
    at 5 %). But the ratios of the others need be known, as in luck_sharpe, the mean of what is asked here. What all
    have in common, of the market or of luck, shows in their mean m; each one's own luck has the variance `own`. Given
    both, P(best < t) = Phi((t - m) / sqrt(own))^N, with `own` = 1 and m = 0 Sidak's 1 - (1 - p)^N. Never less than the
    luck of one trial that had nothing in common with them.
    """
    n = len(trial_sharpes) if n_trials is None else n_trials
    if n == 0:
        return 0.0
    record = _record(returns, periods_per_year)
    if not record.error > 0.0:
        return float("nan")
    scale = math.sqrt(record.periods - 1) / record.error
    shown, common = record.sharpe * scale, _without_skill(trial_sharpes) / math.sqrt(periods_per_year) * scale
    own = max(_LEAST_APART, _apart(trial_sharpes, periods_per_year / (record.periods - 1)))
    best_of_all = 1.0 - _normal_cdf((shown - common) / math.sqrt(own)) ** n
    return max(best_of_all, 1.0 - _normal_cdf(shown))


def _without_skill(trial_sharpes: FloatArray) -> float:
    """Mean annual ratio of the trials, 0 at least: what being in the market gave them. 0 below FEW_TRIALS."""
    known = trial_sharpes[np.isfinite(trial_sharpes)]
    return max(0.0, float(known.mean())) if len(known) >= FEW_TRIALS else 0.0


def _apart(trial_sharpes: FloatArray, independent: float) -> float:
    """Share 0 .. 1 of the trials' luck that is each one's own: their variance over that of independent ones."""
    known = trial_sharpes[np.isfinite(trial_sharpes)]
    if len(known) < FEW_TRIALS:
        return 1.0
    return min(1.0, float(np.var(known, ddof=1)) / independent)


def expected_maximum(n: int) -> float:
    """Of n independent standard normal numbers, approximately; 0 for one or none."""
    if n <= 1:
        return 0.0
    return (1.0 - np.euler_gamma) * _NORMAL.inv_cdf(1.0 - 1.0 / n) + np.euler_gamma * _NORMAL.inv_cdf(
        1.0 - 1.0 / (n * math.e)
    )


def minimum_track_record(
    returns: FloatArray, periods_per_year: float, *, benchmark_sharpe: float = 0.0, level: float = LEVEL
) -> float:
    """Periods that a record like returns (m,) must have to be above the benchmark at the level (2012, eq. 13).

    inf for a ratio that is not above it.
    """
    record = _record(returns, periods_per_year)
    surplus = record.sharpe - benchmark_sharpe / math.sqrt(periods_per_year)
    if math.isnan(surplus):
        return float("nan")
    return 1.0 + (record.error * _NORMAL.inv_cdf(level) / surplus) ** 2 if surplus > 0 else float("inf")


def _record(returns: FloatArray, periods_per_year: float) -> _Record:
    ratio = sharpe(returns, periods_per_year) / math.sqrt(periods_per_year)
    if not math.isfinite(ratio):
        return _Record(len(returns), float("nan"), float("nan"))
    scaled = (returns - np.mean(returns)) / np.std(returns)
    skew, kurtosis = float(np.mean(scaled**3)), float(np.mean(scaled**4))
    return _Record(len(returns), ratio, math.sqrt(max(0.0, 1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2)))


def _normal_cdf(value: float) -> float:
    return _NORMAL.cdf(value)
