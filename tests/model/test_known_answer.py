"""The known answers: against published figures, an independent Markov chain, brute force and simulation."""

import numpy as np
import pytest
from market_world import Trader
from scipy import stats

from btcai.market.known_answer import (
    LEVELS,
    LOT_FRAC,
    RETURN_SCALE,
    Level,
    Optimum,
    filtered_drift,
    hidden_optimum,
    hidden_positions,
    known_answer_market,
    known_answer_rules,
    policy_value_bps,
    score,
    shown_optimum,
    shown_positions,
    simulate_paths,
)
from btcai.schema import BAR_NS, Action, FloatArray

HIDDEN_BPS = {"easy": 4.665, "medium": 2.344, "hard": 1.427, "very_hard": 0.695}


@pytest.mark.parametrize("name", LEVELS)
def test_hidden_optimum_is_the_analytic_one(name: str) -> None:
    assert hidden_optimum(LEVELS[name]).value_bps == pytest.approx(HIDDEN_BPS[name], rel=0.005)


def test_shown_optimum_is_the_analytic_one() -> None:
    assert shown_optimum(Level(phi=0.98, s_bps=5, sigma_bps=30, cost_bps=5)).value_bps == pytest.approx(1.85, abs=0.01)


@pytest.mark.parametrize("name", LEVELS)
def test_seeing_the_drift_is_worth_more_than_filtering_it(name: str) -> None:
    assert shown_optimum(LEVELS[name]).value_bps > 1.1 * hidden_optimum(LEVELS[name]).value_bps


def test_without_cost_one_holds_whenever_the_drift_is_positive() -> None:
    best = shown_optimum(Level(phi=0.9, s_bps=10, sigma_bps=30, cost_bps=1e-6))
    assert best.value_bps == pytest.approx(10 / np.sqrt(2 * np.pi), rel=1e-3)  # E max(0, N(0, 10))
    assert best.buy_above_bps == pytest.approx(0.0, abs=0.05)


def chain_value_bps(phi: float, sd: float, cost: float, buy: float, sell: float) -> float:
    """Average reward of a threshold policy by the stationary law of a Markov chain on (position, drift)."""
    edges = np.linspace(-5 * sd, 5 * sd, 402)
    drift = (edges[:-1] + edges[1:]) / 2
    upper = stats.norm.cdf((edges[1:] - phi * drift[:, None]) / (sd * np.sqrt(1 - phi**2)))
    move = np.diff(upper, axis=1, prepend=0.0)
    move /= move.sum(1, keepdims=True)
    keep = ((drift <= buy) & (drift >= sell)).astype(float)
    long_after = [(drift > buy).astype(float), 1.0 - (drift < sell)]  # from flat, from long
    flat, held = np.full(401, 0.5 / 401), np.full(401, 0.5 / 401)  # law of (position before, drift)
    assert keep.any()
    for _ in range(6000):
        now_held = flat * long_after[0] + held * long_after[1]
        flat, held = (flat + held - now_held) @ move, now_held @ move
    trades = flat * long_after[0] + held * (1 - long_after[1])
    return float((now_held * drift).sum() - cost * trades.sum())


def test_no_other_thresholds_beat_the_optimal_ones() -> None:
    level = Level(phi=0.98, s_bps=5, sigma_bps=30, cost_bps=5)
    best: Optimum = shown_optimum(level)
    at_best = chain_value_bps(level.phi, level.s_bps, level.cost_bps, best.buy_above_bps, best.sell_below_bps)
    assert at_best == pytest.approx(best.value_bps, rel=0.01)
    for factor in (0.6, 1.5):
        other = (best.buy_above_bps * factor, best.sell_below_bps * factor)
        assert chain_value_bps(level.phi, level.s_bps, level.cost_bps, *other) < at_best


def test_filter_is_the_conditional_mean_of_the_drift() -> None:
    level, n = LEVELS["easy"], 400
    returns, _ = simulate_paths(level, n, 1, seed=5)
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    covariance = level.s_bps**2 * level.phi**lags + level.sigma_bps**2 * np.eye(n)
    with_last = level.s_bps**2 * level.phi ** (n - np.arange(n))  # return t is driven by drift t - 1
    expected = with_last @ np.linalg.solve(covariance, returns[0])
    assert filtered_drift(returns, level)[0, -1] == pytest.approx(expected, rel=1e-6)


def test_drift_moves_the_next_return_and_not_its_own() -> None:
    level = Level(phi=0.0, s_bps=30, sigma_bps=10, cost_bps=5)
    returns, drift = simulate_paths(level, 50_000, 1, seed=1)
    assert np.corrcoef(drift[0, :-1], returns[0, 1:])[0, 1] == pytest.approx(30 / np.hypot(30, 10), abs=0.01)
    assert np.corrcoef(drift[0], returns[0])[0, 1] == pytest.approx(0.0, abs=0.02)


def test_paths_have_the_stated_spread_and_memory() -> None:
    level = LEVELS["medium"]
    returns, drift = simulate_paths(level, 20_000, 40, seed=2)
    assert drift.std() * 1e4 == pytest.approx(level.s_bps, rel=0.03)
    assert np.corrcoef(drift[:, :-1].ravel(), drift[:, 1:].ravel())[0, 1] == pytest.approx(level.phi, abs=0.001)
    assert returns.std() * 1e4 == pytest.approx(np.hypot(level.s_bps, level.sigma_bps), rel=0.01)


