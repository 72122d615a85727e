"""An exchange on 127.0.0.1 that answers as Binance, Bybit, OKX, Kraken and Coinbase do, and misbehaves on demand."""

import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

from btcai.data.frame import BAR_MS, parts

Row = list[Any]
"""One bar: open stamp in ms, open, high, low, close, volume."""

HTTP_FAULTS: dict[str, tuple[int, dict[str, str]]] = {
    "429": (429, {"Retry-After": "1"}),
    "418": (418, {"Retry-After": "2"}),
    "banned for an hour": (418, {"Retry-After": "3600"}),
    "500": (500, {}),
    "503": (503, {}),
}
"""Status and headers of answers that are none."""


def _changed(index: int, cell: int, change: Callable[[Any], Any]) -> Callable[[list[Row]], list[Row]]:
    """Rows with one cell of one row changed."""

    def fault(rows: list[Row]) -> list[Row]:
        rows = [list(row) for row in rows]
        rows[index][cell] = change(rows[index][cell])
        return rows

    return fault


ROW_FAULTS: dict[str, Callable[[list[Row]], list[Row]]] = {
    "empty page": lambda rows: [],
    "every bar twice": lambda rows: [row for row in rows for _ in range(2)],
    "out of order": lambda rows: rows[1::2] + rows[::2],
    "microseconds": lambda rows: [[row[0] * 1000, *row[1:]] for row in rows],
    "a price of null": _changed(1, 4, lambda close: None),
    "a price of 0": _changed(1, 3, lambda low: 0.0),
    "high below low": _changed(1, 2, lambda high: high / 2),
    "off the grid": _changed(1, 0, lambda stamp: stamp + 7_000),
    "a bar of 2055": _changed(-1, 0, lambda stamp: 2_682_201_600_000),
    # In the middle: ccxt cuts a page to the bars asked for, so that the second of two last ones is not seen.
    "two bars of one time": lambda rows: [*rows[:2], [*rows[1][:5], rows[1][5] + 1.0], *rows[2:]],
    "half a page": lambda rows: rows[: len(rows) // 2],
    "the newest half": lambda rows: rows[len(rows) // 2 :],
}
"""What an exchange does to a page of bars."""

FUTURES_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
"""First line of the archive's files of swaps; those of spot have none."""

BYTE_FAULTS = ("dropped connection", "cut off", "web page", "other JSON", "wrong bytes")


@dataclass
class LoopbackExchange:
    """Bars of one market, as of now_ms: the bar that is open then is served too, unfinished."""

    bars: pd.DataFrame
    now_ms: int
    page_bars: int = 1000  # more are not sent, whatever is asked for
    archived_to_ms: int = 0  # files of the archive end before
    funding: list[tuple[int, float | None]] = field(default_factory=list)
    newest_rates: int = 0  # so many rates at most are sent, the newest of the span; 0: the 100 oldest
    faults: list[str] = field(default_factory=list)  # one for each request for bars, in turn; "" is none
    asked: list[str] = field(default_factory=list)  # paths of requests for bars, files and funding
    url: str = ""

    def rows(self, first_ms: int, stop_ms: int, most: int | None = None) -> list[Row]:
        """Bars that open in first_ms .. stop_ms - 1 and not after now, the first `most` of them."""
        stamps, values = parts(self.bars)
        inside = np.flatnonzero((stamps >= first_ms) & (stamps < min(stop_ms, self.now_ms + 1)))[:most]
        return [[ms, *cells] for ms, cells in zip(stamps[inside].tolist(), values[inside].tolist(), strict=True)]

    def next_fault(self) -> str:
        return self.faults.pop(0) if self.faults else ""


@contextmanager
def serving(exchange: LoopbackExchange) -> Iterator[LoopbackExchange]:
    """Answers on a free port of 127.0.0.1 while the block runs; exchange.url is its address."""

    class Handler(_Handler):
        served = exchange

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        exchange.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield exchange
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: LoopbackExchange
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.served.now_ms / 1000, usegmt=True)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if address.path.startswith("/data/"):
            self._send_file(address.path)
            return
        for shape in (_binance, _bybit, _okx, _kraken, _coinbase):
            if (answer := shape(self.served, address.path, query)) is not None:
                fault = ""
                if callable(answer):
                    self.served.asked.append(self.path)
                    fault = self.served.next_fault()
                    answer = answer(ROW_FAULTS.get(fault, lambda rows: rows))
                self._send(json.dumps(answer).encode(), "application/json", fault)
                return
        self._send(b"{}", "application/json", status=404)

    def _send_file(self, path: str) -> None:
        self.served.asked.append(path)
        fault = self.served.next_fault()
        data = _zipped(self.served, path.removesuffix(".CHECKSUM"))
        if data is None:
            self._send(b"not found", "text/plain", status=404)
        elif path.endswith(".CHECKSUM"):
            name = path.rpartition("/")[2].removesuffix(".CHECKSUM")
            self._send(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode(), "text/plain", fault)
        else:
            self._send(data, "application/zip", fault)

    def _send(self, body: bytes, kind: str, fault: str = "", status: int = 200) -> None:
        headers: dict[str, str] = {}
        if fault in HTTP_FAULTS:
            status, headers = HTTP_FAULTS[fault]
            body = b'{"code": -1003, "msg": "too many requests"}'
        elif fault == "web page":
            body, kind = b"<!doctype html><title>maintenance</title>", "text/html"
        elif fault == "other JSON":
            body = b'{"surprise": [1, 2, 3]}'
        elif fault == "wrong bytes":
            body = body[:-7] + b"nothing"
        elif fault == "dropped connection":
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut off":
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)


