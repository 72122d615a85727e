"""Shapley values by hand and by their axioms, coalitions' Sharpe ratios, adjustments that never see what is sealed."""

import json
from dataclasses import FrozenInstanceError, replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from btcai.errors import ArtifactError, DataError
from btcai.features.splits import Splits
from btcai.reasoning.adjustment import Adjustment, adjust, adjustment_json, read_adjustment
from btcai.reasoning.attribution import (
    Attribution,
    Worth,
    attribute,
    block_moments,
    coalition_sharpes,
    refuse_sealed,
    shapley,
)
from btcai.schema import FloatArray, Span

SPLITS = Splits(
    train=Span(0, 10_000),
    valid=Span(10_100, 12_000),
    test=Span(12_100, 20_000),
    folds=(Span(12_100, 16_050), Span(16_050, 20_000)),
    sealed=Span(20_100, 24_000),
)
FOLD = Span(12_100, 16_050)


def measured(
    votes: FloatArray, outcome: FloatArray, weights: dict[str, float], *, span: Span = FOLD, horizon_bars: int = 3
) -> Attribution:
    decisions = span.first + np.arange(len(outcome))
    return attribute(
        votes,
        outcome,
        decisions,
        weights,
        horizon_bars=horizon_bars,
        span=span,
        splits=SPLITS,
    )


def planted(seed: int, n: int = 3_000) -> tuple[FloatArray, FloatArray]:
    """Three voters, of whom the first knows something of the outcome."""
    rng = np.random.default_rng(seed)
    votes = rng.uniform(-1, 1, (n, 3))
    return votes, 0.3 * votes[:, 0] + rng.normal(size=n)


EQUAL = {"knows": 1 / 3, "guesses": 1 / 3, "hopes": 1 / 3}


def test_three_players_by_hand() -> None:
    # A pair of gloves is worth 1; the first holds a left one, the others a right one each: 4/6, 1/6, 1/6.
    values = np.array([0, 0, 0, 1, 0, 1, 0, 1], np.float64)  # {}, a, b, ab, c, ac, bc, abc
    assert shapley(values).tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_a_majority_of_unequal_votes_by_hand() -> None:
    # [4; 3, 2, 1]: a is pivotal in 4 of 6 orders, b and c in one each.
    weight = np.array([3, 2, 1])
    wins = [float(sum(weight[k] for k in range(3) if c >> k & 1) >= 4) for c in range(8)]
    assert shapley(np.array(wins)).tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])


@given(arrays(np.float64, 16, elements=st.floats(-1e3, 1e3)))
def test_values_add_up_to_what_all_are_worth(values: FloatArray) -> None:
    assert shapley(values).sum() == pytest.approx(values[15] - values[0], abs=1e-8)


@given(arrays(np.float64, 8, elements=st.floats(-1e3, 1e3)), st.floats(-10, 10))
def test_a_dummy_is_worth_what_it_brings_and_the_others_keep_theirs(values: FloatArray, own: float) -> None:
    with_dummy = np.concatenate([values, values + own])  # player 3 adds `own` to everyone
    worth = shapley(with_dummy)
    assert worth[3] == pytest.approx(own, abs=1e-9)
    assert worth[:3] == pytest.approx(shapley(values), abs=1e-8)


@given(arrays(np.float64, 8, elements=st.floats(-1e3, 1e3)))
def test_players_who_can_stand_in_for_each_other_are_worth_the_same(values: FloatArray) -> None:
    values[2], values[6] = values[1], values[5]  # players 0 and 1, alone and beside player 2
    worth = shapley(values)
    assert worth[0] == pytest.approx(worth[1], abs=1e-8)


@given(arrays(np.float64, 32, elements=st.floats(-1e3, 1e3)))
def test_values_are_the_mean_gain_over_all_orders(values: FloatArray) -> None:
    gains = np.zeros(5)
    orders = list(permutations(range(5)))
    for order in orders:
        coalition = 0
        for player in order:
            gains[player] += values[coalition | 1 << player] - values[coalition]
            coalition |= 1 << player
    assert shapley(values) == pytest.approx(gains / len(orders), abs=1e-8)


def test_a_table_that_is_no_game_is_refused() -> None:
    with pytest.raises(ValueError, match=r"each of 2\^K coalitions, were 6"):
        shapley(np.zeros(6))


