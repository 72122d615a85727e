"""Telling two markets apart: chance where there is nothing to tell, and the name of the feature where there is."""

import numpy as np
import pytest

from btcai.errors import DataError
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.schema import Float32Array
from btcai.watch.discriminator import TOLD, discriminate, windows_of

WINDOW = 288
COLUMN = dict((name, column) for column, name in TOLD)


def features(seed: int, n_windows: int = 120) -> Float32Array:
    """Noise; every bar is there."""
    found = np.random.default_rng(seed).standard_normal((WARMUP_BARS + n_windows * WINDOW, len(FEATURE_NAMES)))
    found[:, -1] = 1.0
    return found.astype(np.float32)


def test_neither_the_clock_nor_the_mask_is_told() -> None:
    assert {"hour_sin", "weekday_cos", "mask"}.isdisjoint(COLUMN)
    assert len(COLUMN) > 30


@pytest.mark.slow
def test_markets_of_the_same_kind_are_told_apart_by_chance() -> None:
    found = discriminate(features(1), features(2), WINDOW, 0, 0)
    assert found.auc == pytest.approx(0.5, abs=0.12)  # 120 windows each: a standard error of .037
    assert found.auc == found.left
    assert found.giveaways == ()


@pytest.mark.slow
def test_the_feature_that_differs_is_named_first_and_without_it_nothing_is_left() -> None:
    heard: list[int] = []
    theirs = features(2)
    theirs[:, COLUMN["body"]] *= 3.0
    found = discriminate(features(1), theirs, WINDOW, 1, 0, heard.append)
    assert found.auc == 1.0
    assert [giveaway.name for giveaway in found.giveaways] == ["body"]
    assert found.left == pytest.approx(0.5, abs=0.12)
    one, other = found.giveaways[0].first, found.giveaways[0].second
    assert other[1] == pytest.approx(3.0 * one[1], rel=0.1)  # the spread
    assert heard == [1, 2]


def test_a_window_is_told_by_mean_spread_and_step() -> None:
    found = features(3, n_windows=2)
    first = slice(WARMUP_BARS, WARMUP_BARS + WINDOW)
    found[first, COLUMN["body"]] = np.resize([1.0, 3.0], WINDOW)  # mean 2, spread 1, steps of 2
    told = windows_of(found, WINDOW)
    assert told.shape == (2, len(TOLD), 3)
    place = [name for _, name in TOLD].index("body")
    assert told[0, place].tolist() == [2.0, 1.0, 2.0]


def test_windows_with_missing_bars_are_left_out_and_too_few_are_refused() -> None:
    gappy = features(1)
    gappy[WARMUP_BARS + 5, -1] = 0.0
    assert len(windows_of(gappy, WINDOW)) == 119
    with pytest.raises(DataError, match="needs 50 windows of 288 bars without gaps of each, was 120 and 10"):
        discriminate(features(1), features(2, n_windows=10), WINDOW, 0, 0)
