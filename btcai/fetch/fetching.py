"""A fetch: bars that a market lacks, from Binance's archive and an exchange's API, into the market on disk.

What has come is written every FLUSH_BARS and at the end, whatever ends it. So a fetch that was stopped goes on where it
was, one that is repeated brings what is new, and one over a market with holes asks for them again: all three are the
same, since only bars that are not on disk are asked for.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from btcai.data import store
from btcai.data.cells import EARLIEST_MS
from btcai.data.frame import BAR_MS, describe_bar, iso, make_frame, parts
from btcai.data.funding import read_funding, write_funding
from btcai.errors import DataError
from btcai.fetch.archive import URL as ARCHIVE_URL
from btcai.fetch.archive import Archive, is_archived
from btcai.fetch.exchange import Exchange, Refused
from btcai.fetch.gathering import Page, gather, wanted_bars
from btcai.fetch.origin import Origin, check_origin, read_origin, write_origin
from btcai.fetch.patience import Circuit, Down, Patience
from btcai.files import settle
from btcai.schema import FUNDING_SECONDS, IntArray

logger = logging.getLogger(__name__)

ARCHIVED = "binance"
"""The exchange whose archive archive.py reads."""

FLUSH_BARS = 50_000
"""New bars in memory at most, and lost by a kill: half a year."""


UNSETTLED_MS = 30 * 86_400_000
"""How far to look on where an exchange has no funding rates: before a market opened, or before what it keeps."""


CHECKED_BARS = 4
"""That a market holds and the exchange has to send too, at each of three places, before others of its join them."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to fetch: bars that open from since_ms on and have closed before until_ms, UTC ms."""

    exchange: str
    symbol: str
    timeframe: str
    market: str
    since_ms: int
    until_ms: int
    archive: bool = True
    url: str | None = None  # of the exchange's API and the archive, where they are not at their usual places
    request_ms: float | None = None  # between requests to the API; None: as ccxt knows the exchange to allow


@dataclass(kw_only=True)
class Fetched:
    """What a fetch did, so far."""

    wanted: int
    from_archive: int = 0
    from_api: int = 0
    funding_added: int = 0
    repeated: int = 0
    unfinished: int = 0
    untrue: int = 0
    asked: int = 0  # pages, files and lists, tries included
    failures: Counter[str] = field(default_factory=Counter)
    files_refused: tuple[str, ...] = ()
    stopped: str = ""  # why it ended before it was done

    @property
    def added(self) -> int:
        return self.from_archive + self.from_api


def fetch(
    data_root: Path, order: Order, patience: Patience, advance: Callable[[int, int], None] = lambda done, wanted: None
) -> Fetched:
    """Bring a market up to the order; advance(bars so far, bars wanted) is told after each page.

    A source that fails for good ends it with Fetched.stopped; what had come by then is on disk. DataError where the
    order asks for what does not exist, and nothing has come.
    """
    folder, origin = data_root / order.market, _origin(order)
    settle(folder)  # a change that was killed
    check_origin(folder, origin)
    is_known, proven, held = read_origin(folder) is not None, False, _held(data_root, order.market)
    wanted_ms = wanted_bars(max(order.since_ms, EARLIEST_MS), _last_open(order.until_ms), held.open_ms)
    with _kept(data_root, order.market) as (keep, flush):
        run = _Run(order=order, patience=patience, held=held, keep=keep, advance=advance, wanted=len(wanted_ms))
        try:
            if len(held.open_ms) and (len(wanted_ms) or not is_known):
                run.check_held(is_known)
                proven = True
            if order.archive and order.exchange == ARCHIVED and is_archived(order.symbol) and len(wanted_ms):
                wanted_ms = run.ask_archive(wanted_ms)
            if len(wanted_ms):
                run.ask_exchange(wanted_ms)
            flush()  # rates are kept beside bars
            if _is_swap(order.symbol) and run.exchange.has_funding and order.market in store.list_markets(data_root):
                run.ask_funding(folder)
        except Down as down:
            run.done.stopped = str(down)
        except Refused as refused:
            if not run.done.added:
                raise
            run.done.stopped = str(refused)
    if run.done.added or (proven and not is_known):  # the last fetch may have ended between its bars and their origin
        write_origin(folder, origin)
    return run.counted()


