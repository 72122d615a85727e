"""The interaction: no input alone points anywhere, the code is exact, and linear rules find next to nothing."""

import numpy as np
import pytest
import torch

from btcai.schema import FloatArray
from btcai.yardstick.baselines import tuned_linear
from btcai.yardstick.drift import DriftMarket
from btcai.yardstick.interaction import LEVEL, InteractionMarket
from btcai.yardstick.linear_search import searched_linear
from btcai.yardstick.paths import Paths
from btcai.yardstick.scoring import policy_value_bps, simulated_optimum

MARKET = InteractionMarket()


def inputs(paths: Paths) -> tuple[FloatArray, FloatArray]:
    """Signals and directions (n, N, T)."""
    found = {name: paths.at_decisions(name) for name in paths.signals}
    signals, directions = ([v for name, v in found.items() if name.startswith(part)] for part in ("sig", "dir"))
    return np.stack(signals), np.stack(directions)


def share_of_search(market: InteractionMarket) -> float:
    rule = searched_linear(market.simulate(12_500, 4, seed=3), market.cost_bps)
    paths = market.simulate(50_000, 4, seed=4)
    best = policy_value_bps(market.optimal_positions(paths), paths.expected, market.cost_bps).mean()
    return float(policy_value_bps(rule(paths), paths.expected, market.cost_bps).mean() / best)


def test_optimum_is_that_of_the_level_shown() -> None:
    assert MARKET.optimum_bps == DriftMarket(level=LEVEL, shown=True).optimum_bps


@pytest.mark.parametrize("patch_bars", [1, 10])
def test_direction_times_signals_is_the_drift(patch_bars: int) -> None:
    market = InteractionMarket(patch_bars=patch_bars)
    paths = market.simulate(200, 2, seed=1)
    signals, directions = inputs(paths)
    assert (directions**2).sum(0) == pytest.approx(8.0)  # unit vectors, times the root of 8
    assert 8e-4 * (signals * directions).sum(0) / np.sqrt(8) == pytest.approx(paths.expected)


def test_optimal_positions_are_those_of_who_sees_the_drift() -> None:
    market = InteractionMarket(patch_bars=3)
    coded = market.simulate(2000, 2, seed=1)
    shown = market.decoded.simulate(2000, 2, seed=1)
    np.testing.assert_array_equal(coded.bar_returns, shown.bar_returns)
    np.testing.assert_array_equal(market.optimal_positions(coded), market.decoded.optimal_positions(shown))


def test_signals_are_standard_normal_and_the_direction_is_drawn_anew() -> None:
    signals, directions = inputs(MARKET.simulate(100_000, 1, seed=2))
    for values in (signals, directions):
        assert values.mean(axis=(1, 2)) == pytest.approx(0.0, abs=0.015)
        assert np.cov(values[:, 0]) == pytest.approx(np.eye(8), abs=0.02)
    assert (signals**4).mean() == pytest.approx(3.0, abs=0.1)
    assert (directions[:, :, 1:] * directions[:, :, :-1]).mean() == pytest.approx(0.0, abs=0.005)


def test_neither_vector_alone_nor_its_past_goes_with_the_next_return() -> None:
    paths = MARKET.simulate(200_000, 1, seed=2)
    signals, directions = inputs(paths)
    following = paths.returns[:, 1:]

    def correlation(seen: FloatArray, lag: int = 0) -> float:
        return float(np.corrcoef(seen[:, : -1 - lag].ravel(), following[:, lag:].ravel())[0, 1])

    assert correlation((signals * directions).sum(0)) == pytest.approx(8 / np.hypot(8, 40), abs=0.01)
    for vector in (signals, directions):
        for lag in (0, 1, 5):
            assert max(abs(correlation(one, lag)) for one in vector) < 0.01
        assert abs(correlation((vector**3).sum(0))) < 0.01
        assert abs(correlation(vector[0] * vector[1])) < 0.01


def test_a_weighted_sum_says_a_multiple_of_its_square_less_one() -> None:
    # z = (signal_1 + direction_1) / sqrt 2, E[drift | z] about (z^2 - 1) / (2 sqrt 8) standard deviations
    paths = MARKET.simulate(400_000, 1, seed=5)
    signals, directions = inputs(paths)
    z, drift = (signals[0] + directions[0]) / np.sqrt(2), paths.expected / 8e-4
    for low, high in ((-0.2, 0.2), (0.9, 1.1), (1.8, 2.2)):
        within = (z > low) & (z < high)
        assert drift[within].mean() == pytest.approx((z[within] ** 2 - 1).mean() / (2 * np.sqrt(8)), abs=0.08)


def test_past_returns_are_not_worth_their_costs() -> None:
    assert DriftMarket(level=LEVEL, shown=False).optimum_bps < 0.001 * MARKET.optimum_bps


def test_least_squares_earns_nothing() -> None:
    market = InteractionMarket(n_signals=2)
    rule = tuned_linear(market.simulate(20_000, 4, seed=3), market.cost_bps)
    paths = market.simulate(20_000, 4, seed=4)
    assert policy_value_bps(rule(paths), paths.expected, market.cost_bps).mean() < 0.01 * market.optimum_bps


@pytest.mark.slow
def test_search_finds_the_half_of_an_exclusive_or_that_a_plane_cuts_off() -> None:
    assert 0.17 < share_of_search(InteractionMarket(n_signals=1)) < 0.25


@pytest.mark.slow
def test_search_finds_next_to_nothing_among_eight_signals() -> None:
    assert share_of_search(MARKET) < 0.02


@pytest.mark.slow
def test_a_small_network_learns_the_sign_of_the_drift_from_realised_returns() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, fresh = MARKET.simulate(100_000, 3, seed=6), MARKET.simulate(50_000, 1, seed=7)
    seen, unseen = (
        torch.from_numpy(np.concatenate(inputs(paths))[:, :, :-1].reshape(16, -1).T.astype(np.float32))
        for paths in (train, fresh)
    )
    following = torch.from_numpy((train.returns[:, 1:].reshape(-1, 1) / 40e-4).astype(np.float32))
    net = torch.nn.Sequential(
        torch.nn.Linear(16, 48), torch.nn.GELU(), torch.nn.Linear(48, 48), torch.nn.GELU(), torch.nn.Linear(48, 1)
    )
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for epoch in range(6):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - epoch / 6)
        for batch in torch.randperm(len(seen)).split(1024):
            loss = (net(seen[batch]) - following[batch]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        forecast = net(unseen)[:, 0].numpy()
    drift = fresh.expected[0, :-1] / 8e-4
    right = (forecast > 0) == (drift > 0)
    assert right.mean() > 0.90
    assert right[np.abs(drift) > 1].mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("patch_bars", [1, 10])
def test_optimal_policy_earns_the_optimum_on_simulated_paths(patch_bars: int) -> None:
    market = InteractionMarket(patch_bars=patch_bars)
    found = simulated_optimum(market, n_paths=64, n_decisions=50_000 // patch_bars, seed=20)
    assert found.error_bps < 0.004 * market.optimum_bps
    assert found.value_bps == pytest.approx(market.optimum_bps, rel=0.01)
