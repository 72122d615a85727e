"""Bars and funding rates of an exchange's own API, through ccxt: every answer judged before it is believed."""

import difflib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import numpy as np

from btcai.data.cells import EARLIEST_MS, epoch_ms
from btcai.data.frame import BAR_MS, describe_bar
from btcai.data.sources import clock_ms
from btcai.errors import DataError
from btcai.fetch.gathering import Page
from btcai.fetch.patience import Circuit, Failed
from btcai.schema import BoolArray, FloatArray, IntArray

logger = logging.getLogger(__name__)

T = TypeVar("T")

USUAL_PAGE_BARS = 100
"""Asked for at once where ccxt does not know what the exchange allows."""

UNTRUE_TRIES = 3
"""So often a page with bars or rates that cannot be is asked for; then its others are taken: an exchange may keep a
wrong one for ever, and those after it are still wanted."""

SETTLED_MS = 60_000
"""After its end a bar counts as closed: some exchanges still change it for seconds."""

LISTED_EARLY_MS = 90 * 86_400_000
"""Exchanges may say that a market opened later than its first bar; not by more than this."""

MAX_FUNDING_FRAC = 0.1
"""Of a position's value at one settlement; exchanges cap theirs far below."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Settlements:
    """Of a perpetual swap: times (N,) UTC ms, oldest first, each once, and rates (N,).

    last_ms: the newest that was sent, with a rate that can be true or not; None where none was.
    """

    time_ms: IntArray
    rates: FloatArray
    last_ms: int | None
    untrue: int  # rates that cannot be, left out


Answer = TypeVar("Answer", Page, Settlements)


class Refused(DataError):
    """The exchange will not answer us, however often it is asked."""


class Exchange:
    """One symbol of one exchange. Asks at the pace that ccxt knows the exchange to allow."""

    def __init__(
        self,
        exchange: str,
        symbol: str,
        timeframe: str,
        circuit: Circuit,
        url: str | None = None,
        request_ms: float | None = None,
    ) -> None:
        """Connects and looks the symbol up.

        url: another address of the API, as http://host:port; request_ms: between requests, in place of what ccxt knows
        the exchange to allow. DataError where there is no such exchange, symbol or timeframe; patience.Down where it
        does not answer.
        """
        self.name, self._timeframe, self._circuit = exchange, timeframe, circuit
        self._api = _client(exchange, symbol, url)
        if request_ms is not None:
            self._api.rateLimit = request_ms
        # Not load_markets, which asks for currencies as well.
        self._ask(lambda: self._api.set_markets(self._api.fetch_markets()))
        self._market = self._found(symbol)
        self.symbol = str(self._market["symbol"])
        if timeframe not in (self._api.timeframes or {}):
            raise DataError(f"{exchange} has no {timeframe} bars; choose another exchange")

    @property
    def page_bars(self) -> int:
        """So many bars at most on one page."""
        return int(self._api.feature_value(self.symbol, "fetchOHLCV", "limit") or USUAL_PAGE_BARS)

    @property
    def first_ms(self) -> int:
        """Before this the market has no bars; 0 where the exchange does not tell when it opened."""
        return max(0, int(self._market.get("created") or 0) - LISTED_EARLY_MS)

    @property
    def has_funding(self) -> bool:
        """Is it a perpetual swap whose funding history can be asked for?"""
        return bool(self._market["swap"]) and bool(self._api.has.get("fetchFundingRateHistory"))

    def bars(self, first_ms: int, n_bars: int) -> Page:
        """The page of n_bars from first_ms on (UTC ms)."""

        def request() -> tuple[Page, str]:
            rows = self._once(lambda: self._api.fetch_ohlcv(self.symbol, self._timeframe, since=first_ms, limit=n_bars))
            return _page(rows, self._now_ms())

        return self._ask_for_true(request)

    def funding(self, first_ms: int, last_ms: int | None = None) -> Settlements:
        """A page of settlements from first_ms on, or between both, UTC ms."""
        more = {} if last_ms is None else {"until": last_ms}

        def request() -> tuple[Settlements, str]:
            return _settlements(
                self._once(lambda: self._api.fetch_funding_rate_history(self.symbol, since=first_ms, params=more))
            )

        return self._ask_for_true(request)

    def _ask_for_true(self, request: Callable[[], tuple[Answer, str]]) -> Answer:
        """An answer, and what is wrong with the first of what it left out: asked for UNTRUE_TRIES times where it is."""
        untrue_tries = 0

        def once() -> Answer:
            nonlocal untrue_tries
            answer, wrong = request()
            untrue_tries += bool(wrong)
            if wrong and untrue_tries < UNTRUE_TRIES:
                raise Failed(wrong)
            if wrong:
                logger.warning(
                    "%s: %d row(s) left out, it sends them again and again: %s", self.name, answer.untrue, wrong
                )
            return answer

        return self._circuit.ask(once)

    def _found(self, symbol: str) -> dict[str, Any]:
        markets = self._api.markets or {}
        if symbol in markets:
            return dict(markets[symbol])
        near = difflib.get_close_matches(symbol, markets, n=5, cutoff=0.5)
        said = f"like it: {', '.join(near)}" if near else "none is like it"
        raise Refused(f"{self.name} has no {symbol} among its {len(markets):,} symbols, {said}; give one: --symbol")

    def _ask(self, call: Callable[[], T]) -> T:
        return self._circuit.ask(lambda: self._once(call))

    def _once(self, call: Callable[[], T]) -> T:
        """One call of ccxt; Failed where another may go better, DataError where not."""
        import ccxt

        api = self._api
        api.last_response_headers, api.last_json_response = {}, None
        try:
            answer = call()
        except (ccxt.AuthenticationError, ccxt.BadRequest, ccxt.NotSupported) as error:  # permission among the first
            raise Refused(f"{self.name} refuses: {_named(error)}; choose another exchange or symbol") from error
        except ccxt.BaseError as error:
            if " 451 " in f" {error} " or isinstance(error, ccxt.RestrictedLocation):  # not from this country
                raise Refused(f"{self.name} refuses: {_named(error)}; choose another exchange") from error
            raise Failed(_named(error), asked_s(dict(api.last_response_headers), clock_ms())) from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # ccxt's own parsers'
            raise Failed(f"an answer that cannot be read: {_short(error)}") from error
        if api.last_json_response is None:
            raise Failed("an answer that is not JSON")
        return answer

    def _now_ms(self) -> int:
        """What has ended by then has closed: by the earlier of our clock and the exchange's, less SETTLED_MS."""
        return min(clock_ms(), _stamp_ms(self._api.last_response_headers.get("Date")) or clock_ms()) - SETTLED_MS


