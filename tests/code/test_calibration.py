"""Static calibration against counted quantiles and fresh draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.calibration import conformal_quantile, coverage, fit_static
from btcai.schema import QUANTILE_LEVELS

LEVELS = np.asarray(QUANTILE_LEVELS)
ONE = np.ones(2)  # rows that share an outcome: none


def test_conformal_quantile_is_the_ranked_residual() -> None:
    residual = np.arange(1.0, 20.0)  # 1 .. 19, n = 19: rank ceil(20 * .9) = 18; mirrored: the 2nd smallest
    assert conformal_quantile(residual, 0.9) == 18.0
    assert conformal_quantile(residual, 0.1) == 2.0


def test_too_few_residuals_give_the_extreme_one() -> None:
    assert conformal_quantile(np.array([3.0, 1.0, 2.0]), 0.95) == 3.0


def test_offsets_repair_quantiles_that_are_too_narrow() -> None:
    rng = np.random.default_rng(0)
    outcome = rng.standard_normal((4000, 1))
    narrow = np.tile(0.5 * np.sort(rng.standard_normal(100_000))[(LEVELS * 100_000).astype(int)], (4000, 1, 1))
    known = np.ones((4000, 1), bool)
    half = slice(0, 2000), slice(2000, None)
    fitted = fit_static(
        outcome[half[0]], known[half[0]], np.zeros((2000, 1)), np.full((2000, 1), 0.5), narrow[half[0]], LEVELS, ONE
    )
    repaired = narrow[half[1]] + fitted.offset
    raw = coverage(outcome[half[1]], known[half[1]], narrow[half[1]][..., 0], narrow[half[1]][..., -1])
    after = coverage(outcome[half[1]], known[half[1]], repaired[..., 0], repaired[..., -1])
    assert raw[0] < 0.65
    assert after[0] == pytest.approx(0.9, abs=0.02)
    assert fitted.std_factor[0] == pytest.approx(2.0, rel=0.05)


def test_a_horizon_with_few_outcomes_is_left_alone() -> None:
    known = np.zeros((500, 2), bool)
    known[:, 0] = True
    rng = np.random.default_rng(1)
    target = rng.normal(3.0, 1.0, (500, 2))
    fitted = fit_static(target, known, np.zeros((500, 2)), np.ones((500, 2)), np.zeros((500, 2, 7)), LEVELS, ONE)
    assert (fitted.offset[0] > 1).all()
    assert (fitted.offset[1] == 0).all()
    assert fitted.std_factor[1] == 1


def test_overlapping_outcomes_count_once() -> None:
    # 500 rows, 20 to an outcome: 25 apart, too few; 16 to an outcome: 31
    rng = np.random.default_rng(1)
    target = rng.normal(3.0, 1.0, (500, 2))
    known = np.ones((500, 2), bool)
    overlap = np.array([20.0, 16.0])
    fitted = fit_static(target, known, np.zeros((500, 2)), np.ones((500, 2)), np.zeros((500, 2, 7)), LEVELS, overlap)
    assert (fitted.offset[0] == 0).all()
    assert (fitted.offset[1] > 1).all()


@given(st.integers(0, 2**31), st.integers(120, 400))
def test_fitted_quantiles_cover_their_level_where_they_were_fitted(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.standard_t(3, (n, 1))
    guess = np.sort(rng.normal(size=(1, 1, 7)), -1).repeat(n, 0)
    fitted = fit_static(target, np.ones((n, 1), bool), np.zeros((n, 1)), np.ones((n, 1)), guess, LEVELS, ONE)
    below = (target <= (guess + fitted.offset)[:, 0, :]).mean(0)
    assert np.abs(below - LEVELS).max() <= 2 / n + 1e-9
