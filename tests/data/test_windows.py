"""Folds: every window against the plain formula on its rows, and to the bit whatever surrounds it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.features.windows import window_extremes, window_line, window_mean

VALUES = st.lists(st.one_of(st.just(math.nan), st.floats(-100, 100)), min_size=1, max_size=40)


def inside(values: np.ndarray, row: int, window: int) -> np.ndarray:
    return values[max(0, row - window + 1) : row + 1]


@given(VALUES, st.integers(1, 45), st.integers(0, 10**7))
def test_every_window_equals_the_plain_formula_on_its_rows(values: list[float], window: int, grid_row: int) -> None:
    array = np.array(values)
    mean = window_mean(array, window, grid_row, 0)
    top, bottom = window_extremes(array, array - 1.0, window, grid_row, 0)
    line_mean, std, correlation = window_line(array, window, grid_row, 0)
    for row in range(len(array)):
        part = inside(array, row, window)
        known = part[~np.isnan(part)]
        got = [mean[row], line_mean[row], std[row], top[row], bottom[row], correlation[row]]
        if 2 * len(known) < window:
            assert np.isnan(got).all()
        else:
            want = [known.mean(), known.mean(), known.std(), known.max(), known.min() - 1.0]
            np.testing.assert_allclose(got[:5], want, rtol=1e-9, atol=2e-6)
            assert -1 <= correlation[row] <= 1
            if len(known) > 1 and known.std() > 1e-3:
                time = np.flatnonzero(~np.isnan(part))
                assert correlation[row] == pytest.approx(np.corrcoef(time, known)[0, 1], abs=1e-6)


@given(VALUES, st.integers(1, 25), st.integers(0, 10**7), st.integers(0, 39))
def test_a_window_alone_gives_the_bits_it_has_inside_a_longer_history(
    values: list[float], window: int, grid_row: int, row: int
) -> None:
    array = np.array(values)
    row = min(row, len(array) - 1)
    start = max(0, row - window + 1)
    part = array[start : row + 1]
    for fold in (window_mean, window_line, lambda *a: window_extremes(a[0], a[0], *a[1:])):
        whole, alone = fold(array, window, grid_row, 0), fold(part, window, grid_row + start, len(part) - 1)
        for long, short in zip(np.atleast_2d(whole), np.atleast_2d(alone), strict=True):
            assert len(short) == 1
            np.testing.assert_array_equal(long[row : row + 1], short)


def test_equal_values_have_a_standard_deviation_of_exactly_zero_even_after_large_ones() -> None:
    values = np.concatenate((np.full(50, 1e12), np.full(100, 60_000.1)))
    mean, std, correlation = window_line(values, 20, 7, 0)
    assert (std[69:] == 0).all()
    assert (mean[69:] == 60_000.1).all()
    assert (correlation[69:] == 0).all()


def test_a_line_that_rises_has_correlation_one_and_one_that_falls_minus_one() -> None:
    rising = 60_000 + np.arange(50) / 100
    assert window_line(rising, 12, 3, 0)[2][-1] == pytest.approx(1)
    assert window_line(-rising, 12, 3, 0)[2][-1] == pytest.approx(-1)


def test_a_billion_after_half_a_window_is_gone_when_its_window_has_passed() -> None:
    values = np.ones(40)
    values[10] = 1e300
    assert (window_mean(values, 8, 5, 0)[18:] == 1.0).all()  # a running sum would have lost every digit
