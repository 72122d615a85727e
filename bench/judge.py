"""`btcai bench judge`: how long the judging of trained bundles takes, and the explaining of what they decide."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import judge_rule
from bench.line import Goal, Line
from bench.markets import trading_market
from bench.stopwatch import Stopwatch
from btcai import paths, reflection
from btcai.config import Config
from btcai.evaluation.backtest import backtest
from btcai.evaluation.metrics import DAYS_PER_YEAR
from btcai.evaluation.resampling import METRICS
from btcai.evaluation.statistics import RESAMPLES, bootstrapped
from btcai.explanation import explain_decision
from btcai.features.pipeline import rows_of
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import Encoded, PolicyBundle, load_bundle, read_graphs
from btcai.inference.decision import decide
from btcai.reasoning.components import EQUAL_WEIGHTS
from btcai.reasoning.memory import Memory
from btcai.schema import BUCKETS, Bars, Float32Array, FloatArray, MarketData, Span

PARTS = ("bundles", "rule", "bootstrap", "report", "explain")
"""bundles and explain need models/candidate, report the models of artifacts/consolidate too; the others nothing."""

BUNDLES_GOALS = (Goal("value", "<=", 20.0),)
BOOTSTRAP_GOALS = (Goal("value", "<=", 10.0),)
REPORT_GOALS = (Goal("value", "<=", 30.0),)
EXPLAIN_GOALS = (Goal("value", "<=", 5.0),)

_FLAT = "flat"
_NEWEST = 0.1
_VOLATILITY = 0.02  # of a day


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int = judge_rule.ROUNDS
    days: int = 1186
    """Those of the real bars."""
    strategies: int = 20
    resamples: int = RESAMPLES
    decisions: int = 200
    """Explained, of each bucket and repeat."""


def lines(
    stopwatch: Stopwatch, config: Config, root: Path, parts: tuple[str, ...] = PARTS, size: Size | None = None
) -> Iterator[Line]:
    """The parts, one after the other, on real bars where this machine has them; see bench.markets.

    ArtifactError names the command that makes what a part needs.
    """
    size = size or Size()
    judged = {"bundles", "explain"} & set(parts)
    bundles = {bucket: load_bundle(root / paths.CANDIDATE / bucket) for bucket in BUCKETS} if judged else {}
    name, data = trading_market()
    measured = {
        "bundles": lambda: _bundles(stopwatch, bundles, data, name),
        "rule": lambda: judge_rule.lines(
            stopwatch, data, config.market.costs.taker_fee_bps / 1e4, config.market.equity_usdt, root, size.rounds
        ),
        "bootstrap": lambda: _bootstrap(stopwatch, size),
        "report": lambda: _report(stopwatch, config, root),
        "explain": lambda: _explain(stopwatch, bundles, data, root, size.decisions),
    }
    for part in parts:
        yield from measured[part]()


class _ClockedBundle(PolicyBundle):
    """A bundle that keeps the seconds that its encoder took."""

    encoder_s = 0.0

    def encode(self, features: Float32Array) -> Encoded:
        start = time.perf_counter()
        encoded = super().encode(features)
        self.encoder_s += time.perf_counter() - start
        return encoded


def _bundles(stopwatch: Stopwatch, bundles: dict[str, PolicyBundle], data: MarketData, market: str) -> Iterator[Line]:
    """Every decision of the whole history: encoded in stretches, then head and market in turns; one account, one
    thread."""
    walks = {bucket: _Walk(bundle, data) for bucket, bundle in bundles.items()}
    timings = dict(zip(walks, stopwatch.time(*(walk.run for walk in walks.values())), strict=True))
    for bucket, timing in timings.items():
        facts = {"decisions": walks[bucket].decisions, "encoder_s": walks[bucket].encoder_s(stopwatch.repeats)}
        yield Line(
            name=f"{bucket}, encoded and walked",
            value=timing.median_s,
            unit="s",
            more=timing.facts() | facts | {"threads": 1},
        )
    idle = all(timing.facts()["idle"] for timing in timings.values())
    yield Line(
        name=f"{len(bundles)} bundles over {int(data.bars.present.sum()):,} bars",
        value=sum(timing.median_s for timing in timings.values()),
        unit="s",
        goals=BUNDLES_GOALS,
        more={"bars": market, "idle": idle, "threads": 1},
    )


class _Walk:
    """One bundle over all bars under its own rules; a run is one backtest."""

    def __init__(self, bundle: PolicyBundle, data: MarketData) -> None:
        graphs = read_graphs(bundle.folder, bundle.manifest)
        self._bundle, self._data = _ClockedBundle(bundle.folder, bundle.manifest, graphs), data
        self._encoders_s: list[float] = []
        self.decisions = 0

    def run(self) -> float:
        """Returns the decisions made."""
        bundle, self._bundle.encoder_s = self._bundle, 0.0
        rules, sizing, equity_usdt = (bundle.manifest.rules,), bundle.manifest.sizing, bundle.manifest.equity_usdt
        span = Span(0, len(self._data))
        (result,) = backtest(bundle, self._data, span, bundle.settings, rules, sizing, equity_usdt)
        self._encoders_s.append(bundle.encoder_s)
        self.decisions = len(result.decisions)
        return self.decisions

    def encoder_s(self, repeats: int) -> float:
        """Median over the last runs: what came before them was not counted."""
        return statistics.median(self._encoders_s[-repeats:])


def _bootstrap(stopwatch: Stopwatch, size: Size) -> Iterator[Line]:
    returns = _VOLATILITY * np.random.default_rng(0).standard_normal((size.days, size.strategies))

    def run() -> float:
        return len(bootstrapped(returns, DAYS_PER_YEAR, seed=0, resamples=size.resamples).draws)

    (timing,) = stopwatch.time(run)
    yield Line(
        name=f"{size.resamples:,} bootstrap draws, {len(METRICS)} metrics, {size.strategies} strategies, "
        f"{size.days:,} days",
        value=timing.median_s,
        unit="s",
        goals=BOOTSTRAP_GOALS,
        more=timing.facts() | {"threads": 1},
    )


def _report(stopwatch: Stopwatch, config: Config, root: Path) -> Iterator[Line]:
    """From all evidence of the evaluation to its page, pictures and tables."""
    from btcai.judging import gather_evidence
    from btcai.report.report import write_report

    evidence = gather_evidence(config, root)

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return len(write_report(Path(folder), evidence))

    (timing,) = stopwatch.time(run)
    yield Line(
        name=f"report of {evidence.market}",
        value=timing.median_s,
        unit="s",
        goals=REPORT_GOALS,
        more=timing.facts() | {"files": int(timing.units[0])},
    )


def _explain(
    stopwatch: Stopwatch, bundles: dict[str, PolicyBundle], data: MarketData, root: Path, decisions: int
) -> Iterator[Line]:
    """What every step to a decision takes beyond deciding on the same bars; with what the bundle remembers and its
    components' weights where artifacts/reflection has them."""
    for bucket, bundle in bundles.items():
        explaining = _Explaining(bundle, data, root / paths.REFLECTION / bucket, decisions)
        (timing,) = stopwatch.time(explaining.run)
        decided_ms, beyond_ms = explaining.took_ms(decisions * stopwatch.repeats)
        for name, percentile in (("median", 50), ("99th percentile", 99)):
            yield Line(
                name=f"{bucket}, a decision explained, beyond deciding, {name} of {len(beyond_ms):,}",
                value=float(np.percentile(beyond_ms, percentile)),
                unit="ms",
                goals=EXPLAIN_GOALS,
                more=timing.facts()
                | {"decide_ms": float(np.percentile(decided_ms, percentile)), "remembered": explaining.remembered},
            )


