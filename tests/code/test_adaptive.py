"""Offsets that follow the outcomes: steps by hand, the bound on what they miss, MAPIE and isotonic oracles."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.calibration import (
    STEP_FLOOR,
    STEP_START,
    AdaptiveCalibration,
    adjust,
    coverage,
    follow,
    in_order,
    learn,
    new_adaptive,
    overlap_and_delay,
)
from btcai.schema import QUANTILE_LEVELS

LEVELS = np.asarray(QUANTILE_LEVELS)
NORMAL = np.array([-1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645])
"""Standard normal quantiles at LEVELS."""
PAIR = np.array([0.05, 0.95])
ONE = np.ones(1)
YES = np.ones(1, bool)


def outcome_of(value: float) -> np.ndarray:
    return np.array([value])


def test_steps_by_hand() -> None:
    state = new_adaptive(np.array([0.1, 0.5, 0.9]), ONE)
    state = learn(state, np.array([[-1.0, 0.0, 1.0]]), outcome_of(2.0), YES)  # outside: apart by half of .5 x .8 each
    assert state.offset == pytest.approx(np.array([[-0.2, 0.0, 0.2]]))
    state = learn(state, np.array([[-1.2, 0.0, 1.2]]), outcome_of(0.5), YES)  # inside: half of .5 x (1 - .8) nearer
    assert state.offset == pytest.approx(np.array([[-0.15, 0.0, 0.15]]))
    state = learn(replace(state, updates=np.array([4])), np.array([[-1.15, 0.0, 1.15]]), outcome_of(-2.0), YES)
    assert state.offset == pytest.approx(np.array([[-0.25, 0.0, 0.25]]))  # below it is as far outside; .5 / 4^.5
    assert state.updates.tolist() == [5]


def test_each_pair_follows_what_it_promises_and_keeps_the_middle() -> None:
    state, issued = new_adaptive(np.array([0.1, 0.3, 0.7, 0.9]), ONE), np.array([[-2.0, -1.0, 1.0, 2.0]])
    state = learn(state, issued, outcome_of(1.5), YES)
    # inside the outer pair (p = .8), outside the inner one (p = .4): in by .25 x .2, out by .25 x .4
    assert state.offset == pytest.approx(np.array([[0.05, -0.1, 0.1, -0.05]]))


def test_outcomes_that_overlap_share_a_step() -> None:
    state = new_adaptive(PAIR, np.array([4.0]))
    for _ in range(4):
        state = learn(state, np.zeros((1, 2)), outcome_of(1.0), YES)
    assert state.offset == pytest.approx(np.array([[-0.225, 0.225]]))  # as one outcome on its own would
    late = replace(state, updates=np.array([10**9]))
    moved = learn(late, np.zeros((1, 2)), outcome_of(1.0), YES).offset - state.offset
    assert moved == pytest.approx(np.array([[-0.9, 0.9]]) * STEP_FLOOR / 8)


def test_an_outcome_is_held_against_what_was_issued_for_it() -> None:
    state = replace(new_adaptive(PAIR, ONE), offset=np.array([[-5.0, 5.0]]))
    narrow, wide = np.array([[-0.5, 0.5]]), np.array([[-2.0, 2.0]])
    assert learn(state, narrow, outcome_of(1.0), YES).offset[0, 1] == pytest.approx(5.225)  # missed then
    assert learn(state, wide, outcome_of(1.0), YES).offset[0, 1] == pytest.approx(4.975)


def test_what_never_became_known_changes_nothing() -> None:
    state = replace(new_adaptive(np.array([0.1, 0.9]), np.ones(3)), updates=np.array([7, 8, 9]))
    issued = np.array([[-1.0, 1.0], [-1.0, 1.0], [np.nan, 1.0]])
    same = learn(state, issued, np.array([9.0, np.nan, 9.0]), np.array([False, True, True]))
    assert (same.offset == state.offset).all()
    assert same.updates.tolist() == [7, 8, 9]


def stream(
    state: AdaptiveCalibration, quantiles: np.ndarray, outcome: np.ndarray, known: np.ndarray, delay: np.ndarray
) -> np.ndarray:
    """As live does it: one decision at a time."""
    issued = np.full(quantiles.shape, np.nan)
    for d in range(len(quantiles)):
        for h, late in enumerate(delay):
            if d >= late:  # one horizon at a time: the others are not known now
                beside = np.zeros(outcome.shape[1:])
                beside[h] = outcome[d - late, h]
                now = np.zeros(len(delay), bool)
                now[h] = known[d - late, h]
                state = learn(state, np.where(np.isnan(issued[d - late]), 0.0, issued[d - late]), beside, now)
        issued[d] = adjust(state, quantiles[d])
    return issued


def test_a_horizon_of_parts_of_a_patch_has_ended_at_the_next_decision() -> None:
    overlap, delay = overlap_and_delay((5, 20, 288), 10)
    assert overlap.tolist() == [1.0, 2.0, 28.8]
    assert delay.tolist() == [1, 2, 29]


def test_a_batch_is_the_stream_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    delay = np.array([3, 12, 29])
    quantiles = np.sort(rng.normal(size=(300, 3, 7)), axis=-1)
    outcome, known = 3 * rng.normal(size=(300, 3)), rng.random((300, 3)) < 0.9
    state = new_adaptive(LEVELS, np.array([3.0, 12.0, 28.8]))
    batch, after = follow(state, quantiles, outcome, known, delay)
    assert batch.tobytes() == stream(state, quantiles, outcome, known, delay).tobytes()
    assert after.updates.tolist() == [known[: 299 - late + 1, h].sum() for h, late in enumerate(delay)]


@pytest.mark.parametrize("cut", [40, 150, 299])
def test_no_forecast_knows_an_outcome_before_its_horizon_ends(cut: int) -> None:
    rng = np.random.default_rng(1)
    delay = np.array([5, 20])
    quantiles, outcome = np.tile(NORMAL, (300, 2, 1)), rng.normal(size=(300, 2))
    known = np.ones((300, 2), bool)
    state = new_adaptive(LEVELS, delay)
    clean, _ = follow(state, quantiles, outcome, known, delay)
    for h, late in enumerate(delay):
        outcome[max(0, cut - late + 1) :, h] = 1e3  # all that ends after decision `cut`
    poisoned, _ = follow(state, quantiles, outcome, known, delay)
    assert (clean[: cut + 1] == poisoned[: cut + 1]).all()
    assert cut == 299 or (clean[cut + 1] != poisoned[cut + 1]).any()


def against(levels: np.ndarray, delay: int, overlap: float, moves: list[int], rng: np.random.Generator) -> float:
    """Largest miss of a pair over its bound, where outcomes answer the quantiles that were issued.

    moves: 0 and 1 put the outcome a hair above or at a quantile, 2 and 3 at the ends of what is possible.
    """
    state, base, issued, outcome = new_adaptive(levels, np.array([overlap])), [], [], []
    for t, move in enumerate(moves):
        if t >= delay:
            state = learn(state, issued[t - delay], outcome_of(outcome[t - delay]), YES)
        base.append(np.sort(rng.normal(size=(1, len(levels))) * rng.choice([0.01, 1.0])))
        issued.append(adjust(state, base[-1]))
        one = issued[-1][0, rng.integers(len(levels))]
        asked = (one + 1e-9, one, -4.0, 4.0)[move]
        outcome.append(float(np.clip(asked, -4.0, 4.0)))
        assert (np.diff(issued[-1]) >= 0).all()
    learned, half = len(moves) - delay, len(levels) // 2
    y, b, q = np.array(outcome)[:, None], np.concatenate(base), np.concatenate(issued)
    scores = np.maximum(b - y, y - b[:, ::-1])[:, :half]  # of each pair, by its lower level
    reach = np.maximum(scores.max(0), 0) - np.minimum(scores.min(0), 0)
    last = max(STEP_FLOOR, STEP_START / np.sqrt(max(1.0, learned / overlap))) / overlap
    bound = (2 * reach + (1 + delay) * STEP_START / overlap) / (last * learned)
    below = (y <= q)[:learned].mean(0)
    missed = (below - below[::-1])[:half] - (levels - levels[::-1])[:half]
    return float((np.abs(missed) / bound).max())


@settings(max_examples=25)
@given(
    st.sampled_from([[0.05, 0.95], [0.3, 0.5, 0.7], [0.1, 0.9], list(QUANTILE_LEVELS)]),
    st.integers(1, 12),
    st.sampled_from([1.0, 7.0]),
    st.lists(st.integers(0, 3), min_size=60, max_size=150),
    st.integers(0, 2**31),
)
def test_no_adversary_breaks_the_bound(
    levels: list[float], delay: int, overlap: float, moves: list[int], seed: int
) -> None:
    assert against(np.array(levels), delay, overlap, moves, np.random.default_rng(seed)) <= 1.0


@pytest.mark.parametrize("move", [0, 1, 2, 3])
def test_nor_does_one_that_never_changes_its_mind(move: int) -> None:
    assert against(LEVELS, 6, 6.0, [move] * 500, np.random.default_rng(move)) <= 1.0


def test_a_shift_that_breaks_the_static_interval_is_followed() -> None:
    rng = np.random.default_rng(3)
    outcome = rng.normal(size=(6000, 1))
    outcome[3000:] *= 2.0
    quantiles, known = np.tile(NORMAL, (6000, 1, 1)), np.ones((6000, 1), bool)
    issued, _ = follow(new_adaptive(LEVELS, ONE), quantiles, outcome, known, np.array([1]))
    static, adaptive = (
        [
            coverage(outcome[late], known[late], q[late, :, 0], q[late, :, -1])[0]
            for late in (slice(3000, None), slice(4500, None))
        ]
        for q in (quantiles, issued)
    )
    assert static == pytest.approx([0.59, 0.59], abs=0.02)  # P(|z| < 1.645 / 2)
    assert adaptive[0] > 0.83  # with the 1,500 or so that it takes to get there
    assert adaptive[1] == pytest.approx(0.9, abs=0.02)
    assert (outcome[4500:] <= issued[4500:, 0]).mean(0) == pytest.approx(LEVELS, abs=0.025)


def test_forecasts_that_are_right_stay_as_good() -> None:
    rng = np.random.default_rng(4)
    horizon = 12
    steps = rng.normal(size=6_000 + horizon) / np.sqrt(horizon)
    outcome = np.convolve(steps, np.ones(horizon), "valid")[1:, None]  # overlapping, each standard normal
    quantiles, known = np.tile(NORMAL, (6_000, 1, 1)), np.ones((6_000, 1), bool)
    issued, state = follow(new_adaptive(LEVELS, np.array([12.0])), quantiles, outcome, known, np.array([horizon]))
    assert coverage(outcome, known, issued[:, :, 0], issued[:, :, -1])[0] == pytest.approx(0.9, abs=0.01)
    assert np.abs(state.offset).max() < 0.15
    error = [outcome - q[:, 0] for q in (quantiles, issued)]
    before, after = (np.maximum(LEVELS * e, (LEVELS - 1) * e).mean() for e in error)
    assert after / before < 1.002  # what 500 outcomes apart cost


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_crossing_quantiles_become_the_closest_rising_ones(values: list[float]) -> None:
    from scipy.optimize import isotonic_regression

    found = in_order(np.array([values, sorted(values)]))
    assert found[0] == pytest.approx(isotonic_regression(values).x, abs=1e-9)
    assert (np.diff(found, axis=-1) >= 0).all()
    assert found[1].tolist() == sorted(values)  # untouched


def test_crossing_quantiles_by_hand() -> None:
    assert in_order(np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [1.0, 2.5, 2.5, 4.0]


@pytest.mark.slow  # importing MAPIE takes seconds
def test_without_delay_it_is_the_adaptive_inference_of_mapie() -> None:
    # MAPIE moves the level and looks the width up in its scores; over evenly spread scores both are the same thing.
    from mapie.regression import TimeSeriesRegressor
    from sklearn.dummy import DummyRegressor

    grid = np.linspace(-1, 1, 20_001)
    theirs = TimeSeriesRegressor(DummyRegressor(strategy="constant", constant=0.0), method="aci", cv="prefit")
    theirs.estimator.fit(grid[:, None], grid)
    theirs.fit(grid[:, None], grid)
    state = replace(new_adaptive(PAIR, ONE), updates=np.array([10**6]))  # its step stays at the floor
    rng = np.random.default_rng(7)
    for outcome in rng.normal(0.0, 0.4, 150):
        at = np.zeros((1, 1))
        _, interval = theirs.predict(at, confidence_level=0.9, allow_infinite_bounds=True)
        ours = adjust(state, np.array([[-0.9, 0.9]]))
        assert ours[0] == pytest.approx(interval[0, :, 0], abs=5e-4)
        theirs.adapt_conformal_inference(at, np.array([outcome]), gamma=STEP_FLOOR / 2, confidence_level=0.9)
        state = learn(state, ours, outcome_of(outcome), YES)
    assert abs(state.offset[0, 0]) > 0.05  # it went somewhere
