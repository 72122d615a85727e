"""Decisions explained: one that a bundle takes now, and the two behind a trade of the last evaluation."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from btcai import paths
from btcai.errors import ArtifactError
from btcai.evaluation.result import TRADE_COLUMNS
from btcai.features.pipeline import rows_of
from btcai.features.store import load_market
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import PolicyBundle, load_bundle
from btcai.inference.decision import Considered, consider
from btcai.market.rules import Rules
from btcai.reasoning.chain import Case, reason
from btcai.reasoning.components import EQUAL_WEIGHTS
from btcai.reasoning.memory import Memory, recall, told
from btcai.reasoning.records import Reasoning, Recalled, reasoning_record
from btcai.reasoning.steps import stop_and_target
from btcai.reflection import memory_of, weights_of
from btcai.schema import BAR_NS, BUCKETS, Action, Bars

TRADES = paths.EVALUATION / "trades.csv"
_AGAIN = "make it again with: btcai stage evaluate"
_UNKNOWN = "what else was held is not on record"


@dataclass(frozen=True, kw_only=True)
class Trade:
    """One closed lot of the last evaluation, under the costs that are judged; amounts as in TRADE_COLUMNS."""

    bucket: str
    number: int
    """From 1, in the order of trades.csv."""
    entry_ts_ns: int
    exit_ts_ns: int
    btc: float
    entry_price: float
    exit_price: float
    profit_usdt: float
    net_return: float


@dataclass(frozen=True, kw_only=True)
class ExplainedTrade:
    """A trade with what was thought when it was entered and when it was left."""

    trade: Trade
    left_by: str
    """stop, target or order."""
    entry: Reasoning
    exit: Reasoning | None
    """None where it was left before the next decision."""


def explain_decision(
    bundle: PolicyBundle,
    bars: Bars,
    account: Mapping[str, Any] | None,
    account_text: str,
    memory: Memory | None = None,
    weights: Mapping[str, float] = EQUAL_WEIGHTS,
) -> Reasoning:
    """The bundle's decision at the newest bar on its clock, as inference.decide takes it, with every step to it.

    `account` as decide reads it, `account_text` says in words which that is. Of a memory only what was known at that
    bar is recalled; errors as memory.recall raises them.
    """
    return explain_considered(bundle, consider(bundle, bars, account), account_text, memory, weights)


def explain_considered(
    bundle: PolicyBundle,
    considered: Considered,
    account_text: str,
    memory: Memory | None,
    weights: Mapping[str, float],
) -> Reasoning:
    """Every step to a decision that was taken; arguments as explain_decision has them."""
    case = Case(
        decision=considered.decision,
        data=considered.data,
        bucket=bundle.settings,
        rules=bundle.manifest.rules,
        sizing=bundle.manifest.sizing,
        account=considered.account,
        lots=considered.lots,
        told=account_text,
        recalled=None if memory is None else _recalled(memory, considered),
        weights=weights,
    )
    return reason(case)


def _recalled(memory: Memory, considered: Considered) -> Recalled:
    """What the memory says of the decision's latent."""
    latent, now = considered.encoded.latent[-1:], np.array([considered.decision.close_ts_ns])
    found = recall(memory, latent, now, model_version=considered.decision.model_version)
    return told(memory, found, 0, float(considered.data.sigma[-1]))


def explain_trade(root: Path, number: int, bucket: str | None) -> ExplainedTrade:
    """A trade of reports/evaluation, thought through again on artifacts/features by the bundle exported from the model
    that made it, with what artifacts/reflection has learned for it.

    What else the account held is not on record: it is assumed flat at the entry, with this lot alone at the exit.
    """
    trade = find_trade(root, number, bucket)
    bundle, bars = judged_bundle(root, trade.bucket), load_market(root / paths.FEATURES).bars
    rules, entry, leave = bundle.manifest.rules, _row(bars, trade.entry_ts_ns), _row(bars, trade.exit_ts_ns)
    how = left_by(trade, bars, leave, rules)
    decided = decision_before(bars, entry, rules)
    decided_exit = decision_before(bars, leave, rules if how == "order" else rules._replace(latency_bars=0))
    learned = root / paths.REFLECTION / trade.bucket
    memory, weights = memory_of(learned, bundle.version), weights_of(learned, bundle.version) or EQUAL_WEIGHTS
    equity_usdt = bundle.manifest.equity_usdt
    flat = f"assumed flat with {equity_usdt:,.0f} USDT; {_UNKNOWN}"
    return ExplainedTrade(
        trade=trade,
        left_by=how,
        entry=explain_decision(bundle, _until(bars, decided, bundle), None, flat, memory, weights),
        exit=(
            _explain_exit(bundle, bars, trade, entry, decided_exit, memory, weights) if decided_exit >= entry else None
        ),
    )


def _explain_exit(
    bundle: PolicyBundle,
    bars: Bars,
    trade: Trade,
    entry: int,
    decided: int,
    memory: Memory | None,
    weights: Mapping[str, float],
) -> Reasoning:
    account = {
        "cash_usdt": max(0.0, bundle.manifest.equity_usdt - trade.btc * trade.entry_price),
        "lots": [{"btc": trade.btc, "entry_price": trade.entry_price}],
        "equity_start_usdt": bundle.manifest.equity_usdt,
        "decisions_since_trade": (decided - entry) // bundle.patch_bars,
    }
    lone = f"assumed to hold this lot alone, beside {account['cash_usdt']:,.0f} USDT; {_UNKNOWN}"
    return explain_decision(bundle, _until(bars, decided, bundle), account, lone, memory, weights)


