"""Causal indicators over finite windows: row t reads the rows t - window + 1 .. t that are known, and nothing else.

Every window is folded by doubling: blocks of 1, 2, 4 ... rows that end at t are merged in one fixed order, so a value
is a pure function of the rows in its window. No running sum drifts: a history cut elsewhere gives the same bits.
Where an indicator compares neighbouring rows (RSI, autocorrelation) it reads one row more.
Arrays are (T,) float64 with nan where missing; a result is nan where less than half of its window is known.
"""

from collections.abc import Callable, Sequence

import numpy as np

from btcai.schema import FloatArray

Parts = tuple[FloatArray, ...]
"""What a window is summed up in, each (T,): for example (count, sum)."""

Merge = Callable[[Parts, Parts], Parts]
"""(older, newer) -> both; associative, and unchanged by an empty part."""


def fold_windows(leaf: Parts, windows: Sequence[int], merge: Merge, empty: tuple[float, ...]) -> dict[int, Parts]:
    """Merge the last `window` rows at every row, O(T log window): {window: parts (T,)}.

    leaf (T,) each: one row alone. empty: the part of a row before the first. A window is the sum of the powers of two
    in its binary form, newest block first.
    """
    folded: dict[int, Parts] = {}
    covered = dict.fromkeys(windows, 0)
    level, span = leaf, 1
    while True:
        for window in covered:
            if window & span:
                block = _shift(level, covered[window], empty)
                folded[window] = merge(block, folded[window]) if window in folded else block
                covered[window] += span
        if 2 * span > max(windows):
            return folded
        level = merge(_shift(level, span, empty), level)
        span *= 2


def window_mean(values: FloatArray, windows: Sequence[int]) -> dict[int, FloatArray]:
    """Mean of the known values in each window."""
    known = ~np.isnan(values)
    folded = fold_windows((known.astype(np.float64), np.where(known, values, 0.0)), windows, _merge_sums, (0.0, 0.0))
    return {window: _enough(total / np.maximum(count, 1.0), count, window) for window, (count, total) in folded.items()}


def window_mean_std(values: FloatArray, windows: Sequence[int]) -> dict[int, tuple[FloatArray, FloatArray]]:
    """Mean and population standard deviation of the known values in each window; exactly 0 where all are equal."""
    known = ~np.isnan(values)
    leaf = (known.astype(np.float64), np.where(known, values, 0.0), np.zeros_like(values))
    folded = fold_windows(leaf, windows, _merge_moments, (0.0, 0.0, 0.0))
    return {
        window: (_enough(mean, count, window), _enough(np.sqrt(squares / np.maximum(count, 1.0)), count, window))
        for window, (count, mean, squares) in folded.items()
    }


def window_max(values: FloatArray, windows: Sequence[int]) -> dict[int, FloatArray]:
    """Largest known value in each window."""
    known = ~np.isnan(values)
    folded = fold_windows(
        (known.astype(np.float64), np.where(known, values, -np.inf)), windows, _merge_largest, (0.0, -np.inf)
    )
    return {window: _enough(largest, count, window) for window, (count, largest) in folded.items()}


def window_min(values: FloatArray, windows: Sequence[int]) -> dict[int, FloatArray]:
    """Smallest known value in each window."""
    return {window: -largest for window, largest in window_max(-values, windows).items()}


def window_oldest(values: FloatArray, windows: Sequence[int]) -> dict[int, FloatArray]:
    """Oldest known value in each window; nan only where none is known."""
    folded = fold_windows((values,), windows, _merge_oldest, (np.nan,))
    return {window: oldest for window, (oldest,) in folded.items()}


def changes(values: FloatArray) -> FloatArray:
    """values[t] - values[t - 1]; nan where either is missing."""
    return values - _shift((values,), 1, (np.nan,))[0]