class _Run:
    """One fetch: asks a source, takes what is new, counts."""

    def __init__(
        self,
        *,
        order: Order,
        patience: Patience,
        held: Page,
        keep: Callable[[Page], None],
        advance: Callable[[int, int], None],
        wanted: int,
    ) -> None:
        self.done = Fetched(wanted=wanted)
        self._order, self._held, self._keep, self._advance = order, held, keep, advance
        self._archive_circuit = Circuit(f"{ARCHIVED}'s archive", patience)
        self._api_circuit = Circuit(order.exchange, patience)

    @cached_property
    def exchange(self) -> Exchange:
        """Connected when it is asked for first."""
        order = self._order
        return Exchange(order.exchange, order.symbol, order.timeframe, self._api_circuit, order.url, order.request_ms)

    def check_held(self, is_known: bool) -> None:
        """DataError where the exchange sends other bars than are held, or none of them to tell by.

        is_known: the bars on disk were fetched from there. Then an exchange that does not answer is no reason not to
        ask its archive.
        """
        held_ms, source = self._held.open_ms, f"{self._order.exchange} {self._order.symbol}"
        try:
            pages = [self.exchange.bars(int(held_ms[place]), CHECKED_BARS) for place in _probes(len(held_ms))]
        except (Down, Refused):
            if is_known:
                return
            raise
        seen = sum(int(np.isin(page.open_ms, held_ms).sum()) for page in pages)
        if not seen and not is_known:
            raise DataError(
                f"{source} sends none of the bars that {self._order.market} holds, so that nobody can tell whether "
                "they are of one market; give the new ones a market of their own: --market"
            )
        for page in pages:
            if others := _others(page, self._held):
                raise DataError(
                    f"bars of two sources must not mix: {source} {others} in {self._order.market}; give the new ones a "
                    "market of their own: --market"
                )

    def ask_archive(self, wanted_ms: IntArray) -> IntArray:
        """Take what it has; returns what is still wanted, all of it from where on it failed for good."""
        order, found = self._order, [np.empty(0, np.int64)]
        url = order.url or ARCHIVE_URL
        with closing(Archive(order.symbol, order.timeframe, self._archive_circuit, url)) as archive:
            try:
                for page in archive.pages(wanted_ms, order.until_ms):
                    if others := _others(page, self._held):
                        logger.warning("a file of the archive is left alone: it %s in %s", others, order.market)
                        continue
                    new = page.of(np.isin(page.open_ms, wanted_ms))
                    self.done.from_archive += self._take(new)
                    found.append(new.open_ms)
            except Down as down:
                logger.warning("%s; the rest comes from the exchange itself", down)
            self.done.files_refused = tuple(archive.refused)
        return np.setdiff1d(wanted_ms, np.concatenate(found), assume_unique=True)

    def ask_exchange(self, wanted_ms: IntArray) -> None:
        """Take what it has."""
        wanted_ms = wanted_ms[wanted_ms >= self.exchange.first_ms]
        for page in gather(self.exchange.bars, wanted_ms, self.exchange.page_bars):
            self.done.from_api += self._take(page)

    def ask_funding(self, folder: Path) -> None:
        """Rates from the last one on record before each that is missing.

        Missing is a regular settlement (FUNDING_SECONDS) without a rate; those in between come with its page.
        """
        order, period = self._order, FUNDING_SECONDS * 1000
        first_ms = -(-max(order.since_ms, self.exchange.first_ms, EARLIEST_MS) // period) * period
        missing, before_ms, seen_ms = np.arange(first_ms, order.until_ms, period), None, 0
        while True:
            on_record = read_funding(folder)
            known = on_record[0] if on_record else np.empty(0, np.int64)
            missing = missing[~np.isin(missing, np.rint(known / BAR_MS).astype(np.int64) * BAR_MS)]
            if not len(missing):
                return
            earlier = known[known < missing[0] - BAR_MS]
            known_to = int(earlier[-1]) if len(earlier) else 0
            if known_to < seen_ms < missing[0] - BAR_MS:
                known_to = seen_ms  # all of a page was untrue: nothing of it is on record
            start_ms = known_to + 1 if known_to else int(missing[0]) - BAR_MS
            page = self.exchange.funding(start_ms, before_ms)
            time_ms, inside = page.time_ms, page.time_ms <= order.until_ms
            added = write_funding(folder, time_ms[inside], page.rates[inside])
            self.done.funding_added += added
            self.done.untrue += page.untrue
            if len(time_ms) and added and time_ms[0] > missing[0] + BAR_MS:
                before_ms = int(time_ms[0]) - 1  # the newest of the span came: what is between is asked for next
                continue
            seen_ms = page.last_ms or seen_ms
            reached = page.last_ms or before_ms or int(missing[0]) + UNSETTLED_MS
            missing, before_ms = missing[missing > max(reached, int(missing[0]))], None

    def counted(self) -> Fetched:
        """The whole report."""
        for circuit in (self._archive_circuit, self._api_circuit):
            self.done.asked += circuit.asked
            self.done.failures += circuit.failures
        return self.done

    def _take(self, page: Page) -> int:
        self._keep(page)
        self.done.repeated += page.repeated
        self.done.unfinished += page.unfinished
        self.done.untrue += page.untrue
        self._advance(self.done.added + len(page.open_ms), self.done.wanted)
        return len(page.open_ms)


def _probes(n_held: int) -> tuple[int, ...]:
    """Where to look at bars that are held: the first, the middle, and shortly before the end."""
    return tuple(sorted({0, n_held // 2, max(0, n_held - 3 * CHECKED_BARS)}))


def _others(page: Page, held: Page) -> str:
    """What tells a page's bars from those that are held, where most that both have differ; "" where they agree.

    Where fewer differ it is told, and what is held stays.
    """
    _, of_page, of_held = np.intersect1d(page.open_ms, held.open_ms, assume_unique=True, return_indices=True)
    differs = (page.values[of_page] != held.values[of_held]).any(axis=1)
    if not differs.any():
        return ""
    row = int(differs.argmax())
    stamp, sent, kept = iso(int(page.open_ms[of_page[row]])), page.values[of_page[row]], held.values[of_held[row]]
    said = f"sends {describe_bar(sent)} at {stamp}, on disk is {describe_bar(kept)}"
    if differs.mean() > 0.5:
        return said
    logger.warning("a source %s; %d of %d bars differ, those on disk stay", said, differs.sum(), len(differs))
    return ""


def _origin(order: Order) -> Origin:
    return Origin(
        exchange=order.exchange, symbol=order.symbol, timeframe=order.timeframe, url=order.url, archive=order.archive
    )


@contextmanager
def _kept(data_root: Path, market: str) -> Iterator[tuple[Callable[[Page], None], Callable[[], None]]]:
    """keep(page), which writes to the market every FLUSH_BARS, and flush(), which writes the rest now; so does the end
    of the block, however it ends."""
    pages: list[Page] = []

    def flush() -> None:
        if pages:
            stamps, values = np.concatenate([p.open_ms for p in pages]), np.concatenate([p.values for p in pages])
            store.write_market(data_root, market, make_frame(stamps, values))
            pages.clear()

    def keep(page: Page) -> None:
        pages.append(page)
        if sum(len(page.open_ms) for page in pages) >= FLUSH_BARS:
            flush()

    try:
        yield keep, flush
    finally:
        flush()


def _is_swap(symbol: str) -> bool:
    return ":" in symbol


def _last_open(until_ms: int) -> int:
    """Bars that open before this have closed at until_ms."""
    return until_ms - BAR_MS + 1


def _held(data_root: Path, market: str) -> Page:
    if market not in store.list_markets(data_root):
        return Page(open_ms=np.empty(0, np.int64), values=np.empty((0, 5)))
    open_ms, values = parts(store.read_market(data_root, market))
    return Page(open_ms=open_ms, values=values)
