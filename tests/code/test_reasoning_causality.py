"""Components of a chain: nothing of the future, nothing from before lookback and warm-up, batch equal to live."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from feature_bars import PRICES, real_bars, walk, without
from hypothesis import given, settings
from hypothesis import strategies as st
from reasoning_fakes import EQUITY_USDT, bucket_of, decisions_of, market, needed_bars

from btcai.features.pipeline import build_market, rows_of
from btcai.reasoning.components import COMPONENTS, Scores, measured, reason_components
from btcai.reasoning.situation import situation_of
from btcai.schema import BUCKETS, Bars, IntArray, MarketData


def components(data: MarketData, decisions: IntArray, name: str) -> Scores:
    return reason_components(data, decisions, *bucket_of(name), EQUITY_USDT)


def poisoned(bars: Bars, cut: int, kind: str) -> Bars:
    """Rows after `cut` overwritten."""
    after = np.arange(len(bars)) > cut
    if kind == "missing":
        return without(bars, after)
    other = walk(len(bars), 77)
    garbage = {name: np.where(after, 10 * getattr(other, name), getattr(bars, name)) for name in PRICES}
    return replace(bars, **garbage, volume=np.where(after, 1e7, bars.volume), present=bars.present | after)


@pytest.mark.parametrize("name", ["scalping", "short"])
@settings(max_examples=20)
@given(cut=st.integers(2_400, 3_950), kind=st.sampled_from(["missing", "prices x 10"]))
def test_the_future_changes_no_bit_of_a_row(name: str, cut: int, kind: str) -> None:
    clean = market()
    decisions = decisions_of(clean, bucket_of(name)[0], 2_300)
    spoiled = components(build_market(poisoned(clean.bars, cut, kind)), decisions, name)
    base = components(clean, decisions, name)
    past = decisions <= cut
    np.testing.assert_array_equal(spoiled.scores[past], base.scores[past])
    np.testing.assert_array_equal(spoiled.confidence[past], base.confidence[past])
    assert (spoiled.scores[~past] != base.scores[~past]).any()  # what was overwritten is read where it may be


@pytest.mark.parametrize("name", BUCKETS)
def test_one_decision_from_its_own_bars_has_the_numbers_of_the_history(name: str) -> None:
    bucket, rules = bucket_of(name)
    data = market(8_500)
    decisions = decisions_of(data, bucket, needed_bars(data, bucket) - 1)
    whole = measured(situation_of(data, decisions, bucket, rules, EQUITY_USDT))
    assert any(one.confidence.max() > 0.2 for one in whole)
    for d in np.linspace(0, len(decisions) - 1, 12).astype(int):
        stop = int(decisions[d]) + 1
        live = build_market(rows_of(data.bars, slice(stop - needed_bars(data, bucket), stop)))
        alone = measured(situation_of(live, np.array([len(live) - 1]), bucket, rules, EQUITY_USDT))
        for one, other in zip(whole, alone, strict=True):
            assert (one.score[d], one.confidence[d]) == (other.score[0], other.confidence[0]), one.name
            for fact, values in one.facts.items():
                np.testing.assert_array_equal(values[d], other.facts[fact][0], err_msg=f"{one.name} {fact}")


@pytest.mark.parametrize("name", BUCKETS)
def test_some_and_all_decisions_agree(name: str) -> None:
    bucket, _ = bucket_of(name)
    data = market(8_500)
    decisions = decisions_of(data, bucket)
    some = decisions[len(decisions) // 2 :: 7]
    every, few = components(data, decisions, name), components(data, some, name)
    rows = np.searchsorted(decisions, some)
    np.testing.assert_array_equal(every.scores[rows], few.scores)
    np.testing.assert_array_equal(every.confidence[rows], few.confidence)


@pytest.mark.parametrize("name", BUCKETS)
@pytest.mark.parametrize("missing", [0.0, 0.02, 0.4, 0.7])
def test_scores_stay_in_their_ranges_whatever_is_missing(name: str, missing: float) -> None:
    bucket, _ = bucket_of(name)
    data = market(7_000, 9, missing)
    decisions = decisions_of(data, bucket)
    found = components(data, decisions, name)
    assert found.names == COMPONENTS
    assert found.scores.shape == found.confidence.shape == (len(decisions), len(COMPONENTS))
    assert np.abs(found.scores).max() <= 1.0
    assert found.confidence.min() >= 0.0
    assert found.confidence.max() <= 1.0
    blind = ~data.bars.present[decisions] | (decisions < needed_bars(data, bucket) - 1)
    assert blind.any()
    assert not found.confidence[blind].any()
    assert not found.scores[blind].any()
    if missing < 0.1:
        assert (found.confidence[~blind].max(axis=0) > 0.0).all()  # every component has something to say


def test_an_outage_takes_the_confidence_of_what_cannot_be_known() -> None:
    clean = market(4_000, 5, 0.0)
    bars = without(clean.bars, (np.arange(4_000) >= 3_000) & (np.arange(4_000) < 3_100))
    bucket, rules = bucket_of("scalping")
    decisions = np.array([2_999, 3_050, 3_107, 3_170, 3_171, 3_250])
    situation = situation_of(build_market(bars), decisions, bucket, rules, EQUITY_USDT)
    # before; missing itself; 8 of the last 72; 71 of the lookback's 144; 72 of them; 188 of the day's 288
    assert situation.known.tolist() == [True, False, False, False, True, True]
    assert situation.seen_frac[[0, 4, 5]].tolist() == [1.0, 72 / 144, 188 / 288]
    for one in measured(situation):
        assert (one.confidence[[4, 5]] <= situation.seen_frac[[4, 5]]).all()


@pytest.mark.real
@pytest.mark.slow
def test_real_bars_are_reasoned_about_as_a_whole_and_one_by_one(real_bars_path: Path) -> None:
    data = build_market(real_bars(real_bars_path))
    bucket, _ = bucket_of("scalping")
    decisions = decisions_of(data, bucket)
    whole = components(data, decisions, "scalping")
    assert len(whole.scores) > 340_000
    assert np.isfinite(whole.scores).all()
    assert (whole.confidence.mean(axis=0) > 0.02).all()
    for d in (2_159, 100_000, 341_000):
        alone = components(data, decisions[d : d + 1], "scalping")
        np.testing.assert_array_equal(whole.scores[d], alone.scores[0])
