"""Binance's public archive of bars: a zip a month or a day, each with its SHA-256. It has no limit of requests.

https://github.com/binance/binance-public-data says what lies where.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from btcai.data.frame import parts
from btcai.data.sources import clock_ms, judged
from btcai.data.tables import tables_in
from btcai.errors import DataError
from btcai.fetch.exchange import asked_s
from btcai.fetch.gathering import Page
from btcai.fetch.patience import Circuit, Failed
from btcai.schema import IntArray

logger = logging.getLogger(__name__)

URL = "https://data.binance.vision"
WORTH_BARS = 144
"""Bars that must be missing of a month or a day for its file to be worth a download; the API sends more on a page."""

MOST_BYTES = 64 * 2**20
"""Of one file; a month of 5-minute bars takes half a MiB."""

PUBLISHED_MS = 40 * 86_400_000
"""A month that ended before that and has no file has no files of its days either: the market was not listed yet."""

TIMEOUT_S = (10.0, 60.0)  # to connect, and between two bytes


@dataclass(frozen=True, kw_only=True)
class Period:
    """A month or a day that is over, and its file: first_ms .. stop_ms - 1, UTC."""

    kind: str  # monthly or daily
    name: str  # 2022-01 or 2022-01-01
    first_ms: int
    stop_ms: int


class Archive:
    """5-minute bars of one symbol."""

    def __init__(self, symbol: str, timeframe: str, circuit: Circuit, url: str = URL) -> None:
        """symbol: as ccxt writes it, BTC/USDT, or BTC/USDT:USDT for the swap."""
        import requests

        pair, _, settled = symbol.partition(":")
        self._pair, self._timeframe = pair.replace("/", ""), timeframe
        self._kind = "futures/um" if settled else "spot"
        self._url, self._circuit, self._session = url.rstrip("/"), circuit, requests.Session()
        self.refused: list[str] = []  # files that were sent whole and cannot be true

    def close(self) -> None:
        """Give the connection back."""
        self._session.close()

    def pages(self, wanted_ms: IntArray, now_ms: int) -> Iterator[Page]:
        """Months with wanted bars, and days where there is no month, whole; patience.Down where the archive fails."""
        for month in periods("monthly", wanted_ms):
            inside = _inside(wanted_ms, month)
            page = self._page(month, inside, now_ms)
            if page is not None:
                yield page
            elif month.stop_ms > now_ms - PUBLISHED_MS:
                for day in periods("daily", inside):
                    if (page := self._page(day, _inside(inside, day), now_ms)) is not None:
                        yield page

    def _page(self, period: Period, wanted_ms: IntArray, now_ms: int) -> Page | None:
        if period.stop_ms > now_ms or len(wanted_ms) < WORTH_BARS:
            return None
        name = f"{self._pair}-{self._timeframe}-{period.name}.zip"
        address = f"{self._url}/data/{self._kind}/{period.kind}/klines/{self._pair}/{self._timeframe}/{name}"
        data = self._circuit.ask(lambda: self._verified(address, name))
        if data is None:
            return None
        try:
            source = judged(tables_in(name, data)[0], now_ms)
        except DataError as error:  # what its own checksum says to be whole: no use in asking again
            logger.warning("%s of the archive is left alone: %s", name, error)
            self.refused.append(name)
            return None
        open_ms, values = parts(source.bars)
        return Page(open_ms=open_ms, values=values, repeated=source.duplicates_dropped)

    def _verified(self, address: str, name: str) -> bytes | None:
        """The file's bytes, None where there is no such file; Failed where they are not what their checksum says."""
        if (data := self._got(address)) is None or (checksum := self._got(f"{address}.CHECKSUM")) is None:
            return None
        said = checksum.decode("ascii", "replace").split()
        found = hashlib.sha256(data).hexdigest()
        if not said or said[0].lower() != found:
            raise Failed(f"{name} is not what its checksum says")
        return data

    def _got(self, address: str) -> bytes | None:
        import requests
        import urllib3

        name = address.rpartition("/")[2]
        try:
            with self._session.get(address, timeout=TIMEOUT_S, stream=True) as answer:
                if answer.status_code == requests.codes.not_found:
                    return None
                if not answer.ok:
                    raise Failed(f"HTTP {answer.status_code}", asked_s(dict(answer.headers), clock_ms()))
                data: bytes = answer.raw.read(MOST_BYTES + 1, decode_content=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Failed(f"{name} broke off: {type(error).__name__}") from error
        if len(data) > MOST_BYTES:
            raise Failed(f"{name} has more than {MOST_BYTES:,} bytes")
        return data


def is_archived(symbol: str) -> bool:
    """Spot, and swaps that are settled in the quote currency; those in BTC lie elsewhere under other names."""
    pair, _, settled = symbol.partition(":")
    return not settled or settled == pair.rpartition("/")[2]


def periods(kind: str, wanted_ms: IntArray) -> list[Period]:
    """Months or days that hold a wanted bar, oldest first."""
    unit = "M" if kind == "monthly" else "D"
    names = np.unique(wanted_ms.astype("datetime64[ms]").astype(f"datetime64[{unit}]"))
    firsts, stops = (edge.astype("datetime64[ms]").astype(np.int64) for edge in (names, names + 1))
    return [
        Period(kind=kind, name=str(name), first_ms=int(first), stop_ms=int(stop))
        for name, first, stop in zip(names, firsts, stops, strict=True)
    ]


def _inside(wanted_ms: IntArray, period: Period) -> IntArray:
    return wanted_ms[(wanted_ms >= period.first_ms) & (wanted_ms < period.stop_ms)]
