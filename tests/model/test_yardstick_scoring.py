"""Scores and their intervals, by hand and by simulation."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy import stats

from btcai.yardstick import scoring
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.paths import Paths
from btcai.yardstick.scoring import policy_value_bps, score, simulated_optimum


def test_value_of_a_policy_by_hand() -> None:
    positions = np.array([[0, 1, 1, 0], [1, 1, 1, 1]], float)
    expected = np.array([[9, 2, 4, 9], [1, 2, 3, -4]], float) * 1e-4
    # earned 6 with 2 trades, earned 2 with 1 trade, over 4 bars
    assert policy_value_bps(positions, expected, 5.0) == pytest.approx([(6 - 10) / 4, (2 - 5) / 4])


def test_score_is_the_ratio_of_sums_with_a_t_interval() -> None:
    agent, optimal = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 4.0])
    result = score(agent, optimal)
    # ratio 6 / 8; residuals -0.5, 0.5, 0: sd 0.5; error 0.5 / sqrt(3) / (8 / 3); t(2) = 4.3027
    assert (result.ratio_of_sums, result.n_paths) == (0.75, 3)
    assert result.high - result.ratio_of_sums == pytest.approx(4.302653 * 0.5 / np.sqrt(3) / (8 / 3))
    assert result.ratio_of_sums - result.low == pytest.approx(result.high - result.ratio_of_sums)


@pytest.mark.parametrize("paths", [2, 3, 4, 8, 30, 200])
def test_score_uses_students_t(paths: int) -> None:
    agent, optimal = np.arange(paths, dtype=float), np.ones(paths)
    result = score(agent, optimal)
    error = np.std(agent, ddof=1) / np.sqrt(paths)
    assert (result.high - result.ratio_of_sums) / error == pytest.approx(stats.t.ppf(0.975, paths - 1), rel=0.01)


def test_one_path_has_no_interval() -> None:
    result = score(np.array([1.0]), np.array([2.0]))
    assert result.ratio_of_sums == 0.5
    assert np.isnan([result.low, result.high]).all()


def test_interval_covers_the_true_share_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        optimal = rng.normal(4.0, 0.5, 16)
        result = score(0.8 * optimal + rng.normal(0.0, 0.2, 16), optimal)
        covered += result.low <= 0.8 <= result.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_optimal_policy_scores_one_on_its_own_paths() -> None:
    market = DriftMarket(level=LEVELS["easy"], shown=False)
    paths = market.simulate(2000, 4, seed=1)
    values = policy_value_bps(market.optimal_positions(paths), paths.expected, market.cost_bps)
    result = score(values, values)
    assert (result.ratio_of_sums, result.low, result.high) == (1.0, 1.0, 1.0)


def test_simulated_optimum_knows_its_own_error() -> None:
    market = DriftMarket(level=LEVELS["easy"], shown=False)
    found = [simulated_optimum(market, n_paths=32, n_decisions=5000, seed=1000 * k) for k in range(24)]
    spread = np.std([one.value_bps for one in found], ddof=1)
    assert np.mean([one.error_bps for one in found]) == pytest.approx(spread, rel=0.5)


@dataclass(frozen=True, kw_only=True)
class Recorded(DriftMarket):
    """Remembers the last expected return of every path it ever simulated."""

    seen: list[float] = field(default_factory=list)

    def simulate(self, n_decisions: int, n_paths: int, seed: int) -> Paths:
        paths = super().simulate(n_decisions, n_paths, seed)
        self.seen.extend(paths.expected[:, -1].tolist())
        return paths


def test_no_path_of_a_simulation_comes_twice_nor_in_that_of_the_next_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_BARS_AT_ONCE", 600)  # chunks of three paths of 200
    market = Recorded(level=LEVELS["easy"], shown=True)
    one, more = (simulated_optimum(market, n_paths=16, n_decisions=200, seed=seed) for seed in (1, 2))
    assert len(set(market.seen)) == 32
    assert one.value_bps != more.value_bps
    assert simulated_optimum(market, n_paths=16, n_decisions=200, seed=1) == one
