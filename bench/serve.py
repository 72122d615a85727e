"""`btcai bench serve`: how long a served decision takes beside the bare graphs, a bar's live step, and all of it over
HTTP."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import serve_http, serve_soak
from bench.line import Fact, Goal, Line
from bench.markets import trading_market
from bench.stopwatch import Stopwatch, Timing
from btcai import paths
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.features.pipeline import rows_of
from btcai.inference.bundle import PolicyBundle, read_graphs, tokens_of
from btcai.inference.decision import Account, Seen, consider_seen, look
from btcai.schema import ACCOUNT_FEATURES, BAR_NS, BUCKETS, TOKENS, Bars, Float32Array, FloatArray
from btcai.serving.deciding import explain
from btcai.serving.live import KEPT_BARS, Market
from btcai.serving.shelf import Placed, Shelf

PARTS = ("decide", "live", "http", "soak")
"""All need models/champion; the networks of artifacts/consolidate are timed beside where they are there."""
ON_REQUEST = ("soak",)

DECIDE_GOALS = (Goal("ratio", "<=", 1.2),)
LIVE_GOALS = (Goal("value", "<=", 20.0),)

_BARE = "session.run of encoder and head"
_BUY = (0.1, 0.7, 0.1, 0.1)
_PERCENTILES = (("median", 50), ("99th percentile", 99))


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    decisions: int = 1_000
    """Of each bucket, account and repeat."""
    steps: int = 100
    """Decision times of each bucket and repeat."""
    http: serve_http.Load = field(default_factory=serve_http.Load)
    soak: serve_soak.Soak = field(default_factory=serve_soak.Soak)


def lines(
    stopwatch: Stopwatch, config: Config, root: Path, parts: tuple[str, ...] = PARTS, size: Size | None = None
) -> Iterator[Line]:
    """The parts, one after the other, on real bars where this machine has them; see bench.markets.

    ArtifactError names the command that makes a champion that is missing.
    """
    size = size or Size()
    shelf = Shelf(root)
    shelf.refresh()
    placed = {bucket: shelf.placed(bucket) for bucket in BUCKETS}
    bars = trading_market()[1].bars
    measured: dict[str, Callable[[], Iterator[Line]]] = {
        "decide": lambda: _decide(stopwatch, config, root, placed, bars, size.decisions),
        "live": lambda: _live(stopwatch, placed, bars, size.steps),
        "http": lambda: serve_http.load_lines(stopwatch, root, bars, size.http),
        "soak": lambda: serve_soak.soak_lines(root, bars, size.soak),
    }
    for part in parts:
        yield from measured[part]()


def _decide(
    stopwatch: Stopwatch, config: Config, root: Path, placed: dict[str, Placed], bars: Bars, decisions: int
) -> Iterator[Line]:
    """From a window's feature rows and an account to the decision, in turns with the graphs alone and with torch."""
    market = Market(rows_of(bars, slice(len(bars) - KEPT_BARS, None)))
    for bucket, one in placed.items():
        seen = market.seen(one.bundle)
        eager = _eager(config, root, bucket, seen)
        folder, manifest = root / paths.CHAMPION / bucket, one.bundle.manifest
        buying = market.seen(_Buyer(folder, manifest, read_graphs(folder, manifest)))
        cases = (("flat", seen, None), ("one lot open", seen, _holding(seen.mark)), ("a lot bought", buying, None))
        for told, seen, account in cases:
            race = _Race(seen, account, eager, decisions)
            (timing,) = stopwatch.time(race.run)
            yield from race.lines(f"{bucket}, a decision, {told}", timing, stopwatch.repeats)


def _holding(mark: float) -> Account:
    return {"cash_usdt": 50_000.0, "lots": [{"btc": 50_000.0 / mark, "entry_price": mark}]}


class _Buyer(PolicyBundle):
    """A bundle that wants a lot whatever its head says: the longest way through a decision, for a lot must be sized."""

    def head(self, latent: Float32Array, account: Float32Array) -> tuple[Float32Array, Float32Array]:
        probabilities, value = super().head(latent, account)
        probabilities[:] = _BUY
        return probabilities, value


