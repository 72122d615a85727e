"""One drift: its optimum against published figures, an independent Markov chain, brute force and simulation."""

import numpy as np
import pytest
from scipy import stats

from btcai.schema import FloatArray
from btcai.yardstick.drift import LEVELS, DriftMarket, Level
from btcai.yardstick.dynamic_programming import transition
from btcai.yardstick.kalman import steady_filter
from btcai.yardstick.paths import shown_in_bars
from btcai.yardstick.scoring import simulated_optimum

HIDDEN_BPS = {"easy": 4.665, "medium": 2.344, "hard": 1.427, "very_hard": 0.695}
MILD = Level(phi=0.98, s_bps=5, sigma_bps=30, cost_bps=5)


def thresholds(market: DriftMarket) -> FloatArray:
    (grid,) = market.optimum.axes
    return np.interp((market.cost_bps, -market.cost_bps), market.optimum.worth_bps, grid)


@pytest.mark.parametrize("name", LEVELS)
def test_hidden_optimum_is_the_analytic_one(name: str) -> None:
    market = DriftMarket(level=LEVELS[name], shown=False)
    assert market.optimum_bps == pytest.approx(HIDDEN_BPS[name], rel=0.001)


def test_shown_optimum_is_the_analytic_one() -> None:
    assert DriftMarket(level=MILD, shown=True).optimum_bps == pytest.approx(1.85, abs=0.01)


@pytest.mark.parametrize("name", LEVELS)
def test_seeing_the_drift_is_worth_more_than_filtering_it(name: str) -> None:
    shown, hidden = (DriftMarket(level=LEVELS[name], shown=shown).optimum_bps for shown in (True, False))
    assert shown > 1.1 * hidden


def test_without_cost_one_holds_whenever_the_drift_is_positive() -> None:
    market = DriftMarket(level=Level(phi=0.9, s_bps=10, sigma_bps=30, cost_bps=1e-6), shown=True)
    assert market.optimum_bps == pytest.approx(10 / np.sqrt(2 * np.pi), rel=1e-3)  # E max(0, N(0, 10))
    assert thresholds(market) == pytest.approx([0.0, 0.0], abs=0.06)


def test_without_memory_only_the_next_return_counts() -> None:
    # D has mean zero by symmetry, so Q = drift: buy above the cost; g = E max(0, N(0, 10) - 5) = 10 (pdf - z sf) at .5
    market = DriftMarket(level=Level(phi=0.0, s_bps=10, sigma_bps=30, cost_bps=5), shown=True)
    z = 0.5
    assert market.optimum_bps == pytest.approx(10 * (stats.norm.pdf(z) - z * stats.norm.sf(z)), rel=1e-3)
    assert thresholds(market) == pytest.approx([5.0, -5.0], abs=0.06)


