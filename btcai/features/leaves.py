"""What windows are folded over: one number a row from that row and at most 12 rows before it, nan where unknown."""

import math
from typing import NamedTuple

import numpy as np

from btcai.compiled import inlined, stepping
from btcai.schema import Bars, BoolArray, FloatArray, IntArray

VARIANCE_RATIO_BARS = 12

CORWIN_SCHULTZ = 3.0 - 2.0 * math.sqrt(2.0)


class Leaves(NamedTuple):
    """(n,) each; r: log return of one bar, known where the bar and the one before are; v: volume."""

    open: FloatArray
    close: FloatArray
    high: FloatArray
    low: FloatArray
    volume: FloatArray
    log_close: FloatArray
    move: FloatArray  # r
    move_size: FloatArray  # |r|
    move_square: FloatArray  # r^2
    move_signed_square: FloatArray  # r |r|
    move_square_12: FloatArray  # (log return of 12 bars)^2
    pair_product: FloatArray  # r[t] r[t-1]
    pair_magnitude: FloatArray  # |r[t] r[t-1]|
    pair_scale: FloatArray  # (r[t]^2 + r[t-1]^2) / 2
    range_square: FloatArray  # log(high / low)^2
    spread: FloatArray  # Corwin and Schultz's of this bar and the one before, >= 0
    rise: FloatArray  # rise of the close, USDT, 0 where it fell
    change_size: FloatArray  # |change of the close|, USDT
    signed_volume: FloatArray  # v, minus v where the bar fell, 0 where it did neither
    located_volume: FloatArray  # v * (-1 close at the low .. +1 close at the high)
    traded_value: FloatArray  # v * close
    moved_volume: FloatArray  # v where r is known
    moved_volume_square: FloatArray  # its square
    volume_move: FloatArray  # v |r|
    known_from: IntArray  # first row at or after this one whose bar is known; n where there is none


def make_leaves(bars: Bars) -> Leaves:
    """The leaves of every row (n,) of grid bars. The first rows lack what lies before them."""
    n = len(bars)
    leaves = Leaves._make((*np.full((len(Leaves._fields) - 1, n), np.nan), np.full(n, n)))
    _fill_bars(leaves, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.present)
    _fill_moves(leaves, bars.present)
    return leaves


@stepping
def _fill_bars(
    leaves: Leaves,
    open_: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volume: FloatArray,
    present: BoolArray,
) -> None:
    """What needs no bar before, and where the next known one is."""
    known = len(close)
    for t in range(len(close) - 1, -1, -1):
        if present[t]:
            known = t
            leaves.open[t], leaves.high[t], leaves.low[t], leaves.close[t] = open_[t], high[t], low[t], close[t]
            leaves.volume[t], leaves.traded_value[t] = volume[t], volume[t] * close[t]
            leaves.log_close[t] = math.log(close[t])
            leaves.range_square[t] = math.log(high[t] / low[t]) ** 2
            leaves.signed_volume[t] = volume[t] * ((close[t] > open_[t]) - (close[t] < open_[t]))
            extent, above_middle = high[t] - low[t], (close[t] - low[t]) - (high[t] - close[t])
            leaves.located_volume[t] = volume[t] * above_middle / extent if extent > 0.0 else 0.0
        leaves.known_from[t] = known


@stepping
def _fill_moves(leaves: Leaves, present: BoolArray) -> None:
    """What needs bars before."""
    for t in range(1, len(present)):
        before = t - VARIANCE_RATIO_BARS
        if before >= 0 and present[t] and present[before]:
            leaves.move_square_12[t] = (leaves.log_close[t] - leaves.log_close[before]) ** 2
        if not (present[t] and present[t - 1]):
            continue
        move, change = leaves.log_close[t] - leaves.log_close[t - 1], leaves.close[t] - leaves.close[t - 1]
        size, volume = abs(move), leaves.volume[t]
        leaves.move[t], leaves.move_size[t] = move, size
        leaves.move_square[t], leaves.move_signed_square[t] = move * move, move * size
        leaves.rise[t], leaves.change_size[t] = max(change, 0.0), abs(change)
        leaves.moved_volume[t], leaves.moved_volume_square[t], leaves.volume_move[t] = volume, volume**2, volume * size
        reach = max(leaves.high[t], leaves.high[t - 1]) / min(leaves.low[t], leaves.low[t - 1])
        leaves.spread[t] = _spread(leaves.range_square[t] + leaves.range_square[t - 1], math.log(reach) ** 2)
        if t > 1 and present[t - 2]:
            last = leaves.move[t - 1]
            leaves.pair_product[t], leaves.pair_magnitude[t] = move * last, abs(move * last)
            leaves.pair_scale[t] = 0.5 * (move * move + last * last)


@inlined
def _spread(beta: float, gamma: float) -> float:
    """Corwin and Schultz 2012, as a fraction of the price; a negative one is 0, as they set it."""
    alpha = (math.sqrt(2.0 * beta) - math.sqrt(beta)) / CORWIN_SCHULTZ - math.sqrt(gamma / CORWIN_SCHULTZ)
    return 2.0 * math.tanh(0.5 * alpha) if alpha > 0.0 else 0.0
