"""Bars that the tests of features share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from btcai.schema import BAR_NS, Bars, MarketData

MONDAY_NS = 1_704_067_200_000_000_000  # 2024-01-01 00:00 UTC
PRICES = ("open", "high", "low", "close")


def walk(n_bars: int, seed: int, missing: float = 0.0, first_close_ts_ns: int = MONDAY_NS + BAR_NS) -> Bars:
    """A random walk with volatile stretches, flat bars, bars without volume and, if asked, missing bars."""
    rng = np.random.default_rng(seed)
    swing = np.where(rng.random(n_bars // 50 + 1) < 0.2, 0.01, 0.001).repeat(50)[:n_bars]
    close = 40_000 * np.exp(np.cumsum(swing * rng.standard_t(4, n_bars)))
    open_ = np.concatenate(([40_000.0], close[:-1]))
    flat = rng.random(n_bars) < 0.02
    close = np.where(flat, open_, close)
    high = np.maximum(open_, close) * (1 + np.where(flat, 0, swing * rng.random(n_bars)))
    low = np.minimum(open_, close) * (1 - np.where(flat, 0, swing * rng.random(n_bars)))
    volume = np.where(rng.random(n_bars) < 0.02, 0.0, rng.lognormal(3, 1, n_bars))
    bars = Bars(
        close_ts_ns=first_close_ts_ns + BAR_NS * np.arange(n_bars),
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        present=np.ones(n_bars, np.bool_),
    )
    return without(bars, (rng.random(n_bars) < missing) & (np.arange(n_bars) > 0))


def without(bars: Bars, rows: np.ndarray) -> Bars:
    """The same bars, those where `rows` (T,) holds missing."""
    blank = {name: np.where(rows, np.nan, getattr(bars, name)) for name in PRICES}
    return replace(bars, **blank, volume=np.where(rows, 0.0, bars.volume), present=bars.present & ~rows)


def real_bars(path: Path) -> Bars:
    """A parquet file of Binance's, stamped at the open, on the full grid."""
    frame = pd.read_parquet(path)
    close_ts_ns = frame["timestamp"].astype("datetime64[ns, UTC]").astype(np.int64).to_numpy() + BAR_NS
    row = (close_ts_ns - close_ts_ns[0]) // BAR_NS
    present = np.zeros(row[-1] + 1, np.bool_)
    present[row] = True
    table = {name: np.full(len(present), np.nan) for name in PRICES} | {"volume": np.zeros(len(present))}
    for name, values in table.items():
        values[row] = frame[name].to_numpy()
    return Bars(close_ts_ns=close_ts_ns[0] + BAR_NS * np.arange(len(present)), present=present, **table)


def column(data: MarketData, name: str) -> np.ndarray:
    return data.features[:, data.feature_names.index(name)]


def assert_same_bits(left: MarketData, right: MarketData, rows: slice, right_rows: slice) -> None:
    np.testing.assert_array_equal(left.features[rows].view(np.int32), right.features[right_rows].view(np.int32))
    np.testing.assert_array_equal(left.sigma[rows], right.sigma[right_rows])
    np.testing.assert_array_equal(left.mark[rows], right.mark[right_rows])
