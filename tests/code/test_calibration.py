"""Static calibration and temperature: counted quantiles, fresh draws, MAPIE and scipy as oracles."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.calibration import (
    MAX_TEMPERATURE,
    conformal_quantile,
    coverage,
    fit_static,
    fit_temperature,
    rise_log_odds,
    temperature_interval,
)
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


class Prefit:
    """A fitted quantile regressor in the eyes of MAPIE: predicts its column of X."""

    def __init__(self, column: int) -> None:
        self.column = column
        self.is_fitted = True

    def fit(self, features: np.ndarray, _: np.ndarray) -> "Prefit":
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return features[:, self.column]


@pytest.mark.slow  # importing MAPIE takes seconds
@pytest.mark.parametrize(("n", "outer"), [(100, 0.9), (537, 0.9), (1000, 0.8), (999, 0.5)])
def test_offsets_are_those_of_mapie(n: int, outer: float) -> None:
    from mapie.regression import ConformalizedQuantileRegressor
    from sklearn.base import BaseEstimator, RegressorMixin

    regressor = type("PrefitRegressor", (Prefit, RegressorMixin, BaseEstimator), {})
    rng = np.random.default_rng(n)
    centre = rng.normal(size=n)
    predicted = np.stack([centre - 1.0, centre, centre + 1.3], axis=1)  # too narrow, and skewed
    outcome = centre + rng.standard_t(3, n)
    theirs = ConformalizedQuantileRegressor(
        [regressor(column) for column in (0, 2, 1)], confidence_level=outer, prefit=True
    )
    _, interval = theirs.conformalize(predicted, outcome).predict_interval(predicted[:1])
    tail = (1 - outer) / 2
    ours = fit_static(
        outcome[:, None],
        np.ones((n, 1), bool),
        np.zeros((n, 1)),
        np.ones((n, 1)),
        predicted[:, None, [0, 2]],
        np.array([tail, 1 - tail]),
        np.ones(1),
    )
    assert predicted[0, [0, 2]] + ours.offset[0] == pytest.approx(interval[0, :, 0], abs=1e-12)


def test_a_temperature_by_hand() -> None:
    # Called at odds of 9 to 1 and came 3 times of 4: log 9 / log 3 = 2.
    log_odds, came = np.full(40, np.log(9.0)), np.tile([True, True, True, False], 10)
    assert fit_temperature(log_odds, came) == pytest.approx(2.0)
    # The other side of the coin is the same fit; one called as often as it came needs nothing.
    assert fit_temperature(-log_odds, ~came) == pytest.approx(2.0)
    assert fit_temperature(log_odds / 2, came) == pytest.approx(1.0)


def test_the_temperature_of_one_that_is_always_wrong_says_a_half() -> None:
    assert fit_temperature(np.full(40, 1.0), np.zeros(40, bool)) == pytest.approx(MAX_TEMPERATURE)
    assert fit_temperature(np.full(40, 1.0), np.ones(40, bool)) == pytest.approx(1 / MAX_TEMPERATURE)


def test_few_outcomes_and_silence_leave_the_temperature_alone() -> None:
    assert fit_temperature(np.full(29, 1.0), np.zeros(29, bool)) == 1.0
    assert fit_temperature(np.full(299, 1.0), np.zeros(299, bool), overlap=10.0) == 1.0
    assert fit_temperature(np.zeros(100), np.ones(100, bool)) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_the_likeliest(seed: int) -> None:
    from scipy.optimize import minimize_scalar

    rng = np.random.default_rng(seed)
    honest = rng.normal(0.0, 1.0, 2000)
    came = rng.random(2000) < 1 / (1 + np.exp(-honest))
    said = 2.5 * honest  # too sure

    def loss(log_temperature: float) -> float:
        x = said * np.exp(-log_temperature)
        return float((np.logaddexp(0, x) - came * x).mean())

    fitted = fit_temperature(said, came)
    assert np.log(fitted) == pytest.approx(minimize_scalar(loss, bracket=(0, 1)).x, abs=1e-5)
    low, high = temperature_interval(said, fitted)
    assert low < 2.5 < high
    assert high - low < 0.7


def test_the_interval_of_a_temperature_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(5), []
    for _ in range(300):
        honest = rng.normal(0.0, 1.0, 400)
        came = rng.random(400) < 1 / (1 + np.exp(-honest))
        low, high = temperature_interval(2 * honest, fit_temperature(2 * honest, came))
        held.append(low <= 2.0 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.035)
    # Each outcome told ten times over widens it by the root of ten.
    low, high = temperature_interval(np.tile(2 * honest, 10), 2.0, overlap=10.0)
    assert (low, high) == pytest.approx(temperature_interval(2 * honest, 2.0))


def test_odds_that_say_nothing_have_no_upper_end() -> None:
    rng = np.random.default_rng(6)
    said, came = rng.normal(size=200), rng.random(200) < 0.5
    assert temperature_interval(said, fit_temperature(said, came))[1] == np.inf
    assert temperature_interval(np.zeros(5), 1.0) == (0.0, np.inf)


def test_log_odds_of_a_rise_by_the_normal_distribution() -> None:
    mean = np.array([-0.5, 0.0, 1.2])
    p = np.array([NormalDist(0.0, 2.0).cdf(value) for value in mean])
    assert rise_log_odds(mean, np.full(3, 2.0)) == pytest.approx(np.log(p / (1 - p)))
    assert np.isfinite(rise_log_odds(np.array([1e6, -1e6]), np.ones(2))).all()
    # What the mean is divided by, the log odds are: to 1 % below half a std.
    assert rise_log_odds(np.array([0.25]), np.ones(1)) * 2 == pytest.approx(
        rise_log_odds(np.array([0.5]), np.ones(1)), rel=0.01
    )


def test_a_mean_that_is_too_sure_is_found_on_held_out_outcomes() -> None:
    rng = np.random.default_rng(2)
    signal = 0.3 * rng.normal(size=(6000, 1))
    target = signal + rng.normal(size=(6000, 1))
    fitted = fit_static(
        target, np.ones((6000, 1), bool), 3 * signal, np.ones((6000, 1)), np.zeros((6000, 1, 7)), LEVELS, ONE
    )
    # The mean says .9 z with a std that is found to be (1 + .36)^.5 too small: what is left over of 3 is 2.5 or so.
    assert fitted.temperature[0] == pytest.approx(3 / fitted.std_factor[0], rel=0.1)


def test_a_mean_that_was_too_timid_is_left_as_it_is() -> None:
    """A third of what it should have said fits best at a third; what it gained on that span may have been luck."""
    rng = np.random.default_rng(2)
    signal = 0.3 * rng.normal(size=(6000, 1))
    target = signal + rng.normal(size=(6000, 1))
    said = np.ones((6000, 1), bool), signal / 3, np.ones((6000, 1)), np.zeros((6000, 1, 7))
    fitted = fit_static(target, *said, LEVELS, ONE)
    log_odds = rise_log_odds(signal[:, 0] / 3, fitted.std_factor[0] * np.ones(6000))
    assert fit_temperature(log_odds, target[:, 0] > 0) == pytest.approx(1 / 3, rel=0.15)
    assert fitted.temperature.tolist() == [1.0]
