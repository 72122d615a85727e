"""What a memory takes in and what it gives up: key situations as their outcomes become known, up to its capacity."""

from dataclasses import fields, replace
from typing import Any

import numpy as np

from btcai.reasoning.memory import Memory, Recollection, Situations, placed, recall
from btcai.reasoning.nearest import chunks, squared_distances
from btcai.schema import BAR_NS, BoolArray, Float32Array, IntArray

FORGET_FRAC = 0.1
"""Of the capacity, at a time: to find what can go, all are compared with all."""
SURPRISING_SIGMAS = 2.0
"""An outcome beyond them is a surprise."""

_A_ROUND = 5  # one in so many rows goes at most: pairs are disjoint, and the last ones would lose much
_COLUMNS = ("close_ts_ns", "known_ts_ns", "place", "outcome", "rise", "weight")


def key_situations(
    memory: Memory, embedding: Float32Array, close_ts_ns: IntArray, acted: BoolArray, patch_bars: int
) -> BoolArray:
    """Which decisions are worth remembering, (D,): those acted on, unusual ones, and the first of every horizon.

    By what is known as it is decided and never by the outcome: what is chosen by how it ended says nothing of how the
    next one will. The first of every horizon, by the clock, stand for what happens where nothing is done.
    """
    unusual = np.linalg.norm(placed(memory, embedding), axis=1) > memory.unusual
    first = close_ts_ns % (memory.horizon_bars * BAR_NS) < patch_bars * BAR_NS
    return np.asarray(acted | unusual | first, np.bool_)


def remember(memory: Memory, situations: Situations, now_ts_ns: int) -> Memory:
    """The memory with situations whose outcomes are known at now; ValueError where one is not, or is not finite.

    Above its capacity it forgets until FORGET_FRAC of it is free (_forget says what).
    """
    if (latest := int(situations.known_ts_ns.max(initial=now_ts_ns))) > now_ts_ns:
        raise ValueError(f"outcomes must be known at {now_ts_ns} to be remembered, one is at {latest}; wait for it")
    if not (np.isfinite(situations.outcome).all() and np.isfinite(situations.embedding).all()):
        raise ValueError("situations must be finite to be remembered; leave out those without an outcome")
    portion = max(1, memory.capacity // 2)  # bounds what is compared with all
    for first in range(0, len(situations), portion):
        memory = _taken(memory, situations[first : first + portion])
        if len(memory) > memory.capacity:
            memory = replace(memory, forgot_ts_ns=max(now_ts_ns, memory.forgot_ts_ns))
            while len(memory) > (1.0 - FORGET_FRAC) * memory.capacity:
                memory = _forget(memory)
    return memory


def recall_in_order(
    memory: Memory,
    situations: Situations,
    keys: BoolArray,
    *,
    until_ts_ns: int,
    model_version: str,
    block: int = 1_000,
) -> tuple[Recollection, Memory]:
    """Recall at each of D decisions in order of time, and remember the key ones (D,) as their outcomes become known.

    A block at a time: within one, a decision recalls what was known when the block began, and Recollection.rows are
    those of the memory as it was then. Those that become known after the last block began, by until_ts_ns, are
    remembered at the end. Situations without a finite outcome are recalled for and not remembered.
    """
    parts, waiting = [], keys & np.isfinite(situations.outcome)
    for first in range(0, len(situations), block):
        now = int(situations.close_ts_ns[first])
        due = waiting & (situations.known_ts_ns <= now)
        memory, waiting = remember(memory, situations[due], now), waiting & ~due
        asked = situations[first : first + block]
        parts.append(recall(memory, asked.embedding, asked.close_ts_ns, model_version=model_version))
    memory = remember(memory, situations[waiting & (situations.known_ts_ns <= until_ts_ns)], until_ts_ns)
    joined = {one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Recollection)}
    return Recollection(**joined), memory


