"""Trades as long, as large and as many as a strategy's, at times drawn by chance: what its timing has to beat."""

from dataclasses import dataclass

import numpy as np

from btcai.evaluation.result import BacktestResult
from btcai.schema import BoolArray, FloatArray, IntArray

_TRADED = 1e-9
"""A holding that changed by less than this share of itself was not traded."""
_MOSTLY = 0.5
"""A single time in the market that is longer than this share of the span is turned around it, not shifted inside."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """A strategy's m times in the market, each from one flat bar to the next, and the q trades inside them.

    n_bars: of the span; entered, left (m,): a time's first bar and the flat bar after it; time, after (q,): in which of
    them a trade was and how many bars after its first; share (q,): of equity held from there on.
    """

    n_bars: int
    entered: IntArray
    left: IntArray
    time: IntArray
    after: IntArray
    share: FloatArray


def course_of(result: BacktestResult, mark: FloatArray) -> Course:
    """What was held and when; mark (n,): of the strategy's span. Shorts are left out: targets are long."""
    share = np.clip(result.position_frac, 0.0, 1.0)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], share > 0.0, [False]))))
    entered, left = edges[::2], edges[1::2]
    bars = np.flatnonzero(_traded(share, result.equity_usdt, mark) & (share > 0.0))
    time = np.searchsorted(entered, bars, side="right") - 1
    return Course(
        n_bars=len(share), entered=entered, left=left, time=time, after=bars - entered[time], share=share[bars]
    )


def random_targets(course: Course, rng: np.random.Generator) -> FloatArray:
    """Targets (n,): the strategy's own times in the market, in another order and begun at random.

    Each keeps its length and its course of trades, as shares of equity, and begins after any of the flat bars. Who
    was in the market but once, and most of the span, keeps his course turned around the span by any number of bars.
    Follow the targets with band_frac=0.
    """
    lengths, n = course.left - course.entered, course.n_bars
    if len(lengths) == 1 and lengths[0] > _MOSTLY * n:
        return _turned(course, int(rng.integers(n)))
    order, begins = rng.permutation(len(lengths)), np.empty_like(lengths)
    begins[order] = _begins(lengths[order], n, rng)
    targets, ends = np.full(n, np.nan), begins + lengths
    targets[ends[ends < n]] = 0.0
    targets[begins[course.time] + course.after] = course.share
    return targets


def _turned(course: Course, bars: int) -> FloatArray:
    """A course of one time in the market, begun `bars` later; what leaves the span at its end comes in at its start."""
    first, n = int(course.entered[0]), course.n_bars
    held = np.full(n, np.nan)
    held[first + course.after] = course.share
    held[int(course.left[0]) % n] = 0.0  # flat afterwards, or from the start where it lasted to the end
    turned = np.roll(held, bars - 1)
    known = np.flatnonzero(np.isfinite(held))
    if np.isnan(turned[0]):  # what is held there was decided before: the last trade up to that bar, around the end
        place = (1 - bars) % n
        turned[0] = held[known[np.searchsorted(known, place, side="right") - 1]]
    return turned


def _traded(share: FloatArray, equity_usdt: FloatArray, mark: FloatArray) -> BoolArray:
    """Where (n,) the bitcoin held changed; mark may be nan while nothing is held."""
    btc = np.where(share > 0.0, share * equity_usdt / mark, 0.0)
    traded: BoolArray = np.abs(np.diff(btc, prepend=0.0)) > _TRADED * btc
    return traded


def _begins(lengths: IntArray, n_bars: int, rng: np.random.Generator) -> IntArray:
    """Bars (m,) at whose close episodes of these lengths, in this order, begin: any m of the flat bars, as likely."""
    flat = n_bars - int(lengths.sum())
    chosen = np.sort(rng.choice(flat, len(lengths), replace=False))
    return chosen + np.cumsum(lengths) - lengths
