"""Bootstrap intervals: deterministic, covering on simulated returns, and honest where there are no data."""

import numpy as np
import pytest

from btcai.evaluation.metrics import sharpe
from btcai.evaluation.resampling import METRICS
from btcai.evaluation.statistics import UNKNOWN, Interval, bootstrapped, sharpe_difference_interval

DAYS = 365
RETURNS = np.random.default_rng(11).normal(0.001, 0.02, 400)
MARKET = np.random.default_rng(12).normal(0.0, 0.02, 400)


def sharpe_interval(returns: np.ndarray, seed: int, resamples: int = 10_000) -> Interval:
    return bootstrapped(returns[:, None], DAYS, seed=seed, resamples=resamples).interval("sharpe")


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    first = sharpe_interval(RETURNS, seed=5, resamples=200)
    assert first == sharpe_interval(RETURNS, seed=5, resamples=200)
    assert first != sharpe_interval(RETURNS, seed=6, resamples=200)


def test_interval_surrounds_the_estimate_and_has_the_width_of_theory() -> None:
    low, high = sharpe_interval(RETURNS, seed=1)
    assert low < sharpe(RETURNS, DAYS) < high
    # Lo 2002, iid: standard error of the annual ratio ~ sqrt(365 / m); 95 % is 3.92 of them wide.
    assert high - low == pytest.approx(3.92 * (DAYS / len(RETURNS)) ** 0.5, rel=0.2)


@pytest.mark.slow
def test_ninety_five_percent_intervals_cover_the_true_ratio_of_normal_returns() -> None:
    rng = np.random.default_rng(21)
    truth = 0.05 * DAYS**0.5
    hits = 0
    for seed in range(100):
        low, high = sharpe_interval(rng.normal(0.001, 0.02, 200), seed=seed, resamples=200)
        hits += low <= truth <= high
    assert 86 <= hits <= 100  # binomial(100, .95): fewer than 88 has probability .004; the bootstrap is a little narrow


def test_a_copy_of_the_baseline_differs_by_nothing() -> None:
    assert sharpe_difference_interval(MARKET, MARKET, DAYS, seed=3, resamples=100) == (0.0, 0.0)


def test_a_constant_gain_on_top_of_the_baseline_is_certain() -> None:
    # Paired: the market's own noise cancels, so the interval is far narrower than either ratio's own.
    low, high = sharpe_difference_interval(MARKET + 0.001, MARKET, DAYS, seed=3, resamples=200)
    assert 0.8 < low < high < 1.1


def test_independent_noise_is_not_better_than_the_market() -> None:
    low, high = sharpe_difference_interval(np.random.default_rng(13).normal(0, 0.02, 400), MARKET, DAYS, seed=3)
    assert low < 0.0 < high


def test_against_cash_the_difference_is_the_ratio_itself() -> None:
    paired = sharpe_difference_interval(RETURNS, np.zeros(400), DAYS, seed=4, resamples=200)
    assert paired == sharpe_interval(RETURNS, seed=4, resamples=200)


def test_a_policy_that_never_traded_never_beats_cash() -> None:
    assert sharpe_difference_interval(np.zeros(400), np.zeros(400), DAYS, seed=4, resamples=50) == (0.0, 0.0)


@pytest.mark.parametrize("returns", [np.zeros(100), RETURNS[:19]])
def test_insufficient_data_gives_no_interval(returns: np.ndarray) -> None:
    assert np.isnan(sharpe_interval(returns, seed=1)).all()
    assert np.isnan(UNKNOWN).all()


def test_fewer_than_twenty_days_cannot_be_compared() -> None:
    assert np.isnan(sharpe_difference_interval(RETURNS[:19], MARKET[:19], DAYS, seed=1)).all()


def test_paired_series_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="must cover the same days, were 400 and 399"):
        sharpe_difference_interval(RETURNS, MARKET[:399], DAYS, seed=1)


def both(returns: np.ndarray = RETURNS) -> np.ndarray:
    return np.stack([returns, MARKET[: len(returns)], np.zeros(len(returns))], axis=1)


def test_all_metrics_of_all_strategies_come_from_the_same_draws() -> None:
    found = bootstrapped(both(), DAYS, seed=3, resamples=300, block_days=1)
    assert found.interval("sharpe", 1) == sharpe_interval(MARKET, seed=3, resamples=300)
    pair = sharpe_difference_interval(RETURNS, MARKET, DAYS, seed=3, resamples=300)
    assert found.difference("sharpe", 0, 1) == pair
    for number, metric in enumerate(METRICS):
        low, high = found.interval(metric, 0)
        assert low < np.median(found.draws[:, number, 0]) < high
        assert found.difference(metric, 1, 1) == (0.0, 0.0)


def test_a_wider_level_contains_the_narrower() -> None:
    found = bootstrapped(both(), DAYS, seed=3, resamples=300)
    (wide_low, wide_high), (low, high) = (found.interval("cagr", 0, level=level) for level in (0.99, 0.8))
    assert wide_low < low < high < wide_high


def test_cash_and_too_few_days_have_no_interval() -> None:
    found = bootstrapped(both(), DAYS, seed=3, resamples=50)
    assert np.isnan(found.interval("cagr", 2)).all()
    few = bootstrapped(both(RETURNS[:19]), DAYS, seed=3)
    assert np.isnan([*few.interval("cagr", 0), *few.difference("cagr", 0, 1)]).all()