def _until(bars: Bars, decided: int, bundle: PolicyBundle) -> Bars:
    needed = bundle.lookback_bars + WARMUP_BARS
    return rows_of(bars, slice(max(0, decided + 1 - needed), decided + 1))


def judged_bundle(root: Path, bucket: str) -> PolicyBundle:
    """The bundle of the model that was evaluated: the candidate; the champion where nothing else is there."""
    for folder in (root / paths.CANDIDATE / bucket, root / paths.CHAMPION / bucket):
        if folder.is_dir():
            return load_bundle(folder)
    raise ArtifactError(f"no bundle of {bucket} in {paths.CANDIDATE} or {paths.CHAMPION}; make one with: btcai run")


def find_trade(root: Path, number: int, bucket: str | None) -> Trade:
    """The trade of that number; ArtifactError names those there are, and asks for a bucket where several have it."""
    frame = read_trades(root)
    if frame.empty:
        now = f"btcai explain --bucket {bucket or BUCKETS[0]} --bars FILE"
        raise ArtifactError(f"no bucket traded in the last evaluation, see {TRADES}; explain a decision now: {now}")
    found = frame[(frame["number"] == number) & ((frame["bucket"] == bucket) | (bucket is None))]
    if len(found) > 1:
        raise ArtifactError(f"trade {number} is one of {', '.join(found['bucket'])}; name one with --bucket")
    if found.empty:
        counts = frame.groupby("bucket", sort=False)["number"].max()
        there = ", ".join(f"1 .. {last} of {name}" for name, last in counts.items())
        of = f" of {bucket}" if bucket else ""
        raise ArtifactError(f"a trade must be one of the last evaluation ({there}), was {number}{of}; see {TRADES}")
    row = found.iloc[0]
    return Trade(
        bucket=str(row["bucket"]),
        number=number,
        entry_ts_ns=int(row["entry_ts_ns"]),
        exit_ts_ns=int(row["exit_ts_ns"]),
        btc=float(row["btc"]),
        entry_price=float(row["entry_price"]),
        exit_price=float(row["exit_price"]),
        profit_usdt=float(row["profit_usdt"]),
        net_return=float(row["net_return"]),
    )


def read_trades(root: Path) -> pd.DataFrame:
    """reports/evaluation/trades.csv: bucket, number, TRADE_COLUMNS."""
    path = root / TRADES
    if not path.is_file():
        raise ArtifactError(f"{path} not found; make it with: btcai run")
    try:
        frame = pd.read_csv(path)
    except ValueError as error:
        raise ArtifactError(f"{path} is not CSV ({error}); {_AGAIN}") from error
    if missing := {"bucket", "number", *TRADE_COLUMNS} - set(frame.columns):
        wanted = f"bucket, number and {', '.join(TRADE_COLUMNS)}"
        raise ArtifactError(f"{path} must hold {wanted}, misses {', '.join(sorted(missing))}; {_AGAIN}")
    if odd := set(frame["bucket"]) - set(BUCKETS):
        raise ArtifactError(f"{path} must name {', '.join(BUCKETS)}, names {', '.join(map(str, odd))}; {_AGAIN}")
    return frame


def _row(bars: Bars, close_ts_ns: int) -> int:
    row = (close_ts_ns - int(bars.close_ts_ns[0])) // BAR_NS
    if not 0 <= row < len(bars) or bars.close_ts_ns[row] != close_ts_ns:
        raise ArtifactError(f"{TRADES} is of other bars than {paths.FEATURES}; {_AGAIN}")
    return int(row)


def decision_before(bars: Bars, filled: int, rules: Rules) -> int:
    """The bar at whose close the order was decided that a bar filled: the last on the clock from which it arrives.

    An order that rested as a maker's may be up to maker_bars older.
    """
    present = np.flatnonzero(bars.present[:filled])
    if len(present) <= rules.latency_bars:
        raise ArtifactError(f"{TRADES} has a trade before the first decision of {paths.FEATURES}; {_AGAIN}")
    last = int(present[-1 - rules.latency_bars])
    return last - int(bars.close_ts_ns[last] // BAR_NS % rules.patch_bars)


def left_by(trade: Trade, bars: Bars, row: int, rules: Rules) -> str:
    """stop or target where the exit's bar reached it and the fill agrees, else order."""
    side = 1.0 if trade.btc > 0 else -1.0
    stop, target = stop_and_target(trade.entry_price, side, rules)
    against, along = (bars.low, bars.high) if side > 0 else (bars.high, bars.low)
    if side * (against[row] - stop) <= 0 and side * (trade.exit_price - stop) <= 0:
        return "stop"
    if side * (along[row] - target) > 0 and side * (trade.exit_price - target) >= 0:
        return "target"
    return "order"


def agrees(explained: ExplainedTrade) -> bool:
    """Whether the entry's decision, thought through again, opens a lot: not so where the account was another one."""
    wanted = Action.BUY if explained.trade.btc > 0 else Action.SELL
    return explained.entry.action == wanted.name


def trade_json(explained: ExplainedTrade) -> str:
    """One line of strict JSON."""
    record = {
        "trade": asdict(explained.trade),
        "left_by": explained.left_by,
        "entry": reasoning_record(explained.entry),
        "exit": None if explained.exit is None else reasoning_record(explained.exit),
    }
    return json.dumps(record, allow_nan=False)