def asked_s(headers: dict[str, str], now_ms: int) -> float:
    """How long a Retry-After header asks to wait, in s or as a date; 0 where there is none or it makes no sense.

    A date is of the other side's clock, which its Date header tells; now_ms, ours, where there is none.
    """
    found = {name.lower(): text.strip() for name, text in headers.items()}
    value = found.get("retry-after", "")
    if value.replace(".", "", 1).isdecimal():
        return float(value)
    stamp, sent = _stamp_ms(value), _stamp_ms(found.get("date"))
    return 0.0 if stamp is None else max(0.0, (stamp - (now_ms if sent is None else sent)) / 1000)


def _stamp_ms(date: str | None) -> int | None:
    """A date of an HTTP header -> UTC ms."""
    try:
        found = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def check_exchange(exchange: str) -> None:
    """DataError where ccxt knows none of this name; it says which are like it."""
    import ccxt

    if exchange not in ccxt.exchanges:
        near = difflib.get_close_matches(exchange, ccxt.exchanges, n=5, cutoff=0.5)
        said = f", like it: {', '.join(near)}" if near else ""
        raise DataError(
            f"{exchange} is none of the {len(ccxt.exchanges)} exchanges that ccxt knows{said}; "
            "--exchange binance, bybit, okx, kraken or coinbase are tried"
        )


def _client(exchange: str, symbol: str, url: str | None) -> Any:
    import ccxt

    check_exchange(exchange)
    api = getattr(ccxt, exchange)({"timeout": 20_000, "requests_trust_env": True})
    api.enableLastJsonResponse = True  # None after an answer that was no JSON, which ccxt takes for an empty page
    listed = api.options.get("fetchMarkets")
    if isinstance(listed, dict) and isinstance(listed.get("types"), list):  # of several kinds, each with its request
        spot = [kind for kind in listed["types"] if kind == "spot"]
        swaps = [kind for kind in listed["types"] if kind in ("swap", "linear", "inverse")]
        listed["types"] = swaps if ":" in symbol else spot
    if url:
        api.urls["api"] = _moved(api.urls["api"], _checked(url))
    return api


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise DataError(f"an address must begin with http:// or https:// and a host, was {url}; mend --url")
    return parts


