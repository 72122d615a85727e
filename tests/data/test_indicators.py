"""Indicators: every window against the plain formula on its rows, and numbers worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.features import indicators


@given(
    st.lists(st.one_of(st.just(math.nan), st.floats(-100, 100)), min_size=1, max_size=40),
    st.lists(st.integers(1, 45), min_size=1, max_size=3),
)
def test_every_window_equals_the_plain_formula_on_its_rows(values: list[float], windows: list[int]) -> None:
    array = np.array(values)
    mean, moments = indicators.window_mean(array, windows), indicators.window_mean_std(array, windows)
    top, bottom = indicators.window_max(array, windows), indicators.window_min(array, windows)
    oldest = indicators.window_oldest(array, windows)
    for window in windows:
        for row in range(len(array)):
            inside = array[max(0, row - window + 1) : row + 1]
            inside = inside[~np.isnan(inside)]
            first = inside[0] if len(inside) else np.nan
            assert oldest[window][row] == first or math.isnan(first)
            got = [part[window][row] for part in (mean, top, bottom)] + [part[row] for part in moments[window]]
            if 2 * len(inside) < window:
                assert np.isnan(got).all()
            else:
                want = [inside.mean(), inside.max(), inside.min(), inside.mean(), inside.std()]
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_equal_values_have_a_standard_deviation_of_exactly_zero_even_after_large_ones() -> None:
    values = np.concatenate((np.full(50, 1e12), np.full(100, 60_000.1)))
    _, std = indicators.window_mean_std(values, (20,))[20]
    assert (std[69:] == 0).all()


def test_rsi_of_two_rises_and_one_fall_by_hand() -> None:
    close = np.array([10.0, 13.0, 12.0, 14.0])  # +3, -1, +2 -> 100 * 5 / 6
    assert indicators.rsi(close, (3,))[3][3] == pytest.approx(100 * 5 / 6)


def test_rsi_window_is_finite_a_spike_one_row_before_it_is_forgotten() -> None:
    calm = np.linspace(100, 110, 30)
    spike = calm.copy()
    spike[14] = 1000.0
    assert indicators.rsi(calm, (14,))[14][29] == indicators.rsi(spike, (14,))[14][29]
    assert indicators.rsi(calm, (14,))[14][28] != indicators.rsi(spike, (14,))[14][28]


def test_bollinger_and_range_position_by_hand() -> None:
    close, high, low = np.array([1.0, 2.0, 6.0]), np.array([2.0, 3.0, 7.0]), np.array([1.0, 1.0, 5.0])
    assert indicators.bollinger_z(close, (3,))[3][2] == pytest.approx(3 / math.sqrt(14 / 3))  # mean 3
    assert indicators.range_position(high, low, close, (3,))[3][2] == pytest.approx(2 * 5 / 6 - 1)


def test_parkinson_of_bars_whose_range_is_one_percent() -> None:
    low = np.full(8, 100.0)
    got = indicators.parkinson(low * math.exp(0.01), low, (4,))[4][7]
    assert got == pytest.approx(0.01 / (2 * math.sqrt(math.log(2))))


def test_autocorrelation_of_alternating_returns_is_minus_one_and_of_equal_ones_plus_one() -> None:
    alternating = np.array([0.01, -0.01] * 8)
    assert indicators.autocorrelation(alternating, (8,))[8][-1] == pytest.approx(-1)
    assert indicators.autocorrelation(np.abs(alternating), (8,))[8][-1] == pytest.approx(1)
    assert indicators.autocorrelation(np.zeros(16), (8,))[8][-1] == 0
