"""Bars a second of vectorbt on an EMA cross, run by its own interpreter: python -m bench.references.vectorbt_rule FILE.

FILE is a .npz with open and close (n,), windows (2,), fee_frac, equity_usdt and rounds; what is asked of it, and what
the other side does too, is in bench/judge_rule.py. Imports nothing of btcai: that environment holds only
bench/peers.txt. Prints one JSON object: {engine: {"crossed": ..., "ready": ..., "idle": ..., "entries": [...], ...}}.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.stopwatch import Run, Stopwatch

ENGINES = ("numba", "rust")


def main(file: str, repeats: int) -> None:
    asked = dict(np.load(file, allow_pickle=False))
    stopwatch = Stopwatch(repeats)
    sys.stdout.write(json.dumps({engine: _measured(stopwatch, engine, asked) for engine in ENGINES}))


def _measured(stopwatch: Stopwatch, engine: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Bars a second with the averages (crossed) and from given signals on (ready); the trades and what was left."""
    ready = _signals(asked)
    crossed, given = stopwatch.time(
        _rounds(asked, lambda: _traded(engine, asked, *_signals(asked))),
        _rounds(asked, lambda: _traded(engine, asked, *ready)),
    )
    value, trades = _traded(engine, asked, *ready)
    closed = trades[trades["status"] == 1]
    return {
        "crossed": crossed.per_second,
        "ready": given.per_second,
        "idle": bool(crossed.facts()["idle"] and given.facts()["idle"]),
        "entries": closed["entry_idx"].tolist(),
        "exits": closed["exit_idx"].tolist(),
        "final_equity_usdt": float(value[-1]),
    }


def _rounds(asked: Mapping[str, Any], once: Any) -> Run:
    def run() -> float:
        for _ in range(int(asked["rounds"])):
            once()
        return float(len(asked["close"]) * int(asked["rounds"]))

    return run


def _signals(asked: Mapping[str, Any]) -> tuple[Any, Any]:
    """Entries and exits (n,) at the bars that fill them: the one after the close that crossed."""
    close = pd.Series(asked["close"])
    fast, slow = (close.ewm(span=int(window), adjust=False).mean().to_numpy() for window in asked["windows"])
    above = fast > slow
    entries, exits = np.zeros(len(above), np.bool_), np.zeros(len(above), np.bool_)
    entries[2:], exits[2:] = above[1:-1] & ~above[:-2], ~above[1:-1] & above[:-2]
    return entries, exits


def _traded(engine: str, asked: Mapping[str, Any], entries: Any, exits: Any) -> tuple[Any, Any]:
    """Equity at each close and the records of trades, at its fastest: plain arrays, no statistics."""
    import vectorbt

    portfolio = vectorbt.Portfolio.from_signals(
        asked["close"],
        entries,
        exits,
        price=asked["open"],
        fees=float(asked["fee_frac"]),
        init_cash=float(asked["equity_usdt"]),
        min_size=0.0,  # costs leave little of an account, and ours has no least order either
        freq="5min",
        engine=engine,
    )
    return portfolio.value().to_numpy(), portfolio.trades.records


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
