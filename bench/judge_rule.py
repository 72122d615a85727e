"""A cross of two exponential averages, always all in or out, walked by our execution model and by vectorbt.

Both fill at the next bar's open and pay the taker's fee and nothing else: our spread, impact, share of the volume, lot
step, smallest order and band are off, for vectorbt has none of them. Both hand out equity at every close and all
trades, and `check_same` holds them to the same ones. The averages are pandas' there (vectorbt's own have the same bits
and are no faster) and a compiled pass here.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.line import Goal, Line
from bench.peers import ask
from bench.stopwatch import Run, Stopwatch
from btcai.compiled import inlined, stepping
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.targets import run_targets
from btcai.market.bars import bar_arrays
from btcai.market.rules import FREE_RULES
from btcai.schema import BoolArray, FloatArray, IntArray, MarketData, Span

WINDOWS = (12, 26)
VECTORBT = "vectorbt 1.2.0"
ENGINES = ("numba", "rust")
GOALS = (Goal("ratio", ">=", 3.0),)
ROUNDS = 10
"""Walks a repeat: one takes a few milliseconds, too few to tell what others did to the machine meanwhile."""

EQUITY_TOLERANCE = 1e-6
"""Relative. Ours leaves 1e-11 of the cash unspent at every purchase, so that rounding never takes it below zero."""

_PLENTY_BTC = 1e12
_WORK = {"crossed": "closes to trades", "ready": "crosses to trades"}


class Traded(NamedTuple):
    """What a rule came to: rows of the bars in which closed trades were entered and left, and the equity at the end."""

    entries: IntArray
    exits: IntArray
    final_equity_usdt: float


class CrossRule:
    """Our side of it on one market."""

    def __init__(self, data: MarketData, fee_frac: float, equity_usdt: float) -> None:
        self._data, self._equity_usdt = data, equity_usdt
        self._rules = FREE_RULES._replace(taker_fee_frac=fee_frac)
        self._bars = bar_arrays(data)._replace(volume=np.full(len(data), _PLENTY_BTC))
        self._rows = np.flatnonzero(data.bars.present)

    @property
    def n_bars(self) -> int:
        """Those that are there: the others have no price."""
        return len(self._rows)

    def targets(self) -> FloatArray:
        """(T,) all or nothing of the equity where the averages cross, nan elsewhere."""
        bars, targets = self._data.bars, np.full(len(self._data), np.nan)
        _cross(bars.close, bars.present, *WINDOWS, targets)
        return targets

    def walk(self, targets: FloatArray) -> BacktestResult:
        span = Span(0, len(self._data))
        return run_targets(targets, self._data, span, self._rules, self._equity_usdt, band_frac=0.0, bars=self._bars)

    def traded(self) -> Traded:
        """Rows count the bars that are there."""
        result = self.walk(self.targets())
        known = self._data.bars.close_ts_ns[self._rows]
        entries, exits = (
            np.searchsorted(known, result.trades[name].to_numpy()) for name in ("entry_ts_ns", "exit_ts_ns")
        )
        return Traded(entries, exits, float(result.equity_usdt[-1]))

    def asked_of_others(self, rounds: int) -> dict[str, Any]:
        """The same question as arrays, for bench/references/vectorbt_rule.py."""
        return {
            "open": self._data.bars.open[self._rows],
            "close": self._data.bars.close[self._rows],
            "windows": np.array(WINDOWS),
            "fee_frac": np.array(self._rules.taker_fee_frac),
            "equity_usdt": np.array(self._equity_usdt),
            "rounds": np.array(rounds),
        }


def check_same(ours: Traded, theirs: Traded, name: str) -> None:
    """AssertionError unless both made the same trades, bar for bar, and have the same left of their money."""
    if len(ours.entries) != len(theirs.entries):
        raise AssertionError(f"both must make the same trades, {name} made {len(theirs.entries)}: {len(ours.entries)}")
    odd = np.flatnonzero((ours.entries != theirs.entries) | (ours.exits != theirs.exits))
    if len(odd):
        k = odd[0]
        raise AssertionError(
            f"both must make the same trades, number {k + 1} of {name} goes from bar {theirs.entries[k]} to "
            f"{theirs.exits[k]}: ours from {ours.entries[k]} to {ours.exits[k]}"
        )
    apart = abs(ours.final_equity_usdt / theirs.final_equity_usdt - 1.0)
    if not apart <= EQUITY_TOLERANCE:
        raise AssertionError(
            f"final equity must agree to {EQUITY_TOLERANCE:g}, {name} has {theirs.final_equity_usdt:.10g} USDT: "
            f"ours {ours.final_equity_usdt:.10g}"
        )


def lines(
    stopwatch: Stopwatch, data: MarketData, fee_frac: float, equity_usdt: float, root: Path, rounds: int = ROUNDS
) -> Iterator[Line]:
    """Bars a second, averages included and from their crosses on, beside both engines of vectorbt."""
    rule = CrossRule(data, fee_frac, equity_usdt)
    ready, n_bars = rule.targets(), rule.n_bars
    crossed, given = stopwatch.time(
        _rounds(lambda: rule.walk(rule.targets()), n_bars, rounds), _rounds(lambda: rule.walk(ready), n_bars, rounds)
    )
    ours = rule.traded()
    report, note = ask("vectorbt_rule", VECTORBT, rule.asked_of_others(rounds), root, stopwatch.repeats)
    for engine, theirs in report.items():
        found = Traded(np.array(theirs["entries"]), np.array(theirs["exits"]), theirs["final_equity_usdt"])
        check_same(ours, found, f"{VECTORBT}, {engine}")
    facts = {"bars": n_bars, "trades": len(ours.entries), "fee_bps": 1e4 * fee_frac, "threads": 1}
    for work, timing in (("crossed", crossed), ("ready", given)):
        for engine in ENGINES:
            theirs = report.get(engine, {})
            yield Line(
                name=f"EMA {WINDOWS[0]}/{WINDOWS[1]} cross, {_WORK[work]}, beside the {engine} engine",
                value=timing.per_second,
                unit="bars/s",
                reference=f"{VECTORBT}, {engine}",
                reference_value=theirs.get(work),
                goals=GOALS,
                note=note,
                more=timing.facts() | facts | {"reference_threads": 1, "reference_idle": theirs.get("idle")},
            )


@stepping
def _cross(close: FloatArray, present: BoolArray, fast: int, slow: int, targets: FloatArray) -> None:
    """1 or 0 to targets (T,) at bars whose close takes the fast average above the slow one, or back."""
    quick, lazy, started, was_above = 0.0, 0.0, False, False
    for t in range(len(close)):
        if not present[t]:
            continue
        quick = _averaged(quick, close[t], fast) if started else close[t]
        lazy = _averaged(lazy, close[t], slow) if started else close[t]
        if (quick > lazy) != was_above:
            was_above = quick > lazy
            targets[t] = 1.0 if was_above else 0.0
        started = True


@inlined
def _averaged(average: float, close: float, span: int) -> float:
    """As pandas' ewm(span, adjust=False), to the bit."""
    newest = 2.0 / (span + 1.0)
    return (1.0 - newest) * average + newest * close


def _rounds(walk: Callable[[], object], n_bars: int, rounds: int) -> Run:
    def run() -> float:
        for _ in range(rounds):
            walk()
        return float(n_bars * rounds)

    return run
