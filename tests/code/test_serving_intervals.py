"""Intervals of a watched market: those of the evaluation, what they learn of, and where they begin anew."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_fakes import loud_bundle
from feature_bars import walk, without
from serving_fakes import HELD, bars_of, scalping_fixture

from btcai.evaluation.backtest import encode_decisions
from btcai.evaluation.reliability import forms_of, outcomes, sigma_of
from btcai.features.pipeline import build_market
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import MANIFEST, PolicyBundle, file_sha256, load_bundle, write_manifest
from btcai.inference.decision import Seen, consider_seen, decide
from btcai.schema import BAR_NS, Bars, BoolArray, FloatArray, IntArray, MarketData, Span
from btcai.serving import live
from btcai.serving.live import Market

NEEDED = 144 + WARMUP_BARS

scalping = scalping_fixture


def evaluated(
    bundle: PolicyBundle, data: MarketData, rows: IntArray, asked: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Static and adaptive quantiles (D, H, Q) as the evaluation has them on decisions at rows (D,), where only of those
    asked for (D,) an outcome is known."""
    horizons = np.asarray(bundle.horizons_bars)
    unit = sigma_of(data, rows, horizons)[..., None]
    outcome, known = outcomes(data, Span(first=int(rows[0]), stop=len(data.mark)), rows, horizons)
    encoded = encode_decisions(bundle, data, rows)
    forms = forms_of(encoded.quantiles / unit, outcome, known & asked[:, None], bundle.settings, None)
    return forms["static"] * unit, forms["adaptive"] * unit


def served(bundle: PolicyBundle, bars: Bars, rows: IntArray, asked: BoolArray) -> dict[int, Seen]:
    """What a watched market says at each decision that is asked for, by its place in rows (D,), as soon as it can say
    it: bars come one by one, missing ones do not."""
    market, seen = Market(bars_of(bars, 0, rows[0]), intervals="adaptive"), {}
    for row in range(rows[0], len(bars)):
        place = int(np.searchsorted(rows, row, side="right")) - 1
        if bars.present[row]:
            market.append(bars_of(bars, row, row + 1), allow_gap=True)
            if asked[place] and place not in seen:
                seen[place] = market.seen(bundle)
    return seen


def quantiles_of(seen: Seen) -> FloatArray:
    return np.array([one.quantiles for one in seen.forecasts])


def decisions_in(bars: Bars, first: int, patch_bars: int) -> IntArray:
    on_clock = bars.close_ts_ns // BAR_NS % patch_bars == 0
    return np.flatnonzero(on_clock & (np.arange(len(bars)) >= first))


def assert_served_as_evaluated(bundle: PolicyBundle, bars: Bars, rows: IntArray, asked: BoolArray) -> None:
    static, adaptive = evaluated(bundle, build_market(bars), rows, asked)
    found = served(bundle, bars, rows, asked)
    assert len(found) == asked.sum()
    for place, seen in found.items():
        assert seen.intervals == "adaptive"
        np.testing.assert_allclose(quantiles_of(seen), adaptive[place], rtol=0, atol=1e-9)
    moved = np.abs(adaptive - static)[asked].max(axis=(0, 2))
    assert (moved[: 2 + (len(rows) > 240)] > 1e-5).all()  # of two horizons or three


@pytest.mark.parametrize(("bucket", "n_bars", "missing"), [("scalping", 2_500, 0.02), ("medium", 4_640, 0.1)])
def test_quantiles_served_bar_by_bar_are_the_adaptive_ones_of_the_evaluation(
    tmp_path: Path, bucket: str, n_bars: int, missing: float
) -> None:
    bundle = load_bundle(loud_bundle(tmp_path, bucket))
    bars = walk(n_bars, seed=50, missing=missing)
    bars = without(bars, (np.arange(n_bars) >= n_bars - 200) & (np.arange(n_bars) < n_bars - 180))
    rows = decisions_in(bars, bundle.lookback_bars + WARMUP_BARS + 10, bundle.patch_bars)
    can_be_asked = np.add.reduceat(bars.present[rows[0] :], rows - rows[0]) > 0  # when a bar comes before the next one
    assert (can_be_asked & ~bars.present[rows]).any() == (bucket == "medium")
    assert_served_as_evaluated(bundle, bars, rows, can_be_asked)