def ratio(numerator: FloatArray, denominator: FloatArray, at_zero: float = 0.0) -> FloatArray:
    """numerator / denominator for a denominator >= 0; `at_zero` where it is 0, nan where either is nan."""
    quotient = np.full_like(numerator, at_zero)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return np.where(np.isnan(numerator), np.nan, quotient)


def rsi(close: FloatArray, windows: Sequence[int]) -> dict[int, FloatArray]:
    """Cutler's relative strength index, 0 .. 100 (50 where price never moved).

    100 * mean rise / (mean rise + mean fall) over the last `window` one-bar changes: simple means, not Wilder's
    exponential ones, whose window never ends.
    """
    change = changes(close)
    rise = window_mean(np.maximum(change, 0.0), windows)
    move = window_mean(np.abs(change), windows)
    return {window: 100.0 * ratio(rise[window], move[window], at_zero=0.5) for window in windows}


def bollinger_z(close: FloatArray, windows: Sequence[int]) -> dict[int, FloatArray]:
    """(close - mean) / standard deviation of the window's closes; 0 where they are all equal."""
    return {
        window: ratio(close - mean, std, at_zero=0.0) for window, (mean, std) in window_mean_std(close, windows).items()
    }


def range_position(
    high: FloatArray, low: FloatArray, close: FloatArray, windows: Sequence[int]
) -> dict[int, FloatArray]:
    """Where the close lies between the window's lowest low (-1) and highest high (+1); 0 where they are equal."""
    top, bottom = window_max(high, windows), window_min(low, windows)
    return {
        window: ratio(2.0 * close - top[window] - bottom[window], top[window] - bottom[window]) for window in windows
    }


def parkinson(high: FloatArray, low: FloatArray, windows: Sequence[int]) -> dict[int, FloatArray]:
    """Volatility of one bar from its range: sqrt(mean log(high / low)^2 / (4 log 2)). Parkinson 1980."""
    squared = np.log(high / low) ** 2
    return {window: np.sqrt(mean / (4.0 * np.log(2.0))) for window, mean in window_mean(squared, windows).items()}


def autocorrelation(returns: FloatArray, windows: Sequence[int]) -> dict[int, FloatArray]:
    """Lag-1 autocorrelation of returns around 0, in -1 .. 1.

    Sum of r[t] r[t-1] over the mean of both sums of squares, pairs with both known; 0 where nothing moved.
    """
    before = _shift((returns,), 1, (np.nan,))[0]
    product = window_mean(returns * before, windows)
    scale = window_mean(0.5 * (returns**2 + before**2), windows)
    return {window: ratio(product[window], scale[window]) for window in windows}


def _shift(parts: Parts, rows: int, empty: tuple[float, ...]) -> Parts:
    """Move every part `rows` rows later; the first rows are empty."""
    if rows == 0:
        return parts
    moved = []
    for part, value in zip(parts, empty, strict=True):
        later = np.full_like(part, value)
        later[rows:] = part[:-rows]
        moved.append(later)
    return tuple(moved)


def _enough(values: FloatArray, count: FloatArray, window: int) -> FloatArray:
    return np.where(2.0 * count >= window, values, np.nan)


def _merge_sums(older: Parts, newer: Parts) -> Parts:
    return older[0] + newer[0], older[1] + newer[1]


def _merge_moments(older: Parts, newer: Parts) -> Parts:
    """(count, mean, sum of squared deviations) of two sets as one. Chan, Golub, LeVeque 1979, eq. 2.1."""
    count = older[0] + newer[0]
    weight = newer[0] / np.maximum(count, 1.0)
    delta = newer[1] - older[1]
    return count, older[1] + delta * weight, older[2] + newer[2] + delta * delta * older[0] * weight


def _merge_largest(older: Parts, newer: Parts) -> Parts:
    return older[0] + newer[0], np.maximum(older[1], newer[1])


def _merge_oldest(older: Parts, newer: Parts) -> Parts:
    return (np.where(np.isnan(older[0]), newer[0], older[0]),)
