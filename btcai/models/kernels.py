"""Loops of the trunk's dear branches, forward and backward, compiled for a CPU; `fused` makes torch functions of them.

torch runs the same arithmetic as hundreds of small operations: each walks through memory once more and takes Python's
global lock, for which the shards of an update contend. These walk once, a block of decision times at a time so that
what they work on stays in the cache, and hold no lock. Time is the last axis of everything: neighbouring decision
times are neighbours in memory, which one instruction works on together.

All arrays are C-contiguous float32. Sums run in an order that is always the same.
"""

import numpy as np

from btcai.compiled import inlined, summing
from btcai.schema import Float32Array, IntArray

ZERO, ONE, TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)


@inlined
def sigmoid(x: np.float32) -> np.float32:
    """To float32 rounding; the exponential is that of Cephes (expf), which compiles to vector instructions."""
    x = min(max(-x, np.float32(-87.0)), np.float32(88.0))
    return ONE / (ONE + _exp(x))


@inlined
def _exp(x: np.float32) -> np.float32:
    """Of x in -87 .. 88."""
    power = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    rest = x - power * np.float32(0.693359375) - power * np.float32(-2.12194440e-4)
    series = np.float32(1.9875691500e-4)
    series = series * rest + np.float32(1.3981999507e-3)
    series = series * rest + np.float32(8.3334519073e-3)
    series = series * rest + np.float32(4.1665795894e-2)
    series = series * rest + np.float32(1.6666665459e-1)
    series = series * rest + np.float32(5.0000001201e-1)
    series = series * rest * rest + rest + ONE
    exponent = np.int32((np.int32(power) + np.int32(127)) << np.int32(23))
    scale: np.float32 = exponent.view(np.float32)
    return np.float32(series * scale)


@inlined
def softplus(x: np.float32) -> np.float32:
    """log(1 + exp(x)); log1p as twice the series of the inverse hyperbolic tangent, of at most 1/3."""
    small = _exp(max(-abs(x), np.float32(-87.0)))
    ratio = small / (TWO + small)
    square = ratio * ratio
    series = np.float32(1 / 15)
    series = series * square + np.float32(1 / 13)
    series = series * square + np.float32(1 / 11)
    series = series * square + np.float32(1 / 9)
    series = series * square + np.float32(1 / 7)
    series = series * square + np.float32(1 / 5)
    series = series * square + np.float32(1 / 3)
    return max(x, ZERO) + TWO * (ratio + ratio * square * series)


@summing
def lstm_forward(
    drive: Float32Array, weight: Float32Array, starts: IntArray, states: Float32Array, hidden: Float32Array
) -> None:
    """An LSTM from a zero state whose step s at decision time t reads column starts[s] + t of what drives it.

    drive (B, 4m, S), weight (4m, m) -> hidden (B, m, M) after the last step; states (B, steps, 6, m * M): the gates
    take, keep and give, the new content, the cell and its tanh. 4 divides m.
    """
    batch, m, times = hidden.shape
    n = m * times
    for b in range(batch):
        h = hidden[b]
        flat = h.reshape(n)
        for s in range(len(starts)):
            now, before = states[b, s], states[b, max(s - 1, 0), 4]
            gates = now[:4].reshape(4 * m, times)
            for o in range(4 * m):
                _copy(gates[o], drive[b, o, starts[s] : starts[s] + times])
            if s > 0:
                _add_product(gates, weight, h)
            _cell_forward(now, before, flat, s > 0)


@summing
def _cell_forward(now: Float32Array, before: Float32Array, hidden: Float32Array, goes_on: bool) -> None:
    """The gates in `now` and the cell `before` -> the rest of `now` and the hidden state."""
    take, keep, give, new, cell, bent = now[0], now[1], now[2], now[3], now[4], now[5]
    for t in range(len(take)):
        take[t] = sigmoid(take[t])
    for t in range(len(take)):
        give[t] = sigmoid(give[t])
    for t in range(len(take)):
        new[t] = TWO * sigmoid(TWO * new[t]) - ONE
    for t in range(len(take)):
        cell[t] = take[t] * new[t]
    if goes_on:
        for t in range(len(take)):
            keep[t] = sigmoid(keep[t] + ONE)
        for t in range(len(take)):
            cell[t] += keep[t] * before[t]
    for t in range(len(take)):
        bent[t] = TWO * sigmoid(TWO * cell[t]) - ONE
    for t in range(len(take)):
        hidden[t] = give[t] * bent[t]


