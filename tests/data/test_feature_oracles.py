"""Features against TA-Lib, where it has them, and against numbers worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import talib
from feature_bars import walk

from btcai.features.pipeline import build_market
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.schema import Bars, MarketData

SETTLED = slice(WARMUP_BARS, None)


@pytest.fixture(scope="module")
def data() -> MarketData:
    return build_market(walk(3000, seed=20))


def column(data: MarketData, name: str) -> np.ndarray:
    return data.features[:, FEATURE_NAMES.index(name)]


def assert_equal_to_talib(data: MarketData, name: str, oracle: np.ndarray) -> None:
    """TA-Lib keeps running sums, which drift: five digits."""
    np.testing.assert_allclose(column(data, name)[SETTLED], oracle[SETTLED], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("bars", [1, 3, 12, 36, 72, 288, 2016])
def test_returns_are_the_log_of_rocr(data: MarketData, bars: int) -> None:
    oracle = np.log(talib.ROCR(data.bars.close, bars)) / (data.sigma * math.sqrt(bars))
    assert_equal_to_talib(data, f"return_{bars}", oracle)


def test_sigma_is_stddev_of_one_bar_returns(data: MarketData) -> None:
    returns = np.log(talib.ROCR(data.bars.close, 1))
    returns[0] = 0.0
    np.testing.assert_allclose(data.sigma[SETTLED], talib.STDDEV(returns, 288)[SETTLED], rtol=1e-6)


@pytest.mark.parametrize("window", [20, 144])
def test_bollinger_is_the_close_between_the_bands(data: MarketData, window: int) -> None:
    upper, middle, _ = talib.BBANDS(data.bars.close, window, 1.0, 1.0)
    assert_equal_to_talib(data, f"bollinger_{window}", (data.bars.close - middle) / (upper - middle))


@pytest.mark.parametrize("window", [288, 2016])
def test_range_position_is_willr(data: MarketData, window: int) -> None:
    bars = data.bars
    oracle = 1 + talib.WILLR(bars.high, bars.low, bars.close, window) / 50
    assert_equal_to_talib(data, f"range_position_{window}", oracle)


def test_drawdown_reads_max(data: MarketData) -> None:
    oracle = np.log(data.bars.close / talib.MAX(data.bars.high, 2016)) / (data.sigma * math.sqrt(2016))
    assert_equal_to_talib(data, "drawdown_2016", oracle)


@pytest.mark.parametrize("window", [72, 288, 2016])
def test_trend_is_correl_with_time_and_the_scaled_slope_of_the_regression(data: MarketData, window: int) -> None:
    close = data.bars.close
    assert_equal_to_talib(data, f"trend_{window}", talib.CORREL(close, np.arange(3000.0), window))
    time_std = math.sqrt((window**2 - 1) / 12)
    slope = talib.LINEARREG_SLOPE(close, window) * time_std / talib.STDDEV(close, window)
    assert_equal_to_talib(data, f"trend_{window}", slope)


def test_rsi_is_the_seed_of_wilders_a_simple_mean_that_its_later_values_smooth_without_an_end(
    data: MarketData,
) -> None:
    close = data.bars.close
    for row in (2100, 2500, 2999):
        seed = talib.RSI(close[row - 14 : row + 1], 14)[-1]
        assert column(data, "rsi_14")[row] == pytest.approx(seed / 50 - 1, abs=1e-6)
    assert abs(column(data, "rsi_14")[2999] - (talib.RSI(close, 14)[2999] / 50 - 1)) > 0.01


def test_money_flow_is_the_change_of_the_accumulation_line_over_the_volume(data: MarketData) -> None:
    bars = data.bars
    line = talib.AD(bars.high, bars.low, bars.close, bars.volume)
    oracle = np.full(3000, np.nan)
    oracle[72:] = (line[72:] - line[:-72]) / talib.SUM(bars.volume, 72)[72:]
    assert_equal_to_talib(data, "money_flow_72", oracle)


def test_vwap_over_twap_is_the_mean_close_by_volume_over_the_plain_one(data: MarketData) -> None:
    bars = data.bars
    paid = talib.SUM(bars.close * bars.volume, 288) / talib.SUM(bars.volume, 288)
    oracle = np.log(paid / talib.SMA(bars.close, 288)) / (data.sigma * math.sqrt(288))
    assert_equal_to_talib(data, "vwap_twap_288", oracle)


def test_volume_move_is_correl_of_volume_and_the_size_of_the_return(data: MarketData) -> None:
    size = np.abs(np.log(talib.ROCR(data.bars.close, 1)))
    size[0] = 0.0
    assert_equal_to_talib(data, "volume_move_288", talib.CORREL(data.bars.volume, size, 288))


# --- by hand -----------------------------------------------------------------------------------------------------


def bars_of(returns: np.ndarray, half_range: float = 0.0) -> Bars:
    """Bars of these log returns, whose high and low lie half_range (log) around open and close."""
    n = len(returns)
    close = 100.0 * np.exp(np.cumsum(returns))
    open_ = np.concatenate(([100.0], close[:-1]))
    return replace(
        walk(n, seed=0),
        open=open_,
        close=close,
        high=np.maximum(open_, close) * math.exp(half_range),
        low=np.minimum(open_, close) * math.exp(-half_range),
        volume=np.ones(n),
    )


def last(bars: Bars, name: str) -> float:
    return float(column(build_market(bars), name)[-1])


def test_prices_that_bounce_between_bid_and_ask() -> None:
    bounce = bars_of(np.tile([0.01, -0.01], 400))
    assert last(bounce, "autocorrelation_288") == pytest.approx(-1)
    assert last(bounce, "roll_72") == pytest.approx(2.0)  # every bar crosses the spread: 2 sigma of one bar
    assert last(bounce, "variance_ratio_12_288") == pytest.approx(math.log(1e-5 / 0.01))  # 12 bars: nowhere
    assert last(bounce, "efficiency_72") == pytest.approx(0, abs=1e-9)
    assert last(bounce, "signed_variance_288") == pytest.approx(0, abs=1e-9)
    assert last(bounce, "jump_288") == pytest.approx(1 - math.pi / 2)


def test_prices_that_only_rise() -> None:
    rise = bars_of(np.tile([0.01, 0.03], 400))
    assert last(rise, "efficiency_288") == pytest.approx(1)
    assert last(rise, "signed_variance_288") == pytest.approx(1)
    assert last(rise, "roll_72") == 0
    assert last(rise, "rsi_14") == 1
    slow, fast = (0.24**2) / 12, (0.01**2 + 0.03**2) / 2
    assert last(rise, "variance_ratio_12_288") == pytest.approx(0.5 * math.log(slow / fast))


def test_one_jump_in_a_market_at_rest_is_all_jump() -> None:
    returns = np.zeros(700)
    returns[600] = 0.05
    assert last(bars_of(returns), "jump_288") == pytest.approx(1)


def test_corwin_schultz_finds_the_spread_of_a_price_that_stands_still() -> None:
    """Bars that all run from bid to ask: beta = 2 s^2, gamma = s^2, alpha = s; the spread is 2 tanh(s / 2)."""
    returns = np.zeros(700)
    returns[500] = 1e-3  # sigma must not sit on its floor
    bars = bars_of(returns, half_range=0.001)
    data = build_market(bars)
    calm = column(data, "corwin_schultz_288")[480:499] * data.sigma[480:499]
    np.testing.assert_allclose(calm, 2 * math.tanh(0.001), rtol=1e-5)


def test_parkinson_of_bars_whose_range_is_one_percent() -> None:
    bars = bars_of(np.zeros(700), half_range=0.005)
    assert last(bars, "parkinson_std_72") == pytest.approx(math.log(0.01 / math.sqrt(math.log(16)) / 1e-5), rel=1e-6)


def test_a_bar_hardly_traded_cannot_own_illiquidity() -> None:
    returns = np.tile([0.01, -0.01], 1500)
    bars = bars_of(returns)
    thin = replace(bars, volume=np.where(np.arange(3000) == 2990, 1e-9, 1.0))
    assert last(bars, "illiquidity_72_2016") == pytest.approx(0, abs=1e-2)
    assert last(thin, "illiquidity_72_2016") == pytest.approx(math.log(72 / 71), abs=1e-2)
