"""Days drawn again in blocks of random length (Politis and Romano 1994), and the figures of merit of what comes out.

Letters: m days, k strategies, n resamples. All strategies see the same drawn days, so their figures are paired.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from btcai.compiled import compiled
from btcai.evaluation.metrics import NO_SPREAD
from btcai.schema import FloatArray

METRICS = ("sharpe", "cagr", "max_drawdown_frac")
"""Of daily returns, annual where btcai.evaluation.metrics is; drawdowns from one day's close to a later one's."""
_TOTAL, _SPREAD, _WEALTH, _DEPTH = range(4)
_CHUNK = 1_000
_ASKED = 100
"""Columns at most that a block length is estimated of, a millisecond each; a median needs no more."""

Days = NDArray[np.int32]


def block_length(returns: FloatArray) -> int:
    """Mean block in whole days for returns (m, k): the median of what the columns ask for, at least 1.

    Politis and White 2004, corrected 2009, as `arch` computes it. Columns without variance ask for nothing. The longest
    of many would be an outlier of its estimate, and too few blocks make intervals too narrow.
    """
    from arch.bootstrap import optimal_block_length  # slow to import, and only reports need it

    varied = returns[:, np.ptp(returns, axis=0) > 0.0]
    if varied.shape[1] == 0:
        return 1
    some = varied[:, :: -(-varied.shape[1] // _ASKED)]
    lengths = optimal_block_length(some)["stationary"].to_numpy(np.float64)
    return max(1, round(float(np.nanmedian(lengths)))) if np.isfinite(lengths).any() else 1


def drawn_days(days: int, *, block_days: float, seed: int, resamples: int) -> Iterator[Days]:
    """Numbers of days (n, days) in chunks of resamples: blocks of geometric length, the first day after the last."""
    rng = np.random.default_rng(seed)
    for first in range(0, resamples, _CHUNK):
        shape = (min(_CHUNK, resamples - first), days)
        drawn = rng.integers(0, days, shape, dtype=np.int32)
        _join(drawn, rng.random(shape, dtype=np.float32) < 1.0 / block_days)
        yield drawn


def resampled_figures(
    returns: FloatArray, periods_per_year: float, *, block_days: float, seed: int, resamples: int
) -> FloatArray:
    """METRICS (n, len(METRICS), k) of returns (m, k) on resampled days.

    Where no day varies the Sharpe ratio is 0, as cash.
    """
    columns, found = np.ascontiguousarray(returns.T), []
    for days in drawn_days(len(returns), block_days=block_days, seed=seed, resamples=resamples):
        sums = np.empty((len(days), 4, len(columns)))
        _walk(columns, days, sums)
        found.append(_figures(sums, len(returns), periods_per_year))
    return np.concatenate(found)


def _figures(sums: FloatArray, days: int, periods_per_year: float) -> FloatArray:
    """(n, 4, k) -> (n, len(METRICS), k)."""
    mean, spread = sums[:, _TOTAL] / days, np.sqrt(sums[:, _SPREAD] / (days - 1))
    wealth = sums[:, _WEALTH]
    cagr = np.where(wealth > 0.0, np.maximum(wealth, 0.0) ** (periods_per_year / days) - 1.0, -1.0)
    sharpe = np.divide(mean, spread, out=np.zeros_like(mean), where=spread > NO_SPREAD) * periods_per_year**0.5
    return np.stack([sharpe, cagr, sums[:, _DEPTH]], axis=1)


@compiled
def _join(days: Days, fresh: NDArray[np.bool_]) -> None:
    """Drawn days (n, m), in place: where no block begins, the day after the one before."""
    for resample in range(days.shape[0]):
        for place in range(1, days.shape[1]):
            if not fresh[resample, place]:
                following = days[resample, place - 1] + 1
                days[resample, place] = following if following < days.shape[1] else 0


@compiled
def _walk(columns: FloatArray, days: Days, sums: FloatArray) -> None:
    """Sums (n, 4, k) over the drawn days (n, m) of the strategies' returns (k, m)."""
    for resample in range(days.shape[0]):
        order = days[resample]
        for strategy in range(columns.shape[0]):
            returns = columns[strategy]
            total = 0.0
            wealth, peak, left = 1.0, 1.0, 1.0
            for day in order:
                change = returns[day]
                total += change
                wealth *= 1.0 + change
                peak = max(peak, wealth)
                left = min(left, wealth / peak)
            mean, spread = total / len(order), 0.0
            for day in order:
                spread += (returns[day] - mean) ** 2
            sums[resample, _TOTAL, strategy] = total
            sums[resample, _SPREAD, strategy] = spread
            sums[resample, _WEALTH, strategy] = wealth
            sums[resample, _DEPTH, strategy] = 1.0 - left
