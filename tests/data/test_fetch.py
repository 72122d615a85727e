"""Fetching bars with the real clients from an exchange on 127.0.0.1: whatever it does, what is stored is true."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.loopback_exchange import BYTE_FAULTS, HTTP_FAULTS, ROW_FAULTS, LoopbackExchange, serving
from btcai.data.frame import BAR_MS, make_frame, parts
from btcai.data.funding import read_funding, with_funding
from btcai.data.settlement import on_grid
from btcai.data.store import read_market, to_grid, write_market
from btcai.errors import DataError
from btcai.fetch import fetching
from btcai.fetch.archive import is_archived
from btcai.fetch.exchange import UNTRUE_TRIES
from btcai.fetch.fetching import Fetched, Order
from btcai.fetch.patience import Patience
from btcai.schema import BAR_NS
from btcai.simulator.bars import simulate_bars

FIRST_MS = 1_640_995_200_000  # 2022-01-01T00:00:00Z, the first bar of the simulator
N_BARS = 900
SYMBOLS = {"binance": "BTC/USDT", "bybit": "BTC/USDT", "okx": "BTC/USDT", "kraken": "BTC/USD", "coinbase": "BTC/USD"}


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    """40 days."""
    return simulate_bars(40 * 288, seed=3)


@pytest.fixture
def waits() -> list[float]:
    """Seconds that would have been slept."""
    return []


@pytest.fixture
def exchange(history: pd.DataFrame) -> Iterator[LoopbackExchange]:
    """The first N_BARS have closed; the next is open."""
    with serving(LoopbackExchange(bars=history, now_ms=FIRST_MS + N_BARS * BAR_MS + 60_000)) as served:
        yield served


def order(served: LoopbackExchange, name: str = "binance", *, archive: bool = False, since_ms: int = FIRST_MS) -> Order:
    return Order(
        exchange=name,
        symbol=SYMBOLS.get(name, "BTC/USDT"),
        timeframe="5m",
        market="btc",
        since_ms=since_ms,
        until_ms=served.now_ms,
        archive=archive,
        url=served.url,
        request_ms=0.0,
    )


def fetch(root: Path, what: Order, waits: list[float], tries: int = 4) -> Fetched:
    return fetching.fetch(root, what, Patience(tries=tries, sleep=waits.append))


def assert_held(root: Path, history: pd.DataFrame, slots: np.ndarray | range = range(N_BARS)) -> None:
    """Exactly these bars of the history are on disk, to the bit."""
    stamps, values = parts(history)
    pd.testing.assert_frame_equal(read_market(root, "btc"), make_frame(stamps[slots], values[slots]))


@pytest.mark.parametrize("name", ["binance", "bybit", "okx", "coinbase"])
def test_every_bar_that_has_closed_arrives(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float], name: str
) -> None:
    done = fetch(tmp_path, order(exchange, name), waits)
    assert_held(tmp_path, history)
    assert (done.wanted, done.from_api, done.stopped, done.failures.total()) == (N_BARS, N_BARS, "", 0)
    assert waits == []


def test_an_exchange_that_keeps_only_its_last_bars_gives_those(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    done = fetch(tmp_path, order(exchange, "kraken"), waits)
    assert_held(tmp_path, history, range(N_BARS - 719, N_BARS))  # of 720 one is open
    assert done.unfinished > 0
    assert done.asked <= 8


@pytest.mark.parametrize("fault", [*HTTP_FAULTS, *BYTE_FAULTS, *ROW_FAULTS])
@pytest.mark.parametrize("name", ["binance", "okx"])
def test_one_fault_of_any_kind_changes_nothing_of_what_is_stored(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float], name: str, fault: str
) -> None:
    exchange.page_bars = 300
    exchange.faults = ["", fault]
    done = fetch(tmp_path, order(exchange, name), waits)
    if fault == "banned for an hour":
        assert "asked to be left alone for 3600 s" in done.stopped
        assert_held(tmp_path, history, range(300))
        done = fetch(tmp_path, order(exchange, name), waits)
    assert_held(tmp_path, history)
    assert done.stopped == ""
    assert not exchange.faults


def test_a_fault_that_does_not_end_is_given_up_and_the_next_run_goes_on_from_there(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    exchange.page_bars = 300
    exchange.faults = ["", *["503"] * 4]
    done = fetch(tmp_path, order(exchange), waits)
    assert "failed 4 times in a row" in done.stopped
    assert (done.added, len(exchange.asked)) == (300, 5)  # the circuit is open: nothing is asked any more
    assert_held(tmp_path, history, range(300))
    again = fetch(tmp_path, order(exchange), waits)
    assert (again.wanted, again.added, again.stopped) == (600, 600, "")
    assert_held(tmp_path, history)


def test_waits_grow_with_chance_and_one_that_is_asked_for_is_kept(
    tmp_path: Path, exchange: LoopbackExchange, waits: list[float]
) -> None:
    exchange.faults = ["500", "500", "500", "429", "418"]
    fetch(tmp_path, order(exchange), waits, tries=8)
    assert len(waits) == 5
    assert all(0 <= wait <= 2.0**number for number, wait in enumerate(waits[:3]))
    assert 1.0 <= waits[3] <= 1.0 + 8.0
    assert 2.0 <= waits[4] <= 2.0 + 16.0
    assert len(set(waits)) == 5


def test_a_second_fetch_asks_only_for_what_is_new(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    fetch(tmp_path, order(exchange), waits)
    exchange.asked.clear()
    exchange.now_ms += 10 * BAR_MS
    done = fetch(tmp_path, order(exchange), waits)
    assert (done.wanted, done.added) == (10, 10)
    assert len(exchange.asked) == 4  # three of bars that are held: is it still the same market?
    assert f"startTime={FIRST_MS + N_BARS * BAR_MS}&" in exchange.asked[3] + "&"
    assert_held(tmp_path, history, range(N_BARS + 10))


def test_nothing_new_asks_for_no_bars(tmp_path: Path, exchange: LoopbackExchange, waits: list[float]) -> None:
    fetch(tmp_path, order(exchange), waits)
    exchange.asked.clear()
    done = fetch(tmp_path, order(exchange), waits)
    assert (done.wanted, done.added, exchange.asked) == (0, 0, [])


def test_holes_of_a_market_on_disk_are_filled(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    stamps, values = parts(history)
    held = np.r_[0:100, 117:400, 401:N_BARS]
    write_market(tmp_path, "btc", make_frame(stamps[held], values[held]))
    done = fetch(tmp_path, order(exchange), waits)
    assert (done.wanted, done.added) == (18, 18)
    assert_held(tmp_path, history)


@pytest.mark.parametrize("name", ["binance", "okx"])
def test_a_gap_of_the_exchange_stays_a_gap(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float], name: str
) -> None:
    there = np.r_[0:100, 117:N_BARS, N_BARS : len(history)]
    exchange.bars = history.iloc[there].reset_index(drop=True)
    done = fetch(tmp_path, order(exchange, name), waits)
    assert (done.wanted, done.added, done.stopped) == (N_BARS, N_BARS - 17, "")
    assert_held(tmp_path, history, there[: N_BARS - 17])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["binance", "okx", "coinbase"])
def test_before_a_market_opened_there_are_no_bars(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float], name: str
) -> None:
    done = fetch(tmp_path, order(exchange, name, since_ms=FIRST_MS - 20 * 288 * BAR_MS), waits)
    assert_held(tmp_path, history)
    assert done.asked < 60


def test_a_bar_is_open_until_the_exchange_too_says_it_has_closed(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    """Our clock is an hour ahead of the exchange's."""
    what = order(exchange)
    ahead = replace(what, until_ms=exchange.now_ms + 3_600_000)
    done = fetch(tmp_path, ahead, waits)
    assert_held(tmp_path, history)
    assert done.unfinished > 0


