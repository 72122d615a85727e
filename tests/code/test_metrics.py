"""Metrics against numbers worked by hand, and properties that hold for any equity path."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from result_fakes import path_result

from btcai.evaluation import metrics
from btcai.evaluation.goals import captured_frac
from btcai.schema import BAR_NS, BARS_PER_DAY, BARS_PER_YEAR

EQUITY_PATHS = arrays(np.float64, st.integers(1, 60), elements=st.floats(1.0, 1e6))
RETURNS = arrays(np.float64, st.integers(20, 60), elements=st.floats(-0.5, 0.5))


def test_net_return_is_the_gain_over_the_start() -> None:
    assert metrics.net_return(np.array([100.0, 90.0, 130.0]), 104.0) == pytest.approx(0.25)


def test_daily_returns_take_the_last_bar_of_each_utc_day() -> None:
    # Six bars: 23:50, 23:55, 24:00 of day 0, then 00:05, 00:10, 00:15 of day 1. Midnight closes the day it ends.
    closes = metrics.DAY_NS + BAR_NS * np.arange(-2, 4)
    equity = np.array([101.0, 99.0, 110.0, 111.0, 100.0, 121.0])
    assert metrics.daily_returns(equity, closes, 100.0) == pytest.approx([0.10, 0.10])


def test_daily_returns_compound_to_the_net_return() -> None:
    equity = 100.0 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, 1000)))
    returns = metrics.daily_returns(equity, 77 * BAR_NS + BAR_NS * np.arange(1000), 100.0)
    assert np.prod(1 + returns) - 1 == pytest.approx(metrics.net_return(equity, 100.0))
    assert len(returns) == 4  # 212 bars of day 0, two whole days, the rest of day 3


def test_sharpe_of_alternating_returns_by_hand() -> None:
    # +3 % and -1 %, ten times each: mean 1 %, ddof-1 spread 2 % * sqrt(20/19).
    returns = np.tile([0.03, -0.01], 10)
    assert metrics.sharpe(returns, 365) == pytest.approx(0.5 * (19 / 20) ** 0.5 * 365**0.5)


def test_sortino_counts_only_losses() -> None:
    # mean 1 %; losses of 1 % on half of the days: root mean square 1 % / sqrt(2).
    returns = np.tile([0.03, -0.01], 10)
    assert metrics.sortino(returns, 365) == pytest.approx(2**0.5 * 365**0.5)


@pytest.mark.parametrize("ratio", [metrics.sharpe, metrics.sortino])
@pytest.mark.parametrize("returns", [np.zeros(30), np.full(30, 0.01), np.tile([0.03, -0.01], 9), np.empty(0)])
def test_ratios_are_nan_without_variance_or_with_fewer_than_twenty_days(ratio: object, returns: np.ndarray) -> None:
    assert callable(ratio)
    assert np.isnan(ratio(returns, 365))


def test_cagr_doubles_in_half_a_year_is_fourfold_a_year() -> None:
    assert metrics.cagr(np.array([150.0, 200.0]), 100.0, 0.5) == pytest.approx(3.0)


def test_cagr_of_nineteen_days_is_not_annualised() -> None:
    assert np.isnan(metrics.cagr(np.array([200.0]), 100.0, 19 / 365))


def test_cagr_of_ruin_is_minus_one() -> None:
    assert metrics.cagr(np.array([0.0]), 100.0, 1.0) == -1.0


def test_drawdown_runs_from_its_peak_to_recovery() -> None:
    # Peak 120 at bar 1 (again at 2), trough 60 at bar 4, back at 120 on bar 6; a smaller one follows.
    equity = np.array([100.0, 120.0, 120.0, 90.0, 60.0, 100.0, 120.0, 130.0, 117.0])
    assert metrics.max_drawdown(equity) == metrics.Drawdown(0.5, 4)


def test_drawdown_that_never_recovers_lasts_to_the_end() -> None:
    assert metrics.max_drawdown(np.array([100.0, 80.0, 75.0, 90.0])) == metrics.Drawdown(0.25, 3)


def test_rising_equity_has_no_drawdown_and_no_calmar() -> None:
    assert metrics.max_drawdown(np.array([1.0, 2.0, 3.0])) == metrics.Drawdown(0.0, 0)
    assert np.isnan(metrics.calmar(0.3, 0.0))
    assert metrics.calmar(0.3, 0.2) == pytest.approx(1.5)


def test_trades_by_hand() -> None:
    profits = np.array([30.0, -10.0, 20.0, -15.0, 0.0])
    assert metrics.win_rate(profits) == 0.4
    assert metrics.profit_factor(profits) == pytest.approx(2.0)
    assert metrics.expectancy(profits) == pytest.approx(5.0)


@pytest.mark.parametrize("average", [metrics.win_rate, metrics.profit_factor, metrics.expectancy])
def test_fewer_than_five_trades_have_no_average(average: object) -> None:
    assert callable(average)
    assert np.isnan([average(np.empty(0)), average(np.array([3.0, -1.0, 2.0, -2.0]))]).all()
    assert average(np.array([3.0, -1.0, 2.0, -2.0, 1.0])) > 0.0


def test_a_profit_factor_without_a_losing_trade_is_undefined() -> None:
    assert np.isnan(metrics.profit_factor(np.full(9, 5.0)))


def test_holding_time_by_hand() -> None:
    entries, exits = BAR_NS * np.array([10, 20]), BAR_NS * np.array([13, 29])
    assert metrics.mean_holding_bars(entries, exits) == 6.0
    assert np.isnan(metrics.mean_holding_bars(entries[:0], exits[:0]))


def test_the_longest_wait_for_a_new_peak_need_not_be_for_the_deepest_fall() -> None:
    # Down a half and back within three bars; then 1 % down for five bars and back.
    equity = np.array([100.0, 50.0, 80.0, 100.0, 99.0, 99.0, 99.0, 99.0, 100.0])
    assert metrics.max_drawdown(equity) == metrics.Drawdown(0.5, 3)
    assert metrics.underwater_bars(equity) == 5
    assert metrics.underwater_bars(equity[:-1]) == 4  # to the end
    assert metrics.underwater_bars(np.array([1.0, 2.0, 3.0, 3.0])) == 0
    assert metrics.underwater_bars(np.empty(0)) == 0


def test_gross_return_and_break_even_cost_of_a_round_trip_by_hand() -> None:
    # 1,000 USDT bought at 100 and sold at 110, 10 bp each side of 1,000 and 1,100: costs 2.10, net 97.90.
    equity = np.array([1000.0, 999.0, 1097.9])
    assert metrics.net_return(equity, 1000.0) == pytest.approx(0.0979)
    assert metrics.gross_return(equity, 1000.0, 2.1) == pytest.approx(0.1)
    # 100 of profit over 2,100 traded: 476 bp a side eat it.
    assert metrics.break_even_cost_bps(100.0, 2_100.0) == pytest.approx(476.19, abs=0.01)
    assert metrics.break_even_cost_bps(-10.5, 2_100.0) == pytest.approx(-50.0)
    assert np.isnan(metrics.break_even_cost_bps(0.0, 0.0))


def test_capture_compounds_to_the_period_of_the_goal() -> None:
    # 21 % in 60 days is 10 % in each 30: half of a goal of 20 % a month. 73 days are a fifth of a year.
    assert metrics.capture(0.21, 60 * BARS_PER_DAY, 0.20, 30) == pytest.approx(0.5)
    assert metrics.capture(0.1, 73 * BARS_PER_DAY, 1.0, 365) == pytest.approx(1.1**5 - 1)
    assert metrics.capture(-1.0, 60 * BARS_PER_DAY, 0.5, 30) == pytest.approx(-2.0)
    assert np.isnan(metrics.capture(0.21, 19 * BARS_PER_DAY, 0.2, 30))


def test_a_goal_is_captured_a_month_a_year_or_a_holding() -> None:
    equity = np.full(60 * BARS_PER_DAY, 121.0)
    lots = [(0.0, 1.0, 1.0, 1.0, 1.0, 100.0, 100.0 + gain) for gain in (10.0, 20.0, 30.0, 40.0, -25.0)]
    result = path_result(equity, trades=lots)
    assert captured_frac("scalping", 0.2, result) == pytest.approx(0.5)
    assert captured_frac("short", 1.5, result) == pytest.approx((1.21 ** (365 / 60) - 1) / 1.5)
    assert captured_frac("medium", 0.35, result) == captured_frac("long", 0.35, result) == pytest.approx(0.15 / 0.35)
    assert np.isnan(captured_frac("long", 0.75, path_result(equity, trades=lots[:4])))


def test_turnover_of_one_round_trip_in_half_a_year_is_four() -> None:
    assert metrics.turnover_per_year(200.0, np.full(BARS_PER_YEAR // 2, 100.0)) == pytest.approx(4.0)


def test_exposure_and_costs_are_shares() -> None:
    assert metrics.exposure_frac(np.array([0.0, 0.5, 1.0, 0.5])) == 0.5
    assert metrics.cost_frac(250.0, 1000.0) == 0.25
    assert metrics.years(365 * BARS_PER_DAY) == 1.0


def test_an_empty_path_is_undefined() -> None:
    nothing = np.empty(0)
    assert len(metrics.daily_returns(nothing, nothing.astype(np.int64), 1.0)) == 0
    undefined = (
        metrics.net_return(nothing, 1.0),
        metrics.cagr(nothing, 1.0, 1.0),
        metrics.max_drawdown(nothing).frac,
        metrics.turnover_per_year(0.0, nothing),
        metrics.exposure_frac(nothing),
        metrics.gross_return(nothing, 1.0, 0.1),
        metrics.capture(0.0, 0, 0.2, 30.0),
    )
    assert np.isnan(undefined).all()


@given(EQUITY_PATHS)
def test_drawdown_is_a_share_and_its_length_fits_the_path(equity: np.ndarray) -> None:
    depth, bars = metrics.max_drawdown(equity)
    assert 0.0 <= depth <= 1.0
    assert 0 <= bars < len(equity)
    assert (depth == 0.0) == (bars == 0)
    brute = max((1 - equity[j] / equity[i] for i in range(len(equity)) for j in range(i, len(equity))), default=0.0)
    assert depth == pytest.approx(brute)
    n = len(equity)
    under = [[j - i for j in range(i + 1, n) if equity[i + 1 : j].max(initial=0.0) < equity[i]] for i in range(n)]
    fell = [[wait for wait in waits if wait > 1 or equity[i + 1] < equity[i]] for i, waits in enumerate(under)]
    assert metrics.underwater_bars(equity) == max(map(max, filter(None, fell)), default=0)
    assert metrics.underwater_bars(equity) >= bars


@settings(max_examples=50)
@given(EQUITY_PATHS, st.integers(-8, 8))
def test_figures_do_not_depend_on_the_size_of_the_account(equity: np.ndarray, power: int) -> None:
    scale = 2.0**power  # exact in binary
    assert metrics.max_drawdown(equity * scale) == metrics.max_drawdown(equity)
    assert metrics.net_return(equity * scale, equity[0] * scale) == metrics.net_return(equity, equity[0])
    closes = BAR_NS * np.arange(1, len(equity) + 1)
    scaled = metrics.daily_returns(equity * scale, closes, scale)
    assert np.array_equal(scaled, metrics.daily_returns(equity, closes, 1.0))


@given(RETURNS)
def test_sharpe_turns_its_sign_with_the_returns(returns: np.ndarray) -> None:
    assert np.array_equal(metrics.sharpe(-returns, 365), -np.float64(metrics.sharpe(returns, 365)), equal_nan=True)


def test_figures_are_those_of_quantstats() -> None:
    # quantstats 0.0.86 (not a dependency) on the same 400 daily returns, with periods=365.
    returns = np.random.default_rng(365).normal(0.001, 0.02, 400)
    equity = np.cumprod(1.0 + returns)
    path = np.concatenate(([1.0], equity))
    growth, fall = metrics.cagr(equity, 1.0, 400 / 365), metrics.max_drawdown(path)
    ours = {
        metrics.sharpe(returns, 365): 0.3292997291690715,
        metrics.sortino(returns, 365): 0.49194349438023094,
        fall.frac: 0.23309064966915094,
        growth: 0.055002089911576846,
        metrics.calmar(growth, fall.frac): 0.23596866708144174,
        metrics.profit_factor(returns): 1.0451110959918317,
        metrics.win_rate(returns): 0.4825,
        metrics.underwater_bars(path): 286,
    }
    assert list(ours) == pytest.approx(list(ours.values()), rel=1e-12)
