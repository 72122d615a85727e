"""The yardstick as bars and rules: the execution model pays what the formula says."""

import numpy as np
import pytest
from market_world import Trader

from btcai.schema import BAR_NS, Action
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.interaction import InteractionMarket
from btcai.yardstick.paths import YardstickMarket
from btcai.yardstick.trading import LOT_FRAC, RETURN_SCALE, yardstick_data, yardstick_rules
from btcai.yardstick.two_scale import TwoScaleMarket


@pytest.mark.parametrize("patch_bars", [1, 2, 10, 28])
def test_kernel_pays_what_the_formula_says(patch_bars: int) -> None:
    market = DriftMarket(level=LEVELS["easy"], shown=False, patch_bars=patch_bars)
    data, paths = yardstick_data(market, 400, seed=8)
    returns, positions = paths.returns[0], market.optimal_positions(paths)[0]
    assert np.abs(np.diff(positions)).sum() > 5
    trader = Trader(data, yardstick_rules(market.cost_bps, patch_bars), 100_000.0)
    trader.t = patch_bars - 1  # the close of the first patch
    before, entry = 0.0, np.nan
    for k in range(398):
        close = data.bars.close[trader.t]
        action = (Action.HOLD, Action.BUY, Action.SELL)[int(positions[k] - before)]
        reward, _ = trader.decide(action, LOT_FRAC)
        formula = positions[k] * returns[k + 1] - market.cost_bps / 1e4 * abs(positions[k] - before)
        entry = close if action == Action.BUY else entry
        grown = close / entry if positions[k] or before else 1.0  # the lot's BTC are fixed at entry
        # the returns of a patch's bars are added in the formula and multiplied in the market
        tolerance = LOT_FRAC * (0.0 if patch_bars == 1 else (5 * RETURN_SCALE * 30e-4) ** 2)
        assert reward == pytest.approx(LOT_FRAC * RETURN_SCALE * formula * grown, rel=1e-6, abs=tolerance + 1e-14)
        before = positions[k]


@pytest.mark.parametrize(
    ("market", "signals"),
    [
        (DriftMarket(level=LEVELS["hard"], shown=True), ["drift"]),
        (DriftMarket(level=LEVELS["hard"], shown=False, patch_bars=10), []),
        (TwoScaleMarket(shown=True, patch_bars=2), ["fast", "slow"]),
        (InteractionMarket(n_signals=2), ["signal_1", "signal_2", "direction_1", "direction_2"]),
    ],
    ids=["shown", "hidden", "two scales", "interaction"],
)
def test_market_is_on_the_grid_and_shows_what_it_should(market: YardstickMarket, signals: list[str]) -> None:
    data, paths = yardstick_data(market, 50, seed=1, n_noise_features=4)
    n_bars = 50 * market.patch_bars
    assert list(data.feature_names) == ["return_sigmas", *signals, *(f"noise_0{i}" for i in range(4)), "mask"]
    assert data.features.shape == (n_bars, len(data.feature_names))
    assert data.features.dtype == np.float32
    assert (data.features[:, -1] == 1).all()
    np.testing.assert_array_equal(data.bars.open[1:], data.bars.close[:-1])
    np.testing.assert_array_equal(np.diff(data.bars.close_ts_ns), BAR_NS)
    assert data.sigma == pytest.approx(market.bar_sigma_bps / 1e4 * RETURN_SCALE)
    np.testing.assert_allclose(data.features[:, 0] * market.bar_sigma_bps / 1e4, paths.bar_returns[0], rtol=1e-5)
    for column, name in enumerate(signals, start=1):
        np.testing.assert_allclose(data.features[:, column], paths.signals[name][0], rtol=1e-6)


@pytest.mark.parametrize("patch_bars", [1, 2, 10, 28])
def test_decisions_are_on_the_absolute_clock(patch_bars: int) -> None:
    data, _ = yardstick_data(DriftMarket(level=LEVELS["hard"], shown=False, patch_bars=patch_bars), 3, seed=1)
    on_clock = np.flatnonzero(data.bars.close_ts_ns // BAR_NS % patch_bars == 0)
    np.testing.assert_array_equal(on_clock, np.arange(patch_bars - 1, 3 * patch_bars, patch_bars))


def test_same_seed_gives_the_same_market() -> None:
    market = DriftMarket(level=LEVELS["hard"], shown=True)
    first, again, other = (yardstick_data(market, 50, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.features, again.features)
    assert not np.array_equal(first.features, other.features)
