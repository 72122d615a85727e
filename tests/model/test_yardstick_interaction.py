"""The interaction: nothing that is linear is correlated with the next return, and the programme's value is earned."""

import numpy as np
import pytest
from scipy import stats

from btcai.yardstick.drift import DriftMarket, Level
from btcai.yardstick.interaction import InteractionMarket
from btcai.yardstick.rules import tuned_linear
from btcai.yardstick.scoring import policy_value_bps, simulated_optimum


def test_a_regime_that_never_switches_is_a_shown_drift() -> None:
    fixed = InteractionMarket(switch_probability=0.0)
    level = Level(phi=0.95, s_bps=10, sigma_bps=60, cost_bps=5)
    assert fixed.optimum_bps == pytest.approx(DriftMarket(level=level, shown=True).optimum_bps, rel=0.002)


def test_a_regime_that_is_tossed_anew_leaves_the_next_return_alone() -> None:
    # the mean of D over the regimes is zero: g = E max(0, N(0, 10) - 5)
    tossed = InteractionMarket(switch_probability=0.5)
    assert tossed.optimum_bps == pytest.approx(10 * (stats.norm.pdf(0.5) - 0.5 * stats.norm.sf(0.5)), rel=1e-3)


def test_optimum_is_that_of_plain_value_iteration() -> None:
    market, points = InteractionMarket(), 321
    edges = np.linspace(-5, 5, points + 1)
    signal = (edges[:-1] + edges[1:]) / 2
    move = np.diff(stats.norm.cdf((edges - market.phi * signal[:, None]) / np.sqrt(1 - market.phi**2)), axis=1)
    move /= move.sum(1, keepdims=True)
    pay = 10 * np.stack([-signal, signal])  # by regime
    worth, gain = np.zeros((2, 2, points)), 0.0  # position, regime, signal
    for _ in range(600):
        ahead = worth @ move.T
        ahead = 0.75 * ahead + 0.25 * ahead[:, ::-1]
        flat, held = ahead[0], ahead[1] + pay
        updated = np.stack([np.maximum(flat, held - 5), np.maximum(flat - 5, held)])
        gain = updated[0, 0, points // 2]
        worth = updated - gain
    assert market.optimum_bps == pytest.approx(gain, rel=0.002)


def test_regime_switches_as_often_as_it_should() -> None:
    regime = InteractionMarket(switch_probability=0.25).simulate(50_000, 4, seed=1).at_decisions("regime")
    assert set(np.unique(regime)) == {-1.0, 1.0}
    assert (np.diff(regime) != 0).mean() == pytest.approx(0.25, abs=0.005)


def test_only_the_product_is_correlated_with_the_next_return() -> None:
    paths = InteractionMarket().simulate(100_000, 4, seed=2)
    signal, regime = paths.at_decisions("signal"), paths.at_decisions("regime")
    following = paths.returns[:, 1:]

    def correlation(seen: np.ndarray, lag: int = 0) -> float:
        return float(np.corrcoef(seen[:, : -1 - lag].ravel(), following[:, lag:].ravel())[0, 1])

    assert correlation(regime * signal) == pytest.approx(10 / np.hypot(10, 60), abs=0.01)
    for lag in (0, 1, 5):
        assert abs(correlation(signal, lag)) < 0.01
        assert abs(correlation(regime, lag)) < 0.005


def test_no_linear_rule_earns() -> None:
    market = InteractionMarket()
    assert market.best_linear_bps < 0.001 * market.optimum_bps
    rule = tuned_linear(market.simulate(50_000, 4, seed=3), market.cost_bps)
    paths = market.simulate(50_000, 8, seed=4)
    earned = policy_value_bps(rule(paths), paths.expected, market.cost_bps).mean()
    best = policy_value_bps(market.optimal_positions(paths), paths.expected, market.cost_bps).mean()
    assert earned < 0.02 * best
    assert best == pytest.approx(market.optimum_bps, rel=0.03)


@pytest.mark.slow
def test_optimal_policy_earns_the_optimum_on_simulated_paths() -> None:
    market = InteractionMarket()
    found = simulated_optimum(market, n_paths=64, n_decisions=100_000, seed=20)
    assert found.error_bps < 0.003 * market.optimum_bps
    assert found.value_bps == pytest.approx(market.optimum_bps, rel=0.01)
