"""How often the best of many strategies on some days is below their median on the others: CSCV.

Combinatorially symmetric cross-validation, Bailey, Borwein, López de Prado and Zhu, "The probability of backtest
overfitting" (2015, section 3).
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from btcai.evaluation.metrics import MIN_PERIODS, NO_SPREAD
from btcai.schema import FloatArray

BLOCKS = 16
"""The paper's: 12,870 ways to halve them."""
_CHUNK = 32
"""Halves that are worked on at a time: with 2,000 strategies half a megabyte an array."""


class Overfitting(NamedTuple):
    """Of one set of strategies; nan, and no logits, where the data are insufficient."""

    probability: float
    """Share of the ways to halve the days in which the better half's best is not above the median on the other."""
    loss_probability: float
    """Share in which it loses there: its Sharpe ratio is below 0."""
    logits: FloatArray
    """(ways,) log odds of its relative rank on the other half, a way beside its mirror; 0 is the median."""


def overfitting(returns: FloatArray, *, blocks: int = BLOCKS) -> Overfitting:
    """Of returns (m, k) of k strategies on the same days, cut into an even number of blocks; the best by Sharpe ratio.

    nan with fewer than two strategies, or where half of the days are fewer than MIN_PERIODS.
    """
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks must be an even number, 2 or more, was {blocks}; halves must be of equal size")
    days, strategies = returns.shape
    if strategies < 2 or days < 2 * MIN_PERIODS or days < blocks:
        return Overfitting(float("nan"), float("nan"), np.empty(0))
    blocked, halves = _block_sums(returns, blocks), _halves(blocks)
    parts = np.array_split(halves, -(-len(halves) // _CHUNK))
    logits, ratios = map(np.concatenate, zip(*(_tested(blocked, part) for part in parts), strict=True))
    return Overfitting(float(np.mean(logits <= 0.0)), float(np.mean(ratios < 0.0)), logits.ravel())


class _Blocks(NamedTuple):
    """Sums over each block, or over several."""

    days: FloatArray  # (blocks,)
    total: FloatArray  # (blocks, k) of returns less the strategy's mean: squares of the nearly constant would drown
    squares: FloatArray  # (blocks, k) of the same
    mean: FloatArray  # (k,)


def _block_sums(returns: FloatArray, blocks: int) -> _Blocks:
    mean = returns.mean(axis=0)
    first = np.linspace(0, len(returns), blocks, endpoint=False).astype(np.int64)
    days = np.diff(first, append=len(returns)).astype(np.float64)
    total, squares = (np.add.reduceat((returns - mean) ** power, first, axis=0) for power in (1, 2))
    return _Blocks(days, total, squares, mean)


def _halves(blocks: int) -> FloatArray:
    """(ways / 2, blocks): 1 where a block is in the half with the first one; every way and its mirror are one row."""
    chosen = np.array([(0, *others) for others in combinations(range(1, blocks), blocks // 2 - 1)])
    halves = np.zeros((len(chosen), blocks))
    np.put_along_axis(halves, chosen, 1.0, axis=1)
    return halves


def _tested(blocked: _Blocks, halves: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Logits and Sharpe ratios (ways / 2, 2), on the other half, of the best on each half and on its mirror."""
    half = _Blocks(halves @ blocked.days, halves @ blocked.total, halves @ blocked.squares, blocked.mean)
    rest = _Blocks(
        blocked.days.sum() - half.days,
        blocked.total.sum(axis=0) - half.total,
        blocked.squares.sum(axis=0) - half.squares,
        blocked.mean,
    )
    both = _ratios(half), _ratios(rest)
    found = [_ranked(chosen, other) for chosen, other in (both, both[::-1])]
    logits, ratios = (np.stack(one, axis=1) for one in zip(*found, strict=True))
    return logits, ratios


def _ranked(chosen: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Logit of the relative rank, and ratio, (ways,) of the chosen half's best, among ratios (ways, k) of the other."""
    best = np.argmax(chosen, axis=1)[:, None]
    ratio = np.take_along_axis(other, best, axis=1)
    rank = (other < ratio).sum(axis=1) + ((other == ratio).sum(axis=1) + 1) / 2  # ties share their mean rank
    share = rank / (other.shape[1] + 1)
    return np.log(share / (1.0 - share)), ratio[:, 0]


def _ratios(sums: _Blocks) -> FloatArray:
    """Sharpe ratio (ways, k) of one day, of sums over a way's blocks; 0 without variance, as cash."""
    days = sums.days[:, None]
    within = sums.total / days
    spread = np.sqrt(np.maximum(0.0, sums.squares - within * sums.total) / (days - 1.0))
    return np.divide(within + sums.mean, spread, out=np.zeros_like(spread), where=spread > NO_SPREAD)
