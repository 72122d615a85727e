"""What a span of days could show at all: the smallest true Sharpe ratio that the gate would find.

Closed forms for returns that are normal and independent from day to day: the error of a Sharpe ratio is Lo's (2002), of
a difference Memmel's (2003), correcting Jobson and Korkie (1981). Tails and memory from day to day ask for a little
more. Held against the gate itself in simulations: LOG.md, and tests/code/test_judge_calibration.py.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from btcai.evaluation.gate import MAX_P_VALUE
from btcai.evaluation.metrics import MIN_PERIODS, NO_SPREAD, sharpe
from btcai.evaluation.significance import expected_maximum, luck_sharpe
from btcai.schema import FloatArray

POWER = 0.8
LUCK = "luck of all trials"
_NORMAL = NormalDist()


class Detectable(NamedTuple):
    """The smallest annual net Sharpe ratio that is shown with the power asked for; nan where nothing can be said."""

    sharpe: float
    against: str
    """The baseline that asks for most, or LUCK."""


def smallest_edge(
    returns: FloatArray,
    baselines: Mapping[str, FloatArray],
    periods_per_year: float,
    *,
    error: float,
    trial_sharpes: FloatArray,
    power: float = POWER,
) -> Detectable:
    """What a strategy that moves with the baselines (m,) as returns (m,) do must truly earn to be above them all.

    error: of falsely being above one baseline; trial_sharpes: annual, of all that the p-value of luck counts, nan where
    one has none. The baselines' ratios are taken as known. All together are passed a little less often than each, which
    is `power`.
    """
    days = len(returns)
    if days < MIN_PERIODS or not baselines:
        return Detectable(float("nan"), "")
    found = [
        Detectable(
            smallest_sharpe(
                days,
                periods_per_year,
                error=error,
                power=power,
                baseline_sharpe=float(np.nan_to_num(sharpe(baseline, periods_per_year))),
                correlation=_correlation(returns, baseline),
            ),
            name,
        )
        for name, baseline in baselines.items()
    ]
    return max(*found, Detectable(_beyond_luck(days, periods_per_year, trial_sharpes, power), LUCK))


def _beyond_luck(days: int, periods_per_year: float, trial_sharpes: FloatArray, power: float) -> float:
    """Annual Sharpe ratio for which significance.luck_p_value is below MAX_P_VALUE with that power."""
    if len(trial_sharpes) == 0:
        return 0.0
    common = luck_sharpe(days, periods_per_year, trial_sharpes=trial_sharpes, n_trials=1)
    ten = luck_sharpe(days, periods_per_year, trial_sharpes=trial_sharpes, n_trials=10)
    of_one = 1.0 - (1.0 - MAX_P_VALUE) ** (
        1.0 / len(trial_sharpes)
    )  # Sidak: of one trial, for that of the best of them
    best = common + (ten - common) / expected_maximum(10) * _NORMAL.inv_cdf(1.0 - of_one)
    least = _NORMAL.inv_cdf(1.0 - MAX_P_VALUE) * math.sqrt(periods_per_year / days)
    hurdle = max(best, least)
    z = _NORMAL.inv_cdf(power)  # surplus^2 days = z^2 (1 + s^2 / 2), as in smallest_sharpe, over a hurdle that is known
    day, squared = hurdle / math.sqrt(periods_per_year), days - z**2 / 2.0
    root = (days * day + z * math.sqrt(squared + days * day**2 / 2.0)) / squared
    return root * math.sqrt(periods_per_year)


def smallest_sharpe(
    days: int,
    periods_per_year: float,
    *,
    error: float,
    power: float = POWER,
    baseline_sharpe: float = 0.0,
    correlation: float | None = None,
) -> float:
    """Annual Sharpe ratio that is seen to be above a baseline's with that power, and falsely with probability `error`.

    correlation: of the daily returns with the baseline's, None for cash; inf where the days are too few for any. With s
    and b the ratios of a day, rho the correlation and z the sum of both normal quantiles,
    (s - b)^2 days = z^2 (2 - 2 rho + (s^2 + b^2) / 2 - rho^2 s b), for cash z^2 (1 + s^2 / 2): the larger root.
    """
    z = _NORMAL.inv_cdf(1.0 - error) + _NORMAL.inv_cdf(power)
    b, rho = baseline_sharpe / math.sqrt(periods_per_year), correlation or 0.0
    constant = 1.0 if correlation is None else 2.0 - 2.0 * rho + b**2 / 2.0
    squared = days - z**2 / 2.0
    if squared <= 0.0:
        return float("inf")
    linear = b * (z**2 * rho**2 - 2.0 * days)
    rest = b**2 * days - z**2 * constant
    root = (-linear + math.sqrt(max(0.0, linear**2 - 4.0 * squared * rest))) / (2.0 * squared)
    return root * math.sqrt(periods_per_year)


def _correlation(returns: FloatArray, baseline: FloatArray) -> float | None:
    """None for a baseline without variance; 0 for a strategy without, of which nothing is known."""
    if np.std(baseline) <= NO_SPREAD:
        return None
    return float(np.corrcoef(returns, baseline)[0, 1]) if np.std(returns) > NO_SPREAD else 0.0