def test_memory_is_bounded_and_a_kill_loses_no_more_than_that(
    tmp_path: Path,
    history: pd.DataFrame,
    exchange: LoopbackExchange,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        pass

    written = []
    write = fetching.store.write_market

    def counted(root: Path, market: str, frame: pd.DataFrame) -> object:
        written.append(len(frame))
        return write(root, market, frame)

    def kill(done: int, wanted: int) -> None:
        if done == 700:
            raise Killed

    monkeypatch.setattr(fetching, "FLUSH_BARS", 200)
    monkeypatch.setattr(fetching.store, "write_market", counted)
    exchange.page_bars = 100
    with pytest.raises(Killed):
        fetching.fetch(tmp_path, order(exchange), Patience(), kill)
    assert written == [200, 200, 200, 100]
    fetch(tmp_path, order(exchange), waits)
    assert_held(tmp_path, history)


def test_what_does_not_exist_is_named_with_what_does(
    tmp_path: Path, exchange: LoopbackExchange, waits: list[float]
) -> None:
    with pytest.raises(DataError, match=r"binanc is none of the \d+ exchanges .* like it: binance"):
        fetch(tmp_path, order(exchange, "binanc"), waits)
    with pytest.raises(DataError, match="binance has no BTC/USDC among its 1 symbols, like it: BTC/USDT"):
        fetch(tmp_path, replace(order(exchange), symbol="BTC/USDC"), waits)
    assert list(tmp_path.iterdir()) == []


MONTH_BARS = 31 * 288


@pytest.fixture
def archived(history: pd.DataFrame) -> Iterator[LoopbackExchange]:
    """As of 2022-02-05: the file of January, and of three days of February."""
    now_ms = FIRST_MS + (MONTH_BARS + 4 * 288 + 5) * BAR_MS + 60_000
    with serving(LoopbackExchange(bars=history, now_ms=now_ms, archived_to_ms=now_ms - 288 * BAR_MS)) as served:
        yield served


def test_whole_months_and_days_come_from_the_archive_and_the_rest_from_the_api(
    tmp_path: Path, history: pd.DataFrame, archived: LoopbackExchange, waits: list[float]
) -> None:
    done = fetch(tmp_path, order(archived, archive=True), waits)
    assert_held(tmp_path, history, range(MONTH_BARS + 4 * 288 + 5))
    assert (done.from_archive, done.from_api) == (MONTH_BARS + 3 * 288, 288 + 5)
    files = [path.rpartition("/")[2] for path in archived.asked if path.endswith(".zip")]
    assert files == ["BTCUSDT-5m-2022-01.zip", *(f"BTCUSDT-5m-2022-02-0{day}.zip" for day in (1, 2, 3, 4))]


@pytest.mark.parametrize("fault", ["wrong bytes", "cut off", "dropped connection", "429", "503", "web page"])
def test_a_faulty_file_is_asked_for_again(
    tmp_path: Path, history: pd.DataFrame, archived: LoopbackExchange, waits: list[float], fault: str
) -> None:
    archived.faults = [fault]
    done = fetch(tmp_path, order(archived, archive=True), waits)
    assert_held(tmp_path, history, range(MONTH_BARS + 4 * 288 + 5))
    assert (done.from_archive, done.failures.total()) == (MONTH_BARS + 3 * 288, 1)


def test_an_archive_whose_checksums_stay_wrong_is_left_alone_and_the_api_gives_the_bars(
    tmp_path: Path, history: pd.DataFrame, archived: LoopbackExchange, waits: list[float]
) -> None:
    archived.faults = ["wrong bytes", ""] * 4
    done = fetch(tmp_path, order(archived, archive=True), waits)
    assert_held(tmp_path, history, range(MONTH_BARS + 4 * 288 + 5))
    assert (done.from_archive, done.failures.total(), done.stopped) == (0, 4, "")


def test_an_archive_that_holds_all_leaves_the_api_alone(
    tmp_path: Path, history: pd.DataFrame, archived: LoopbackExchange, waits: list[float]
) -> None:
    what = replace(order(archived, archive=True), until_ms=FIRST_MS + MONTH_BARS * BAR_MS)
    done = fetch(tmp_path, what, waits)
    assert (done.from_archive, done.from_api, done.asked) == (MONTH_BARS, 0, 1)  # a file with its checksum
    assert_held(tmp_path, history, range(MONTH_BARS))


def test_a_file_of_an_archive_in_microseconds_is_read(tmp_path: Path, waits: list[float]) -> None:
    """As Binance writes them since 2025."""
    stamps, values = parts(simulate_bars(32 * 288, seed=3))
    stamps = stamps + (np.datetime64("2025-01-01", "ms") - np.datetime64("2022-01-01", "ms")).astype(np.int64)
    now_ms = int(stamps[-1]) + BAR_MS + 60_000
    served = LoopbackExchange(bars=make_frame(stamps, values), now_ms=now_ms, archived_to_ms=now_ms)
    with serving(served):
        done = fetch(tmp_path, order(served, archive=True, since_ms=int(stamps[0])), waits)
    assert (done.from_archive, done.from_api) == (32 * 288, 0)
    pd.testing.assert_frame_equal(read_market(tmp_path, "btc"), make_frame(stamps, values))


SETTLES_MS = 8 * 3_600_000


def test_funding_of_a_swap_comes_with_its_bars_and_what_is_missing_is_not_zero(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    """900 bars hold nine settlements after the first; the exchange stamps them 3 ms late and has lost the fourth."""
    exchange.funding = [(FIRST_MS + slot * SETTLES_MS + 3, 1e-4 * slot) for slot in range(10) if slot != 4]
    swap = replace(order(exchange), symbol="BTC/USDT:USDT")
    done = fetch(tmp_path, swap, waits)
    assert_held(tmp_path, history)
    assert done.funding_added == 9
    found = read_funding(tmp_path / "btc")
    assert found is not None
    grid = to_grid(read_market(tmp_path, "btc"))
    rates = on_grid(grid.close_ts_ns, *found)
    at = {slot: slot * 96 - 1 for slot in range(1, 10)}  # the bar that closes then
    assert [rates[bar] for slot, bar in at.items() if slot != 4] == [1e-4 * slot for slot in range(1, 10) if slot != 4]
    assert np.isnan(rates[at[4]])
    assert not np.delete(rates, list(at.values())).any()
    exchange.now_ms += 96 * BAR_MS
    exchange.funding.append((FIRST_MS + 10 * SETTLES_MS, -2e-4))
    again = fetch(tmp_path, replace(swap, until_ms=exchange.now_ms), waits)
    assert (again.added, again.funding_added) == (96, 1)
    kept = read_funding(tmp_path / "btc")
    assert kept is not None
    assert (len(kept[0]), kept[1][-1]) == (10, -2e-4)


def test_a_spot_market_has_no_funding(tmp_path: Path, exchange: LoopbackExchange, waits: list[float]) -> None:
    exchange.funding = [(FIRST_MS, 1e-4)]
    assert fetch(tmp_path, order(exchange), waits).funding_added == 0
    assert read_funding(tmp_path / "btc") is None


@pytest.mark.parametrize("untrue", [5.0, -0.2, None])
def test_a_rate_that_cannot_be_true_is_asked_for_again_and_then_left_out_alone(
    untrue: float | None,
    tmp_path: Path,
    exchange: LoopbackExchange,
    waits: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange.funding = [(FIRST_MS + slot * SETTLES_MS, untrue if slot == 4 else 1e-4 * slot) for slot in range(1, 10)]
    done = fetch(tmp_path, replace(order(exchange), symbol="BTC/USDT:USDT"), waits)
    found = read_funding(tmp_path / "btc")
    assert found is not None
    assert not done.stopped
    assert found[1].tolist() == pytest.approx([1e-4 * slot for slot in range(1, 10) if slot != 4])
    assert len(waits) == 2 * UNTRUE_TRIES - 2  # its page, and the page from it on, which the lost one is asked for with
    assert "a funding rate that cannot be true" in caplog.text


@pytest.mark.parametrize("hours", [1, 4, 8])
def test_a_settlement_left_out_is_unknown_however_often_the_market_settles(hours: int) -> None:
    """Forty settlements from the end of a whole day on, of which the ninth and the eleventh were lost."""
    close_ns = BAR_NS * (np.arange(40 * hours * 12) + 1) + 19_000 * 86_400 * 10**9
    slots = np.setdiff1d(np.arange(1, 41), [9, 11])
    funding = on_grid(close_ns, (close_ns[slots * hours * 12 - 1] // 10**6).astype(np.int64), slots * 1e-5)
    unknown = np.flatnonzero(np.isnan(funding))
    assert (unknown + 1).tolist() == [9 * hours * 12, 11 * hours * 12]
    assert funding[slots * hours * 12 - 1].tolist() == pytest.approx((slots * 1e-5).tolist())


@pytest.mark.parametrize(("before", "after"), [(8, 4), (4, 8), (1, 8), (8, 1)])
def test_a_market_that_comes_to_settle_at_another_cadence_has_left_out_nothing(before: int, after: int) -> None:
    hours = np.r_[np.arange(before, 80, before), np.arange(80, 161, after)]
    close_ns = BAR_NS * (np.arange(160 * 12) + 1) + 19_000 * 86_400 * 10**9
    funding = on_grid(close_ns, (close_ns[hours * 12 - 1] // 10**6).astype(np.int64), np.full(len(hours), 1e-4))
    assert not np.isnan(funding).any()


def test_a_page_without_one_rate_that_can_be_true_does_not_end_the_history(
    tmp_path: Path, exchange: LoopbackExchange, waits: list[float]
) -> None:
    """It sends the 100 oldest of each request: the whole of the first page is untrue, what comes after is not."""
    hour_ms = 3_600_000
    exchange.now_ms = FIRST_MS + 200 * hour_ms
    exchange.funding = [(FIRST_MS + hour * hour_ms, 5.0 if hour < 100 else 1e-5 * hour) for hour in range(200)]
    done = fetch(tmp_path, replace(order(exchange), symbol="BTC/USDT:USDT"), waits)
    found = read_funding(tmp_path / "btc")
    assert found is not None
    assert found[1].tolist() == pytest.approx([1e-5 * hour for hour in range(100, 200)])
    assert done.untrue >= 100


def test_damaged_rates_on_disk_are_named(tmp_path: Path) -> None:
    (tmp_path / "funding.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"funding\.parquet must hold funding rates: .*; restore it with dvc checkout"):
        read_funding(tmp_path)


def _wrong(history: pd.DataFrame, column: str, value: float | pd.Timestamp) -> pd.DataFrame:
    """The second bar with another value."""
    bars = history.copy()
    bars.loc[1, column] = value
    return bars


@pytest.mark.parametrize(
    "wrong",
    [
        lambda bars: _wrong(bars, "low", 0.0),
        lambda bars: _wrong(bars, "high", 1.0),
        lambda bars: _wrong(bars, "volume", -1.0),
        lambda bars: _wrong(bars, "open_time", pd.Timestamp(FIRST_MS + BAR_MS + 1000, unit="ms", tz="UTC")),
    ],
    ids=["a price of 0", "high below low", "volume below 0", "off the grid"],
)
@pytest.mark.parametrize("name", ["binance", "okx"])
def test_a_bar_that_stays_untrue_is_left_out_and_the_bars_after_it_arrive(
    tmp_path: Path,
    history: pd.DataFrame,
    exchange: LoopbackExchange,
    waits: list[float],
    name: str,
    wrong: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    exchange.page_bars, exchange.bars = 300, wrong(history)
    done = fetch(tmp_path, order(exchange, name), waits)
    assert done.stopped == ""
    assert done.untrue >= 1
    assert_held(tmp_path, history, np.delete(np.arange(N_BARS), 1))


def test_two_bars_of_one_time_that_never_agree_are_both_left_out(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    exchange.bars = pd.concat([history, _wrong(history, "volume", 9.0).iloc[1:2]]).sort_values("open_time")
    done = fetch(tmp_path, order(exchange), waits)
    assert done.untrue >= 2
    assert_held(tmp_path, history, np.delete(np.arange(N_BARS), 1))


def test_bars_of_another_exchange_do_not_join_a_market(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    stamps, values = parts(simulate_bars(500, seed=4))
    write_market(tmp_path, "btc", make_frame(stamps, values))
    with pytest.raises(DataError, match="bars of two sources must not mix: binance BTC/USDT sends"):
        fetch(tmp_path, order(exchange), waits)
    pd.testing.assert_frame_equal(read_market(tmp_path, "btc"), make_frame(stamps, values))


def test_files_of_another_exchange_do_not_join_a_market(
    tmp_path: Path, archived: LoopbackExchange, waits: list[float]
) -> None:
    stamps, values = parts(simulate_bars(500, seed=4))
    write_market(tmp_path, "btc", make_frame(stamps, values))
    with pytest.raises(DataError, match="bars of two sources must not mix: binance BTC/USDT sends"):
        fetch(tmp_path, order(archived, archive=True), waits)
    pd.testing.assert_frame_equal(read_market(tmp_path, "btc"), make_frame(stamps, values))


def test_a_conflict_in_a_later_month_adds_nothing_of_an_earlier_one(
    tmp_path: Path, archived: LoopbackExchange, waits: list[float]
) -> None:
    """Held: another market's bars of February. Wanted: January too."""
    stamps, values = parts(simulate_bars(MONTH_BARS + 800, seed=4))
    write_market(tmp_path, "btc", make_frame(stamps[MONTH_BARS:], values[MONTH_BARS:]))
    with pytest.raises(DataError, match="bars of two sources must not mix"):
        fetch(tmp_path, order(archived, archive=True), waits)
    assert len(read_market(tmp_path, "btc")) == 800
    assert not any(path.startswith("/data/") for path in archived.asked)


def test_bars_that_nobody_can_compare_do_not_join_a_market(
    tmp_path: Path, exchange: LoopbackExchange, waits: list[float]
) -> None:
    """Kraken keeps its last 720 bars alone: of a market that ends before them it sends none."""
    stamps, values = parts(simulate_bars(100, seed=4))
    write_market(tmp_path, "btc", make_frame(stamps, values))
    with pytest.raises(DataError, match="kraken BTC/USD sends none of the bars that btc holds"):
        fetch(tmp_path, order(exchange, "kraken"), waits)
    assert len(read_market(tmp_path, "btc")) == 100
    assert not (tmp_path / "btc" / "origin.json").exists()


def test_a_fetch_that_brings_nothing_says_nothing_of_where_bars_are_from(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    stamps, values = parts(history)
    write_market(tmp_path, "btc", make_frame(stamps[:500], values[:500]))
    exchange.faults = ["503"] * 4
    assert "failed 4 times in a row" in fetch(tmp_path, order(exchange), waits).stopped
    assert not (tmp_path / "btc" / "origin.json").exists()


def test_rates_that_come_newest_first_arrive_all(
    tmp_path: Path, exchange: LoopbackExchange, waits: list[float]
) -> None:
    exchange.funding = [(FIRST_MS + number * SETTLES_MS, 1e-4) for number in range(10)]
    exchange.newest_rates = 3
    done = fetch(tmp_path, replace(order(exchange), symbol="BTC/USDT:USDT"), waits)
    assert done.funding_added == 10


def test_one_bar_that_the_exchange_has_changed_since_stays_as_it_is_held(
    tmp_path: Path, history: pd.DataFrame, exchange: LoopbackExchange, waits: list[float]
) -> None:
    stamps, values = parts(history)
    values = values[:500].copy()
    values[252, 4] += 1.0
    write_market(tmp_path, "btc", make_frame(stamps[:500], values))
    done = fetch(tmp_path, order(exchange), waits)
    assert (done.added, done.stopped) == (N_BARS - 500, "")
    assert parts(read_market(tmp_path, "btc"))[1][252, 4] == values[252, 4]


def test_settlements_in_between_come_with_the_next_regular_one(
    tmp_path: Path, exchange: LoopbackExchange, waits: list[float]
) -> None:
    """The first run ends before a settlement at 04:00 that follows the one at 00:00; the second begins after 08:00."""
    slot = FIRST_MS + 9 * SETTLES_MS
    exchange.funding = [(FIRST_MS + number * SETTLES_MS, 1e-4) for number in range(10)]
    exchange.now_ms = slot + 3 * 3_600_000
    swap = replace(order(exchange), symbol="BTC/USDT:USDT")
    fetch(tmp_path, replace(swap, until_ms=exchange.now_ms), waits)
    exchange.funding += [(slot + SETTLES_MS // 2, 7e-4), (slot + SETTLES_MS, 2e-4)]
    exchange.now_ms = slot + SETTLES_MS + 3_600_000
    done = fetch(tmp_path, replace(swap, until_ms=exchange.now_ms), waits)
    assert done.funding_added == 2
    found = read_funding(tmp_path / "btc")
    assert found is not None
    assert found[1][-2:].tolist() == [7e-4, 2e-4]


def test_one_rate_that_an_exchange_has_lost_is_asked_for_with_one_page(
    tmp_path: Path, exchange: LoopbackExchange, waits: list[float]
) -> None:
    exchange.funding = [(FIRST_MS + number * SETTLES_MS, 1e-4) for number in range(10) if number != 4]
    swap = replace(order(exchange), symbol="BTC/USDT:USDT")
    fetch(tmp_path, swap, waits)
    exchange.asked.clear()
    assert fetch(tmp_path, swap, waits).funding_added == 0
    assert len(exchange.asked) == 1


def test_bars_and_rates_have_one_identity() -> None:
    times, rates = np.array([0, SETTLES_MS]), np.array([1e-4, 2e-4])
    assert with_funding("abc", None) == "abc"
    assert with_funding("abc", (times, rates)) == with_funding("abc", (times.copy(), rates.copy()))
    assert with_funding("abc", (times, rates)) not in ("abc", with_funding("abc", (times, 2 * rates)))


def test_a_swap_comes_from_its_own_folder_of_the_archive(
    tmp_path: Path, history: pd.DataFrame, archived: LoopbackExchange, waits: list[float]
) -> None:
    done = fetch(tmp_path, replace(order(archived, archive=True), symbol="BTC/USDT:USDT"), waits)
    assert_held(tmp_path, history, range(MONTH_BARS + 4 * 288 + 5))
    assert done.from_archive == MONTH_BARS + 3 * 288
    assert all(path.startswith("/data/futures/um/") for path in archived.asked if path.startswith("/data/"))


@pytest.mark.parametrize(
    ("symbol", "archived"),
    [("BTC/USDT", True), ("BTC/USDT:USDT", True), ("BTC/USD:BTC", False), ("BTC/USDT:USDT-251226", False)],
)
def test_only_spot_and_linear_perpetuals_are_in_the_archive(symbol: str, archived: bool) -> None:
    assert is_archived(symbol) == archived


def test_an_address_without_a_host_is_refused(tmp_path: Path, exchange: LoopbackExchange, waits: list[float]) -> None:
    with pytest.raises(
        DataError, match=r"an address must begin with http:// or https:// .* was localhost:80; mend --url"
    ):
        fetch(tmp_path, replace(order(exchange), url="localhost:80"), waits)
