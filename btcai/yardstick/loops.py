"""The recursions through time, compiled: N paths of T steps each."""

import math

import numpy as np

from btcai.compiled import compiled
from btcai.schema import FloatArray


@compiled
def autoregression(noise: FloatArray, phi: float) -> FloatArray:
    """Stationary AR(1) of unit spread from standard normal noise, both (N, T)."""
    out = noise.copy()
    innovation = math.sqrt(1.0 - phi * phi)
    for path in range(noise.shape[0]):
        for t in range(1, noise.shape[1]):
            out[path, t] = phi * out[path, t - 1] + innovation * noise[path, t]
    return out


@compiled
def filtered(returns: FloatArray, phi: FloatArray, gain: FloatArray) -> FloatArray:
    """returns (N, T), phi and gain (K,) -> estimates (K, N, T) of the drifts that move the next return, from zero."""
    n_paths, steps = returns.shape
    out = np.empty((len(phi), n_paths, steps))
    for path in range(n_paths):
        estimate = np.zeros(len(phi))
        for t in range(steps):
            surprise = returns[path, t] - estimate.sum()
            for k in range(len(phi)):
                estimate[k] = phi[k] * (estimate[k] + gain[k] * surprise)
                out[k, path, t] = estimate[k]
    return out


@compiled
def hysteresis(signal: FloatArray, buy_above: float, sell_below: float) -> FloatArray:
    """signal (N, T) -> positions (N, T): 1 from above buy_above until below sell_below, else 0; flat at first."""
    out = np.empty_like(signal)
    for path in range(signal.shape[0]):
        position = 0.0
        for t in range(signal.shape[1]):
            if signal[path, t] > buy_above:
                position = 1.0
            elif signal[path, t] < sell_below:
                position = 0.0
            out[path, t] = position
    return out


@compiled
def hysteresis_profits(
    signal: FloatArray, returns: FloatArray, buy_above: FloatArray, sell_below: FloatArray, cost_frac: float
) -> FloatArray:
    """Thresholds (P,), positions as in `hysteresis` -> profits (P,): sums over paths of position[t] * returns[t + 1],
    less cost_frac a side."""
    profit = np.zeros(len(buy_above))
    for path in range(signal.shape[0]):
        held = np.zeros(len(buy_above))
        for t in range(signal.shape[1] - 1):
            seen, following = signal[path, t], returns[path, t + 1]
            for pair in range(len(buy_above)):
                before = held[pair]
                kept = 0.0 if seen < sell_below[pair] else before
                now = 1.0 if seen > buy_above[pair] else kept
                profit[pair] += now * following - cost_frac * abs(now - before)
                held[pair] = now
    return profit


@compiled
def bilinear(table: FloatArray, row: FloatArray, column: FloatArray) -> FloatArray:
    """table (I, J) read at fractional rows and columns (N, T), held to its edges."""
    rows, columns = table.shape
    out = np.empty_like(row)
    for path in range(row.shape[0]):
        for t in range(row.shape[1]):
            i = min(max(row[path, t], 0.0), rows - 1.0)
            j = min(max(column[path, t], 0.0), columns - 1.0)
            top, left = min(int(i), rows - 2), min(int(j), columns - 2)
            down, right = i - top, j - left
            upper = (1.0 - right) * table[top, left] + right * table[top, left + 1]
            lower = (1.0 - right) * table[top + 1, left] + right * table[top + 1, left + 1]
            out[path, t] = (1.0 - down) * upper + down * lower
    return out
