"""Baselines: by hand, against a plain regression, and never above the optimum."""

import math

import numpy as np
import pytest

from btcai.schema import FloatArray
from btcai.yardstick.baselines import (
    LAGS,
    LinearBaseline,
    MovingAverageBaseline,
    always_long,
    best_thresholds,
    cash,
    tuned_linear,
    tuned_moving_average,
)
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.interaction import InteractionMarket
from btcai.yardstick.linear_search import searched_linear
from btcai.yardstick.loops import hysteresis, hysteresis_profits
from btcai.yardstick.paths import Paths, YardstickMarket
from btcai.yardstick.scoring import policy_value_bps
from btcai.yardstick.two_scale import TwoScaleMarket


def paths_of(returns: FloatArray) -> Paths:
    return Paths(patch_bars=1, bar_returns=returns, expected=np.zeros_like(returns), signals={})


def test_hysteresis_holds_between_its_thresholds() -> None:
    signal = np.array([[0.5, 2.0, 0.5, -0.5, -2.0, 0.5]])
    np.testing.assert_array_equal(hysteresis(signal, 1.0, -1.0), [[0, 1, 1, 1, 0, 0]])


def test_profit_of_each_pair_of_thresholds_is_what_its_positions_earn_less_costs() -> None:
    rng = np.random.default_rng(0)
    signal, returns = rng.standard_normal((2, 3, 200))
    pairs = [(0.8, -0.3), (0.0, 0.0), (math.inf, 0.5)]
    expected = []
    for buy, sell in pairs:
        held = hysteresis(signal, buy, sell)[:, :-1]
        costs = 0.1 * np.abs(np.diff(held, axis=1, prepend=0.0)).sum()
        expected.append((held * returns[:, 1:]).sum() - costs)
    found = hysteresis_profits(signal, returns, *np.ascontiguousarray(np.array(pairs).T), 0.1)
    assert found == pytest.approx(expected)
    assert found[2] == 0.0


def test_best_thresholds_by_hand() -> None:
    # of unit spread: with thresholds of -1 nothing is sold, one cost and 3 + 2; with 0 it is sold and bought again
    signal, returns = np.array([[1.0, -1.0, 1.0, -1.0]]), np.array([[0.0, 3.0, 2.0, 0.0]])
    assert best_thresholds(signal, returns, 0.5, (-1.0, 0.0, 2.0)) == (4.5, -1.0, -1.0)


def test_cash_never_trades_and_always_long_trades_once() -> None:
    paths = paths_of(np.zeros((2, 5)))
    assert policy_value_bps(cash(paths), paths.expected, 5.0) == pytest.approx([0.0, 0.0])
    assert policy_value_bps(always_long(paths), paths.expected, 5.0) == pytest.approx([-1.0, -1.0])


def test_moving_averages_cross_by_hand() -> None:
    # prices 1, 3, 6, 4, 1: means of two 2, 4.5, 5, 2.5; of three 10/3, 13/3, 11/3 from the third: gaps 7/6, 2/3, -7/6
    paths = paths_of(np.array([[1.0, 2.0, 3.0, -2.0, -3.0]]))
    np.testing.assert_array_equal(MovingAverageBaseline(fast=2, slow=3, band=1.0)(paths), [[0, 0, 1, 1, 0]])
    np.testing.assert_array_equal(MovingAverageBaseline(fast=2, slow=3, band=1.2)(paths), [[0, 0, 0, 0, 0]])


def test_regression_is_that_of_a_design_matrix_over_the_first_half() -> None:
    paths = DriftMarket(level=LEVELS["easy"], shown=True).simulate(40_000, 1, seed=1)
    rule = tuned_linear(paths, 5.0)
    windows = [
        np.lib.stride_tricks.sliding_window_view(series[0, :20_000], LAGS)[:-1, ::-1]
        for series in (paths.returns, paths.at_decisions("drift"))
    ]
    design, following = np.hstack(windows), paths.returns[0, LAGS:20_000]
    expected = np.linalg.solve(design.T @ design, design.T @ following).reshape(2, LAGS)
    assert rule.weights == pytest.approx(expected, abs=0.1 * np.abs(expected).max())
    assert np.corrcoef(rule.weights.ravel(), expected.ravel())[0, 1] > 0.99


def test_forecast_reads_the_past_only_and_the_newest_first() -> None:
    weights = np.zeros((1, LAGS))
    weights[0, :2] = 1.0, 0.5
    paths = paths_of(np.array([[1.0, 0.0, 0.0, 1.0]]))
    # forecasts 1, .5, 0, 1
    rule = LinearBaseline(weights=weights, buy_above=0.75, sell_below=0.25)
    np.testing.assert_array_equal(rule(paths), [[1, 1, 0, 1]])


@pytest.mark.parametrize("tuned", [tuned_moving_average, tuned_linear])
def test_rules_do_not_see_the_future(tuned: type) -> None:
    train = DriftMarket(level=LEVELS["easy"], shown=False).simulate(5000, 2, seed=2)
    rule = tuned(train, 5.0)
    returns = train.bar_returns.copy()
    before = rule(paths_of(returns))
    returns[:, 3000:] = 0.5
    np.testing.assert_array_equal(rule(paths_of(returns))[:, :3000], before[:, :3000])


def test_in_pure_noise_with_huge_costs_the_rules_stay_in_cash() -> None:
    train = paths_of(np.random.default_rng(3).standard_normal((2, 3000)) * 1e-4)
    assert tuned_moving_average(train, 500.0).band == math.inf
    assert tuned_linear(train, 500.0).buy_above == math.inf


@pytest.mark.parametrize(
    "market",
    [
        DriftMarket(level=LEVELS["easy"], shown=True),
        DriftMarket(level=LEVELS["medium"], shown=False),
        DriftMarket(level=LEVELS["easy"], shown=False, patch_bars=2),
        pytest.param(TwoScaleMarket(shown=False), marks=pytest.mark.slow),
        InteractionMarket(n_signals=2),
    ],
    ids=lambda market: type(market).__name__,
)
def test_no_rule_beats_the_optimal_policy_on_the_same_paths(market: YardstickMarket) -> None:
    train, paths = market.simulate(10_000, 4, seed=4), market.simulate(20_000, 8, seed=5)
    tuned = [tune(train, market.cost_bps) for tune in (tuned_moving_average, tuned_linear)]
    best = policy_value_bps(market.optimal_positions(paths), paths.expected, market.cost_bps).mean()
    for rule in (cash, always_long, *tuned):
        assert policy_value_bps(rule(paths), paths.expected, market.cost_bps).mean() < best


@pytest.mark.slow
def test_search_finds_the_linear_rule_of_a_shown_drift() -> None:
    market = DriftMarket(level=LEVELS["easy"], shown=True)
    found = searched_linear(market.simulate(10_000, 2, seed=6), market.cost_bps)
    paths = market.simulate(20_000, 8, seed=7)
    earned = policy_value_bps(found(paths), paths.expected, market.cost_bps).mean()
    assert earned > 0.95 * policy_value_bps(market.optimal_positions(paths), paths.expected, market.cost_bps).mean()


def test_search_in_pure_noise_stays_in_cash() -> None:
    returns = np.random.default_rng(3).standard_normal((2, 1000)) * 1e-4
    train = Paths(patch_bars=1, bar_returns=returns, expected=returns - 1e-3, signals={"noise": returns[:, ::-1]})
    assert searched_linear(train, 5.0).buy_above == math.inf