def _moved(addresses: Any, to: SplitResult) -> Any:
    """ccxt's addresses of an API, however deep they lie, at another host and under its path."""
    if isinstance(addresses, dict):
        return {name: _moved(address, to) for name, address in addresses.items()}
    path = to.path.rstrip("/") + urlsplit(addresses).path
    return urlsplit(addresses)._replace(scheme=to.scheme, netloc=to.netloc, path=path).geturl()


def _page(rows: Any, now_ms: int) -> tuple[Page, str]:
    """ccxt's rows -> the bars among them that can be true and had closed at now_ms, and what is wrong with the first of
    the others; Failed where they are no bars."""
    if not isinstance(rows, list):
        raise Failed("an answer without bars")
    try:
        stamps = np.array([row[0] for row in rows], dtype=np.int64)
        values = np.array([row[1:6] for row in rows], dtype=np.float64).reshape(len(rows), 5)
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise Failed(f"bars that are no numbers: {_short(error)}") from error
    open_ms, is_whole = epoch_ms(stamps)
    wrong, sound = "", np.ones(len(rows), dtype=np.bool_)
    for bad, fault in (
        (~is_whole | (open_ms % BAR_MS != 0), "opens off the 5-minute grid"),
        (open_ms < EARLIEST_MS, "is older than Bitcoin"),
        (open_ms > now_ms + SETTLED_MS + BAR_MS, "is from the future"),
        (~np.isfinite(values).all(axis=1), "is not of numbers alone"),
        (~_consistent(values), "has a price of 0 or less, a high or low inside its body, or a volume below 0"),
        (_contradicted(open_ms, values), "disagrees with another of its time"),
    ):
        if bad.any() and not wrong:
            row = int(bad.argmax())
            wrong = f"a bar that {fault}: {stamps[row]} {describe_bar(values[row])}"
        sound &= ~bad
    closed = open_ms + BAR_MS <= now_ms
    found_ms, kept = np.unique(open_ms[sound & closed], return_index=True)
    page = Page(
        open_ms=found_ms,
        values=values[sound & closed][kept],
        repeated=int((sound & closed).sum()) - len(found_ms),
        unfinished=int((sound & ~closed).sum()),
        untrue=int((~sound).sum()),
    )
    return page, wrong


def _consistent(values: FloatArray) -> BoolArray:
    """(T,) bars whose five numbers can be one bar's; nan is not."""
    opened, high, low, close, volume = values.T
    found = (low > 0) & (volume >= 0)
    found &= (high >= np.maximum(opened, close)) & (low <= np.minimum(opened, close))
    return np.asarray(found)


def _contradicted(open_ms: IntArray, values: FloatArray) -> BoolArray:
    """(T,) bars of a time that another bar of other values has too."""
    _, first, place = np.unique(open_ms, return_index=True, return_inverse=True)
    differs = (values != values[first][place]).any(axis=1) & ~np.isnan(values).any(axis=1)
    return np.isin(open_ms, open_ms[differs])


def _settlements(rows: Any) -> tuple[Settlements, str]:
    """ccxt's rows -> those that can be true, and what is wrong with the first of the others; Failed where they are no
    rates."""
    try:
        stamps = np.array([row["timestamp"] for row in rows], dtype=np.int64)
        rates = np.array([row["fundingRate"] for row in rows], dtype=np.float64)  # None becomes nan
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise Failed(f"funding rates that are no numbers: {_short(error)}") from error
    time_ms, _ = epoch_ms(stamps)
    true, wrong = (np.abs(rates) <= MAX_FUNDING_FRAC) & (time_ms >= EARLIEST_MS), ""
    if not true.all():
        row = int(true.argmin())
        wrong = f"a funding rate that cannot be true: {stamps[row]} {rates[row]}"
    found_ms, kept = np.unique(time_ms[true], return_index=True)
    last_ms = int(time_ms.max()) if len(time_ms) else None
    return Settlements(time_ms=found_ms, rates=rates[true][kept], last_ms=last_ms, untrue=int((~true).sum())), wrong


def _named(error: Exception) -> str:
    """ccxt's error by its kind and what the exchange said, without the address: one reason for one fault."""
    said = re.sub(r"(GET |POST )?https?://\S+", "", _short(error)).strip()
    return f"{type(error).__name__}: {said}"


def _short(error: Exception) -> str:
    """An error on one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
