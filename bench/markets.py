"""The bars that a bench runs on: real ones where this machine has them, else simulated ones."""

import os
from pathlib import Path

import numpy as np

from btcai.data.sources import read_bars
from btcai.data.store import to_grid
from btcai.errors import DataError
from btcai.features.pipeline import build_market
from btcai.schema import BAR_NS, Bars, MarketData
from btcai.simulator.bars import DEFAULT_BARS, DEFAULT_SEED, FIRST_OPEN, simulate_bars

REAL_DATA = "BTCAI_REAL_DATA"
"""Environment variable: a folder with a parquet file of real 5-minute bars."""

_VOLATILITY = 1e-3


def trading_market() -> tuple[str, MarketData]:
    """(what the bars are, the market): real bars where BTCAI_REAL_DATA names a folder, else the simulated market.

    DataError where that folder holds no parquet file.
    """
    if folder := os.environ.get(REAL_DATA):
        files = sorted(Path(folder).glob("*.parquet"))
        if not files:
            raise DataError(f"{REAL_DATA} must name a folder with a parquet file of bars, was {folder}; unset it")
        return files[0].stem, build_market(to_grid(read_bars(files[0])))
    return "simulated", build_market(simulated_bars(DEFAULT_BARS))


def simulated_bars(n_bars: int) -> Bars:
    """The simulated market's first n_bars on the grid."""
    return to_grid(simulate_bars(n_bars, DEFAULT_SEED))


def random_walk(n_bars: int) -> Bars:
    """Bars made in little memory, where only their number matters: a driftless walk, no gaps."""
    rng = np.random.default_rng(DEFAULT_SEED)
    close = 30_000.0 * np.exp(np.cumsum(_VOLATILITY * rng.standard_normal(n_bars)))
    opened = np.concatenate((close[:1], close[:-1]))
    reach = 1.0 + _VOLATILITY * rng.random(n_bars)
    return Bars(
        close_ts_ns=FIRST_OPEN.astype("datetime64[ns]").astype(np.int64) + BAR_NS * np.arange(1, n_bars + 1),
        open=opened,
        high=np.maximum(opened, close) * reach,
        low=np.minimum(opened, close) / reach,
        close=close,
        volume=100.0 * rng.random(n_bars),
        present=np.ones(n_bars, dtype=np.bool_),
    )
