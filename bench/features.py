"""`btcai bench features`: how long features take, in batch and bar by bar, and how much memory."""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.line import Goal, Line
from bench.markets import simulated_bars
from bench.references.talib_columns import COLUMNS, talib_columns
from bench.stopwatch import Stopwatch
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.features.pipeline import CHUNK_ROWS, build_market, rows_of
from btcai.features.stream import FeatureStream
from btcai.features.table import FEATURE_NAMES
from btcai.machine import machine
from btcai.schema import BARS_PER_YEAR, Bars

BATCH_GOALS = (Goal("value", "<=", 0.2),)
LIVE_GOALS = (Goal("value", "<=", 1.0),)
MEMORY_GOALS = (Goal("value", "<=", 2.0),)
"""Of the whole process."""

GROWTH_GOALS = (Goal("ratio", "<=", 2.1),)
"""Linear: twice the bars take at most about twice the memory, what every process takes apart."""

NO_TALIB = "TA-Lib is not installed: the reference was not run; install it with: make setup"

_BAR = ("close_ts_ns", "open", "high", "low", "close", "volume")
_GB = 1e9
_FEW_BARS = 1000  # that a process with its code loaded has hardly more memory for


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    bars: int = 400_000
    live_bars: int = 1000
    memory_bars: int = 10 * BARS_PER_YEAR


def lines(stopwatch: Stopwatch, config: Config, root: Path, size: Size | None = None) -> Iterator[Line]:
    """Batch beside TA-Lib, one live bar at the median and the 99th percentile, memory of ten years and its growth."""
    size = size or Size()
    bars = simulated_bars(size.bars)
    yield _batch(stopwatch, bars)
    yield from _live(stopwatch, bars, size.live_bars)
    yield from _memory(size.memory_bars)


def _batch(stopwatch: Stopwatch, bars: Bars) -> Line:
    """Seconds of build_market, its checks included."""

    def ours() -> float:
        return len(build_market(bars))

    def talib() -> float:
        return len(talib_columns(bars)[0])

    known = importlib.util.find_spec("talib") is not None
    built, *rival = stopwatch.time(ours, talib) if known else stopwatch.time(ours)
    return Line(
        name=f"build_market, {len(bars):,} bars, {len(FEATURE_NAMES)} columns",
        value=built.median_s,
        unit="s",
        reference=f"TA-Lib, {COLUMNS} columns",
        reference_value=rival[0].median_s if rival else None,
        goals=BATCH_GOALS,
        note=None if rival else NO_TALIB,
        more=built.facts() | {"threads": _threads(len(bars)), "reference_threads": 1},
    )


def _threads(n_bars: int) -> int:
    """That build_market takes: one a chunk, as many as there are cores."""
    return min(-(-n_bars // CHUNK_ROWS), machine().cores)


def _live(stopwatch: Stopwatch, bars: Bars, n: int) -> Iterator[Line]:
    """Milliseconds from a closed bar to its features: every run feeds the last n bars to a stream of those before."""
    history = rows_of(bars, slice(0, len(bars) - n))
    took_s: list[float] = []

    def run() -> float:
        stream = FeatureStream(history)
        for row in range(len(history), len(bars)):
            bar = {name: getattr(bars, name)[row].item() for name in _BAR}
            start = time.perf_counter()
            stream.push(**bar)
            took_s.append(time.perf_counter() - start)
        return n

    (timing,) = stopwatch.time(run)
    took_ms = 1e3 * np.array(took_s[n:])  # without the uncounted run
    for name, percentile in (("median", 50), ("99th percentile", 99)):
        yield Line(
            name=f"one live bar, {name} of {len(took_ms):,}",
            value=float(np.percentile(took_ms, percentile)),
            unit="ms",
            goals=LIVE_GOALS,
            more=timing.facts(),
        )


def _memory(n_bars: int) -> Iterator[Line]:
    """Peak memory of a process that makes bars and builds their features; what it grew by, beside half the bars.

    The batch before it has compiled all: a process that still does takes more, whatever its bars.
    """
    few, half, whole = (_peak_gb(n) for n in (_FEW_BARS, n_bars // 2, n_bars))
    yield Line(name=f"peak memory, {n_bars:,} bars", value=whole, unit="GB", goals=MEMORY_GOALS)
    yield Line(
        name=f"peak memory above that of {_FEW_BARS:,} bars, {n_bars:,} bars",
        value=whole - few,
        unit="GB",
        reference=f"{n_bars // 2:,} bars",
        reference_value=half - few,
        goals=GROWTH_GOALS,
        more={"few_bars_gb": few},
    )


def _peak_gb(n_bars: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", str(n_bars)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed: the machine has too little memory"])[-1]
        raise ArtifactError(f"{n_bars} bars must fit into memory, said: {last}; free some memory, then run it again")
    return int(done.stdout) / _GB
