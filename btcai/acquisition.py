"""Bars from elsewhere into data/MARKET: made, imported from files, or fetched; then pinned by data.dvc and in use."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btcai import datasets, paths
from btcai.datasets import PIN, SIMULATED, gaps_of, line_of
from btcai.errors import DataError
from btcai.files import settle
from btcai.params import load_config, set_param

if TYPE_CHECKING:
    from btcai.data.sources import Source
    from btcai.data.store import Written
    from btcai.fetch.fetching import Fetched, Order
    from btcai.fetch.patience import Patience


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A simulated market other than the default one."""

    scenarios: tuple[str, ...] = ()
    days: int | None = None
    seed: int | None = None
    parameters: Path | None = None
    swap: bool = False
    """With funding rates, as a perpetual swap has them; so is a market where events act on them."""

    @property
    def market(self) -> str:
        """Its folder, if none is named: simulated_flash_crash, simulated_news_trends_swap."""
        return "_".join([SIMULATED, *(self.scenarios or ("own",)), *(["swap"] if self.swap else [])])


def simulate_other(root: Path, what: Simulation, market: str) -> str:
    """Write a market as asked for, in place of one of that name, and pin it; returns what was written.

    DataError unless its name begins with `simulated_`: bars that cannot be made again are not to be replaced.
    """
    from btcai.data.funding import write_funding
    from btcai.data.store import replace_market
    from btcai.schema import BARS_PER_DAY
    from btcai.simulator.bars import DEFAULT_BARS, DEFAULT_SEED, simulate_bars
    from btcai.simulator.events import FundingSpike, forces_of
    from btcai.simulator.funding import simulate_funding
    from btcai.simulator.parameters import MarketParameters
    from btcai.simulator.scenarios import scenario

    if not market.startswith(f"{SIMULATED}_"):
        raise DataError(f"a simulated market's name must begin with {SIMULATED}_, was {market}; leave --market out")
    n_bars = DEFAULT_BARS if what.days is None else what.days * BARS_PER_DAY
    seed = DEFAULT_SEED if what.seed is None else what.seed
    parameters = MarketParameters.from_file(what.parameters) if what.parameters else MarketParameters()
    events = [event for number, name in enumerate(what.scenarios) for event in scenario(name, n_bars, seed + number)]
    bars = simulate_bars(n_bars, seed, parameters, events)
    has_rates = what.swap or any(isinstance(event, FundingSpike) for event in events)
    rates = simulate_funding(bars, seed, forces_of(events, n_bars).funding_frac)

    def add_rates(folder: Path) -> None:
        if has_rates:
            write_funding(folder, *rates)

    with datasets.alone(root):
        written = replace_market(root / paths.DATA, market, bars, add_rates)
        datasets.pin(root)
    return line_of(written, f"{len(events):,} events, ")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did: figures to print, remarks, and the market in use before and after it."""

    figures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    old_market: str
    market: str

    def printed(self) -> str:
        """One line for each figure and remark."""
        width = max(len(name) for name, _ in self.figures)
        lines = [f"  {name:<{width}}  {figure}" for name, figure in self.figures]
        return "\n".join([f"{self.market}:", *lines, *(f"note: {note}" for note in self.notes)])


def import_files(root: Path, files: Sequence[Path], market: str, timeframe: str) -> Imported:
    """Bars of all files join data/MARKET, pinned by data.dvc and in use: all of it, or nothing has changed."""
    from btcai.data import sources, store

    _check_name(market)
    config = load_config(root / paths.PARAMS)  # a broken file is found before any bar is read
    source = sources.read_source(files, timeframe, sources.clock_ms())
    try:
        with (
            datasets.alone(root),
            _restored(root / PIN),
            _restored(root / paths.PARAMS),
            store.changed(root / paths.DATA, market, source.bars, source.place) as written,
        ):
            if written.rows_added or not datasets.is_pinned(root):
                datasets.pin(root)
            if config.data.market != market:
                set_param(root / paths.PARAMS, "data.market", market)
    except OSError as error:
        raise DataError(f"the import failed: {error}; nothing has changed: free the disk, then try again") from error
    return Imported(
        figures=_figures(source, written),
        notes=notes_of(root),
        old_market=config.data.market,
        market=market,
    )


def _check_name(market: str) -> None:
    """Simulated markets are replaced at will, so that nothing else may have their names."""
    from btcai.data.store import check_name

    check_name(market)
    if market.startswith(SIMULATED):
        raise DataError(f"{market} is a simulated market's name; choose another: --market btcusdt")


def notes_of(root: Path) -> tuple[str, ...]:
    """What a user should know of the bars that are in use now: whether they are too few for the splits."""
    try:
        datasets.check_enough(root, load_config(root / paths.PARAMS))
    except DataError as error:
        return (f"nothing can be trained yet: {error}",)
    return ()


def market_name(exchange: str, symbol: str) -> str:
    """A market's folder: binance_btcusdt, binance_btcusdt_swap; bars of two exchanges must not mix."""
    pair, _, settled = symbol.lower().partition(":")
    kind = "_swap" if settled == pair.rpartition("/")[2] else f"_{settled}" if settled else ""
    return re.sub(r"[^a-z0-9_-]", "", f"{exchange.lower()}_{pair}{kind}")