def brute_force_value_bps(level: Level, points: int = 241) -> float:
    """Relative value iteration on h(position, drift) itself, transitions by exact cell probabilities."""
    edges = np.linspace(-5 * level.s_bps, 5 * level.s_bps, points + 1)
    drift = (edges[:-1] + edges[1:]) / 2
    within = stats.norm.cdf((edges - level.phi * drift[:, None]) / (level.s_bps * np.sqrt(1 - level.phi**2)))
    move = np.diff(within, axis=1)
    move /= move.sum(1, keepdims=True)
    worth, gain = np.zeros((2, points)), 0.0
    for _ in range(3000):
        ahead = worth @ move.T
        flat, held = ahead[0], ahead[1] + drift
        updated = np.stack([np.maximum(flat, held - level.cost_bps), np.maximum(flat - level.cost_bps, held)])
        gain = updated[0, points // 2]
        worth = updated - gain
    return float(gain)


def test_optimum_is_that_of_plain_value_iteration() -> None:
    level = Level(phi=0.9, s_bps=10, sigma_bps=30, cost_bps=5)
    assert DriftMarket(level=level, shown=True).optimum_bps == pytest.approx(brute_force_value_bps(level), rel=0.002)


def chain_value_bps(level: Level, buy: float, sell: float) -> float:
    """Average reward of a threshold policy by the stationary law of a Markov chain on (position, drift)."""
    sd = level.s_bps
    edges = np.linspace(-5 * sd, 5 * sd, 402)
    drift = (edges[:-1] + edges[1:]) / 2
    upper = stats.norm.cdf((edges[1:] - level.phi * drift[:, None]) / (sd * np.sqrt(1 - level.phi**2)))
    move = np.diff(upper, axis=1, prepend=0.0)
    move /= move.sum(1, keepdims=True)
    long_after = [(drift > buy).astype(float), 1.0 - (drift < sell)]  # from flat, from long
    flat, held = np.full(401, 0.5 / 401), np.full(401, 0.5 / 401)  # law of (position before, drift)
    for _ in range(2000):
        now_held = flat * long_after[0] + held * long_after[1]
        flat, held = (flat + held - now_held) @ move, now_held @ move
    trades = flat * long_after[0] + held * (1 - long_after[1])
    return float((now_held * drift).sum() - level.cost_bps * trades.sum())


def test_no_other_thresholds_beat_the_optimal_ones() -> None:
    market = DriftMarket(level=MILD, shown=True)
    best = thresholds(market)
    at_best = chain_value_bps(MILD, *best)
    assert at_best == pytest.approx(market.optimum_bps, rel=0.01)
    for factor in (0.6, 1.5):
        assert chain_value_bps(MILD, *(factor * best)) < at_best


def test_transition_keeps_mean_and_variance() -> None:
    grid = np.linspace(-6, 6, 241)
    move = transition(grid, 0.9, 0.4)
    middle = slice(60, 181)
    assert move.sum(1) == pytest.approx(1.0)
    assert (move @ grid)[middle] == pytest.approx(0.9 * grid[middle], abs=1e-9)
    assert (move @ grid**2 - (move @ grid) ** 2)[middle] == pytest.approx(0.16, rel=0.01)


def test_filter_of_one_drift_solves_its_quadratic_equation() -> None:
    # P = phi^2 P R / (P + R) + s^2 (1 - phi^2); with phi = .5, s^2 = 4, R = 3: P^2 - .75 P - 9 = 0, P = 3.3983
    found = steady_filter(np.array([0.5]), np.array([2.0]), np.sqrt(3.0))
    error = (0.75 + np.sqrt(0.75**2 + 36)) / 2
    assert found.error_covariance[0, 0] == pytest.approx(error)
    assert found.gain[0] == pytest.approx(error / (error + 3))
    assert found.innovation_covariance[0, 0] / (1 - 0.25) == pytest.approx(4 - error)  # the estimate's own variance


def test_estimate_is_the_conditional_mean_of_the_drift() -> None:
    level, n = LEVELS["easy"], 400
    market = DriftMarket(level=level, shown=False)
    paths = market.simulate(n, 1, seed=5)
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    covariance = level.s_bps**2 * level.phi**lags + level.sigma_bps**2 * np.eye(n)
    with_last = level.s_bps**2 * level.phi ** (n - np.arange(n))  # return t is driven by drift t - 1
    expected = with_last @ np.linalg.solve(covariance, paths.returns[0])
    assert market.estimate(paths)[0, -1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("patch_bars", [1, 10])
def test_drift_moves_the_next_return_and_not_its_own(patch_bars: int) -> None:
    level = Level(phi=0.0, s_bps=30, sigma_bps=10, cost_bps=5)
    paths = DriftMarket(level=level, shown=True, patch_bars=patch_bars).simulate(50_000, 1, seed=1)
    drift, returns = paths.expected[0], paths.returns[0]
    assert np.corrcoef(drift[:-1], returns[1:])[0, 1] == pytest.approx(30 / np.hypot(30, 10), abs=0.01)
    assert np.corrcoef(drift, returns)[0, 1] == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("patch_bars", [1, 2, 10, 28])
def test_every_bucket_has_the_levels_spread_and_memory_a_patch(patch_bars: int) -> None:
    level = LEVELS["easy"]
    market = DriftMarket(level=level, shown=False, patch_bars=patch_bars)
    paths = market.simulate(20_000, 8, seed=2)
    expected, returns = paths.expected * 1e4, paths.returns * 1e4
    assert expected.std() == pytest.approx(level.s_bps, rel=0.03)
    assert np.corrcoef(expected[:, :-1].ravel(), expected[:, 1:].ravel())[0, 1] == pytest.approx(level.phi, abs=0.002)
    noise = returns[:, 1:] - expected[:, :-1]
    assert noise.std() == pytest.approx(level.sigma_bps, rel=0.01)
    assert np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1] == pytest.approx(0.0, abs=0.01)
    bar_noise = (
        paths.bar_returns * 1e4 - np.repeat(np.c_[returns[:, :1] * 0, expected[:, :-1]], patch_bars, 1) / patch_bars
    )
    assert bar_noise[:, patch_bars:].std() == pytest.approx(market.bar_sigma_bps, rel=0.01)


def test_every_bucket_has_the_same_optimum() -> None:
    found = {DriftMarket(level=MILD, shown=False, patch_bars=patch).optimum_bps for patch in (1, 2, 10, 28)}
    assert len(found) == 1


@pytest.mark.parametrize("patch_bars", [2, 10, 28])
def test_every_bucket_sees_the_shown_drift_and_is_paid_alike_draw_by_draw(patch_bars: int) -> None:
    fine, coarse = (DriftMarket(level=MILD, shown=True, patch_bars=patch) for patch in (1, patch_bars))
    by_bar, by_patch = fine.simulate(500, 2, seed=3), coarse.simulate(500, 2, seed=3)
    np.testing.assert_array_equal(by_patch.expected, by_bar.expected)
    np.testing.assert_array_equal(by_patch.at_decisions("drift"), by_bar.at_decisions("drift"))
    np.testing.assert_array_equal(coarse.optimal_positions(by_patch), fine.optimal_positions(by_bar))


def test_a_decision_sees_its_drift_at_its_own_close_and_not_before() -> None:
    np.testing.assert_array_equal(shown_in_bars(np.array([[7.0, 8.0]]), 3), [[0, 0, 7, 7, 7, 8]])
    paths = DriftMarket(level=MILD, shown=True, patch_bars=3).simulate(5, 2, seed=0)
    np.testing.assert_allclose(paths.at_decisions("drift") * 5e-4, paths.expected)


def test_same_seed_gives_the_same_paths() -> None:
    market = DriftMarket(level=MILD, shown=True, patch_bars=2)
    first, again, other = (market.simulate(50, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.bar_returns, again.bar_returns)
    np.testing.assert_array_equal(first.expected, again.expected)
    assert not np.array_equal(first.bar_returns, other.bar_returns)


@pytest.mark.slow
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("name", LEVELS)
def test_optimal_policy_earns_the_optimum_on_simulated_paths(name: str, shown: bool) -> None:
    market = DriftMarket(level=LEVELS[name], shown=shown)
    found = simulated_optimum(market, n_paths=256, n_decisions=100_000, seed=20)
    assert found.error_bps < 0.003 * market.optimum_bps
    assert found.value_bps == pytest.approx(market.optimum_bps, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("patch_bars", [2, 10, 28])
def test_optimal_policy_earns_the_optimum_through_the_bars_of_a_patch(patch_bars: int) -> None:
    market = DriftMarket(level=LEVELS["easy"], shown=False, patch_bars=patch_bars)
    found = simulated_optimum(market, n_paths=48, n_decisions=50_000, seed=20)
    assert found.value_bps == pytest.approx(market.optimum_bps, rel=0.01)
