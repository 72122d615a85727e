"""Stylised facts of 5-minute bars: what a market that passes for Bitcoin's has to show."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from btcai.data.frame import BAR_MS, parts
from btcai.errors import DataError
from btcai.schema import BARS_PER_YEAR, FloatArray

MEMORY_LAGS = (1, 12, 288, 2016)
"""Bars: 5 minutes, an hour, a day, a week."""

VOLUME_LAGS = (1, 12, 288)

RATIO_BARS = (3, 12, 48, 144, 288)
"""15 minutes, 1, 4, 12 hours, a day."""

BANDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "volatility": (0.44, 0.66),
        "excess_kurtosis": (30.0, 150.0),
        "skew": (-1.5, 0.0),
        "autocorrelation_1": (-0.05, 0.0),
        "autocorrelation_12": (-0.03, 0.03),
        "autocorrelation_288": (-0.03, 0.03),
        "autocorrelation_2016": (-0.03, 0.03),
        "size_autocorrelation_1": (0.27, 0.43),
        "size_autocorrelation_12": (0.17, 0.30),
        "size_autocorrelation_288": (0.10, 0.20),
        "size_autocorrelation_2016": (0.06, 0.16),
        "variance_ratio_3": (0.92, 1.00),
        "variance_ratio_12": (0.90, 0.99),
        "variance_ratio_48": (0.86, 0.98),
        "variance_ratio_144": (0.85, 0.99),
        "variance_ratio_288": (0.85, 1.01),
        "range_ratio": (0.94, 1.03),
        "volume_spread": (0.85, 1.35),
        "volume_size_correlation": (0.25, 0.60),
        "volume_autocorrelation_1": (0.77, 0.92),
        "volume_autocorrelation_12": (0.56, 0.83),
        "volume_autocorrelation_288": (0.30, 0.72),
    }
)
"""Around what Binance's BTC/USDT shows from 2022 to 2025: volatility, ranges and volume within those of its years."""

LEAST_BARS = 10 * max(MEMORY_LAGS)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One figure of a market and the band it is held against."""

    name: str
    value: float
    least: float
    most: float

    @property
    def holds(self) -> bool:
        return self.least <= self.value <= self.most


def stylised_facts(bars: pd.DataFrame) -> tuple[Fact, ...]:
    """Of a raw frame, in the order of BANDS; DataError where there are fewer than LEAST_BARS bars.

    Log returns of closes; none spans a gap. volatility: per year; size_autocorrelation: of absolute returns;
    variance_ratio_K: variance of K bars' returns over K times that of one (Lo & MacKinlay 1988, overlapping);
    range_ratio: volatility by high and low (Parkinson 1980) over that by closes. Of log volume, where there is any:
    volume_spread, its standard deviation; volume_size_correlation, with the absolute return. nan where nothing trades.
    """
    open_ms, values = parts(bars)
    if len(open_ms) < LEAST_BARS:
        raise DataError(f"facts of a market need at least {LEAST_BARS:,} bars, was {len(open_ms):,}; take more")
    slot = (open_ms - open_ms[0]) // BAR_MS
    log_close = np.full(int(slot[-1]) + 1, np.nan)
    log_close[slot] = np.log(values[:, 3])
    returns = np.diff(log_close)
    known = returns[~np.isnan(returns)]
    if not known.any():
        raise DataError("facts of a market need a price that moves, it never does; take another span")
    scaled = (known - known.mean()) / known.std()
    size, log_volume = np.abs(returns), np.full(len(log_close), np.nan)
    log_volume[slot] = np.log(np.where(values[:, 4] > 0, values[:, 4], np.nan))
    ranges = np.log(values[:, 1] / values[:, 2])
    found = {
        "volatility": float(known.std() * np.sqrt(BARS_PER_YEAR)),
        "excess_kurtosis": float((scaled**4).mean() - 3.0),
        "skew": float((scaled**3).mean()),
        **{f"autocorrelation_{lag}": autocorrelation(returns, lag) for lag in MEMORY_LAGS},
        **{f"size_autocorrelation_{lag}": autocorrelation(size, lag) for lag in MEMORY_LAGS},
        **{f"variance_ratio_{bars}": _variance_ratio(log_close, bars) for bars in RATIO_BARS},
        "range_ratio": float(np.sqrt((ranges**2).mean() / (4 * np.log(2)) / (known**2).mean())),
        **_volume_facts(log_volume, size),
    }
    return tuple(Fact(name=name, value=found[name], least=least, most=most) for name, (least, most) in BANDS.items())


def _volume_facts(log_volume: FloatArray, size: FloatArray) -> dict[str, float]:
    """Of (T,), nan where there is none, and absolute returns (T - 1,)."""
    lags = {f"volume_autocorrelation_{lag}": lag for lag in VOLUME_LAGS}
    traded = log_volume[np.isfinite(log_volume)]
    if not len(traded) or traded.min() == traded.max():
        return dict.fromkeys(["volume_spread", "volume_size_correlation", *lags], float("nan"))
    both = np.isfinite(log_volume[1:]) & np.isfinite(size)
    return {
        "volume_spread": float(traded.std()),
        "volume_size_correlation": float(np.corrcoef(log_volume[1:][both], size[both])[0, 1]),
        **{name: autocorrelation(log_volume, lag) for name, lag in lags.items()},
    }


def autocorrelation(series: FloatArray, lag: int) -> float:
    """Of series (T,) with itself lag steps later, over pairs of which both are known."""
    centred = series - np.nanmean(series)
    return float(np.nanmean(centred[lag:] * centred[:-lag]) / np.nanmean(centred * centred))


def _variance_ratio(log_close: FloatArray, n_bars: int) -> float:
    one, many = np.diff(log_close), log_close[n_bars:] - log_close[:-n_bars]
    mean = np.nanmean(one)
    return float(np.nanmean((many - n_bars * mean) ** 2) / (n_bars * np.nanmean((one - mean) ** 2)))
