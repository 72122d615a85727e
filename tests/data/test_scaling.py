"""The scaler: hand-worked numbers, nothing from outside the span, exact on disk."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from btcai.checksums import with_checksum
from btcai.errors import ArtifactError, DataError
from btcai.features.scaling import STD_FLOOR, Scaler, fit_scaler
from btcai.schema import Span


def test_mean_and_population_std_of_present_rows_inside_the_span_by_hand() -> None:
    features = np.array(
        [[99, 99, 1], [1, 5, 1], [0, 0, 0], [3, 5, 1], [5, 5, 1], [77, 77, 1]],
        np.float32,
    )
    scaler = fit_scaler(features, Span(1, 5))
    np.testing.assert_array_equal(scaler.mean, np.array([3, 5, 0], np.float32))
    np.testing.assert_allclose(scaler.std, [math.sqrt(8 / 3), STD_FLOOR, 1], rtol=1e-7)
    assert scaler.mean.dtype == scaler.std.dtype == np.float32


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 1000))
def test_poison_outside_the_span_changes_no_bit(first: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(60, 4)).astype(np.float32)
    features[:, -1] = rng.random(60) < 0.8
    features[first, -1] = 1
    span = Span(first, first + length)
    poison = np.full_like(features, 1e30)
    poison[:, -1] = 1
    poison[first : first + length] = features[first : first + length]
    clean, dirty = fit_scaler(features, span), fit_scaler(poison, span)
    np.testing.assert_array_equal(clean.mean, dirty.mean)
    np.testing.assert_array_equal(clean.std, dirty.std)


@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 1000))
def test_a_longer_history_changes_no_bit(stop: int, more: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(60, 4)).astype(np.float32)
    features[:, -1] = 1
    part, whole = fit_scaler(features[: stop + more], Span(0, stop)), fit_scaler(features, Span(0, stop))
    np.testing.assert_array_equal(part.mean, whole.mean)
    np.testing.assert_array_equal(part.std, whole.std)


def test_values_of_missing_rows_are_not_read() -> None:
    features = np.array([[1, 1], [1e30, 0], [2, 1]], np.float32)
    assert fit_scaler(features, Span(0, 3)).mean[0] == 1.5


def test_sums_run_in_float64_a_large_mean_does_not_swallow_the_spread() -> None:
    features = np.ones((200_000, 2), np.float32)
    features[::2, 0], features[1::2, 0] = 10_000, 10_002
    scaler = fit_scaler(features, Span(0, 200_000))
    assert (scaler.mean[0], scaler.std[0]) == (10_001, 1)


def test_a_span_without_present_bars_is_refused() -> None:
    with pytest.raises(DataError, match=r"Span\(first=0, stop=5\)"):
        fit_scaler(np.zeros((10, 3), np.float32), Span(0, 5))


FINITE = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, 5, elements=FINITE), arrays(np.float32, 5, elements=st.floats(2**-20, 1e6, width=32)))
def test_json_reads_back_to_the_same_bits(mean: np.ndarray, std: np.ndarray) -> None:
    back = Scaler.from_json(Scaler(mean=mean, std=std).to_json())
    np.testing.assert_array_equal(back.mean.view(np.int32), mean.view(np.int32))
    np.testing.assert_array_equal(back.std.view(np.int32), std.view(np.int32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        json.dumps({"mean": [1.0], "std": [1.0]}),
        json.dumps(with_checksum({"mean": [1.0], "std": [1.0]})).replace("1.0", "1.5", 1),
    ],
    ids=["empty", "a_list", "without_its_hash", "a_digit_changed"],
)
def test_a_broken_scaler_file_names_the_command_that_makes_it(text: str) -> None:
    with pytest.raises(ArtifactError, match="btcai stage features"):
        Scaler.from_json(text)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"mean": [1.0]}, "must hold the numbers mean and std"),
        ({"mean": ["a"], "std": [1.0]}, "must hold the numbers mean and std"),
        ({"mean": [1.0, 2.0], "std": [1.0]}, "must be as long"),
        ({"mean": [1.0], "std": [0.0]}, "std > 0, smallest std 0.0"),
        ({"mean": [math.nan], "std": [1.0]}, "mean must be finite"),
    ],
)
def test_columns_that_are_no_scaler_are_refused_though_nothing_changed_them(
    columns: dict[str, list[float]], said: str
) -> None:
    for read in (Scaler.of, lambda found: Scaler.from_json(json.dumps(with_checksum(found)))):
        with pytest.raises(ArtifactError, match=said):
            read(columns)
