"""Walk a policy over a span through the market's own rules: encode each decision time once, then head and kernel.

Leak-free by construction: a decision at t reads feature rows up to t and an account stepped to t. Several accounts
(cost severities) take the walk together, one small batch for the head at each decision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from btcai.config import BucketConfig, SizingConfig
from btcai.errors import DataError
from btcai.evaluation.result import BacktestResult, trades_table
from btcai.evaluation.walk import NO_DECISION, Record, new_record, walk
from btcai.inference.bundle import Encoded, Policy
from btcai.inference.decision import sizes
from btcai.market.account import CLOSED_LOTS, new_accounts
from btcai.market.bars import bar_arrays
from btcai.market.rules import Rules
from btcai.schema import ACCOUNT_FEATURES, BAR_NS, TOKENS, Float32Array, IntArray, MarketData, Span

CHUNK_DECISIONS = 2048
"""Decisions encoded at a time: bounds memory; neighbours share TOKENS - 1 tokens."""


def decision_bars(close_ts_ns: IntArray, span: Span, patch_bars: int) -> IntArray:
    """Bar indices (D,) in the span at which a bucket decides, on the absolute clock: close time in bars % patch == 0.

    The last one leaves patch_bars bars inside the span for its order to fill and be held.
    """
    clock = close_ts_ns[span.first : max(span.first, span.stop - patch_bars)] // BAR_NS
    return np.flatnonzero(clock % patch_bars == 0).astype(np.int64) + span.first


def encode_decisions(
    policy: Policy, data: MarketData, decisions: IntArray, chunk_decisions: int = CHUNK_DECISIONS
) -> Encoded:
    """Encode decisions (D,), patch_bars apart; rows before the span are read as features where they reach back.

    Beside what it returns it holds one chunk.
    """
    names, found, done = Encoded.__dataclass_fields__, dict[str, Float32Array](), 0
    for rows in _stretches(policy, data, decisions, chunk_decisions):
        part = policy.encode(rows)
        for name in names:
            piece = getattr(part, name)
            if name not in found:
                found[name] = np.empty((len(decisions), *piece.shape[1:]), piece.dtype)
            found[name][done : done + len(part)] = piece
        done += len(part)
    return Encoded(**found)


def _stretches(
    policy: Policy, data: MarketData, decisions: IntArray, chunk_decisions: int
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(decisions), chunk_decisions):
        chunk = decisions[start : start + chunk_decisions]
        rows = slice(int(chunk[0]) - TOKENS * policy.patch_bars + 1, int(chunk[-1]) + 1)
        yield np.ascontiguousarray(data.features[rows], dtype=np.float32)


def decisions_with_history(policy: Policy, data: MarketData, span: Span) -> IntArray:
    """The span's decision bars (D,) whose lookback lies after the features' warm-up; DataError when none does."""
    decisions = decision_bars(data.bars.close_ts_ns, span, policy.patch_bars)
    needed = data.warmup_bars + policy.lookback_bars
    decisions = decisions[decisions >= needed - 1]
    if len(decisions) == 0:
        raise DataError(
            f"{policy.bucket} needs {needed} bars up to a decision (warm-up {data.warmup_bars} + lookback "
            f"{policy.lookback_bars}) and {policy.patch_bars} after it; span {span.first} .. {span.stop} holds none; "
            "test on a longer history"
        )
    return decisions


def backtest(
    policy: Policy,
    data: MarketData,
    span: Span,
    bucket: BucketConfig,
    rules: Sequence[Rules],
    sizing: SizingConfig,
    equity_usdt: float,
) -> list[BacktestResult]:
    """Greedy walk of one bucket over the span, one result for each of the rules; they share lots and patch."""
    decisions = decisions_with_history(policy, data, span)
    encoded = encode_decisions(policy, data, decisions)
    size_frac, entry_allowed = sizes(policy, bucket, sizing, encoded, np.asarray(data.sigma)[decisions])
    accounts, lots = new_accounts(len(rules), bucket.max_lots, equity_usdt)
    record = new_record(len(rules), len(span), len(decisions))
    record.equity_usdt[:, 0] = equity_usdt
    actions = np.zeros((len(rules), len(decisions)), np.int64)
    observed = np.zeros((len(rules), len(ACCOUNT_FEATURES)), np.float32)
    bars, all_rules = bar_arrays(data), tuple(rules)

    def advance(t: int, until: int, taken: IntArray, size: float, allowed: bool) -> None:
        walk(accounts, lots, bars, all_rules, t, until, taken, size, allowed, record, span.first, observed, equity_usdt)

    waiting = np.full(len(rules), NO_DECISION, np.int64)
    advance(span.first, int(decisions[0]), waiting, 0.0, False)
    for d, t in enumerate(decisions.tolist()):
        latents = np.repeat(encoded.latent[d : d + 1], len(rules), axis=0)  # (R, Z): the accounts share it
        actions[:, d] = policy.probabilities(latents, observed).argmax(axis=1)
        until = t + policy.patch_bars if d + 1 < len(decisions) else span.stop - 1
        advance(t, until, actions[:, d].copy(), float(size_frac[d]), bool(entry_allowed[d]))
    n_closed = accounts[:, CLOSED_LOTS].astype(int).tolist()
    results = (
        _result(data, span, decisions, actions[r], n_closed[r], equity_usdt, record, r) for r in range(len(rules))
    )
    return [replace(result, encoded=encoded) for result in results]


def _result(
    data: MarketData,
    span: Span,
    decisions: IntArray,
    actions: IntArray,
    n_closed: int,
    start_equity_usdt: float,
    record: Record,
    r: int,
) -> BacktestResult:
    """Account r's part of the record."""
    closed = record.closed[r, :n_closed]
    return BacktestResult(
        span=span,
        start_equity_usdt=start_equity_usdt,
        close_ts_ns=np.asarray(data.bars.close_ts_ns[span.first : span.stop]),
        equity_usdt=record.equity_usdt[r],
        position_frac=record.position_frac[r],
        n_lots=record.n_lots[r],
        decisions=decisions,
        actions=actions,
        trades=trades_table(closed, data.bars.close_ts_ns),
        costs_usdt=float(record.costs_usdt[r]),
        traded_usdt=float(record.traded_usdt[r]),
    )