def first_ms(root: Path, market: str) -> int:
    """The open stamp of a market's first bar, UTC ms; DataError where it has none."""
    from btcai.data import frame, store

    if market not in datasets.markets(root):
        raise DataError(f"no bars in {paths.DATA / market} yet, so a first day is needed; give one: --since 2022-01-01")
    return int(frame.parts(store.read_market(root / paths.DATA, market))[0][0])


def update(root: Path, patience: "Patience", advance: Callable[[int, int], None]) -> tuple[Imported, str] | None:
    """The market in use brought up to now, from where it was fetched; None where it was not fetched."""
    from btcai.data.sources import clock_ms
    from btcai.fetch.exchange import SETTLED_MS
    from btcai.fetch.fetching import Order
    from btcai.fetch.origin import read_origin

    market = load_config(root / paths.PARAMS).data.market
    settle(root / paths.DATA / market)  # a change that was killed
    if (origin := read_origin(root / paths.DATA / market)) is None:
        return None
    order = Order(
        exchange=origin.exchange,
        symbol=origin.symbol,
        timeframe=origin.timeframe,
        market=market,
        since_ms=first_ms(root, market),
        until_ms=clock_ms() - SETTLED_MS,
        url=origin.url,
        archive=origin.archive,
    )
    return fetch(root, order, patience, advance)


def fetch(
    root: Path, order: "Order", patience: "Patience", advance: Callable[[int, int], None]
) -> tuple[Imported, str]:
    """Bars of an exchange join data/MARKET, pinned by data.dvc and in use; also why it stopped early, if it did.

    What had come by then is kept, so that the same order goes on from there. DataError where no bar came.
    """
    from btcai.data import store
    from btcai.fetch import fetching

    _check_name(order.market)
    config = load_config(root / paths.PARAMS)
    with datasets.alone(root):
        done = fetching.fetch(root / paths.DATA, order, patience, advance)
        if order.market not in datasets.markets(root):
            raise DataError(done.stopped or f"{order.exchange} sent no bars of {order.symbol}; choose another --since")
        if done.added or done.funding_added or not datasets.is_pinned(root):
            datasets.pin(root)
        if config.data.market != order.market:
            set_param(root / paths.PARAMS, "data.market", order.market)
    held = store.market_status(root / paths.DATA, order.market)
    imported = Imported(
        figures=_fetch_figures(done, held),
        notes=notes_of(root),
        old_market=config.data.market,
        market=order.market,
    )
    return imported, done.stopped


@contextmanager
def _restored(file: Path) -> Iterator[None]:
    """Where the block raises, the file is again as it was, or gone; its copy is made while the disk has room."""
    before = file.with_name(f".{file.name}.before")
    existed, copied = file.exists(), False
    try:
        if existed:
            shutil.copy2(file, before)
            copied = True
        yield
    except BaseException:
        if copied:
            before.replace(file)
        elif not existed:
            file.unlink(missing_ok=True)
        raise
    finally:
        before.unlink(missing_ok=True)


def _figures(source: "Source", written: "Written") -> tuple[tuple[str, str], ...]:
    """An import's report: name and figure of each line."""
    return (
        ("files", f"{len(source.files):,}"),
        ("rows read", f"{source.rows_read:,}"),
        ("repeated rows, dropped", f"{source.duplicates_dropped:,}"),
        ("rows out of order, sorted", f"{source.out_of_order:,}"),
        ("bars added", f"{written.rows_added:,}"),
        ("bars now held", f"{written.rows:,}"),
        ("first to last", f"{written.first} to {written.last}"),
        ("gaps", gaps_of(written.gaps, written.missing_bars)),
        ("bars without volume", f"{written.zero_volume_bars:,}"),
        ("version", written.content_sha256[:12]),
    )


def _fetch_figures(done: "Fetched", held: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A fetch's report: name and figure of each line."""
    failures = "".join(f"; {count} times {reason}" for reason, count in done.failures.most_common())
    return (
        ("bars wanted", f"{done.wanted:,}"),
        ("bars added", f"{done.added:,}: {done.from_archive:,} from the archive, {done.from_api:,} from the API"),
        (
            "pages and files asked for",
            f"{done.asked:,}, of which {done.failures.total():,} failed{failures}",
        ),
        ("repeated bars, dropped", f"{done.repeated:,}"),
        ("unfinished bars, dropped", f"{done.unfinished:,}"),
        ("untrue bars, left out", f"{done.untrue:,}"),
        ("untrue files, left out", f"{len(done.files_refused):,}"),
        ("funding rates added", f"{done.funding_added:,}"),
        ("bars now held", f"{held['rows']:,}"),
        ("first to last", f"{held['first']} to {held['last']}"),
        ("gaps", gaps_of(held["gaps"], held["missing_bars"])),
        ("bars without volume", f"{held['zero_volume_bars']:,}"),
        ("version", held["content_sha256"][:12]),
    )