def antithetic_values(level: Level, n_paths: int) -> tuple[FloatArray, FloatArray]:
    """Hidden and shown optimal policies on paths and on their mirror images: the drift's own mean cancels."""
    returns, drift = simulate_paths(level, 100_000, n_paths, seed=20)
    pairs = [
        (
            policy_value_bps(hidden_positions(sign * returns, level), sign * drift, level.cost_bps),
            policy_value_bps(shown_positions(sign * drift, level), sign * drift, level.cost_bps),
        )
        for sign in (1, -1)
    ]
    hidden, shown = np.mean(pairs, axis=0)
    return hidden, shown


@pytest.mark.slow
@pytest.mark.parametrize("name", LEVELS)
def test_optimal_policies_earn_the_optimum_on_simulated_paths(name: str) -> None:
    level = LEVELS[name]
    hidden, shown = antithetic_values(level, 96)
    assert hidden.mean() == pytest.approx(hidden_optimum(level).value_bps, rel=0.02)
    assert shown.mean() == pytest.approx(shown_optimum(level).value_bps, rel=0.01)


def test_value_of_a_policy_by_hand() -> None:
    positions = np.array([[0, 1, 1, 0], [1, 1, 1, 1]], float)
    drift = np.array([[9, 2, 4, 9], [1, 2, 3, -4]], float) * 1e-4
    # earned 6 with 2 trades, earned 2 with 1 trade, over 4 bars
    assert policy_value_bps(positions, drift, 5.0) == pytest.approx([(6 - 10) / 4, (2 - 5) / 4])


def test_kernel_pays_what_the_formula_says() -> None:
    level = LEVELS["easy"]
    data, _ = known_answer_market(level, 3000, seed=8, shown=False)
    returns = (data.bars.close / data.bars.open - 1.0) / RETURN_SCALE
    positions = hidden_positions(returns[None], level)[0]
    trader = Trader(data, known_answer_rules(level), 100_000.0)
    before, entry = 0.0, np.nan
    for t in range(2998):
        action = (Action.HOLD, Action.BUY, Action.SELL)[int(positions[t] - before)]
        reward, _ = trader.decide(action, LOT_FRAC)
        formula = positions[t] * returns[t + 1] - level.cost_bps / 1e4 * abs(positions[t] - before)
        entry = data.bars.close[t] if action == Action.BUY else entry
        grown = data.bars.close[t] / entry if positions[t] or before else 1.0  # the lot's BTC are fixed at entry
        assert reward == pytest.approx(LOT_FRAC * RETURN_SCALE * formula * grown, rel=1e-6, abs=1e-14)
        before = positions[t]


@pytest.mark.parametrize("shown", [True, False])
def test_market_is_on_the_grid_and_shows_what_it_should(shown: bool) -> None:
    data, drift = known_answer_market(LEVELS["hard"], 500, seed=1, shown=shown, n_noise_features=4)
    names = ["return_sigmas", *(["drift_sds"] if shown else []), *(f"noise_0{i}" for i in range(4)), "mask"]
    assert list(data.feature_names) == names
    assert data.features.shape == (500, len(names))
    assert data.features.dtype == np.float32
    assert (data.features[:, -1] == 1).all()
    np.testing.assert_array_equal(data.bars.open[1:], data.bars.close[:-1])
    np.testing.assert_array_equal(np.diff(data.bars.close_ts_ns), BAR_NS)
    assert data.sigma == pytest.approx(30e-4 * RETURN_SCALE)
    if shown:
        np.testing.assert_allclose(data.features[:, 1], drift / 5e-4, rtol=1e-6)


def test_same_seed_gives_the_same_market() -> None:
    first, again, other = (known_answer_market(LEVELS["hard"], 50, seed=seed, shown=True)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.features, again.features)
    assert not np.array_equal(first.features, other.features)


def test_score_is_the_ratio_of_sums_with_a_t_interval() -> None:
    agent, optimal = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 4.0])
    result = score(agent, optimal)
    # ratio 6 / 8; residuals -0.5, 0.5, 0: sd 0.5; error 0.5 / sqrt(3) / (8 / 3); t(2) = 4.3027
    assert (result.mean, result.n_paths) == (0.75, 3)
    assert result.high - result.mean == pytest.approx(4.302653 * 0.5 / np.sqrt(3) / (8 / 3))
    assert result.mean - result.low == pytest.approx(result.high - result.mean)


@pytest.mark.parametrize("paths", [2, 3, 4, 8, 30, 200])
def test_score_uses_students_t(paths: int) -> None:
    agent, optimal = np.arange(paths, dtype=float), np.ones(paths)
    result = score(agent, optimal)
    error = np.std(agent, ddof=1) / np.sqrt(paths)
    assert (result.high - result.mean) / error == pytest.approx(stats.t.ppf(0.975, paths - 1), rel=0.01)


def test_one_path_has_no_interval() -> None:
    result = score(np.array([1.0]), np.array([2.0]))
    assert result.mean == 0.5
    assert np.isnan([result.low, result.high]).all()
