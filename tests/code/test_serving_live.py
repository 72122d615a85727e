"""A market watched live: windows with the bits of the batch over gaps and moves, what is refused, what is shared."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_fakes import loud_bundle
from feature_bars import walk, without
from serving_fakes import bars_of, scalping_fixture

from btcai.errors import DataError
from btcai.features.pipeline import build_market
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import PolicyBundle, load_bundle
from btcai.schema import BAR_NS, Bars, MarketData
from btcai.serving import live
from btcai.serving.live import KEPT_BARS, Market, NotNextError, stamp

NEEDED = 144 + WARMUP_BARS

scalping = scalping_fixture


def assert_same_window(found: MarketData, batch: MarketData, stop: int) -> None:
    """The window ends before row `stop` of the batch; its lookback has the batch's bits."""
    rows = slice(stop - 144, stop)
    np.testing.assert_array_equal(found.features[-144:].view(np.int32), batch.features[rows].view(np.int32))
    np.testing.assert_array_equal(found.sigma[-144:], batch.sigma[rows])
    np.testing.assert_array_equal(found.mark[-144:], batch.mark[rows])
    for name in Bars.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found.bars, name), getattr(batch.bars, name)[stop - NEEDED : stop])


def test_bar_by_bar_and_in_pieces_over_gaps_and_moves_the_window_is_the_batchs(
    scalping: PolicyBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEPT_BARS", 2_200)
    monkeypatch.setattr(live, "_CAPACITY", 4_400)
    n = 7_200
    bars = walk(n, seed=40, missing=0.01)
    bars = without(bars, (np.arange(n) >= 2_900) & (np.arange(n) < 2_950))
    bars = replace(bars, present=bars.present.copy())
    batch = build_market(bars)
    market, row = Market(bars_of(bars, 0, 2_400)), 2_400
    looked = 0
    for step in (1, 1, 1, 300, 1, 900, 1_500, 1, 1, 2_000, 60, 1, 1, 1):
        first = row + int(np.argmax(bars.present[row:]))  # a body holds bars that are there
        stop = first + step - int(np.argmax(bars.present[first : first + step][::-1]))
        market.append(bars_of(bars, first, stop), allow_gap=True)
        row = stop
        assert_same_window(market.seen(scalping).data, batch, stop)
        looked += 1
    assert row > 2_400 + 4_400 - 2_200  # the rows were moved to the front
    assert looked == 14
    assert len(market) == 2_200


def test_a_market_of_the_last_bars_alone_goes_on_with_the_same_numbers(scalping: PolicyBundle) -> None:
    bars = walk(2_600, seed=41, missing=0.02)
    whole, restarted = Market(bars_of(bars, 0, 2_500)), Market(bars_of(bars, 2_500 - NEEDED, 2_500))
    first = 2_500 + int(np.argmax(bars.present[2_500:]))
    for market in (whole, restarted):
        market.append(bars_of(bars, first, 2_590 - int(np.argmax(bars.present[2_589::-1]))), allow_gap=True)
    one, other = (market.seen(scalping) for market in (whole, restarted))
    np.testing.assert_array_equal(one.data.features[-144:], other.data.features[-144:])
    np.testing.assert_array_equal(one.encoded.latent, other.encoded.latent)


@pytest.mark.parametrize(
    ("first", "allow_gap", "message"),
    [
        (2_199, False, "must close after its last one did"),  # a repeat
        (2_150, True, "must close after its last one did"),  # out of order
        (2_203, False, r"give the 3 bars between too; where the exchange made none"),
    ],
)
def test_what_is_not_the_next_bar_is_refused_and_the_market_stays_as_it_was(
    scalping: PolicyBundle, first: int, allow_gap: bool, message: str
) -> None:
    bars = walk(2_300, seed=42)
    market = Market(bars_of(bars, 0, 2_200))
    with pytest.raises(NotNextError, match=message):
        market.append(bars_of(bars, first, first + 5), allow_gap=allow_gap)
    market.append(bars_of(bars, 2_200, 2_210))
    assert_same_window(market.seen(scalping).data, build_market(bars), 2_210)


def test_a_bar_off_the_grid_or_unsound_is_refused_and_nothing_of_its_body_is_kept(scalping: PolicyBundle) -> None:
    bars = walk(2_300, seed=43)
    market = Market(bars_of(bars, 0, 2_200))
    later = bars_of(bars, 2_200, 2_210)
    with pytest.raises(NotNextError, match="must close after"):
        market.append(replace(later, close_ts_ns=later.close_ts_ns + 1))
    broken = later.high.copy()
    broken[7] = 1.0
    with pytest.raises(DataError, match="present bars need finite prices"):
        market.append(replace(later, high=broken))
    assert market.last_close_ts_ns == bars.close_ts_ns[2_199]
    market.append(later)
    assert_same_window(market.seen(scalping).data, build_market(bars), 2_210)


def test_a_gap_longer_than_what_is_kept_asks_for_a_restart() -> None:
    bars = walk(2_200, seed=44)
    market = Market(bars)
    step = (KEPT_BARS + 1) * BAR_NS
    far = replace(bars_of(bars, 2_190, 2_200), close_ts_ns=bars.close_ts_ns[2_190:] + 9 * BAR_NS + step)
    with pytest.raises(NotNextError, match="start the market again with restart"):
        market.append(far, allow_gap=True)


def test_too_few_bars_are_named(scalping: PolicyBundle) -> None:
    market = Market(walk(NEEDED - 1, seed=45))
    with pytest.raises(DataError, match=rf"scalping needs {NEEDED} bars .* was {NEEDED - 1}; give the market more"):
        market.seen(scalping)


def test_after_an_outage_as_long_as_the_window_nothing_is_decided(
    scalping: PolicyBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = walk(NEEDED, seed=46)
    market = Market(bars)
    market._append(live._missing(int(bars.close_ts_ns[-1]) + BAR_NS, NEEDED))
    with pytest.raises(DataError, match="needs at least one present bar"):
        market.seen(scalping)


def test_a_decision_time_is_encoded_once_whoever_asks_and_again_for_another_bundle(tmp_path: Path) -> None:
    bundles = []
    for seed in (0, 1):
        bundles.append(load_bundle(loud_bundle(tmp_path / str(seed), "short", seed=seed)))
    told: list[tuple[str, bool]] = []
    bars = walk(2_400, seed=47)
    odd = 2_399 - int(bars.close_ts_ns[2_398] // BAR_NS % 2)  # the last of them is on the bucket's clock
    market = Market(bars_of(bars, 0, odd), lambda bucket, encoded: told.append((bucket, encoded)))
    seen = market.seen(bundles[0])
    assert seen.close_ts_ns == bars.close_ts_ns[odd - 1]
    market.append(bars_of(bars, odd, odd + 1))  # between two decision times
    assert market.seen(bundles[0]) is seen
    assert market.seen(bundles[1]) is not seen
    assert told == [("short", True), ("short", False), ("short", True)]


def test_many_threads_that_ask_at_once_make_the_encoder_run_once(scalping: PolicyBundle) -> None:
    told: list[bool] = []
    market = Market(walk(2_300, seed=48), lambda _, encoded: told.append(encoded))
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        market.seen(scalping)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [False] * 7 + [True]


def test_a_stamp_is_written_in_utc() -> None:
    assert stamp(1_704_067_500_000_000_000) == "2024-01-01T00:05:00Z"
