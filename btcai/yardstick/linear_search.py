"""The best linear rule that a search finds: what a weighted sum and two thresholds can take from a market.

Where nothing is correlated with the next return, least squares finds nothing, yet a threshold is not linear and may
earn. So here weights and thresholds are chosen by what they earn. They are paid the expected return, which nobody sees:
luck does not mislead the search, and it is no weaker than one on realised returns.
"""

from collections.abc import Callable, Iterator
from itertools import combinations, product

import numpy as np

from btcai.schema import FloatArray
from btcai.yardstick.baselines import LAGS, LinearBaseline, best_thresholds, regressors
from btcai.yardstick.paths import Paths

_LAGS_SEARCHED = 2
_RANDOM_STARTS, _CLIMBED = 100, 6
_STEPS = (0.6, 0.3, 0.15, 0.6, 0.3, 0.15, 0.07)
_COARSE_SDS = (-1.5, -0.75, 0.0, 0.75, 1.5, 2.25)
_FINE_SDS = tuple(np.linspace(-3.5, 3.5, 29).tolist())

Earned = Callable[[FloatArray], float]


def searched_linear(train: Paths, cost_bps: float) -> LinearBaseline:
    """Weights of the newest two returns and signals each, and thresholds, by what they earn on training paths.

    Starts from every pair of series with every pair of signs, and at random, then climbs from the best a weight at a
    time. In cash where nothing earns.
    """
    seen, cost_frac = regressors(train), cost_bps / 1e4
    scale = seen.std(axis=(1, 2))
    inputs = _lagged(seen / scale[:, None, None])
    paid = np.pad(train.expected[:, :-1], ((0, 0), (1, 0)))  # best_thresholds pays position[t] what stands at t + 1

    def earned(total: FloatArray) -> float:
        return best_thresholds(total, paid, cost_frac, _COARSE_SDS)[0]

    starts = sorted(_starts(len(seen), len(inputs)), key=lambda start: -earned(_total(start, inputs)))
    climbed = [_climb(start, inputs, earned) for start in starts[:_CLIMBED]]
    _, weights = max(climbed, key=lambda item: item[0])
    profit, buy, sell = best_thresholds(_total(weights, inputs), paid, cost_frac, _FINE_SDS)
    spread = np.zeros((len(seen), LAGS))
    spread[:, :_LAGS_SEARCHED] = weights.reshape(_LAGS_SEARCHED, len(seen)).T / scale[:, None]
    return LinearBaseline(weights=spread, buy_above=buy if profit > 0 else np.inf, sell_below=sell)


def _lagged(seen: FloatArray) -> FloatArray:
    """(K, N, T) -> (K * lags, N, T): all series as they are, then as they were a decision before, and so on."""
    late = [np.pad(seen[..., : seen.shape[-1] - lag], ((0, 0), (0, 0), (lag, 0))) for lag in range(_LAGS_SEARCHED)]
    return np.concatenate(late)


def _total(weights: FloatArray, inputs: FloatArray) -> FloatArray:
    """(F,), (F, N, T) -> weighted sum (N, T)."""
    used = np.flatnonzero(weights)
    return np.asarray(np.tensordot(weights[used], inputs[used], 1))


def _starts(n_series: int, n_inputs: int) -> Iterator[FloatArray]:
    """Unit vectors (n_inputs,)."""
    for pair in combinations(range(n_series), 2):
        for signs in product((-1.0, 1.0), repeat=2):
            start = np.zeros(n_inputs)
            start[list(pair)] = signs
            yield start / np.sqrt(2)
    for start in np.random.default_rng(0).standard_normal((_RANDOM_STARTS, n_inputs)):
        yield start / np.linalg.norm(start)


def _climb(start: FloatArray, inputs: FloatArray, earned: Earned) -> tuple[float, FloatArray]:
    """Profit and weights after steps that earn more, one weight at a time."""
    weights, total = start.copy(), _total(start, inputs)
    best = earned(total)
    for size, i in product(_STEPS, range(len(inputs))):
        for step in (size, -size):
            moved = total + step * inputs[i]
            profit = earned(moved)
            if profit > best:
                best, total = profit, moved
                weights[i] += step
    return best, weights