@pytest.mark.parametrize("seed", [0, 1])
def test_of_a_decision_that_nobody_asked_for_nothing_is_learned(scalping: PolicyBundle, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bars = walk(2_450, seed=51, missing=0.02)
    rows = decisions_in(bars, NEEDED + 10, 1)
    asked = bars.present[rows] & (rng.random(len(rows)) < (0.3, 0.9)[seed])
    asked[100:160] = False  # longer than the longest horizon
    assert_served_as_evaluated(scalping, bars, rows, asked)


def test_the_intervals_follow_and_action_size_and_the_rest_are_those_of_decide(scalping: PolicyBundle) -> None:
    bars = walk(2_300, seed=52)
    rows = decisions_in(bars, NEEDED + 10, 1)
    found = served(scalping, bars, rows, np.ones(len(rows), np.bool_))
    followed = 0
    for place, seen in list(found.items())[::10]:
        for account in (None, HELD):
            said, alone = (
                consider_seen(seen, account).decision,
                decide(scalping, bars_of(bars, 0, rows[place] + 1), account),
            )
            assert (said.intervals, alone.intervals) == ("adaptive", "static")
            followed += said.forecasts != alone.forecasts
            as_said = [replace(a, quantiles=b.quantiles) for a, b in zip(alone.forecasts, said.forecasts, strict=True)]
            assert said == replace(alone, intervals="adaptive", forecasts=tuple(as_said))
    assert followed > 20


def other_head(folder: Path, out: Path) -> PolicyBundle:
    """A bundle of the same encoder that decides otherwise."""
    shutil.copytree(folder, out)
    loud_bundle(out.parent / "donor", seed=9)
    shutil.copyfile(out.parent / "donor" / "head.onnx", out / "head.onnx")
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["sha256"]["head.onnx"] = file_sha256(out / "head.onnx")
    write_manifest(out, manifest)
    return load_bundle(out)


def test_a_swap_goes_on_with_the_same_encoder_and_begins_anew_with_another(tmp_path: Path) -> None:
    folder = loud_bundle(tmp_path / "one")
    one, head, other = load_bundle(folder), other_head(folder, tmp_path / "head"), loud_bundle(tmp_path / "two", seed=1)
    bars = walk(2_300, seed=53)
    market = Market(bars_of(bars, 0, NEEDED + 10), intervals="adaptive")
    for row in range(NEEDED + 10, 2_290):
        market.append(bars_of(bars, row, row + 1))
        market.seen(one)
    before = quantiles_of(market.seen(one))
    assert head.version != one.version
    assert (quantiles_of(market.seen(head)) == before).all()  # the same decision time, asked for again
    two = load_bundle(other)
    anew = market.seen(two)
    assert anew.intervals == "adaptive"
    assert (quantiles_of(anew) == anew.encoded.quantiles[-1]).all()
    assert (before != market.seen(one).encoded.quantiles[-1]).any()
    market.append(bars_of(bars, 2_290, 2_293))
    back = market.seen(one)
    assert (quantiles_of(back)[1:] == back.encoded.quantiles[-1, 1:]).all()  # the longer horizons have not ended
    assert (quantiles_of(back)[0] != back.encoded.quantiles[-1, 0]).any()


def test_a_market_begins_with_the_static_quantiles_however_many_bars_it_is_given(scalping: PolicyBundle) -> None:
    bars = walk(3_000, seed=54)
    for n in (NEEDED, 3_000):
        seen = Market(bars_of(bars, 3_000 - n, 3_000), intervals="adaptive").seen(scalping)
        assert (quantiles_of(seen) == seen.encoded.quantiles[-1]).all()
    assert Market(bars).seen(scalping).intervals == "static"


@pytest.mark.parametrize(("came", "learns"), [(2_199, True), (2_210, False)])
def test_an_outcome_that_ended_before_what_is_kept_is_not_learned(
    scalping: PolicyBundle, monkeypatch: pytest.MonkeyPatch, came: int, learns: bool
) -> None:
    monkeypatch.setattr(live, "KEPT_BARS", 2_200)
    monkeypatch.setattr(live, "_CAPACITY", 4_400)
    bars = walk(NEEDED + 2_300, seed=55)
    market = Market(bars_of(bars, 0, NEEDED), intervals="adaptive")
    market.seen(scalping)
    market.append(bars_of(bars, NEEDED, NEEDED + came))
    seen = market.seen(scalping)
    assert (quantiles_of(seen)[0] != seen.encoded.quantiles[-1, 0]).any() == learns


def test_who_asks_between_a_bar_and_what_is_learned_of_it_is_told_what_was_learned(scalping: PolicyBundle) -> None:
    bars = walk(NEEDED + 3, seed=56)
    market, plain = (Market(bars_of(bars, 0, NEEDED), intervals="adaptive") for _ in range(2))
    for one in (market, plain):
        one.seen(scalping)
    market._append(bars_of(bars, NEEDED, NEEDED + 3))  # as another thread sees it in the midst of append
    plain.append(bars_of(bars, NEEDED, NEEDED + 3))
    seen = market.seen(scalping)
    assert (quantiles_of(seen)[0] != seen.encoded.quantiles[-1, 0]).any()
    assert (quantiles_of(seen) == quantiles_of(plain.seen(scalping))).all()
