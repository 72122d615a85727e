"""Splits: literal bars, the order and gaps of spans, and histories that are too short."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from btcai.config import SplitConfig
from btcai.errors import DataError
from btcai.features.splits import FOLD_BARS_MIN, Splits, make_splits
from btcai.params import load_config
from btcai.schema import BAR_NS, BARS_PER_DAY, SealedSpan, Span

SHIPPED = SplitConfig(train_frac=0.60, valid_frac=0.13, test_frac=0.15, test_folds=4, embargo_bars=288)


def test_three_years_of_bars_by_hand() -> None:
    # Boundaries 0.60, 0.73, 0.88 of 341,552 = 204,931.2, 249,332.96, 300,565.76; gap 8,064 + 288 = 8,352.
    # Test 257,685 .. 300,566 holds 42,881 bars: four folds of 10,720 and one bar left over.
    splits = make_splits(341_552, SHIPPED, purge_bars=8064, warmup_bars=2016)
    assert splits == Splits(
        train=Span(2016, 204_931),
        valid=Span(213_283, 249_333),
        test=Span(257_685, 300_565),
        folds=(
            Span(257_685, 268_405),
            Span(268_405, 279_125),
            Span(279_125, 289_845),
            Span(289_845, 300_565),
        ),
        sealed=SealedSpan(308_918, 341_552),
    )


def test_the_shipped_settings_are_the_ones_worked_by_hand() -> None:
    config = load_config(Path(__file__).parents[2] / "params.yaml")
    assert config.splits == SHIPPED
    assert config.purge_bars == 8064


def split_configs() -> st.SearchStrategy[SplitConfig]:
    return st.builds(
        SplitConfig,
        train_frac=st.floats(0.2, 0.6),
        valid_frac=st.floats(0.05, 0.15),
        test_frac=st.floats(0.05, 0.15),
        test_folds=st.integers(2, 24),
        embargo_bars=st.integers(0, 600),
    )


@given(split_configs(), st.integers(50_000, 2_000_000), st.integers(1, 8064), st.integers(0, 2016))
def test_spans_are_ordered_apart_and_tiled_by_folds(
    config: SplitConfig, n_bars: int, purge_bars: int, warmup_bars: int
) -> None:
    try:
        splits = make_splits(n_bars, config, purge_bars, warmup_bars)
    except DataError:
        assume(False)
    spans = (splits.train, splits.valid, splits.test, splits.sealed)
    assert splits.train.first == warmup_bars
    assert splits.sealed.stop == n_bars
    assert all(after.first - before.stop >= purge_bars + config.embargo_bars for before, after in pairwise(spans))
    assert len(splits.folds) == config.test_folds
    assert len({len(fold) for fold in splits.folds}) == 1
    assert (splits.folds[0].first, splits.folds[-1].stop) == (splits.test.first, splits.test.stop)
    assert all(before.stop == after.first for before, after in pairwise(splits.folds))
    assert min(len(splits.train), len(splits.valid)) >= purge_bars + BARS_PER_DAY
    assert min(len(splits.folds[0]), len(splits.sealed)) >= FOLD_BARS_MIN
    assert len(splits.train) == pytest.approx(n_bars * config.train_frac - warmup_bars, abs=1)


@given(split_configs(), st.integers(1, 8064), st.integers(0, 2016))
def test_the_number_of_bars_an_error_asks_for_is_enough(config: SplitConfig, purge_bars: int, warmup_bars: int) -> None:
    with pytest.raises(DataError) as caught:
        make_splits(100, config, purge_bars, warmup_bars)
    needed = int(str(caught.value).split("; ")[1].split(" bars")[0].replace(",", ""))
    make_splits(needed, config, purge_bars, warmup_bars)
    with pytest.raises(DataError):
        make_splits(int(needed * 0.99) - 50, config, purge_bars, warmup_bars)


def test_a_year_is_too_short_for_the_shipped_horizons_and_the_error_says_what_is_enough() -> None:
    # valid: 0.13 of 105,120 = 13,666 (76,738 - 63,072) less 8,352 = 5,314, and the sealed span 12,614 - 8,352 = 4,262
    # is long enough. Enough for valid: (8,064 + 288 + 8,352 + 1) / 0.13 = 128,500.
    with pytest.raises(DataError) as caught:
        make_splits(105_120, SHIPPED, purge_bars=8064, warmup_bars=2016)
    message = str(caught.value)
    assert "105,120 bars are too few" in message
    assert "valid has 5,314 bars, needs 8,352" in message
    assert "sealed" not in message
    assert "128,500 bars (446 days) are enough" in message


def test_printed_table_gives_bars_and_utc_dates() -> None:
    splits = make_splits(341_552, SHIPPED, purge_bars=8064, warmup_bars=2016)
    first = np.datetime64("2022-01-01T00:05", "ns").astype(np.int64)
    lines = splits.printed(first + BAR_NS * np.arange(341_552)).splitlines()
    assert len(lines) == 9
    assert lines[1].split() == ["train", "2,016", "202,915", "2022-01-08", "00:05", "2023-12-13", "13:35"]
    assert lines[4].split()[:4] == ["fold", "1", "257,685", "10,720"]
    assert lines[8].split()[:3] == ["sealed", "308,918", "32,634"]
    assert len({len(line.rstrip()) for line in lines[1:]}) == 1
