"""When a perpetual swap settles its funding, and rates laid on the grid of bars. Missing is not zero."""

import numpy as np

from btcai.schema import BAR_NS, FUNDING_SECONDS, FloatArray, IntArray

NEAREST = 7
"""Distances between settlements that tell what is usual: an odd number, more than twice those that may be missing."""


def due(close_ts_ns: IntArray) -> FloatArray:
    """(T,) of bars that close at close_ts_ns, of a market whose rates nobody recorded: nan where one is due, else 0."""
    return np.where(np.asarray(close_ts_ns) % (FUNDING_SECONDS * 1_000_000_000) == 0, np.nan, 0.0)


def on_grid(close_ts_ns: IntArray, time_ms: IntArray, rates: FloatArray) -> FloatArray:
    """(T,) of bars of the grid that close at close_ts_ns: the rate at the close, 0 where none is due, nan where one is
    due and not on record.

    Exchanges stamp a settlement some milliseconds late: each belongs to the bar whose close is nearest. One is due
    every FUNDING_SECONDS, and where those on record come more often, where their distances show one to be left out.
    """
    funding = due(close_ts_ns)
    bar = np.rint((time_ms * 1_000_000 - int(close_ts_ns[0])) / BAR_NS).astype(np.int64)
    for at, values in ((_left_out(bar), np.nan), (bar, rates)):
        inside = (at >= 0) & (at < len(funding))
        funding[at[inside]] = np.broadcast_to(values, at.shape)[inside]
    return funding


def _left_out(bar: IntArray) -> IntArray:
    """Bars at which one more settlement was due, given the bars (N,) of those on record.

    Some markets settle every hour or every four, and change it: usual is the median of the NEAREST distances around.
    """
    bar = np.unique(bar)
    distance = np.diff(bar)
    if len(distance) < NEAREST:
        return np.empty(0, np.int64)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(distance, NEAREST // 2, mode="edge"), NEAREST)
    usual = np.median(around, axis=1)
    gaps = np.flatnonzero(distance > 1.5 * usual)
    found = [np.arange(bar[gap] + usual[gap], bar[gap + 1] - usual[gap] / 2, usual[gap]) for gap in gaps]
    return np.concatenate([np.empty(0), *found]).astype(np.int64)
