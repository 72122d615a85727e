"""What a learner learns on: one bucket's view of one market, and the stretches of it that training samples."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from btcai.config import BucketConfig
from btcai.errors import DataError
from btcai.market.bars import BarArrays
from btcai.market.rules import Rules
from btcai.schema import TOKENS, BoolArray, Float32Array, FloatArray, IntArray, Span

Sizes = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], tuple[FloatArray, BoolArray]]
"""Predicted mean, std (D,) of the shortest horizon's log return, sigma (D,) and unfamiliarity (D,) -> size_frac,
entry_allowed (D,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A bucket on a market: its features (T, F), the compiled market's arrays and rules, and two spans.

    A memory map of features stays one: what stretches hold of it is copied as they are drawn.
    """

    features: Float32Array
    bars: BarArrays
    rules: Rules
    bucket: BucketConfig
    train: Span
    valid: Span
    sizes: Sizes
    equity_usdt: float

    @property
    def patch_bars(self) -> int:
        return self.bucket.patch_bars

    @property
    def target_bars(self) -> IntArray:
        """Over how many bars returns are predicted, (1 + H,): BucketConfig.target_bars."""
        return np.array(self.bucket.target_bars)

    @property
    def horizon_weight(self) -> Float32Array:
        """Of each target in the prediction loss, (1 + H,), mean 1: one over the decisions that share an outcome.

        Outcomes over h decisions overlap h-fold, so a stretch of them tells as little as one over h times as many of
        them apart: with equal weights the gradient is the longest horizon's noise.
        """
        weight = self.patch_bars / self.target_bars
        return np.asarray(weight / weight.mean(), np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretches:
    """S pieces of market of M consecutive decision times each.

    bars (S, M) index of each decision's bar; tokens (S, M + 143, P, F) raw features; target, known (S, M, 1 + H): log
    returns to the next decision and over each horizon in units of sigma * sqrt(horizon), and whether they end inside
    the span.
    """

    bars: IntArray
    tokens: Float32Array
    target: Float32Array
    known: BoolArray

    def part(self, rows: IntArray) -> "Stretches":
        """Some of the stretches."""
        return Stretches(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def sample_stretches(task: Task, span: Span, n: int, decisions: int, rng: np.random.Generator) -> Stretches:
    """n stretches with uniform starts at every phase of the patch; everything they read or earn lies inside `span`.

    DataError when the span is shorter than one lookback and one stretch.
    """
    first, last = start_bars(task, span, decisions)
    return stretches_from(task, span, rng.integers(first, last + 1, n), decisions)


def stretches_from(task: Task, span: Span, starts: IntArray, decisions: int) -> Stretches:
    """The stretches that begin with these decision bars (n,)."""
    return stretches_at(task, span, starts[:, None] + task.patch_bars * np.arange(decisions))


def spread_bars(task: Task, span: Span, n: int, decisions: int) -> IntArray:
    """Decision bars (n, decisions) of stretches whose starts are evenly spread over the span.

    DataError when the span is shorter than one lookback and one stretch.
    """
    first, last = start_bars(task, span, decisions)
    return np.linspace(first, last, n, dtype=np.int64)[:, None] + task.patch_bars * np.arange(decisions)


def start_bars(task: Task, span: Span, decisions: int) -> tuple[int, int]:
    """First and last decision bar that a stretch may begin with: its lookback before it, what it earns after it."""
    first = span.first + TOKENS * task.patch_bars - 1
    last = span.stop - 1 - decisions * task.patch_bars
    if last < first:
        raise DataError(
            f"a stretch of {decisions} decisions needs {(TOKENS + decisions) * task.patch_bars} bars, the span has "
            f"{len(span)}; import more history, or give the span a greater share in params.yaml (splits)"
        )
    return first, last


def stretches_at(task: Task, span: Span, bars: IntArray) -> Stretches:
    """The stretches whose decision times are the given bars (S, M), `patch_bars` apart."""
    patch, m = task.patch_bars, bars.shape[1]
    rows = bars[:, :1] + np.arange(-TOKENS * patch + 1, (m - 1) * patch + 1)
    tokens = task.features[rows].reshape(len(bars), m + TOKENS - 1, patch, -1)
    target, known = forecast_targets(task, span, bars)
    return Stretches(bars=bars, tokens=tokens, target=target, known=known)


def forecast_targets(task: Task, span: Span, bars: IntArray) -> tuple[Float32Array, BoolArray]:
    """Normalised log returns after each bar, (..., 1 + H), known only where the horizon ends inside the span."""
    horizons = task.target_bars
    ends = bars[..., None] + horizons
    known = (ends < span.stop) & task.bars.present[bars][..., None]
    ends = np.minimum(ends, span.stop - 1)
    known &= task.bars.present[ends]
    price_return = np.log(task.bars.mark[ends] / task.bars.mark[bars][..., None])
    target = price_return / (task.bars.sigma[bars][..., None] * np.sqrt(horizons))
    return target.astype(np.float32), known


def clock_decisions(task: Task, span: Span, phase: int) -> IntArray:
    """Every decision bar (D,) of the span at one phase of the patch, past a full lookback, a patch left to fill."""
    first = span.first + TOKENS * task.patch_bars - 1
    first += (phase - first) % task.patch_bars
    return np.arange(first, span.stop - task.patch_bars, task.patch_bars)
