"""Compiled loops over cumulated sums: what the trunk pools, and the quantiles of a forecast. As in `kernels`."""

import numpy as np

from btcai.compiled import summing
from btcai.models.kernels import ONE, ZERO, sigmoid, softplus
from btcai.schema import Float32Array, IntArray


@summing
def pool_forward(mixed: Float32Array, parts: IntArray, out: Float32Array, room: Float32Array) -> None:
    """Pieces of doubling sums, side by side: mixed (B, W, n) -> out (B, W, C).

    parts (P, 3): of sums over 2 ** level columns, divided by their root, `length` columns from `first`, the first of
    which is the sum over columns first .. first + 2 ** level - 1. room (levels, n).
    """
    for b in range(mixed.shape[0]):
        for w in range(mixed.shape[1]):
            row, to = mixed[b, w], out[b, w]
            total = room[0]
            for t in range(len(row)):
                total[t] = row[t]
            for level in range(1, room.shape[0]):
                below, total, size = room[level - 1], room[level], 1 << (level - 1)
                later = below[size:]
                for t in range(len(row) + 1 - 2 * size):
                    total[t] = later[t] + below[t]
            column = 0
            for p in range(parts.shape[0]):
                level, first, length = parts[p, 0], parts[p, 1], parts[p, 2]
                scale = ONE / np.sqrt(np.float32(1 << level))
                here, there = to[column:], room[level, first:]
                for t in range(length):
                    here[t] = scale * there[t]
                column += length


@summing
def pool_backward(grad_out: Float32Array, parts: IntArray, grad_mixed: Float32Array, room: Float32Array) -> None:
    """Adds to the gradient of `mixed`."""
    for b in range(grad_mixed.shape[0]):
        for w in range(grad_mixed.shape[1]):
            row, of = grad_mixed[b, w], grad_out[b, w]
            for level in range(room.shape[0]):
                room[level, :] = ZERO
            column = 0
            for p in range(parts.shape[0]):
                level, first, length = parts[p, 0], parts[p, 1], parts[p, 2]
                scale = ONE / np.sqrt(np.float32(1 << level))
                here, there = of[column:], room[level, first:]
                for t in range(length):
                    there[t] += scale * here[t]
                column += length
            for level in range(room.shape[0] - 1, 0, -1):
                below, total, size = room[level - 1], room[level], 1 << (level - 1)
                later = below[size:]
                for t in range(len(row) + 1 - 2 * size):
                    below[t] += total[t]
                for t in range(len(row) + 1 - 2 * size):
                    later[t] += total[t]
            total = room[0]
            for t in range(len(row)):
                row[t] += total[t]


@summing
def quantiles_forward(steps: Float32Array, quantiles: Float32Array) -> None:
    """A median and softplus steps outwards from it, cumulated: both (B, H, Q, M)."""
    middle = steps.shape[2] // 2
    for b in range(steps.shape[0]):
        for h in range(steps.shape[1]):
            here, step = quantiles[b, h, middle], steps[b, h, middle]
            for t in range(len(here)):
                here[t] = step[t]
            for sign in (-1, 1):
                for q in range(1, middle + 1):
                    here, step = quantiles[b, h, middle + sign * q], steps[b, h, middle + sign * q]
                    inner, way = quantiles[b, h, middle + sign * (q - 1)], np.float32(sign)
                    for t in range(len(here)):
                        here[t] = inner[t] + way * softplus(step[t])


@summing
def quantiles_backward(steps: Float32Array, grad: Float32Array, grad_steps: Float32Array, room: Float32Array) -> None:
    """The gradient of the steps from that of the quantiles; room (2, M)."""
    middle = steps.shape[2] // 2
    every, beyond = room[0], room[1]
    for b in range(steps.shape[0]):
        for h in range(steps.shape[1]):
            here = grad[b, h, middle]
            for t in range(len(here)):
                every[t] = here[t]
            for sign in (-1, 1):
                beyond[:] = ZERO  # a step moves its own quantile and all beyond it, the median every one
                for q in range(middle, 0, -1):
                    here, step = grad[b, h, middle + sign * q], steps[b, h, middle + sign * q]
                    out, way = grad_steps[b, h, middle + sign * q], np.float32(sign)
                    for t in range(len(here)):
                        beyond[t] += here[t]
                    for t in range(len(here)):
                        out[t] = way * beyond[t] * sigmoid(step[t])
                for t in range(len(every)):
                    every[t] += beyond[t]
            out = grad_steps[b, h, middle]
            for t in range(len(out)):
                out[t] = every[t]
