"""How sure an ablation is with few seeds: interquartile means, bootstrapped (Agarwal et al. 2021, arXiv 2108.13264)."""

from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean, ttest_1samp

from btcai.schema import FloatArray

RESAMPLES = 2_000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure with its interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: FloatArray) -> FloatArray:
    """(..., n) -> (...): the mean without the lowest and the highest quarter."""
    return np.asarray(trim_mean(scores, 0.25, axis=-1))


def bootstrapped(scores: FloatArray, seed: int) -> Estimate:
    """Interquartile mean of scores (buckets, seeds), each bucket's seeds resampled apart; percentile interval."""
    buckets, n = scores.shape
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, buckets, n))
    resampled = np.take_along_axis(np.broadcast_to(scores, drawn.shape), drawn, -1)
    return _estimate(float(interquartile_mean(scores.ravel())), interquartile_mean(resampled.reshape(RESAMPLES, -1)))


def chance_of(differences: FloatArray) -> float:
    """How likely differences (n,) without a mean have one as far from 0, two-sided; 1 where there is but one."""
    if len(differences) < 2 or not np.any(differences):
        return 1.0
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def steps_ratio(shares: FloatArray, base: FloatArray, arm: FloatArray, at: int, seed: int) -> Estimate:
    """Steps that `arm` needs to the score that `base` reaches with shares[at], over the steps that base has then.

    shares (K,) of the budget, increasing; base, arm (K, seeds), the same seeds, resampled together. Between two
    budgets a score rises linearly in their logarithm; a curve counts as the best it has reached so far. An arm that is
    there with the least budget gets shares[0], one that never is inf.
    """
    drawn = np.random.default_rng(seed).integers(0, base.shape[1], (RESAMPLES, base.shape[1]))

    def ratio(of_base: FloatArray, of_arm: FloatArray) -> float:
        return _share_to_reach(shares, of_arm, of_base[at]) / float(shares[at])

    curves = zip(*(interquartile_mean(scores[:, drawn]).T for scores in (base, arm)), strict=True)
    whole = ratio(interquartile_mean(base), interquartile_mean(arm))
    return _estimate(whole, np.array([ratio(*pair) for pair in curves]))


def _share_to_reach(shares: FloatArray, scores: FloatArray, target: float) -> float:
    """The least share whose score is at least `target`."""
    best = np.maximum.accumulate(scores)
    reached = int(np.searchsorted(best, target))
    if reached == len(best):
        return float("inf")
    if reached == 0:
        return float(shares[0])
    low, high = best[reached - 1], best[reached]
    logs = np.log(shares[reached - 1 : reached + 1])
    return float(np.exp(logs[0] + (logs[1] - logs[0]) * (target - low) / (high - low)))


def _estimate(value: float, resampled: FloatArray) -> Estimate:
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(resampled, (tail, 100.0 - tail), method="inverted_cdf")
    return Estimate(value, float(low), float(high))
