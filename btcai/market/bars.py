"""What the kernel reads of a market: plain columns over the grid, packed so that one bar is one cache line."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btcai.compiled import LINE, cache_lines
from btcai.data.settlement import due
from btcai.schema import BAR_NS, BARS_PER_DAY, BoolArray, FloatArray, MarketData

_COLUMNS = ("open", "high", "low", "volume", "mark", "sigma", "sigma_before")


class BarArrays(NamedTuple):
    """Columns (T,), float64 but for int32 day and bool present: prices and mark in USDT, volume in BTC.

    sigma: of one bar's log return, as known at the bar's close; sigma_before: as known when it opens. day: the UTC day
    number in which it opens. funding: what a long pays at the bar's close as a share of its value, 0 where none is due,
    nan where it is due and unknown; read on swaps alone, so it stands apart.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    volume: FloatArray
    mark: FloatArray
    sigma: FloatArray
    sigma_before: FloatArray
    day: NDArray[np.int32]
    present: BoolArray
    funding: FloatArray


def bar_arrays(data: MarketData) -> BarArrays:
    """Copies of the market's bars in memory."""
    bars = data.bars
    packed = cache_lines(len(data) * LINE).reshape(len(data), LINE)
    column = {name: packed[:, index] for index, name in enumerate(_COLUMNS)}
    for name in ("open", "high", "low", "volume"):
        column[name][:] = getattr(bars, name)
    column["mark"][:], column["sigma"][:] = data.mark, data.sigma
    column["sigma_before"][:1], column["sigma_before"][1:] = data.sigma[:1], data.sigma[:-1]
    day, present = packed.view(np.int32)[:, 2 * LINE - 2], packed.view(np.bool_)[:, 8 * LINE - 4]
    day[:] = (np.asarray(bars.close_ts_ns) - BAR_NS) // (BAR_NS * BARS_PER_DAY)
    present[:] = bars.present
    funding = due(bars.close_ts_ns) if data.funding is None else np.array(data.funding, dtype=np.float64)
    return BarArrays(**column, day=day, present=present, funding=funding)
