"""What the server does, without HTTP: requests in, plain values out. Any thread may call it."""

import threading
import time
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from btcai.errors import DataError
from btcai.inference.decision import Account
from btcai.reasoning.records import reasoning_record
from btcai.schema import Bars, Decision
from btcai.serving.deciding import decide_each, explain
from btcai.serving.live import Market, stamp
from btcai.serving.metrics import Metrics
from btcai.serving.requests import MARKET, AppendRequest, BatchRequest, DecideRequest, Question, grid
from btcai.serving.shelf import NotServedError, Placed, Shelf

MAX_MARKETS = 16
"""Of 10 MB each."""


class UnknownMarketError(DataError):
    """A market that was given no bars, since this server started."""


class Service:
    """The bundles in use, and the markets that were given: what a market decides is a function of its bars, so a server
    that was killed decides as before once it has been given the newest ones again. Only the intervals that a market
    says have followed its outcomes, and begin anew with it."""

    def __init__(self, shelf: Shelf, metrics: Metrics) -> None:
        self.shelf, self.metrics = shelf, metrics
        self.markets: dict[str, Market] = {}
        self._starting = threading.Lock()

    def decide(self, asked: DecideRequest) -> dict[str, Any]:
        """One decision, with its reasoning where that is asked for."""
        placed, market = self.shelf.placed(asked.bucket), self._market(asked)
        if not asked.explain:
            (found,) = self._decide(placed, market, [asked.account])
            if isinstance(found, DataError):
                raise found
            return answer(found, placed)
        told = "as given" if asked.account else f"flat with {placed.bundle.manifest.equity_usdt:,.0f} USDT (none given)"
        seen = market.seen(placed.bundle)
        decision, reasoning = explain(seen, asked.account, told, placed.memory, placed.weights)
        self._count(decision)
        return answer(decision, placed) | {"reasoning": reasoning_record(reasoning)}

    def decide_batch(self, asked: BatchRequest) -> dict[str, Any]:
        """Of each question its decision, or what is wrong with it, in the order they were asked.

        Each bucket's bundle is taken once, its market half seen once and its head run once.
        """
        market, by_bucket = self._market(asked), defaultdict(list)
        for place, question in enumerate(asked.questions):
            by_bucket[question.bucket].append(place)
        answers: dict[int, dict[str, Any]] = {}
        for bucket, places in by_bucket.items():
            answers |= zip(places, self._answers(bucket, market, [asked.questions[k] for k in places]), strict=True)
        return {"answers": [answers[k] for k in range(len(asked.questions))]}

    def append(self, asked: AppendRequest) -> dict[str, Any]:
        """Bars that a market goes on with, or starts from."""
        bars = grid(asked.bars)
        with self._starting:
            market = self.markets.get(asked.market)
            if market is None or asked.restart:
                market = self._start(asked.market, bars)
            else:
                market.append(bars, allow_gap=asked.allow_gap)
        self.metrics.last_close.labels(asked.market).set(market.last_close_ts_ns / 1e9)
        return {"market": asked.market, "bars_given": len(asked.bars), **state_of(market)}

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether every bucket to serve has a bundle in use, and what is in use, was refused and is watched."""
        in_use = self.shelf.in_use()
        return len(in_use) == len(self.shelf.buckets), {
            "buckets": {
                bucket: {
                    "in_use": in_use[bucket].bundle.version if bucket in in_use else None,
                    "refused": self.shelf.refused.get(bucket),
                }
                for bucket in self.shelf.buckets
            },
            "markets": {name: state_of(market) for name, market in self.markets.items()},
        }

    def version(self) -> dict[str, Any]:
        """This program's version, and of each bundle in use what is on record."""
        return {
            "btcai": _own_version(),
            "bundles": {bucket: _record(placed) for bucket, placed in self.shelf.in_use().items()},
        }

    def _market(self, asked: DecideRequest | BatchRequest) -> Market:
        if asked.bars is not None:
            return Market(grid(asked.bars), self.metrics.look)
        name = asked.market or MARKET
        if (market := self.markets.get(name)) is None:
            raise UnknownMarketError(
                f"decisions need bars: the market {name} was given none since this server started; give them in the "
                "request, or give the market its newest bars first: POST /v1/bars"
            )
        return market

    def _start(self, name: str, bars: Bars) -> Market:
        if name not in self.markets and len(self.markets) >= MAX_MARKETS:
            raise DataError(f"a server watches at most {MAX_MARKETS} markets, {name} would be one more; start another")
        market = Market(bars, self.metrics.look, "adaptive")
        self.markets = self.markets | {name: market}
        return market

    def _answers(self, bucket: str, market: Market, questions: list[Question]) -> list[dict[str, Any]]:
        try:
            placed = self.shelf.placed(bucket)
            found = self._decide(placed, market, [question.account for question in questions])
        except (DataError, NotServedError) as error:
            return [refusal(bucket, error)] * len(questions)
        return [refusal(bucket, one) if isinstance(one, DataError) else answer(one, placed) for one in found]

    def _decide(self, placed: Placed, market: Market, accounts: list[Account]) -> list[Decision | DataError]:
        found = decide_each(market.seen(placed.bundle), accounts)
        for decision in found:
            if isinstance(decision, Decision):
                self._count(decision)
        return found

    def _count(self, decision: Decision) -> None:
        self.metrics.decisions.labels(decision.bucket, decision.action.name, decision.model_version).inc()


def answer(decision: Decision, placed: Placed) -> dict[str, Any]:
    """The fields of `btcai decide --json`."""
    forecasts = [vars(forecast) for forecast in decision.forecasts]
    return {**vars(decision), "forecasts": forecasts, "action": decision.action.name, "edge": placed.edge}


def refusal(bucket: str, error: Exception) -> dict[str, Any]:
    """What a question gets in place of a decision."""
    return {"bucket": bucket, "error": str(error)}


def state_of(market: Market) -> dict[str, Any]:
    """How many bars a market keeps and when its newest one closed."""
    last = market.last_close_ts_ns
    age_s = max(0.0, (time.time_ns() - last) / 1e9)
    return {"bars_kept": len(market), "last_close_ts_ns": last, "last_close": stamp(last), "age_s": round(age_s, 3)}


def _own_version() -> str:
    try:
        return version("btcai")
    except PackageNotFoundError:  # on PYTHONPATH only, as in the containers of compose.yaml
        return "unknown: not installed"


def _record(placed: Placed) -> dict[str, Any]:
    standing = placed.standing
    return {
        "model_version": placed.bundle.version,
        "data_version": placed.bundle.manifest.versions.data,
        "registered_version": standing.version if standing else None,
        "edge": placed.edge,
        "in_use_since_ns": placed.since_ns,
    }
