"""`btcai bench data`: how long bars take to simulate, to import and validate, and to fetch."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.line import Goal, Line
from bench.loopback_exchange import LoopbackExchange, serving
from bench.stopwatch import Stopwatch
from btcai.config import Config
from btcai.data.frame import BAR_MS, parts
from btcai.data.sources import clock_ms, read_source
from btcai.data.store import read_market, write_market
from btcai.data.validation import validate
from btcai.fetch.exchange import SETTLED_MS
from btcai.fetch.fetching import Order, fetch
from btcai.fetch.patience import Patience
from btcai.schema import BARS_PER_YEAR
from btcai.simulator.bars import DEFAULT_SEED, simulate_bars

SIMULATE_GOALS = (Goal("value", "<=", 0.2),)
IMPORT_GOALS = (Goal("value", "<=", 3.0),)
FETCH_GOALS = (Goal("ratio", ">=", 1.0),)

ALLOWED_BARS_A_SECOND = 1000 * 6000 / 2 / 60
"""By Binance's limits: pages of 1,000 bars, each of weight 2, and 6,000 of weight a minute."""

MARKET = "bench"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    bars: int = 400_000
    fetched_bars: int = 50_000


def lines(stopwatch: Stopwatch, config: Config, root: Path, size: Size | None = None) -> Iterator[Line]:
    """A year simulated; bars read from a file, written to a market and validated; bars fetched over the loopback."""
    size = size or Size()
    (timing,) = stopwatch.time(lambda: len(simulate_bars(BARS_PER_YEAR, DEFAULT_SEED)))
    yield Line(
        name=f"simulate_bars, a year, {BARS_PER_YEAR:,} bars",
        value=timing.median_s,
        unit="s",
        goals=SIMULATE_GOALS,
        more=timing.facts(),
    )
    frame = simulate_bars(size.bars, DEFAULT_SEED)
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("bars.parquet", _parquet), ("bars.csv", _csv)):
            write(frame, Path(folder) / name)
            yield _import(stopwatch, Path(folder) / name, size.bars)
    yield _fetch(stopwatch, frame.head(size.fetched_bars))


def _parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path)


def _csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False)


def _import(stopwatch: Stopwatch, path: Path, n_bars: int) -> Line:
    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            write_market(Path(folder), MARKET, read_source([path], "5m", clock_ms()).bars)
            assert validate(read_market(Path(folder), MARKET)).success
        return n_bars

    (timing,) = stopwatch.time(run)
    return Line(
        name=f"import and validate {path.name}, {n_bars:,} bars",
        value=timing.median_s,
        unit="s",
        goals=IMPORT_GOALS,
        note="beyond library imports; without dvc add, which takes about a second",
        more=timing.facts(),
    )


def _fetch(stopwatch: Stopwatch, bars: pd.DataFrame) -> Line:
    """The whole of a fetch through ccxt from an exchange that answers at once and asks for no pauses."""
    first_ms = int(parts(bars)[0][0])
    now_ms = first_ms + len(bars) * BAR_MS + SETTLED_MS

    def run() -> float:
        with serving(LoopbackExchange(bars=bars, now_ms=now_ms)) as served, tempfile.TemporaryDirectory() as folder:
            order = Order(
                exchange="binance",
                symbol="BTC/USDT",
                timeframe="5m",
                market=MARKET,
                since_ms=first_ms,
                until_ms=now_ms,
                archive=False,
                url=served.url,
                request_ms=0.0,
            )
            return fetch(Path(folder), order, Patience()).added

    (timing,) = stopwatch.time(run)
    return Line(
        name=f"fetch {len(bars):,} bars, loopback",
        value=timing.per_second,
        unit="bars/s",
        reference="what Binance allows",
        reference_value=ALLOWED_BARS_A_SECOND,
        goals=FETCH_GOALS,
        note="the exchange's answers are made by this process too",
        more=timing.facts(),
    )
