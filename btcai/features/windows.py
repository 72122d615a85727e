"""Folds over finite windows, compiled: row t reads the rows t - window + 1 .. t that are known, and nothing else.

Two passes fold any window in a fixed number of steps a row (van Herk 1992; Gil and Werman 1993): rows fall into blocks
of `window` rows, and a window is the tail of one block, folded backwards, and the head of the next, folded forwards.
Blocks are aligned to absolute time. So a value is a pure function of the rows in its window and of the time, to the
bit: no running sum drifts, and a history cut elsewhere, in parts or down to one window gives the same bits.

values (n,) float64, nan where missing; grid_row: close_ts_ns // BAR_NS of values[0]; results (n - first,) are those of
the rows first .. n - 1, nan where less than half of the window is known. Rows before values[0] are missing.
"""

import numpy as np

from btcai.compiled import compiled
from btcai.schema import FloatArray


@compiled
def window_mean(values: FloatArray, window: int, grid_row: int, first: int) -> FloatArray:
    """Mean of the known values in each window."""
    means = np.empty(len(values) - first)
    tail_sum, tail_count = np.zeros(window + 1), np.zeros(window + 1)
    start = first - (grid_row + first) % window
    while start < len(values):
        total, count = 0.0, 0.0
        for back in range(window - 1, max(first - start, 0), -1):
            row = start - window + back
            if row >= 0 and not np.isnan(values[row]):
                total += values[row]
                count += 1.0
            tail_sum[back], tail_count[back] = total, count
        total, count = 0.0, 0.0
        for row in range(max(start, 0), min(start + window, len(values))):
            if not np.isnan(values[row]):
                total += values[row]
                count += 1.0
            if row >= first:
                known = tail_count[row - start + 1] + count
                means[row - first] = (tail_sum[row - start + 1] + total) / known if 2.0 * known >= window else np.nan
        start += window
    return means


@compiled
def window_extremes(
    high: FloatArray, low: FloatArray, window: int, grid_row: int, first: int
) -> tuple[FloatArray, FloatArray]:
    """Largest known high and smallest known low in each window; both are known in the same rows."""
    highest, lowest = np.empty(len(high) - first), np.empty(len(high) - first)
    tail_top, tail_bottom = np.full(window + 1, -np.inf), np.full(window + 1, np.inf)
    tail_count = np.zeros(window + 1)
    start = first - (grid_row + first) % window
    while start < len(high):
        top, bottom, count = -np.inf, np.inf, 0.0
        for back in range(window - 1, max(first - start, 0), -1):
            row = start - window + back
            if row >= 0 and not np.isnan(high[row]):
                top, bottom, count = max(top, high[row]), min(bottom, low[row]), count + 1.0
            tail_top[back], tail_bottom[back], tail_count[back] = top, bottom, count
        top, bottom, count = -np.inf, np.inf, 0.0
        for row in range(max(start, 0), min(start + window, len(high))):
            if not np.isnan(high[row]):
                top, bottom, count = max(top, high[row]), min(bottom, low[row]), count + 1.0
            if row >= first:
                back = row - start + 1
                enough = 2.0 * (tail_count[back] + count) >= window
                highest[row - first] = max(top, tail_top[back]) if enough else np.nan
                lowest[row - first] = min(bottom, tail_bottom[back]) if enough else np.nan
        start += window
    return highest, lowest


@compiled
def window_line(
    values: FloatArray, window: int, grid_row: int, first: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, population standard deviation, and correlation with time (0 where flat) of the known values.

    Values are summed as differences from a known value of the window, so that equal ones have a standard deviation of
    exactly 0 and a price of 60,000 loses no digits: from the last known one in the tail, the first known one in the
    head, and the head is moved over to the tail's.
    """
    rows = len(values) - first
    means, stds, correlations = np.empty(rows), np.empty(rows), np.empty(rows)
    tail = np.zeros((window + 1, 6))
    start = first - (grid_row + first) % window
    while start < len(values):
        last = _fold_tail(values, start, window, max(first - start, 0), tail)
        origin = np.nan
        n, time, time2, value, value2, product = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for row in range(max(start, 0), min(start + window, len(values))):
            if not np.isnan(values[row]):
                if np.isnan(origin):
                    origin = values[row]
                x, t = values[row] - origin, float(row - start)
                n, time, time2 = n + 1.0, time + t, time2 + t * t
                value, value2, product = value + x, value2 + x * x, product + t * x
            if row >= first:
                before = tail[row - start + 1]
                count = before[0] + n
                if 2.0 * count < window:
                    means[row - first] = stds[row - first] = correlations[row - first] = np.nan
                    continue
                shift = origin - last if before[0] > 0.0 and n > 0.0 else 0.0
                mean = (before[3] + value + n * shift) / count
                mean_time = (before[1] + time) / count
                variance = (before[4] + value2 + shift * (2.0 * value + n * shift)) / count - mean * mean
                variance_time = (before[2] + time2) / count - mean_time * mean_time
                covariance = (before[5] + product + shift * time) / count - mean_time * mean
                means[row - first] = (last if before[0] > 0.0 else origin) + mean
                stds[row - first] = np.sqrt(max(variance, 0.0))
                scale = np.sqrt(max(variance, 0.0) * variance_time)
                correlations[row - first] = min(1.0, max(-1.0, covariance / scale)) if scale > 0.0 else 0.0
        start += window
    return means, stds, correlations


@compiled
def _fold_tail(values: FloatArray, start: int, window: int, stop: int, tail: FloatArray) -> float:
    """Fill tail[back] (count, sums of t, t^2, x, x^2, t x) from row start - window + back on, for back > stop.

    t counts from `start`, x from the last known value before it, which is returned (nan where there is none).
    """
    last = np.nan
    n, time, time2, value, value2, product = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for back in range(window - 1, stop, -1):
        row = start - window + back
        if row >= 0 and not np.isnan(values[row]):
            if np.isnan(last):
                last = values[row]
            x, t = values[row] - last, float(row - start)
            n, time, time2 = n + 1.0, time + t, time2 + t * t
            value, value2, product = value + x, value2 + x * x, product + t * x
        entry = tail[back]
        entry[0], entry[1], entry[2], entry[3], entry[4], entry[5] = n, time, time2, value, value2, product
    return last