Bars = Callable[[Callable[[list[Row]], list[Row]]], Any]
"""What to do to the rows -> the answer."""


def _strings(row: Row) -> list[str]:
    return ["null" if cell is None else repr(cell) for cell in row[1:]]


def _binance(served: LoopbackExchange, path: str, query: dict[str, str]) -> Any:
    if path == "/api/v3/exchangeInfo":
        return {"symbols": [{"symbol": "BTCUSDT", "baseAsset": "BTC", "quoteAsset": "USDT", "status": "TRADING"}]}
    if path == "/fapi/v1/exchangeInfo":
        swap = {"symbol": "BTCUSDT", "baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT"}
        return {"symbols": [swap | {"contractType": "PERPETUAL", "status": "TRADING", "deliveryDate": 4133404800000}]}
    if path == "/dapi/v1/exchangeInfo":
        return {"symbols": []}
    if path in ("/api/v3/klines", "/fapi/v1/klines"):
        first, limit = int(query["startTime"]), min(int(query["limit"]), served.page_bars)

        def answer(fault: Callable[[list[Row]], list[Row]]) -> Any:  # the next bars that there are, wherever they are
            rows = fault(served.rows(first, served.now_ms + 1, limit))
            return [
                [
                    row[0],
                    *(None if cell is None else repr(cell) for cell in row[1:]),
                    row[0] + BAR_MS - 1,
                    "0",
                    1,
                    "0",
                    "0",
                ]
                for row in rows
            ]

        return answer
    if path == "/fapi/v1/fundingRate":
        first = int(query["startTime"])
        last = int(query.get("endTime", served.now_ms))
        rates = [rate for rate in served.funding if first <= rate[0] <= last]
        rates = rates[-served.newest_rates :] if served.newest_rates else rates[:100]
        return lambda fault: [{"symbol": "BTCUSDT", "fundingTime": ms, "fundingRate": repr(rate)} for ms, rate in rates]
    return None


def _bybit(served: LoopbackExchange, path: str, query: dict[str, str]) -> Any:
    if path == "/v5/market/instruments-info":
        market = {"symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "status": "Trading"}
        return {"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": [market]}}
    if path == "/v5/market/kline":
        first, limit = int(query["start"]), min(int(query["limit"]), served.page_bars)

        def answer(fault: Callable[[list[Row]], list[Row]]) -> Any:
            rows = fault(served.rows(first, first + limit * BAR_MS))
            listed = [[str(row[0]), *_strings(row), "0"] for row in rows[::-1]]
            return {"retCode": 0, "retMsg": "OK", "result": {"symbol": "BTCUSDT", "category": "spot", "list": listed}}

        return answer
    return None