def _taken(memory: Memory, situations: Situations) -> Memory:
    """The memory and the situations, over its capacity as it may be."""
    added = {
        "close_ts_ns": situations.close_ts_ns,
        "known_ts_ns": situations.known_ts_ns,
        "place": placed(memory, situations.embedding),
        "outcome": situations.outcome,
        "rise": (situations.outcome > 0.0).astype(np.float64),
        "weight": np.ones(len(situations)),
    }
    joined: dict[str, Any] = {name: np.concatenate([getattr(memory, name), added[name]]) for name in _COLUMNS}
    return _rows(replace(memory, **joined), np.arange(len(memory) + len(situations)))


def _forget(memory: Memory) -> Memory:
    """One round: pairs of situations become one, those first that lose least by it, until there is room.

    A pair, each and the one nearest to it, loses the sum of squares of its latents about their mean (Ward 1963), in
    units of `near`, and of the sigmas by which an outcome is beyond SURPRISING_SIGMAS: what is like nothing else stays,
    and so does what ended in surprise. Other outcomes do not choose what goes, or rises would join rises and falls
    falls, and each such crowd would speak with one voice. The heavier of a pair stays where it is and speaks for both.
    """
    nearest, squared = np.empty(len(memory), np.int64), np.empty(len(memory))
    for part in chunks(len(memory)):
        distances = squared_distances(memory.place[part], memory.place)
        each = np.arange(len(distances))
        distances[each, part.start + each] = np.inf
        nearest[part] = distances.argmin(axis=1)
        squared[part] = distances[each, nearest[part]]
    weight, surprise = memory.weight, np.maximum(np.abs(memory.outcome) - SURPRISING_SIGMAS, 0.0)
    apart = squared / memory.near**2 + np.maximum(surprise, surprise[nearest]) ** 2
    loss = apart * weight * weight[nearest] / (weight + weight[nearest])
    too_many = len(memory) - int((1.0 - FORGET_FRAC) * memory.capacity)
    at_most = min(too_many, max(1, len(memory) // _A_ROUND))
    return _merged(memory, _disjoint(np.argsort(loss, kind="stable"), nearest, at_most))


def _disjoint(order: IntArray, partner: IntArray, at_most: int) -> IntArray:
    """Pairs (P, 2) of each in order and its partner, no one in two of them, P <= at_most."""
    pairs: list[tuple[int, int]] = []
    free = np.ones(len(order), np.bool_)
    for one, other in zip(order.tolist(), partner[order].tolist(), strict=True):
        if free[one] and free[other] and len(pairs) < at_most:
            free[one] = free[other] = False
            pairs.append((one, other))
    return np.array(pairs, np.int64)


def _merged(memory: Memory, pairs: IntArray) -> Memory:
    """The memory with each pair (P, 2) of rows made one; those closer in time than the horizon count as one outcome."""
    weights, each = memory.weight[pairs], np.arange(len(pairs))
    heavier = np.where(weights[:, 0] > weights[:, 1], 0, 1)
    kept, gone = pairs[each, heavier], pairs[each, 1 - heavier]
    outcome, rise, weight, known = (getattr(memory, n).copy() for n in ("outcome", "rise", "weight", "known_ts_ns"))
    for values in (outcome, rise):
        values[kept] = (values[pairs] * weights).sum(axis=1) / weights.sum(axis=1)
    apart = np.abs(memory.close_ts_ns[kept] - memory.close_ts_ns[gone]) >= memory.horizon_bars * BAR_NS
    weight[kept] = np.where(apart, weights.sum(axis=1), weights.max(axis=1))
    known[kept] = memory.known_ts_ns[pairs].max(axis=1)
    merged = replace(memory, outcome=outcome, rise=rise, weight=weight, known_ts_ns=known)
    return _rows(merged, np.delete(np.arange(len(memory)), gone))


def _rows(memory: Memory, rows: IntArray) -> Memory:
    """These rows, by the time their outcome was known."""
    rows = rows[np.argsort(memory.known_ts_ns[rows], kind="stable")]
    columns: dict[str, Any] = {name: getattr(memory, name)[rows] for name in _COLUMNS}
    return replace(memory, **columns)
