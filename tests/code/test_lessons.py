"""Lessons: real differences are found with their direction, chance ones are not, though trades resemble neighbours."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from btcai.reasoning.lessons import LEVEL, contrast, holm, lessons
from btcai.schema import FloatArray


def wandering(n: int, columns: int, phi: float, rng: np.random.Generator) -> FloatArray:
    """(n, columns) AR(1): neighbours are alike."""
    values = rng.normal(size=(n, columns))
    for t in range(1, n):
        values[t] = phi * values[t - 1] + np.sqrt(1 - phi**2) * values[t]
    return values


def named(values: FloatArray) -> pd.DataFrame:
    return pd.DataFrame({f"variable {i}": column for i, column in enumerate(values.T)})


def test_effect_is_mann_whitneys_and_so_is_the_chance_where_trades_are_independent() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        success = rng.random(1_500) < 0.4
        values = np.round(rng.normal(size=1_500) + 0.09 * success, 1)  # with ties
        oracle = mannwhitneyu(values[success], values[~success], method="asymptotic", use_continuity=False)
        effect, chance = contrast(values, success)
        assert effect == pytest.approx(2 * oracle.statistic / (success.sum() * (~success).sum()) - 1)
        assert chance == pytest.approx(oracle.pvalue, abs=0.04)


def test_effect_by_hand() -> None:
    # of the four pairs (success, failure) the success is larger in three: (3 - 1) / 4
    assert contrast(np.array([4.0, 2.0, 3.0, 1.0]), np.array([True, True, False, False]))[0] == pytest.approx(0.5)


def test_chances_are_corrected_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.9, 0.4])).tolist() == pytest.approx([0.9, 0.8])
    assert holm(np.empty(0)).tolist() == []


def test_a_planted_difference_becomes_the_lesson_and_nothing_else_does() -> None:
    rng = np.random.default_rng(0)
    values = wandering(1_200, 6, 0.8, rng)
    success = values[:, 2] + rng.normal(size=1_200) < 0
    (lesson,) = lessons(named(values), success)
    assert lesson.variable == "variable 2"
    assert lesson.effect < -0.3
    assert lesson.chance <= LEVEL
    assert (lesson.successes, lesson.failures) == (success.sum(), (~success).sum())
    assert lesson.median_success < lesson.median_failure
    assert "began with a lower variable 2" in lesson.sentence
    assert "corrected over 6 variables, held in 2 of 2 parts of the time" in lesson.sentence


def test_a_lesson_of_one_half_only_says_so() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1_000, 1))
    sign = np.where(np.arange(1_000) < 500, 3.0, -0.6)
    success = sign * values[:, 0] + rng.normal(size=1_000) > 0
    (lesson,) = lessons(named(values), success)
    assert lesson.effects_in_parts[0] > 0 > lesson.effects_in_parts[1]
    assert "held in 1 of 2 parts" in lesson.sentence


def test_parts_may_be_folds_and_one_with_too_few_trades_tells_nothing() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(900, 1))
    success = values[:, 0] + rng.normal(size=900) > 0
    fold = np.repeat([0, 1, 2], [448, 448, 4])
    (lesson,) = lessons(named(values), success, fold)
    assert len(lesson.effects_in_parts) == 3
    assert np.isnan(lesson.effects_in_parts[2])


@pytest.mark.slow
def test_chance_alone_teaches_as_seldom_as_it_says_though_neighbours_are_alike() -> None:
    taught = plain = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = wandering(400, 5, 0.9, rng)
        success = wandering(400, 1, 0.9, rng)[:, 0] > 0
        if min(success.sum(), (~success).sum()) < 20:
            continue
        taught += len(lessons(named(values), success)) > 0
        plain += min(mannwhitneyu(v[success], v[~success]).pvalue for v in values.T) < LEVEL / 5
    assert taught <= 18  # 5 % of 200, and 2.6 standard errors of it
    assert plain >= 100  # what a test teaches that takes neighbours for independent


def test_without_enough_trades_or_variation_there_is_no_lesson() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(60, 1))
    assert lessons(named(values), values[:, 0] > 1.5) == ()
    assert lessons(named(np.ones((60, 1))), rng.random(60) > 0.5) == ()
    assert lessons(named(np.empty((0, 2))), np.empty(0, np.bool_)) == ()
    with pytest.raises(ValueError, match="needs a context and an outcome, were 60 and 59"):
        lessons(named(values), np.ones(59, np.bool_))


def test_trades_with_an_unknown_context_are_left_out() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(800, 1))
    success = values[:, 0] + rng.normal(size=800) > 0
    values[::4] = np.nan
    (lesson,) = lessons(named(values), success)
    assert lesson.successes + lesson.failures == 600
