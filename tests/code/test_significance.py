"""Probabilistic and deflated Sharpe ratio: the papers' own numbers, simulations, and nan where nothing is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.evaluation.metrics import sharpe
from btcai.evaluation.significance import (
    deflated_sharpe,
    expected_maximum,
    luck_p_value,
    luck_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
)

DAYS = 365
RETURNS = np.random.default_rng(3).normal(0.001, 0.02, 730)


def two_point(days: int, low_days: int, ratio: float) -> np.ndarray:
    """Returns that are one of two numbers, with this Sharpe ratio a day."""
    returns = np.ones(days)
    returns[:low_days] = 0.0
    scaled = (returns - returns.mean()) / returns.std(ddof=1)
    return scaled + ratio


# 105 low days of 1,250 have skew -3.00 and kurtosis 10.0: the example of the 2014 paper, five years of 250 days.
EXAMPLE = two_point(1250, 105, 2.5 / 250**0.5)


def trials(n: int, variance: float) -> np.ndarray:
    spread = np.random.default_rng(5).normal(size=n)
    return spread / spread.std(ddof=1) * variance**0.5


def test_the_papers_example_of_a_deflated_ratio() -> None:
    scaled = (EXAMPLE - EXAMPLE.mean()) / EXAMPLE.std()
    assert np.mean(scaled**3) == pytest.approx(-3.0, abs=0.01)
    assert np.mean(scaled**4) == pytest.approx(10.0, abs=0.05)
    # Page 8: SR_0 = .1132 a day for 100 trials with variance 1/2 a year; DSR .9004, and .9505 had there been 46.
    hurdle = 0.5**0.5 * expected_maximum(100)
    assert hurdle / 250**0.5 == pytest.approx(0.1132, abs=1e-4)
    assert probabilistic_sharpe(EXAMPLE, 250, benchmark_sharpe=hurdle) == pytest.approx(0.9004, abs=1e-3)
    fewer = 0.5**0.5 * expected_maximum(46)
    assert probabilistic_sharpe(EXAMPLE, 250, benchmark_sharpe=fewer) == pytest.approx(0.9505, abs=1e-3)


def test_deflating_is_comparing_with_the_luck_of_all_trials() -> None:
    # One year of 250 days, so that a variance of 1/2 is less than that of independent trials.
    known = trials(100, 0.5)
    hurdle = 0.5**0.5 * expected_maximum(100)
    assert luck_sharpe(250, 250, trial_sharpes=known) == pytest.approx(hurdle)
    found = deflated_sharpe(EXAMPLE[:250], 250, trial_sharpes=known)
    assert found == probabilistic_sharpe(EXAMPLE[:250], 250, benchmark_sharpe=hurdle)


def test_expected_maximum_of_evidence() -> None:
    found = [expected_maximum(n) for n in (10, 20, 50, 100, 500)]
    assert found == pytest.approx([1.57, 1.90, 2.28, 2.53, 3.05], abs=0.01)
    assert (expected_maximum(0), expected_maximum(1)) == (0.0, 0.0)


@pytest.mark.parametrize("n", [10, 100, 2000])
def test_expected_maximum_is_that_of_simulated_numbers(n: int) -> None:
    largest = np.random.default_rng(8).normal(size=(2000, n)).max(axis=1)
    assert expected_maximum(n) == pytest.approx(largest.mean(), abs=0.04)


def test_a_benchmark_equal_to_the_ratio_is_passed_half_the_time() -> None:
    assert probabilistic_sharpe(RETURNS, DAYS, benchmark_sharpe=sharpe(RETURNS, DAYS)) == pytest.approx(0.5)


def test_probability_by_hand() -> None:
    # +-1 on 20 days each, plus .1: skew 0, kurtosis 1, so the error is 1 whatever the ratio; std(ddof 1) = sqrt(40/39).
    returns = np.tile([1.1, -0.9], 20)
    assert sharpe(returns, 1) == pytest.approx(0.1 * (39 / 40) ** 0.5)
    assert probabilistic_sharpe(returns, 1) == pytest.approx(0.7313, abs=1e-4)  # Phi(.09874 * sqrt(39)) = Phi(.6166)
    # (1.6449 / .09874)^2 + 1
    assert minimum_track_record(returns, 1) == pytest.approx(278.5, abs=0.1)


def test_a_tail_of_losses_makes_a_ratio_less_sure() -> None:
    losing, winning = two_point(400, 8, 0.15), two_point(400, 392, 0.15)
    assert sharpe(losing, DAYS) == pytest.approx(sharpe(winning, DAYS))
    assert probabilistic_sharpe(losing, DAYS) < probabilistic_sharpe(winning, DAYS) - 0.01


@given(drift=st.floats(-0.004, 0.006), benchmark=st.floats(-1, 1))
def test_a_record_is_long_enough_exactly_where_it_is_sure_enough(drift: float, benchmark: float) -> None:
    returns = RETURNS + drift
    needed = minimum_track_record(returns, DAYS, benchmark_sharpe=benchmark)
    assert (probabilistic_sharpe(returns, DAYS, benchmark_sharpe=benchmark) >= 0.95) == (len(returns) >= needed)


@given(n=st.integers(2, 10_000))
def test_every_further_trial_deflates(n: int) -> None:
    known = trials(50, 0.3)
    more, fewer = (deflated_sharpe(RETURNS, DAYS, trial_sharpes=known, n_trials=count) for count in (n + 1, n))
    assert more < fewer <= probabilistic_sharpe(RETURNS, DAYS)


def test_one_trial_deflates_nothing() -> None:
    one = np.array([sharpe(RETURNS, DAYS)])
    assert deflated_sharpe(RETURNS, DAYS, trial_sharpes=one) == probabilistic_sharpe(RETURNS, DAYS)


def test_few_trials_or_unknown_ratios_deflate_as_independent_ones() -> None:
    alike = np.full(5, 1.2)
    independent = (DAYS / 729) ** 0.5 * expected_maximum(5)
    assert luck_sharpe(730, DAYS, trial_sharpes=alike) == pytest.approx(independent)
    unknown = np.full(5, np.nan)  # never traded: no ratio, and still a trial
    assert luck_sharpe(730, DAYS, trial_sharpes=unknown) == pytest.approx(independent)


def test_ratios_that_costs_have_spread_count_as_independent_luck() -> None:
    independent = luck_sharpe(730, DAYS, trial_sharpes=trials(50, DAYS / 729))
    assert luck_sharpe(730, DAYS, trial_sharpes=trials(50, 9.0)) == pytest.approx(independent)


def test_luck_of_independent_trials_is_sidaks() -> None:
    of_one = 1 - probabilistic_sharpe(RETURNS, DAYS)
    none = np.full(40, np.nan)
    assert luck_p_value(RETURNS, DAYS, trial_sharpes=none) == pytest.approx(1 - (1 - of_one) ** 40)
    assert luck_p_value(RETURNS, DAYS, trial_sharpes=none, n_trials=0) == pytest.approx(0.0)


def test_trials_that_are_all_the_same_are_as_lucky_as_one() -> None:
    alike = trials(40, 1e-9)
    of_one = 1 - probabilistic_sharpe(RETURNS, DAYS)
    # A step, which 64 nodes of the integral blur.
    assert luck_p_value(RETURNS, DAYS, trial_sharpes=alike) == pytest.approx(of_one, abs=0.03)


@given(own=st.floats(0.05, 1.0), n=st.integers(1, 3000))
def test_luck_is_between_that_of_one_trial_and_of_independent_ones(own: float, n: int) -> None:
    known = trials(50, own * DAYS / 729)
    of_one = 1 - probabilistic_sharpe(RETURNS, DAYS)
    found = luck_p_value(RETURNS, DAYS, trial_sharpes=known, n_trials=n)
    assert of_one - 0.01 <= found <= 1 - (1 - of_one) ** n + 0.01


def test_the_best_of_twelve_is_luck_among_twelve_and_seems_more_among_the_other_eleven() -> None:
    rng, counted, left_out = np.random.default_rng(4), [], []
    for _ in range(400):
        returns = rng.normal(size=(12, DAYS))
        ratios = returns.mean(axis=1) / returns.std(axis=1, ddof=1) * DAYS**0.5
        best = int(np.argmax(ratios))
        for found, known in ((counted, ratios), (left_out, np.delete(ratios, best))):
            found.append(luck_p_value(returns[best], DAYS, trial_sharpes=known) < 0.05)
    assert np.mean(counted) <= 0.05
    assert np.mean(left_out) >= 0.08  # that is why the judge appends what it judges


@pytest.mark.parametrize("returns", [RETURNS[:19], np.zeros(100), np.full(100, 0.01)])
def test_insufficient_data_is_nan(returns: np.ndarray) -> None:
    figures = (
        probabilistic_sharpe(returns, DAYS),
        deflated_sharpe(returns, DAYS, trial_sharpes=trials(20, 1.0)),
        luck_p_value(returns, DAYS, trial_sharpes=trials(20, 1.0)),
        minimum_track_record(returns, DAYS),
    )
    assert np.isnan(figures).all()


def test_no_record_of_a_losing_strategy_is_long_enough() -> None:
    assert minimum_track_record(-np.abs(RETURNS), DAYS) == float("inf")


@pytest.mark.slow
def test_one_in_twenty_skewed_records_without_skill_looks_surely_skilled() -> None:
    rng = np.random.default_rng(17)
    returns = -(rng.gamma(2.0, size=(4000, 365)) - 2.0)  # skew -1.4, excess kurtosis 3
    sure = np.mean([probabilistic_sharpe(one, DAYS) > 0.95 for one in returns])
    assert sure == pytest.approx(0.05, abs=0.012)


@pytest.mark.slow
@pytest.mark.parametrize("market", [0.0, 1.0], ids=["a market that gives nothing", "a market that rises"])
@pytest.mark.parametrize("common", [0.0, 0.5, 0.9])
def test_the_best_of_a_hundred_without_skill_seems_no_luck_once_in_twenty_at_most(common: float, market: float) -> None:
    rng, p_values = np.random.default_rng(29), []
    for _ in range(600):
        shared, own = rng.normal(size=(365, 1)), rng.normal(size=(365, 100))
        returns = market / DAYS**0.5 + common**0.5 * shared + (1 - common) ** 0.5 * own
        ratios = returns.mean(axis=0) / returns.std(axis=0, ddof=1) * DAYS**0.5
        p_values.append(luck_p_value(returns[:, np.argmax(ratios)], DAYS, trial_sharpes=ratios))
    found = np.mean(np.array(p_values) < 0.05)
    assert 0.0 < found <= 0.05 + 0.027  # 3 standard errors of 600; what is never surprised would find nothing either