def test_ratios_of_coalitions_are_those_of_their_sums() -> None:
    earned = np.random.default_rng(0).normal(0.1, 1, (500, 3))
    ratios = coalition_sharpes(block_moments(earned, np.arange(500) // 7).sum(axis=0), 3)
    for coalition in range(1, 8):
        path = earned[:, [k for k in range(3) if coalition >> k & 1]].sum(axis=1)
        assert ratios[coalition] == pytest.approx(path.mean() / path.std())
    assert ratios[0] == 0.0


def test_a_component_that_never_votes_is_worth_nothing_and_one_that_knows_all() -> None:
    votes, outcome = planted(0)
    votes[:, 2] = 0.0
    found = measured(votes, outcome, EQUAL)
    knows, guesses, silent = found.components
    assert (silent.value, silent.low, silent.high, silent.alone) == pytest.approx((0.0, 0.0, 0.0, 0.0), abs=1e-12)
    assert not silent.is_significant
    assert silent.without == pytest.approx(found.sharpe)
    assert knows.is_significant
    assert knows.low < knows.value < knows.high
    assert knows.value + guesses.value == pytest.approx(found.sharpe)
    assert knows.without == pytest.approx(guesses.alone)
    assert knows.alone > found.sharpe > 0.1  # a guesser beside it costs


def test_twins_share_their_worth() -> None:
    votes, outcome = planted(1)
    votes[:, 1] = votes[:, 0]
    found = measured(votes, outcome, EQUAL)
    assert found.components[0].value == pytest.approx(found.components[1].value)


def test_scale_of_weights_and_order_of_components_change_no_worth() -> None:
    votes, outcome = planted(2)
    found = measured(votes, outcome, EQUAL)
    scaled = measured(votes[:, ::-1], outcome, {"hopes": 5.0, "guesses": 5.0, "knows": 5.0})
    for one, other in zip(found.components, reversed(scaled.components), strict=True):
        assert one.component == other.component
        assert one.value == pytest.approx(other.value)
        assert one.low == pytest.approx(other.low)


def test_who_is_always_bullish_earns_nothing_from_a_rising_market() -> None:
    rng = np.random.default_rng(3)
    votes = np.column_stack([np.ones(3_000), rng.uniform(-1, 1, 3_000)])
    found = measured(votes, 0.5 + rng.normal(size=3_000), {"bull": 0.5, "noise": 0.5})
    assert not any(worth.is_significant for worth in found.components)
    assert found.components[0].alone == pytest.approx(0.0, abs=1e-12)


def test_overlapping_outcomes_do_not_make_noise_significant() -> None:
    significant = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        votes = np.repeat(rng.uniform(-1, 1, (300, 2)), 10, axis=0)  # as slow as the outcomes
        steps = rng.normal(size=3_011)
        outcome = np.convolve(steps, np.ones(12), "valid")[:3_000] / np.sqrt(12)
        found = measured(votes, outcome, {"a": 0.5, "b": 0.5}, horizon_bars=12)
        significant += any(worth.is_significant for worth in found.components)
    assert significant <= 6  # 5 % of 40, and 3 standard errors of it


def test_unknown_outcomes_are_left_out() -> None:
    votes, outcome = planted(4)
    outcome[::3] = np.nan
    assert measured(votes, outcome, EQUAL).decisions == 2_000


def test_too_short_a_span_gives_no_interval_and_moves_no_weight() -> None:
    votes, outcome = planted(5, 146)
    found = measured(votes, outcome, EQUAL, horizon_bars=8)  # 10 blocks need 160 bars
    assert all(np.isnan(worth.low) and not worth.is_significant for worth in found.components)
    assert adjust(found, SPLITS, {}).after == (1 / 3, 1 / 3, 1 / 3)


@pytest.mark.parametrize("span", [Span(19_000, 20_101), Span(20_100, 24_000), Span(23_999, 30_000)])
def test_sealed_bars_are_refused(span: Span) -> None:
    votes, outcome = planted(6, 500)
    with pytest.raises(DataError, match=r"must end before the sealed span \(bar 20100\), was from bars"):
        measured(votes, outcome, EQUAL, span=span)
    sneaked = replace(measured(votes, outcome, EQUAL), span=span)
    with pytest.raises(DataError, match="learn from a fold of the test span"):
        adjust(sneaked, SPLITS, {})
    refuse_sealed(Span(19_000, 20_100), SPLITS)


def test_decisions_whose_outcomes_leave_the_span_are_refused() -> None:
    votes, outcome = planted(7, 100)
    with pytest.raises(ValueError, match=r"must lie inside bars 12100 \.\. 12199, were from bar 12100 to 12202"):
        measured(votes, outcome, EQUAL, span=Span(12_100, 12_200))
    with pytest.raises(ValueError, match=r"votes must be \(decisions, components\) .* was \(100, 3\)"):
        measured(votes, outcome, {"one": 1.0})


def worths(*values: tuple[float, float, float, float]) -> Attribution:
    """(weight, value, low, high) of each component."""
    made = [
        Worth(component=f"c{i}", weight=weight, value=value, low=low, high=high, alone=0.0, without=0.0)
        for i, (weight, value, low, high) in enumerate(values)
    ]
    return Attribution(components=tuple(made), sharpe=0.1, span=FOLD, decisions=100, horizon_bars=3)


def test_only_significant_worth_moves_weights_by_hand() -> None:
    found = adjust(worths((0.5, 0.2, 0.1, 0.3), (0.25, -0.1, -0.2, -0.05), (0.25, 0.9, -0.1, 1.9)), SPLITS, {})
    raw = np.array([0.5 * np.exp(0.5), 0.25 * np.exp(-0.25), 0.25])
    assert found.after == pytest.approx(tuple(raw / raw.sum()))
    assert found.moved == ("c0", "c1")
    assert found.weights["c2"] == found.after[2]


def test_nothing_significant_leaves_the_weights_to_the_bit() -> None:
    unsure = worths((0.1, 0.3, -0.1, 0.7), (0.7, -0.2, -0.9, 0.1), (0.2, np.nan, np.nan, np.nan))
    found = adjust(unsure, SPLITS, {})
    assert found.after == found.before == (0.1, 0.7, 0.2)
    assert found.moved == ()


def test_no_weight_falls_below_the_floor_and_one_on_it_comes_back() -> None:
    loser = worths((0.5, 0.2, 0.1, 0.3), (0.02, -0.2, -0.3, -0.1), (0.48, -0.1, -0.2, -0.05))
    found = adjust(loser, SPLITS, {}, step=3.0)
    assert found.after[1] == pytest.approx(0.02)
    assert sum(found.after) == pytest.approx(1.0)
    back = adjust(worths((0.98, 0.0, -0.1, 0.1), (0.02, 0.2, 0.1, 0.3)), SPLITS, {})
    assert back.after[1] == pytest.approx(0.02 * np.exp(0.5) / (0.98 + 0.02 * np.exp(0.5)))
    silent = adjust(worths((1.0, 0.1, 0.05, 0.2), (0.0, 0.2, 0.1, 0.3)), SPLITS, {})
    assert silent.after[1] > 0.02  # even one that was switched off


@given(
    weights=st.lists(st.floats(0.01, 5), min_size=2, max_size=8),
    step=st.floats(0.01, 3),
    data=st.data(),
)
def test_adjusted_weights_keep_their_sum_their_floor_and_their_cap(
    weights: list[float], step: float, data: st.DataObject
) -> None:
    values = [data.draw(st.floats(-2, 2)) for _ in weights]
    sure = [data.draw(st.booleans()) for _ in weights]
    half = [0.01 if one else 9.0 for one in sure]
    rows = [(w, v, v - h, v + h) for w, v, h in zip(weights, values, half, strict=True)]
    found = adjust(worths(*rows), SPLITS, {}, step=step, floor=0.02)
    before, after = np.array(found.before), np.array(found.after)
    assert after.sum() == pytest.approx(before.sum())
    if found.moved:
        assert np.all(after >= 0.02 * before.sum() * (1 - 1e-9))
        free = after > 0.02 * before.sum() * (1 + 1e-9)
        grew = (after / before)[free & (before >= 0.02 * before.sum())]
        assert len(grew) == 0 or grew.max() / grew.min() <= np.exp(2 * step) * (1 + 1e-9)


def test_an_adjustment_is_frozen_and_comes_back_from_its_line() -> None:
    found = adjust(worths((0.5, 0.2, 0.1, 0.3), (0.5, np.nan, np.nan, np.nan)), SPLITS, {"model": "b1", "data": "a0"})
    with pytest.raises(FrozenInstanceError):
        found.step = 1.0  # type: ignore[misc]
    line = adjustment_json(found)
    assert line.count("\n") == 1
    assert "NaN" not in line
    assert json.loads(line)["made_from"] == [["data", "a0"], ["model", "b1"]]
    back = read_adjustment(line)
    assert isinstance(back, Adjustment)
    assert adjustment_json(back) == line
    assert (back.after, back.span, back.worths[0]) == (found.after, found.span, found.worths[0])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"worths": 3}', '{"worths": [], "made_from": [1]}'])
def test_a_damaged_line_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="must be a line of JSON as it was logged"):
        read_adjustment(text)


@pytest.mark.parametrize("number", [None, 2])
def test_a_line_of_another_format_is_refused(number: int | None) -> None:
    line = json.loads(adjustment_json(adjust(worths((0.5, 0.2, 0.1, 0.3), (0.5,) * 4), SPLITS, {"model": "b1"})))
    with pytest.raises(ArtifactError, match=f"its format is {number}, this btcai reads 1"):
        read_adjustment(json.dumps(line | {"format": number}))


@pytest.mark.parametrize(
    ("rows", "floor", "message"),
    [
        (((-0.1, 0, 0, 0), (1.1, 0, 0, 0)), 0.02, "at least 0 and not all 0"),
        (((0.0, 0, 0, 0), (0.0, 0, 0, 0)), 0.02, "at least 0 and not all 0"),
        (((0.5, 0, 0, 0), (0.5, 0, 0, 0)), 0.6, r"floor of 2 weights must be 0 .. 0.5, was 0.6"),
    ],
)
def test_weights_and_floors_that_cannot_be_are_refused(
    rows: tuple[tuple[float, float, float, float], ...], floor: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        adjust(worths(*rows), SPLITS, {}, floor=floor)
