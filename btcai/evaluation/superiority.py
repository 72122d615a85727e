"""Does any of many candidates truly beat a benchmark, and which: Hansen's SPA and Romano and Wolf's StepM.

Hansen, "A test for superior predictive ability" (2005), studentised, consistent; Romano and Wolf, "Stepwise multiple
testing as formalized data snooping" (2005), as p-values adjusted step by step (2016). `arch` does not studentise: a
candidate that varies much would drown the others. It is the oracle in tests; for 2,000 candidates over three years it
takes 4 s, the matrix products here .14 s.
"""

import math
from typing import NamedTuple

import numpy as np

from btcai.evaluation.metrics import MIN_PERIODS, NO_SPREAD
from btcai.evaluation.resampling import block_length, drawn_days
from btcai.schema import FloatArray

RESAMPLES = 1_000


class Superiority(NamedTuple):
    """Against one benchmark; nan where the data are insufficient."""

    p_value: float
    """SPA: chance that no candidate is better and the best still looks as good as this."""
    candidate_p_values: FloatArray
    """(k,) StepM: those below a level are better, and any of them is falsely so as seldom as that level."""


def superiority(
    returns: FloatArray,
    benchmark_returns: FloatArray,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    block_days: float | None = None,
    scaled: bool = True,
) -> Superiority:
    """Of candidates' returns (m, k) over benchmark_returns (m,) on the same days; losses are minus returns.

    scaled: every series is divided by its standard deviation first, so that Sharpe ratios are compared. block_days:
    as resampling.block_length chooses for the differences where not given. nan below MIN_PERIODS days.
    """
    if len(returns) != len(benchmark_returns):
        raise ValueError(
            f"candidates and benchmark must cover the same days, were {len(returns)} and {len(benchmark_returns)}; "
            "run both over the same span"
        )
    if len(returns) < MIN_PERIODS:
        return Superiority(float("nan"), np.full(returns.shape[1], np.nan))
    if scaled:
        returns, benchmark_returns = _unit(returns), _unit(benchmark_returns)
    gains = returns - benchmark_returns[:, None]
    block = block_length(gains) if block_days is None else block_days
    means = _resampled_means(gains, block_days=block, seed=seed, resamples=resamples)
    found = _candidate_p_values(gains.mean(axis=0), means, len(gains))
    return Superiority(float(found.min()), found)


def _unit(returns: FloatArray) -> FloatArray:
    spread = returns.std(axis=0, ddof=1)
    return returns / np.where(spread > NO_SPREAD, spread, 1.0)


def _resampled_means(gains: FloatArray, *, block_days: float, seed: int, resamples: int) -> FloatArray:
    """Mean gain (n, k) of each candidate on resampled days: how often each day was drawn, times its gains."""
    m, parts = len(gains), []
    for days in drawn_days(m, block_days=block_days, seed=seed, resamples=resamples):
        places = days + m * np.arange(len(days))[:, None]
        counts = np.bincount(places.ravel(), minlength=len(days) * m).reshape(len(days), m)
        parts.append(counts @ gains / m)
    return np.concatenate(parts)


def _candidate_p_values(gain: FloatArray, means: FloatArray, days: int) -> FloatArray:
    """StepM's p-values (k,) of mean gains (k,) and their resamples (n, k); the least of them is SPA's.

    A candidate so far below the benchmark that it cannot be its equal is not moved up to it (Hansen's g_c). One that is
    not above it has 1.
    """
    error = means.std(axis=0)
    known = error > NO_SPREAD
    error = np.where(known, error, 1.0)
    hopeless = gain < -error * math.sqrt(2.0 * math.log(math.log(days)))
    luck = np.where(known, (means - np.where(hopeless, 0.0, gain)) / error, 0.0)
    shown = np.where(known, gain / error, 0.0)
    order = np.argsort(-shown, kind="stable")
    luckiest = np.maximum.accumulate(luck[:, order[::-1]], axis=1)[:, ::-1]  # of each candidate and all behind it
    stepwise = np.where(shown[order] > 0.0, np.mean(luckiest >= shown[order], axis=0), 1.0)
    adjusted = np.empty_like(gain)
    adjusted[order] = np.maximum.accumulate(stepwise)
    return adjusted
