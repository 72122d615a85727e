"""A figure among its random twins', by hand, and as seldom extreme as its chance says where there is no skill."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.evaluation.twins import Rank, Ranks, middle, rank


def test_a_rank_by_hand() -> None:
    # Of 19 twins, 1 .. 19, two are at least 18: (1 + 2) / 20.
    found = rank(18.0, np.arange(1.0, 20.0))
    assert found == Rank(value=18.0, low=pytest.approx(1.9), median=10.0, high=pytest.approx(18.1), chance=0.15)


def test_who_is_above_all_has_the_least_chance_there_is_and_equals_count_as_better() -> None:
    assert rank(1.0, np.zeros(199)).chance == 1 / 200
    assert rank(0.0, np.zeros(199)).chance == 1.0


def test_a_ratio_without_variance_counts_as_cash() -> None:
    found = rank(0.5, np.array([np.nan, 1.0, -1.0]))
    assert (found.median, found.chance) == (0.0, 0.5)
    assert rank(float("nan"), np.array([1.0, -1.0])).value == 0.0


def test_both_figures_must_be_seldom() -> None:
    seldom, often = (Rank(1.0, 0.0, 0.5, 1.0, chance) for chance in (0.01, 0.4))
    assert Ranks(net_return=seldom, sharpe=often, twins=99).chance == 0.4
    assert Ranks(net_return=seldom, sharpe=seldom, twins=99).chance == 0.01


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_the_middle_one_has_as_many_on_either_side(values: list[float]) -> None:
    chosen = values[middle(np.array(values))]
    assert sum(one < chosen for one in values) <= len(values) / 2
    assert sum(one > chosen for one in values) <= len(values) / 2


def test_without_skill_a_chance_below_one_in_twenty_comes_one_time_in_twenty() -> None:
    drawn = np.random.default_rng(0).standard_t(2, (1_500, 201))  # tails without a variance
    chances = np.array([rank(float(one[0]), one[1:]).chance for one in drawn])
    assert np.mean(chances < 0.05) == pytest.approx(0.0498, abs=0.017)  # three standard errors
