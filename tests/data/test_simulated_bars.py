"""The embedded market: stylised facts, clean bars, and the same bits on every processor."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from btcai.data.store import content_sha256
from btcai.schema import BARS_PER_YEAR, RAW_COLUMNS, FloatArray
from btcai.simulator.bars import DEFAULT_BARS, DEFAULT_SEED, simulate_bars

DEFAULT_SHA256 = "16f214af628ed5b99d8b63fdb19df8b7a4cdd330c106151f6376acbc10d9b2c4"


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return simulate_bars(DEFAULT_BARS, DEFAULT_SEED)


@pytest.fixture(scope="module")
def log_returns(bars: pd.DataFrame) -> FloatArray:
    return np.asarray(np.diff(np.log(bars["close"].to_numpy())), dtype=np.float64)


def autocorrelation(x: FloatArray, lag: int) -> float:
    x = x - x.mean()
    return float((x[lag:] * x[:-lag]).mean() / (x * x).mean())


def test_default_market_covers_three_years_from_2022_without_a_gap(bars: pd.DataFrame) -> None:
    assert tuple(bars.columns) == RAW_COLUMNS
    assert str(bars["open_time"].dtype) == "datetime64[ms, UTC]"
    assert bars["open_time"].iloc[0] == pd.Timestamp("2022-01-01", tz="UTC")
    assert (bars["open_time"].diff().iloc[1:] == pd.Timedelta(minutes=5)).all()
    assert len(bars) >= 3 * BARS_PER_YEAR


def test_default_market_has_the_published_hash(bars: pd.DataFrame) -> None:
    assert content_sha256(bars) == DEFAULT_SHA256


def test_bars_are_consistent_and_open_within_a_tick_of_the_last_close(bars: pd.DataFrame) -> None:
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
    assert (bars["low"] > 0).all()
    assert (bars["volume"] > 0).all()
    assert (bars["open"] - bars["close"].shift(1)).abs().max() < 0.0101


def test_values_are_the_doubles_that_their_decimals_read_as(bars: pd.DataFrame) -> None:
    head = bars.head(2000)
    assert all(float(f"{value:.2f}") == value for value in head["close"])
    assert all(float(f"{value:.5f}") == value for value in head["volume"])


def test_returns_have_the_volatility_and_the_tails_of_bitcoin(log_returns: FloatArray) -> None:
    scaled = log_returns / log_returns.std()
    assert 0.45 < log_returns.std() * np.sqrt(BARS_PER_YEAR) < 0.70
    assert 20 < (scaled**4).mean() - 3 < 120
    assert -1.0 < (scaled**3).mean() < -0.1
    assert -0.06 < autocorrelation(log_returns, 1) < 0.01


@pytest.mark.parametrize(
    ("lag", "least", "most"), [(1, 0.25, 0.45), (12, 0.18, 0.35), (288, 0.10, 0.25), (2016, 0.04, 0.2)]
)
def test_size_of_returns_remembers(log_returns: FloatArray, lag: int, least: float, most: float) -> None:
    assert least < autocorrelation(np.abs(log_returns), lag) < most


def test_the_american_open_is_livelier_than_the_asian_night_and_sunday(
    bars: pd.DataFrame, log_returns: FloatArray
) -> None:
    size, time = pd.Series(np.abs(log_returns)), bars["open_time"].iloc[1:]
    by_hour = size.groupby(time.dt.hour.to_numpy()).mean()
    by_day = size.groupby(time.dt.day_of_week.to_numpy()).mean()
    assert by_hour[14] > 1.5 * by_hour[4]
    assert by_day[2] > 1.3 * by_day[6]


def test_volume_follows_volatility(bars: pd.DataFrame, log_returns: FloatArray) -> None:
    assert np.corrcoef(np.abs(log_returns), bars["volume"].to_numpy()[1:])[0, 1] > 0.3


def test_longer_market_begins_with_the_shorter_one() -> None:
    pd.testing.assert_frame_equal(simulate_bars(500, 3), simulate_bars(900, 3).head(500))


def test_seed_decides_the_market() -> None:
    assert content_sha256(simulate_bars(300, 1)) == content_sha256(simulate_bars(300, 1))
    assert content_sha256(simulate_bars(300, 1)) != content_sha256(simulate_bars(300, 2))


def test_no_bars_is_refused() -> None:
    with pytest.raises(ValueError, match="n_bars must be >= 1, was 0"):
        simulate_bars(0, 1)


@pytest.mark.slow
def test_hash_is_the_same_without_vector_units_in_numpy_and_in_compiled_loops(tmp_path: Path) -> None:
    script = (
        "from btcai.data import store; from btcai.simulator import bars;"
        "import sys; sys.stdout.write(store.content_sha256(bars.simulate_bars(bars.DEFAULT_BARS, bars.DEFAULT_SEED)))"
    )
    # numpy warns about features that the processor lacks or that it does not dispatch on: name only those in use
    cpu = importlib.import_module("numpy._core._multiarray_umath")
    in_use = " ".join(name for name in cpu.__cpu_dispatch__ if cpu.__cpu_features__[name])
    plain = {"NPY_DISABLE_CPU_FEATURES": in_use, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    env = {**os.environ, **plain, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == DEFAULT_SHA256, done.stderr