@summing
def lstm_backward(
    states: Float32Array,
    weight: Float32Array,
    starts: IntArray,
    grad_hidden: Float32Array,
    grad_drive: Float32Array,
    grad_weight: Float32Array,
    room: Float32Array,
) -> None:
    """The gradients of what drove it and of its weight, both zero before; `weight` transposed, `room` (7, m, M)."""
    batch, m, times = grad_hidden.shape
    n = m * times
    flat, h, dh, d_gates = room.reshape(7, n), room[0], room[1], room[3:].reshape(4 * m, times)
    d_cell = flat[2]
    for b in range(batch):
        for j in range(m):
            _copy(dh[j], grad_hidden[b, j])
        d_cell[:] = ZERO
        for s in range(len(starts) - 1, -1, -1):
            _cell_backward(states[b, s], states[b, max(s - 1, 0)], flat, s > 0)
            if s > 0:
                dh[:, :] = ZERO
                _add_product(dh, weight, d_gates)
                _add_outer_product(grad_weight, d_gates, h)
            for o in range(4 * m):
                here, there = grad_drive[b, o, starts[s] : starts[s] + times], d_gates[o]
                for t in range(times):
                    here[t] += there[t]


@summing
def _cell_backward(now: Float32Array, before: Float32Array, room: Float32Array, goes_on: bool) -> None:
    """room: hidden state before, gradients of the one after, of the cell, and of what the gates were made of."""
    hidden, d_hidden, d_cell, d_take, d_keep, d_give, d_new = (
        room[0], room[1], room[2], room[3], room[4], room[5], room[6],
    )  # fmt: skip
    take, keep, give, new, bent = now[0], now[1], now[2], now[3], now[5]
    for t in range(len(take)):
        d_cell[t] += d_hidden[t] * give[t] * (ONE - bent[t] * bent[t])
    for t in range(len(take)):
        d_take[t] = d_cell[t] * new[t] * take[t] * (ONE - take[t])
    for t in range(len(take)):
        d_give[t] = d_hidden[t] * bent[t] * give[t] * (ONE - give[t])
    for t in range(len(take)):
        d_new[t] = d_cell[t] * take[t] * (ONE - new[t] * new[t])
    d_keep[:] = ZERO
    if goes_on:
        give, cell, bent = before[2], before[4], before[5]
        for t in range(len(take)):
            d_keep[t] = d_cell[t] * cell[t] * keep[t] * (ONE - keep[t])
        for t in range(len(take)):
            d_cell[t] *= keep[t]
        for t in range(len(take)):
            hidden[t] = give[t] * bent[t]


@summing
def _copy(to: Float32Array, what: Float32Array) -> None:
    for t in range(len(to)):
        to[t] = what[t]


@summing
def _add_product(out: Float32Array, weight: Float32Array, x: Float32Array) -> None:
    """out (n, M) += weight (n, m) @ x (m, M), where 4 divides m."""
    for o in range(out.shape[0]):
        y = out[o]
        for k in range(0, x.shape[0], 4):
            w0, w1, w2, w3 = weight[o, k], weight[o, k + 1], weight[o, k + 2], weight[o, k + 3]
            x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
            for t in range(len(y)):
                y[t] += w0 * x0[t] + w1 * x1[t] + w2 * x2[t] + w3 * x3[t]


@summing
def _add_outer_product(out: Float32Array, left: Float32Array, right: Float32Array) -> None:
    """out (n, m) += left (n, M) @ right (m, M).T."""
    for o in range(out.shape[0]):
        x = left[o]
        for k in range(out.shape[1]):
            y, total = right[k], ZERO
            for t in range(len(x)):
                total += x[t] * y[t]
            out[o, k] += total


@summing
def attention_forward(
    query: Float32Array,
    key: Float32Array,
    content: Float32Array,
    slope: Float32Array,
    weights: Float32Array,
    mixed: Float32Array,
    room: Float32Array,
) -> None:
    """Attention whose query at decision time t reads columns t, t + stride, ... of keys and content.

    query (B, h, d, M), key, content (B, h, d, T), slope (h,) of the bias on distance -> mixed (B, h, d, M), zero
    before, and the softmax's weights (B, h, keys, M), oldest key first. 4 divides d, 5 divides
    keys; `room` (2, M).
    """
    batch, heads, keys, times = weights.shape
    stride = (key.shape[3] - times) // (keys - 1)
    for b in range(batch):
        for head in range(heads):
            weight = weights[b, head]
            _band_dots(weight, query[b, head], key[b, head], stride)
            _softmax(weight, slope[head], room)
            _add_band_sums(mixed[b, head], weight, content[b, head], stride)


