"""Features: no bit from the future, from before the warm-up, from where the history starts or from the threads."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from feature_bars import PRICES, assert_same_bits, real_bars, walk, without
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.features import pipeline
from btcai.features.pipeline import build_market, rows_of
from btcai.features.table import FEATURES, WARMUP_BARS
from btcai.schema import Bars, MarketData


@pytest.fixture(scope="module")
def clean() -> MarketData:
    return build_market(walk(2600, seed=10, missing=0.03))


def poisoned(bars: Bars, cut: int, kind: str, seed: int) -> Bars:
    """Rows after `cut` overwritten with garbage."""
    after = np.arange(len(bars)) > cut
    if kind == "missing":
        return without(bars, after)
    if kind == "no volume":
        return replace(bars, volume=np.where(after, 0.0, bars.volume))
    other = walk(len(bars), seed)
    garbage = {name: np.where(after, 1000 * getattr(other, name), getattr(bars, name)) for name in PRICES}
    return replace(bars, **garbage, volume=np.where(after, 1e9, bars.volume), present=bars.present | after)


@settings(max_examples=40)
@given(
    cut=st.integers(0, 2598), kind=st.sampled_from(["missing", "no volume", "prices x 1000"]), seed=st.integers(0, 99)
)
def test_garbage_after_a_cut_changes_no_bit_before_it(clean: MarketData, cut: int, kind: str, seed: int) -> None:
    data = build_market(poisoned(clean.bars, cut, kind, seed))
    assert_same_bits(data, clean, slice(0, cut + 1), slice(0, cut + 1))


@settings(max_examples=20)
@given(stop=st.integers(1, 2600))
def test_features_of_a_prefix_are_the_prefix_of_the_features(clean: MarketData, stop: int) -> None:
    assert_same_bits(build_market(rows_of(clean.bars, slice(0, stop))), clean, slice(0, stop), slice(0, stop))


def shaken(bars: Bars, row: int) -> Bars:
    """Another price range, close and volume in one row."""
    here = np.arange(len(bars)) == row
    factor = {"high": 2.0, "low": 0.5, "close": 1.5, "volume": 7.0}
    return replace(bars, **{k: np.where(here, v * getattr(bars, k) + 1.0, getattr(bars, k)) for k, v in factor.items()})


def test_every_feature_reads_its_stated_warm_up_and_nothing_before_it() -> None:
    bars = walk(2100, seed=11)
    base = build_market(bars).features
    rows = (2050, 2063, 2077, 2091)
    for place, feature in enumerate(FEATURES):
        if feature.family in ("calendar", "mask"):
            continue  # these read no price
        changed = []
        for row in rows:
            before = build_market(shaken(bars, row - feature.warmup_bars - 1)).features
            assert before[row, place] == base[row, place], feature.name
            oldest = build_market(shaken(bars, row - feature.warmup_bars)).features
            changed.append(oldest[row, place] != base[row, place])
        assert any(changed), feature.name


def test_another_start_of_the_history_gives_the_same_bits_after_the_warm_up() -> None:
    bars = walk(9000, seed=12, missing=0.02)
    bars = without(bars, (np.arange(9000) > 5000) & (np.arange(9000) <= 5300))  # a day's outage
    whole = build_market(bars)
    volatile = int(np.argmax(whole.sigma[:6000]))
    inside_gaps = [int(row) for row in np.flatnonzero(~bars.present)[[3, 60]]]
    for start in (1, 255, 1000, volatile, 3200, 5150, 5301, 6900, *inside_gaps):
        part = build_market(rows_of(bars, slice(start, None)))
        assert_same_bits(part, whole, slice(WARMUP_BARS, None), slice(start + WARMUP_BARS, None))


def test_chunks_and_threads_change_no_bit(clean: MarketData, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows, threads in ((100, 1), (311, 3)):
        monkeypatch.setattr(pipeline, "CHUNK_ROWS", rows)
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        assert_same_bits(build_market(clean.bars), clean, slice(None), slice(None))


@pytest.mark.real
@pytest.mark.slow
def test_real_bars_give_the_same_bits_from_any_start(real_bars_path: Path) -> None:
    bars = real_bars(real_bars_path)
    whole = build_market(bars)
    gap = int(np.flatnonzero(~bars.present)[0])
    volatile = int(np.argmax(whole.sigma))
    for start in (1, gap - 1000, gap + 3, volatile - 2000, volatile, len(bars) - 7000):
        part = build_market(rows_of(bars, slice(start, start + 7000)))
        assert_same_bits(part, whole, slice(WARMUP_BARS, None), slice(start + WARMUP_BARS, start + 7000))
