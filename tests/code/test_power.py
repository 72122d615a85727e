"""The smallest edge that days could show: by hand, put back into its equation, and by simulation."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.evaluation.metrics import sharpe
from btcai.evaluation.power import LUCK, smallest_edge, smallest_sharpe

DAYS = 365
MARKET = np.random.default_rng(2).normal(0.001, 0.02, 365)
NORMAL = NormalDist()
NONE = np.empty(0)


def test_a_year_beside_cash_by_hand() -> None:
    # z = 1.96 + .8416 = 2.8016; s^2 = z^2 / (365 - z^2 / 2) = .1474^2, times sqrt(365): 2.817.
    assert smallest_sharpe(365, DAYS, error=0.025) == pytest.approx(2.817, abs=1e-3)


def test_half_a_year_at_the_level_of_four_buckets_shows_but_a_huge_edge() -> None:
    # z = 2.4977 + .8416 = 3.3393; z / sqrt(182 - 5.575) * sqrt(365) = 4.803.
    assert smallest_sharpe(182, DAYS, error=0.05 / 8) == pytest.approx(4.803, abs=2e-3)


@given(
    days=st.integers(40, 3000),
    error=st.floats(1e-5, 0.1),
    baseline=st.floats(-2, 3),
    correlation=st.floats(-0.95, 0.95),
)
def test_the_edge_solves_its_equation(days: int, error: float, baseline: float, correlation: float) -> None:
    found = smallest_sharpe(days, DAYS, error=error, baseline_sharpe=baseline, correlation=correlation)
    s, b = found / DAYS**0.5, baseline / DAYS**0.5
    variance = 2 - 2 * correlation + (s**2 + b**2 - 2 * s * b * correlation**2) / 2
    z = NORMAL.inv_cdf(1 - error) + NORMAL.inv_cdf(0.8)
    assert (s - b) / math.sqrt(variance / days) == pytest.approx(z, rel=1e-6)


@given(days=st.integers(40, 3000), correlation=st.floats(0.0, 0.9))
def test_longer_records_and_closer_tracking_show_smaller_edges(days: int, correlation: float) -> None:
    def found(more_days: int, closer: float) -> float:
        return smallest_sharpe(
            days + more_days, DAYS, error=0.025, baseline_sharpe=0.7, correlation=correlation + closer
        )

    assert found(30, 0.0) < found(0, 0.0)
    assert found(0, 0.05) < found(0, 0.0)


def test_too_few_days_could_show_nothing() -> None:
    assert smallest_sharpe(5, DAYS, error=0.0005) == float("inf")


def test_the_baseline_that_asks_for_most_is_named() -> None:
    returns = 0.2 * MARKET + np.random.default_rng(3).normal(0.0, 0.02, 365)
    found = smallest_edge(returns, {"cash": np.zeros(365), "market": MARKET}, DAYS, error=0.025, trial_sharpes=NONE)
    correlation = float(np.corrcoef(returns, MARKET)[0, 1])
    expected = smallest_sharpe(365, DAYS, error=0.025, baseline_sharpe=sharpe(MARKET, DAYS), correlation=correlation)
    assert found == (pytest.approx(expected), "market")
    cash = smallest_edge(returns, {"cash": np.zeros(365)}, DAYS, error=0.025, trial_sharpes=NONE)
    assert cash == (pytest.approx(2.817, abs=1e-3), "cash")


def test_trials_ask_for_more_by_hand() -> None:
    # The best of 2,000 independent ones without skill is past z = 4.0516 in one of twenty; (4.0516 + .8416) / sqrt(3)
    # = 2.825, and a little: a day's ratio of .148 makes the error of what is shown sqrt(1 + .148^2 / 2) as large.
    unknown = np.full(2000, np.nan)
    found = smallest_edge(np.ones(1095), {"cash": np.zeros(1095)}, DAYS, error=0.025, trial_sharpes=unknown)
    assert found == (pytest.approx(2.828, abs=0.003), LUCK)


def test_trials_that_have_much_in_common_ask_for_little_beyond_it() -> None:
    alike = 1.0 + 0.01 * np.random.default_rng(0).normal(size=2000)  # a market that rises, all in it
    found = smallest_edge(np.ones(1095), {"cash": np.zeros(1095)}, DAYS, error=0.025, trial_sharpes=alike)
    assert found == (pytest.approx(1.63, abs=0.01), "cash")  # (1.96 + .8416) / sqrt(3), and a little
    # 1.0 and the best of 2,000 of them, .04, + .8416 / sqrt(3)
    one = smallest_edge(np.ones(1095), {"cash": np.zeros(1095)}, DAYS, error=0.4, trial_sharpes=alike)
    assert one == (pytest.approx(1.04 + 0.486, abs=0.01), LUCK)


def test_a_bucket_that_never_traded_is_taken_as_unlike_every_baseline() -> None:
    found = smallest_edge(np.zeros(365), {"market": MARKET}, DAYS, error=0.025, trial_sharpes=NONE)
    apart = smallest_sharpe(365, DAYS, error=0.025, baseline_sharpe=sharpe(MARKET, DAYS), correlation=0.0)
    assert found.sharpe == pytest.approx(apart)


@pytest.mark.parametrize(("days", "baselines"), [(19, {"cash": np.zeros(19)}), (365, {})])
def test_without_days_or_baselines_there_is_no_figure(days: int, baselines: dict[str, np.ndarray]) -> None:
    assert math.isnan(smallest_edge(np.zeros(days), baselines, DAYS, error=0.025, trial_sharpes=NONE).sharpe)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [None, 0.0, 0.8])
def test_the_edge_is_found_four_times_in_five(correlation: float | None) -> None:
    """Pairs of normal returns with exactly that edge, judged by the normal error of the difference."""
    days, pairs, rho, baseline = 365, 4000, correlation or 0.0, 0.0 if correlation is None else 0.7
    edge = smallest_sharpe(days, DAYS, error=0.025, baseline_sharpe=baseline, correlation=correlation)
    rng = np.random.default_rng(6)
    theirs = rng.normal(size=(pairs, days))
    ours = rho * theirs + (1 - rho**2) ** 0.5 * rng.normal(size=(pairs, days)) + edge / DAYS**0.5
    theirs = np.zeros_like(theirs) if correlation is None else theirs + baseline / DAYS**0.5
    found = [surely_above(mine, other) for mine, other in zip(ours, theirs, strict=True)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.025)


def surely_above(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """At 95 %, with the error from each day's influence on both ratios: without the formula under test."""
    (ratio, influence), (other, its) = (one_ratio(returns) for returns in (ours, theirs))
    return bool(ratio - other > NORMAL.inv_cdf(0.975) * (influence - its).std() / len(ours) ** 0.5)


def one_ratio(returns: np.ndarray) -> tuple[float, np.ndarray]:
    """Sharpe ratio of a day and how much each day moves it; nothing for cash."""
    if not returns.any():
        return 0.0, returns
    unit = (returns - returns.mean()) / returns.std()
    ratio = float(returns.mean() / returns.std())
    return ratio, unit - 0.5 * ratio * (unit**2 - 1)