@summing
def _softmax(weight: Float32Array, slope: np.float32, room: Float32Array) -> None:
    """Over the first axis, after `slope` times the distance was added; in place."""
    top, total = room[0], room[1]
    top[:] = np.float32(-np.inf)
    for j in range(len(weight)):
        w, bias = weight[j], slope * np.float32(len(weight) - 1 - j)
        for t in range(len(w)):
            w[t] += bias
        for t in range(len(w)):
            top[t] = max(top[t], w[t])
    total[:] = ZERO
    for j in range(len(weight)):
        w = weight[j]
        for t in range(len(w)):
            w[t] = _exp(max(w[t] - top[t], np.float32(-87.0)))
        for t in range(len(w)):
            total[t] += w[t]
    for j in range(len(weight)):
        w = weight[j]
        for t in range(len(w)):
            w[t] /= total[t]


@summing
def attention_backward(
    query: Float32Array,
    key: Float32Array,
    content: Float32Array,
    weights: Float32Array,
    grad_mixed: Float32Array,
    grad_query: Float32Array,
    grad_key: Float32Array,
    grad_content: Float32Array,
    grad_slope: Float32Array,
    room: Float32Array,
) -> None:
    """The gradients of what went in, all zero before; `room` (1 + keys, M)."""
    batch, heads, keys, times = weights.shape
    stride = (key.shape[3] - times) // (keys - 1)
    total, d = room[0], room[1:]
    for b in range(batch):
        for head in range(heads):
            weight = weights[b, head]
            _add_spread(grad_content[b, head], weight, grad_mixed[b, head], stride)
            _band_dots(d, grad_mixed[b, head], content[b, head], stride)
            total[:] = ZERO
            for j in range(keys):
                w, x = weight[j], d[j]
                for t in range(times):
                    total[t] += w[t] * x[t]
            for j in range(keys):
                w, x, score = weight[j], d[j], ZERO
                for t in range(times):
                    x[t] = w[t] * (x[t] - total[t])
                for t in range(times):
                    score += x[t]
                grad_slope[head] += score * np.float32(keys - 1 - j)
            _add_band_sums(grad_query[b, head], d, key[b, head], stride)
            _add_spread(grad_key[b, head], d, query[b, head], stride)


@summing
def _band_dots(out: Float32Array, left: Float32Array, band: Float32Array, stride: int) -> None:
    """out (keys, M) = sum over d of left (d, M) times columns of the band (d, ..), stride j on; 4 divides d."""
    for j in range(out.shape[0]):
        y, first = out[j], stride * j
        y[:] = ZERO
        for i in range(0, left.shape[0], 4):
            l0, l1, l2, l3 = left[i], left[i + 1], left[i + 2], left[i + 3]
            b0, b1, b2, b3 = band[i, first:], band[i + 1, first:], band[i + 2, first:], band[i + 3, first:]
            for t in range(len(y)):
                y[t] += l0[t] * b0[t] + l1[t] * b1[t] + l2[t] * b2[t] + l3[t] * b3[t]


@summing
def _add_band_sums(out: Float32Array, weight: Float32Array, band: Float32Array, stride: int) -> None:
    """out (d, M) += sum over keys of weight (keys, M) times columns of the band (d, ..), stride j on."""
    for i in range(out.shape[0]):
        y, row = out[i], band[i]
        for j in range(0, weight.shape[0], 5):
            w0, w1, w2, w3, w4 = weight[j], weight[j + 1], weight[j + 2], weight[j + 3], weight[j + 4]
            x0, x1, x2 = row[stride * j :], row[stride * (j + 1) :], row[stride * (j + 2) :]
            x3, x4 = row[stride * (j + 3) :], row[stride * (j + 4) :]
            for t in range(len(y)):
                y[t] += w0[t] * x0[t] + w1[t] * x1[t] + w2[t] * x2[t] + w3[t] * x3[t] + w4[t] * x4[t]


@summing
def _add_spread(band: Float32Array, weight: Float32Array, x: Float32Array, stride: int) -> None:
    """The other way: columns of the band, stride j on, += weight (keys, M) times x (d, M)."""
    for i in range(x.shape[0]):
        y, row = x[i], band[i]
        for j in range(weight.shape[0]):
            w, out = weight[j], row[stride * j :]
            for t in range(len(y)):
                out[t] += w[t] * y[t]
