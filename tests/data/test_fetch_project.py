"""`btcai data fetch` in a project: the market, data.dvc and params.yaml afterwards, and what the user is told."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from bench.loopback_exchange import LoopbackExchange, serving
from btcai import acquisition, cli, datasets, paths
from btcai.data.frame import BAR_MS, make_frame, parts
from btcai.data.store import market_status, write_market
from btcai.errors import DataError
from btcai.fetch.fetching import Order
from btcai.fetch.patience import Patience
from btcai.params import load_config, set_param
from btcai.simulator.bars import simulate_bars

ROOT = Path(__file__).resolve().parents[2]
FIRST_MS = 1_640_995_200_000  # 2022-01-01T00:00:00Z
N_BARS = 600


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without bars, where DVC does nothing but write data.dvc."""
    shutil.copy(ROOT / paths.PARAMS, tmp_path)
    set_param(tmp_path / paths.PARAMS, "data.market", "simulated")

    def asked(root: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        if arguments[0] == "add":
            (root / datasets.PIN).write_text("pinned")
        return 0

    monkeypatch.setattr(datasets, "_dvc", asked)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def exchange() -> Iterator[LoopbackExchange]:
    bars = simulate_bars(N_BARS + 288, seed=3)
    with serving(LoopbackExchange(bars=bars, now_ms=FIRST_MS + N_BARS * BAR_MS + 60_000)) as served:
        yield served


def run(project: Path, served: LoopbackExchange) -> tuple[acquisition.Imported, str]:
    order = Order(
        exchange="binance",
        symbol="BTC/USDT",
        timeframe="5m",
        market="binance_btcusdt",
        since_ms=FIRST_MS,
        until_ms=served.now_ms,
        archive=False,
        url=served.url,
        request_ms=0.0,
    )
    return acquisition.fetch(project, order, Patience(tries=2, sleep=lambda seconds: None), lambda done, wanted: None)


def test_a_fetched_market_is_pinned_and_in_use_and_the_report_counts_it(
    project: Path, exchange: LoopbackExchange
) -> None:
    exchange.faults = ["429", "every bar twice"]
    done, stopped = run(project, exchange)
    status = market_status(project / paths.DATA, "binance_btcusdt")
    figures = dict(done.figures)
    assert stopped == ""
    assert figures["bars wanted"] == "600"
    assert figures["bars added"] == "600: 0 from the archive, 600 from the API"
    # Markets, twice the first page, the second.
    assert figures["pages and files asked for"].startswith("4, of which 1 failed; 1 times DDoSProtection: binance 429 ")
    assert figures["repeated bars, dropped"] == "300"  # ccxt keeps 600 rows of 1,200: 300 bars
    assert figures["version"] == status["content_sha256"][:12]
    assert status["rows"] == N_BARS
    assert load_config(project / paths.PARAMS).data.market == "binance_btcusdt"
    assert (project / datasets.PIN).read_text() == "pinned"
    assert any("nothing can be trained yet" in note for note in done.notes)  # 600 bars are too few


def test_what_came_before_a_failure_is_kept_and_pinned(project: Path, exchange: LoopbackExchange) -> None:
    exchange.page_bars = 200
    exchange.faults = ["", "500", "500"]
    done, stopped = run(project, exchange)
    assert "binance failed 2 times in a row" in stopped
    assert dict(done.figures)["bars now held"] == "200"
    assert (project / datasets.PIN).read_text() == "pinned"
    done, stopped = run(project, exchange)
    assert (stopped, dict(done.figures)["bars now held"]) == ("", "600")


def test_where_no_bar_came_nothing_has_changed(project: Path, exchange: LoopbackExchange) -> None:
    before = (project / paths.PARAMS).read_bytes()
    exchange.faults = ["500"] * 2
    with pytest.raises(DataError, match="binance failed 2 times in a row"):
        run(project, exchange)
    assert (project / paths.PARAMS).read_bytes() == before
    assert not (project / datasets.PIN).exists()
    assert not (project / paths.DATA / "binance_btcusdt").exists()


def test_the_command_fetches_a_span_and_says_what_it_did(project: Path, exchange: LoopbackExchange) -> None:
    asked = ["data", "fetch", "--since", "2022-01-01", "--until", "2022-01-03", "--no-archive", "--url", exchange.url]
    done = CliRunner().invoke(cli.app, asked)
    assert done.exit_code == 0, done.output
    lines = [line.split("  ") for line in done.output.splitlines()]
    assert ["bars now held", "576"] in [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert "data.market: simulated -> binance_btcusdt" in done.output
    again = CliRunner().invoke(
        cli.app, ["data", "fetch", "--until", "2022-01-03", "--no-archive", "--url", exchange.url]
    )
    assert again.exit_code == 0, again.output
    assert "bars wanted" in again.output


def test_without_a_first_day_a_new_market_cannot_be_fetched(project: Path) -> None:
    done = CliRunner().invoke(cli.app, ["data", "fetch"])
    assert isinstance(done.exception, DataError)
    assert "no bars in data/binance_btcusdt yet, so a first day is needed; give one: --since" in str(done.exception)


@pytest.mark.parametrize(
    ("exchange", "symbol", "market"),
    [
        ("binance", "BTC/USDT", "binance_btcusdt"),
        ("binance", "BTC/USDT:USDT", "binance_btcusdt_swap"),
        ("binance", "BTC/USDT:USDT-251226", "binance_btcusdt_usdt-251226"),
        ("binance", "BTC/USD:BTC", "binance_btcusd_btc"),
        ("kraken", "BTC/USD", "kraken_btcusd"),
    ],
)
def test_markets_of_two_exchanges_have_two_folders(exchange: str, symbol: str, market: str) -> None:
    assert acquisition.market_name(exchange, symbol) == market


def test_progress_is_told_to_the_end(project: Path, exchange: LoopbackExchange) -> None:
    told = []
    exchange.page_bars = 250
    order = Order(
        exchange="binance", symbol="BTC/USDT", timeframe="5m", market="btc", since_ms=FIRST_MS,
        until_ms=exchange.now_ms, archive=False, url=exchange.url, request_ms=0.0,
    )  # fmt: skip
    acquisition.fetch(project, order, Patience(), lambda done, wanted: told.append((done, wanted)))
    assert told == [(250, 600), (500, 600), (600, 600)]
    assert np.diff([done for done, _ in told]).min() > 0


def test_two_fetches_at_once_do_not_touch_each_other(project: Path, exchange: LoopbackExchange) -> None:
    lock = FileLock(project / datasets.LOCK)
    Path(lock.lock_file).parent.mkdir(parents=True)
    with lock, pytest.raises(DataError, match="another btcai is changing data/; wait for it"):
        run(project, exchange)
    assert run(project, exchange)[1] == ""


def test_a_name_that_no_market_can_have_is_refused_before_anything_is_asked(
    project: Path, exchange: LoopbackExchange
) -> None:
    asked = ["data", "fetch", "--since", "2022-01-01", "--market", "BTC", "--url", exchange.url]
    done = CliRunner().invoke(cli.app, asked)
    assert "a market's name must be lower-case letters" in str(done.exception)
    assert exchange.asked == []


def test_a_span_that_ends_before_it_begins_is_named(project: Path) -> None:
    done = CliRunner().invoke(cli.app, ["data", "fetch", "--since", "2022-01-02", "--until", "2022-01-01"])
    assert "the first day must lie before the last and in the past" in str(done.exception)


def test_the_market_in_use_is_brought_up_to_date_from_where_it_was_fetched(
    project: Path, exchange: LoopbackExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project, exchange)
    exchange.now_ms += 20 * BAR_MS
    asked: list[Order] = []
    fetched = acquisition.fetch

    def at_loopback(
        root: Path, order: Order, patience: Patience, advance: Callable[[int, int], None]
    ) -> tuple[acquisition.Imported, str]:
        asked.append(order)
        here = replace(order, url=exchange.url, until_ms=exchange.now_ms, archive=False, request_ms=0.0)
        return fetched(root, here, patience, advance)

    monkeypatch.setattr(acquisition, "fetch", at_loopback)
    done = CliRunner().invoke(cli.app, ["data", "update"])
    assert done.exit_code == 0, done.output
    assert (asked[0].exchange, asked[0].symbol, asked[0].since_ms) == ("binance", "BTC/USDT", FIRST_MS)
    assert market_status(project / paths.DATA, "binance_btcusdt")["rows"] == N_BARS + 20


def test_a_market_that_was_not_fetched_stays_as_it_is(project: Path) -> None:
    done = CliRunner().invoke(cli.app, ["data", "update"])
    assert done.exit_code == 0
    assert "the market in use was not fetched" in done.output


def test_another_symbol_does_not_join_a_fetched_market(project: Path, exchange: LoopbackExchange) -> None:
    run(project, exchange)
    asked = ["data", "fetch", "--symbol", "BTC/USDC", "--since", "2022-01-01", "--market", "binance_btcusdt"]
    done = CliRunner().invoke(cli.app, [*asked, "--url", exchange.url])
    assert "binance_btcusdt holds bars of binance BTC/USDT 5m, was asked for binance BTC/USDC 5m" in str(done.exception)


def test_a_damaged_origin_is_named(project: Path, exchange: LoopbackExchange) -> None:
    run(project, exchange)
    (project / paths.DATA / "binance_btcusdt" / "origin.json").write_text("{}")
    done = CliRunner().invoke(cli.app, ["data", "update"])
    assert "must say exchange, symbol and timeframe" in str(done.exception)


def test_an_import_into_a_fetched_market_keeps_its_origin(project: Path, exchange: LoopbackExchange) -> None:
    run(project, exchange)
    origin = (project / paths.DATA / "binance_btcusdt" / "origin.json").read_bytes()
    stamps, values = parts(exchange.bars)
    write_market(project / paths.DATA, "binance_btcusdt", make_frame(stamps[N_BARS:], values[N_BARS:]))
    assert (project / paths.DATA / "binance_btcusdt" / "origin.json").read_bytes() == origin