class _Explaining:
    """Decisions of a flat account in the newest tenth of the history, each made plainly and with all its reasons."""

    def __init__(self, bundle: PolicyBundle, data: MarketData, folder: Path, decisions: int) -> None:
        self._bundle, self._bars = bundle, data.bars
        self._needed = bundle.lookback_bars + WARMUP_BARS + bundle.patch_bars
        first = max(self._needed, int((1.0 - _NEWEST) * len(data)))
        self._stops = np.linspace(first, len(data), decisions).astype(int).tolist()
        self._memory = _known_before(int(data.bars.close_ts_ns[first - self._needed]), folder, bundle)
        self._weights = reflection.weights_of(folder, bundle.version) or EQUAL_WEIGHTS
        self._took_ms: list[tuple[float, float]] = []

    @property
    def remembered(self) -> int:
        """Situations that are searched for each decision."""
        return 0 if self._memory is None else len(self._memory)

    def run(self) -> float:
        """Returns the decisions explained; the one that goes first, and waits for the bars, changes each time."""
        for turn, stop in enumerate(self._stops):
            bars = rows_of(self._bars, slice(stop - self._needed, stop))
            both = (self._decide, self._explain) if turn % 2 else (self._explain, self._decide)
            took = {step: _milliseconds(step, bars) for step in both}
            self._took_ms.append((took[self._decide], took[self._explain]))
        return len(self._stops)

    def took_ms(self, last: int) -> tuple[FloatArray, FloatArray]:
        """Milliseconds (last,) of deciding, and of explaining beyond it, in the last decisions."""
        decided, explained = np.array(self._took_ms[-last:]).T
        return decided, explained - decided

    def _decide(self, bars: Bars) -> None:
        decide(self._bundle, bars)

    def _explain(self, bars: Bars) -> None:
        explain_decision(self._bundle, bars, None, _FLAT, self._memory, self._weights)


def _known_before(close_ts_ns: int, folder: Path, bundle: PolicyBundle) -> Memory | None:
    """The bundle's memory; None without one, or where it is of later bars than those that are explained."""
    memory = reflection.memory_of(folder, bundle.version)
    if memory is None or max(memory.forgot_ts_ns, *memory.known_ts_ns[-1:].tolist()) > close_ts_ns:
        return None
    return memory


def _milliseconds(step: Callable[[Bars], None], bars: Bars) -> float:
    start = time.perf_counter()
    step(bars)
    return 1e3 * (time.perf_counter() - start)
