"""When a perpetual swap settles its funding, and rates laid on the grid of bars. Missing is not zero."""

import numpy as np

from btcai.schema import BAR_NS, FUNDING_SECONDS, FloatArray, IntArray


def due(close_ts_ns: IntArray) -> FloatArray:
    """(T,) of bars that close at close_ts_ns, of a market whose rates nobody recorded: nan where one is due, else 0."""
    return np.where(np.asarray(close_ts_ns) % (FUNDING_SECONDS * 1_000_000_000) == 0, np.nan, 0.0)


def on_grid(close_ts_ns: IntArray, time_ms: IntArray, rates: FloatArray) -> FloatArray:
    """(T,) of bars of the grid that close at close_ts_ns: the rate at the close, 0 where none is due, nan where one is
    due and not on record.

    Exchanges stamp a settlement some milliseconds late: each belongs to the bar whose close is nearest.
    """
    funding = due(close_ts_ns)
    bar = np.rint((time_ms * 1_000_000 - int(close_ts_ns[0])) / BAR_NS).astype(np.int64)
    inside = (bar >= 0) & (bar < len(funding))
    funding[bar[inside]] = rates[inside]
    return funding
