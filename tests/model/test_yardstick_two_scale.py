"""Two drifts: one alone is a level, the estimates are conditional means, and simulation agrees with the programme."""

import numpy as np
import pytest

from btcai.yardstick.drift import DriftMarket, Level
from btcai.yardstick.scoring import policy_value_bps, simulated_optimum
from btcai.yardstick.two_scale import TwoScaleMarket, _coordinates, _steps


@pytest.mark.slow
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("scale", ["fast", "slow"])
def test_one_drift_alone_is_a_level(shown: bool, scale: str) -> None:
    market = TwoScaleMarket(shown=shown, **{"slow_bps" if scale == "fast" else "fast_bps": 1e-3})
    phi, s = (market.fast_phi, market.fast_bps) if scale == "fast" else (market.slow_phi, market.slow_bps)
    alone = DriftMarket(level=Level(phi=phi, s_bps=s, sigma_bps=30, cost_bps=5), shown=shown)
    assert market.optimum_bps == pytest.approx(alone.optimum_bps, rel=0.003)


@pytest.mark.slow
@pytest.mark.parametrize("patch_bars", [1, 28])
def test_both_scales_matter_to_every_bucket(patch_bars: int) -> None:
    both = TwoScaleMarket(shown=False, patch_bars=patch_bars).optimum_bps
    for blind in ({"fast_bps": 1e-3}, {"slow_bps": 1e-3}):
        assert TwoScaleMarket(shown=False, patch_bars=patch_bars, **blind).optimum_bps < 0.8 * both


def test_the_slow_drift_is_worth_more_to_the_long_bucket() -> None:
    def share(patch_bars: int) -> float:
        slow, both = (TwoScaleMarket(shown=False, patch_bars=patch_bars, fast_bps=fast) for fast in (1e-3, 8.0))
        return slow.optimum_bps / both.optimum_bps

    assert share(1) == pytest.approx(0.60, abs=0.01)
    assert share(28) == pytest.approx(0.78, abs=0.01)


def test_estimates_are_the_conditional_means_of_the_drifts() -> None:
    market, n = TwoScaleMarket(shown=False, slow_phi=0.98, fast_phi=0.8), 500
    paths = market.simulate(n, 1, seed=3)
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    covariance = 30.0**2 * np.eye(n)
    for phi, s in zip(market.phi, market.spread_bps, strict=True):
        covariance += s**2 * phi**lags
    weights = np.linalg.solve(covariance, 1e4 * paths.bar_returns[0])
    ahead = n - np.arange(n)  # return t is driven by the drifts of t - 1
    expected = [s**2 * phi**ahead @ weights for phi, s in zip(market.phi, market.spread_bps, strict=True)]
    assert market._seen_bps(paths)[:, 0, -1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("patch_bars", [1, 10])
@pytest.mark.parametrize("shown", [True, False])
def test_what_is_seen_moves_as_the_programme_says(shown: bool, patch_bars: int) -> None:
    market = TwoScaleMarket(shown=shown, patch_bars=patch_bars)
    seen = market._seen_bps(market.simulate(200_000 // patch_bars, 8, seed=4))[:, :, 2000 // patch_bars :]
    steps = seen[:, :, 1:] - (market.phi**patch_bars)[:, None, None] * seen[:, :, :-1]
    step, stationary = _steps(market)
    assert np.cov(steps.reshape(2, -1)) == pytest.approx(step, rel=0.03, abs=0.02 * step.max())
    assert np.cov(seen.reshape(2, -1)) == pytest.approx(stationary, rel=0.15, abs=0.02 * stationary.max())


def test_bar_by_bar_the_estimates_move_along_one_line() -> None:
    assert _coordinates(TwoScaleMarket(shown=False))[1] == pytest.approx(0.0, abs=1e-6)
    assert _coordinates(TwoScaleMarket(shown=False, patch_bars=28))[1] > 0.1


def test_all_buckets_trade_the_same_bars() -> None:
    fine = TwoScaleMarket(shown=True, patch_bars=1).simulate(280, 1, seed=5)
    coarse = TwoScaleMarket(shown=True, patch_bars=28).simulate(10, 1, seed=5)
    np.testing.assert_array_equal(fine.bar_returns, coarse.bar_returns)
    np.testing.assert_array_equal(fine.signals["fast"][:, 27::28], coarse.at_decisions("fast"))


def test_expected_return_is_that_of_the_whole_patch() -> None:
    # a drift of 8 bp that halves every bar earns 8 + 4 + 2 bp in the next three
    market = TwoScaleMarket(shown=True, patch_bars=3, fast_phi=0.5, slow_bps=1e-9)
    paths = market.simulate(4, 1, seed=6)
    assert paths.expected == pytest.approx(paths.at_decisions("fast") * 14e-4, rel=1e-6)


def test_optimal_positions_beat_those_of_a_shifted_policy() -> None:
    market = TwoScaleMarket(shown=False)
    paths = market.simulate(100_000, 8, seed=7)
    best = market.optimal_positions(paths)
    naive = (market._seen_bps(paths).sum(0) > 0).astype(float)  # right about the sign, blind to costs
    late = np.roll(best, 3, axis=1)
    value = [policy_value_bps(p, paths.expected, 5.0).mean() for p in (best, naive, late)]
    assert value[0] > 1.02 * max(value[1:])


@pytest.mark.slow
@pytest.mark.parametrize("patch_bars", [1, 28])
@pytest.mark.parametrize("shown", [True, False])
def test_optimal_policy_earns_the_optimum_on_simulated_paths(shown: bool, patch_bars: int) -> None:
    market = TwoScaleMarket(shown=shown, patch_bars=patch_bars)
    found = simulated_optimum(market, n_paths=256, n_decisions=100_000 // patch_bars, seed=20)
    assert found.error_bps < 0.003 * market.optimum_bps
    assert found.value_bps == pytest.approx(market.optimum_bps, rel=0.01)