def _okx(served: LoopbackExchange, path: str, query: dict[str, str]) -> Any:
    if path == "/api/v5/public/instruments":
        market = {"instType": "SPOT", "instId": "BTC-USDT", "baseCcy": "BTC", "quoteCcy": "USDT", "state": "live"}
        return {"code": "0", "msg": "", "data": [market]}
    if path in ("/api/v5/market/history-candles", "/api/v5/market/candles"):
        after, before, limit = int(query["after"]), int(query["before"]), min(int(query["limit"]), served.page_bars)

        def answer(fault: Callable[[list[Row]], list[Row]]) -> Any:  # the newest of those between
            rows = fault(served.rows(before + 1, after)[-limit:])
            listed = [[str(row[0]), *_strings(row), "0", "0", "1"] for row in rows[::-1]]
            return {"code": "0", "msg": "", "data": listed}

        return answer
    return None


def _kraken(served: LoopbackExchange, path: str, query: dict[str, str]) -> Any:
    if path == "/0/public/AssetPairs":
        pair = {"altname": "XBTUSD", "wsname": "XBT/USD", "base": "XXBT", "quote": "ZUSD", "status": "online"}
        return {"error": [], "result": {"XXBTZUSD": pair | {"pair_decimals": 1, "lot_decimals": 8}}}
    if path == "/0/public/OHLC":
        since = int(float(query["since"])) * 1000

        def answer(fault: Callable[[list[Row]], list[Row]]) -> Any:  # the last 720 and no other, whatever is asked for
            last = served.rows(0, served.now_ms + 1)[-720:]
            rows = fault([row for row in last if row[0] > since])
            listed = [[row[0] // 1000, *_strings(row)[:4], "0", _strings(row)[4], 1] for row in rows]
            return {"error": [], "result": {"XXBTZUSD": listed, "last": served.now_ms // 1000}}

        return answer
    return None


def _coinbase(served: LoopbackExchange, path: str, query: dict[str, str]) -> Any:
    if path == "/api/v3/brokerage/market/products":
        product = {"product_id": "BTC-USD", "base_currency_id": "BTC", "quote_currency_id": "USD"}
        spot = [product | {"product_type": "SPOT", "trading_disabled": False}]
        return {"products": [] if query.get("product_type") == "FUTURE" else spot}
    if path == "/api/v3/brokerage/market/products/BTC-USD/candles":
        first, stop = int(query["start"]) * 1000, int(query["end"]) * 1000

        def answer(fault: Callable[[list[Row]], list[Row]]) -> Any:
            rows = fault(served.rows(first, stop))
            names = ("open", "high", "low", "close", "volume")
            listed = [{"start": str(row[0] // 1000), **dict(zip(names, _strings(row), strict=True))} for row in rows]
            return {"candles": listed[::-1]}

        return answer
    return None


def _zipped(served: LoopbackExchange, path: str) -> bytes | None:
    """A file of Binance's archive, None where there is none: stamps in us since 2025, as there."""
    found = re.fullmatch(r"/data/(spot|futures/um)/(monthly|daily)/klines/(BTCUSDT)/(5m)/(\3-\4-(.+)\.zip)", path)
    if found is None or (found[2] == "monthly") != (len(found[6]) == len("2022-01")):
        return None
    name, period = found[5], found[6]
    start = np.datetime64(period)  # a month or a day, as it is written
    first, stop = ((start + step).astype("datetime64[ms]").astype(np.int64).item() for step in (0, 1))
    rows = served.rows(first, stop)
    if stop > served.archived_to_ms or not rows:
        return None
    factor = 1000 if period >= "2025" else 1
    lines = [
        ",".join([str(row[0] * factor), *_strings(row), str((row[0] + BAR_MS) * factor - 1), "0", "1", "0", "0", "0"])
        for row in rows
    ]
    if found[1] == "futures/um":
        lines.insert(0, FUTURES_HEADER)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name.replace(".zip", ".csv")), "\n".join(lines) + "\n")
    return buffer.getvalue()