class _Race:
    """The same decision by us and by the graphs alone, in turns; then by torch, which pushes both out of the cache."""

    def __init__(self, seen: Seen, account: Account, eager: Callable[[], None] | None, decisions: int) -> None:
        bundle, data = seen.bundle, seen.data
        tokens = data.features[-bundle.lookback_bars :].reshape(1, TOKENS, bundle.patch_bars, -1)  # what ours reads too
        observed = np.zeros((1, len(ACCOUNT_FEATURES)), np.float32)
        latent = seen.encoded.latent[-1:]

        def bare() -> None:
            bundle._encoder.run(None, {"tokens": tokens})
            bundle._head.run(None, {"latent": latent, "account": observed})

        def ours() -> None:
            consider_seen(look(bundle, data), account)

        self._runners, self._eager, self._decisions = {"ours": ours, "bare": bare}, eager, decisions
        self._took_ms: dict[str, list[float]] = {name: [] for name in ("ours", "bare", *(["torch"] if eager else []))}
        self.action = consider_seen(seen, account).decision.action.name

    def run(self) -> float:
        """Returns the decisions made; who goes first changes each time."""
        order = list(self._runners.items())
        for _ in range(self._decisions):
            order.append(order.pop(0))
            for name, runner in order:
                self._took_ms[name].append(_milliseconds(runner))
        if self._eager:
            self._took_ms["torch"] += [_milliseconds(self._eager) for _ in range(self._decisions)]
        return self._decisions

    def lines(self, name: str, timing: Timing, repeats: int) -> Iterator[Line]:
        """Median and 99th percentile, of the repeats that count."""
        took = {runner: np.array(kept[-self._decisions * repeats :]) for runner, kept in self._took_ms.items()}
        for said, percentile in _PERCENTILES:
            found = {runner: float(np.percentile(values, percentile)) for runner, values in took.items()}
            yield Line(
                name=f"{name}, {said} of {len(took['ours']):,}",
                value=found["ours"],
                unit="ms",
                reference=_BARE,
                reference_value=found["bare"],
                goals=DECIDE_GOALS,
                note=None
                if "torch" in found
                else "no network in artifacts/consolidate: torch was not timed; btcai run",
                more=timing.facts() | {"torch_eager_ms": found.get("torch"), "action": self.action, "threads": 1},
            )


def _eager(config: Config, root: Path, bucket: str, seen: Seen) -> Callable[[], None] | None:
    """One window and account through the network in torch, eagerly; None where the bucket's weights are not there."""
    import torch

    from btcai.models.graphs import EncoderGraph, HeadGraph
    from btcai.training.checkpoint import LOG_SIGMA, load_model

    try:
        model = load_model(root / paths.CONSOLIDATE / bucket, bucket, config)
    except ArtifactError:
        return None
    torch.set_num_threads(1)
    encoder, head = EncoderGraph(model, seen.bundle.horizons_bars, LOG_SIGMA).eval(), HeadGraph(model).eval()
    rows = seen.data.features[-seen.bundle.lookback_bars :]
    tokens = torch.from_numpy(tokens_of(rows, seen.bundle.patch_bars))
    account = torch.zeros(1, len(ACCOUNT_FEATURES))

    def run() -> None:
        with torch.inference_mode():
            head(encoder(tokens)[0][:, -1], account)

    return run


def _live(stopwatch: Stopwatch, placed: dict[str, Placed], bars: Bars, steps: int) -> Iterator[Line]:
    """A bar comes that a bucket decides at: its features, the encoder, the head, every step of the reasoning."""
    for bucket, one in placed.items():
        stepping = _Stepping(one, bars, steps)
        (timing,) = stopwatch.time(stepping.run)
        took_ms = stepping.took_ms(stopwatch.repeats)
        for said, percentile in _PERCENTILES:
            features, decided, reasoned = (float(np.percentile(part, percentile)) for part in took_ms.T)
            facts: dict[str, Fact] = {"features_ms": features, "inference_ms": decided, "reasoning_ms": reasoned}
            yield Line(
                name=f"{bucket}, a bar's live step, {said} of {len(took_ms):,}",
                value=float(np.percentile(took_ms.sum(axis=1), percentile)),
                unit="ms",
                goals=LIVE_GOALS,
                more=timing.facts() | facts | {"remembered": 0 if one.memory is None else len(one.memory)},
            )


class _Stepping:
    """The newest bars of the history, one by one, through a market that is watched live."""

    def __init__(self, placed: Placed, bars: Bars, steps: int) -> None:
        self._placed, self._bars, self._steps = placed, bars, steps
        self._took_ms: list[tuple[float, float, float]] = []

    def run(self) -> float:
        """Returns the decision times; the bars between are appended and not counted."""
        bars, bundle = self._bars, self._placed.bundle
        first = len(bars) - self._steps * bundle.patch_bars
        market = Market(rows_of(bars, slice(first - KEPT_BARS, first)), intervals="adaptive")
        done = 0
        for row in range(first, len(bars)):
            came = rows_of(bars, slice(row, row + 1))
            if not bars.present[row]:
                continue
            start = time.perf_counter()
            market.append(came, allow_gap=True)
            if market.last_close_ts_ns % (bundle.patch_bars * BAR_NS) == 0:
                self._took_ms.append(self._decided(market, bundle, start))
                done += 1
        return done

    def _decided(self, market: Market, bundle: PolicyBundle, start: float) -> tuple[float, float, float]:
        appended = time.perf_counter()
        seen = market.seen(bundle)
        consider_seen(seen)
        decided = time.perf_counter()
        explain(seen, None, "flat", self._placed.memory, self._placed.weights)
        reasoned = time.perf_counter()
        return tuple(1e3 * span for span in (appended - start, decided - appended, reasoned - decided))  # type: ignore[return-value]

    def took_ms(self, repeats: int) -> FloatArray:
        """Milliseconds (steps, 3) of features, decision and reasoning, in the repeats that count."""
        kept = len(self._took_ms) * repeats // (repeats + 1)
        return np.array(self._took_ms[-kept:])


def _milliseconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)
