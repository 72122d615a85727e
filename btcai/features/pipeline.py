"""Grid bars -> MarketData: causal dimensionless features, float32; row t knowable when bar t closed. See table.py.

A row is a pure function of the WARMUP_BARS rows before it, itself and the time, to the bit. So a history is cut into
chunks that threads fill in any order, and the live path fills the last row of a window with the same code.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from btcai.errors import DataError
from btcai.features.columns import settle
from btcai.features.families import FILLS
from btcai.features.folds import Folds
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS, columns_of
from btcai.machine import machine
from btcai.schema import BAR_NS, Bars, BoolArray, Float32Array, FloatArray, MarketData

CHUNK_ROWS = 7 * WARMUP_BARS
"""Rows a thread fills at a time: temporaries stay in the cache, and memory grows with the result alone.

No power of two: the columns of a table that long would all fall into the same few lines of the cache.
"""

LOG_SIGMA = FEATURE_NAMES.index("log_sigma")


def build_market(bars: Bars) -> MarketData:
    """Features (T, F) float32, mark and sigma (T,) of grid bars.

    mark is nan on rows before the first present bar (a slice may start inside a gap; such rows lie in the warm-up).
    DataError where the bars are not on the grid, not sound, or all missing.
    """
    check_bars(bars)
    features, sigma = np.empty((len(bars), len(FEATURE_NAMES)), np.float32), np.empty(len(bars))
    chunks = [slice(first, min(first + CHUNK_ROWS, len(bars))) for first in range(0, len(bars), CHUNK_ROWS)]
    fill = partial(_fill_chunk, bars, features, sigma)
    with ThreadPoolExecutor(min(len(chunks), machine().cores)) as pool:
        list(pool.map(fill, chunks))
    return MarketData(
        bars=bars,
        mark=_last_known(bars.close, bars.present),
        sigma=sigma,
        features=features,
        feature_names=FEATURE_NAMES,
        warmup_bars=WARMUP_BARS,
    )


def rows_of(bars: Bars, rows: slice) -> Bars:
    """A view of some rows."""
    return Bars(
        close_ts_ns=bars.close_ts_ns[rows],
        open=bars.open[rows],
        high=bars.high[rows],
        low=bars.low[rows],
        close=bars.close[rows],
        volume=bars.volume[rows],
        present=bars.present[rows],
    )


def fill_features(bars: Bars, features: Float32Array, sigma: FloatArray) -> None:
    """Write features (rows, F) and sigma (rows,) of the last rows of `bars`; the rows before them are the warm-up.

    The bars are trusted, see check_bars.
    """
    first = len(bars) - len(features)
    rows = Folds(bars, first)
    table = np.empty((len(FEATURE_NAMES), len(features)), np.float32)
    for family, fill in FILLS.items():
        fill(table[columns_of(family)], rows)
    settle(features, table, bars.present[first:], LOG_SIGMA)
    sigma[:] = rows.sigma


def check_bars(bars: Bars) -> None:
    """Refuse what would turn into wrong features in silence."""
    if not bars.present.any():
        raise DataError(f"features need at least one present bar, was none of {len(bars)}; fetch bars with: btcai data")
    steps = np.diff(bars.close_ts_ns)
    if (steps != BAR_NS).any():
        row = int(np.argmax(steps != BAR_NS)) + 1
        raise DataError(f"bars must follow in steps of {BAR_NS} ns, row {row} came after {steps[row - 1]}; use to_grid")
    sound = (bars.low > 0) & (bars.low <= np.minimum(bars.open, bars.close))
    sound &= (bars.high < np.inf) & (bars.high >= np.maximum(bars.open, bars.close))
    sound &= (bars.volume < np.inf) & (bars.volume >= 0)
    if (broken := bars.present & ~sound).any():
        stamp = np.datetime64(int(bars.close_ts_ns[np.argmax(broken)]), "ns").astype("datetime64[s]")
        raise DataError(
            "present bars need finite prices, 0 < low <= open, close <= high, and finite volume >= 0;"
            f" {int(broken.sum())} break that, the first closed at {stamp} UTC; see: btcai stage validate"
        )


def _fill_chunk(bars: Bars, features: Float32Array, sigma: FloatArray, rows: slice) -> None:
    warm = slice(max(0, rows.start - WARMUP_BARS), rows.stop)
    fill_features(rows_of(bars, warm), features[rows], sigma[rows])


def _last_known(values: FloatArray, present: BoolArray) -> FloatArray:
    """values (T,) of the last present row at or before t, nan where there is none."""
    last = np.maximum.accumulate(np.where(present, np.arange(len(values)), -1))
    return np.where(last >= 0, values[last], np.nan)
