"""What each component of the reasoning is worth, measured: exact Shapley values of the Sharpe ratio of their vote.

Components vote in -1 .. 1 (score * confidence); the weighted sum of votes is the conviction. A position of its sign and
size earns, a decision, conviction * outcome: the sum of what each component earns, weight * vote * outcome. So the
Sharpe ratio of any coalition follows from the means and products of these, and all 2^K of them cost next to nothing.
Worth is a component's Shapley value (Shapley 1953): its mean gain to the ratio over every order in which components can
join. The values add up to the ratio of all together; a component that changes no coalition has none.

Outcomes are taken less their mean over the span: who is always bullish earns no worth from a rising market.

Intervals: the span is cut into BLOCKS blocks, each left out in turn (block jackknife, Kuensch 1989), with Student's t
of BLOCKS - 1 degrees of freedom. Few and long, as Ibragimov and Mueller (2010) advise: slow votes on a drifting market
agree by chance for hundreds of bars, and blocks of two horizons called two useless components in three significant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import factorial

import numpy as np

from btcai.errors import DataError
from btcai.features.splits import Splits
from btcai.schema import FloatArray, IntArray, Span

FAMILY_ERROR = 0.05
"""Chance that any of the components of no worth is called significant; each interval is as much wider."""
MOST_COMPONENTS = 12
BLOCKS = 10
BLOCK_HORIZONS = 2
"""Least length of a block in horizons, for outcomes overlap up to one: shorter ones give no interval, and without one
nothing is significant."""
NO_WORTH = 1e-12

_NO_SPREAD = 1e-12  # variance over mean square: rounding


@dataclass(frozen=True, kw_only=True)
class Worth:
    """One component's part in the Sharpe ratio of a decision; ends of the interval nan where data are insufficient."""

    component: str
    weight: float
    value: float
    """Shapley value; those of all components add up to the ratio of all together."""
    low: float
    high: float
    alone: float
    """The ratio of this component by itself."""
    without: float
    """The ratio of all others: exact ablation."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval holds no 0, beyond what rounding makes of a component that never votes."""
        return self.low > NO_WORTH or self.high < -NO_WORTH


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """The worth of every component over a span, none of it sealed."""

    components: tuple[Worth, ...]
    sharpe: float
    """Of all together, a decision: of outcomes in units of sigma * sqrt(horizon), before costs."""
    span: Span
    decisions: int
    horizon_bars: int


def attribute(
    votes: FloatArray,
    outcome: FloatArray,
    decisions: IntArray,
    weights: Mapping[str, float],
    *,
    horizon_bars: int,
    span: Span,
    splits: Splits,
) -> Attribution:
    """votes (D, K), columns in the order of weights, outcome (D,) over horizon_bars from decisions (D,) on -> worths.

    decisions are bars, ascending; an outcome that is not finite is left out. DataError where the span reaches into the
    sealed one; ValueError where a decision or its outcome lies outside the span.
    """
    refuse_sealed(span, splits)
    if len(decisions) and (decisions.min() < span.first or decisions.max() + horizon_bars >= span.stop):
        raise ValueError(
            f"decisions and their outcomes must lie inside bars {span.first} .. {span.stop - 1}, were from bar "
            f"{decisions.min()} to {decisions.max() + horizon_bars}; leave out those that do not"
        )
    if votes.shape != (len(outcome), len(weights)) or not 1 <= len(weights) <= MOST_COMPONENTS:
        raise ValueError(
            f"votes must be (decisions, components) with 1 to {MOST_COMPONENTS} components, was {votes.shape}"
        )
    weight = np.array(list(weights.values()), np.float64)
    known = np.isfinite(outcome) & np.isfinite(votes).all(axis=1)
    beyond_drift = outcome[known] - outcome[known].mean() if known.any() else outcome[known]
    earned = weight * votes[known] * beyond_drift[:, None]
    bar = decisions[known] - decisions[0] if len(decisions) else decisions
    bars = int(bar.max(initial=0)) + 1
    moments = block_moments(earned, bar * BLOCKS // bars)
    ratios = coalition_sharpes(moments.sum(axis=0), len(weight))
    value, everyone = shapley(ratios), len(ratios) - 1
    half = _half_widths(moments, len(weight), bars >= BLOCKS * BLOCK_HORIZONS * horizon_bars)
    worths = [
        Worth(
            component=name,
            weight=float(weight[k]),
            value=float(value[k]),
            low=float(value[k] - half[k]),
            high=float(value[k] + half[k]),
            alone=float(ratios[1 << k]),
            without=float(ratios[everyone - (1 << k)]),
        )
        for k, name in enumerate(weights)
    ]
    return Attribution(
        components=tuple(worths),
        sharpe=float(ratios[everyone]),
        span=span,
        decisions=int(known.sum()),
        horizon_bars=horizon_bars,
    )


def refuse_sealed(span: Span, splits: Splits) -> None:
    """DataError where bars of the span are sealed, or come after."""
    if span.stop > splits.sealed.first:
        raise DataError(
            f"what is learned must end before the sealed span (bar {splits.sealed.first}), was from bars {span.first} "
            f".. {span.stop - 1}; learn from a fold of the test span"
        )


def shapley(values: FloatArray) -> FloatArray:
    """Value of every coalition (2^K, ...), that of the set bits of its index -> Shapley values (K, ...).

    phi_k = sum over coalitions S without k of |S|! (K - |S| - 1)! / K! * (v(S + k) - v(S)).
    """
    n = len(values).bit_length() - 1
    if len(values) != 1 << n:
        raise ValueError(f"there must be a value for each of 2^K coalitions, were {len(values)}")
    size = np.array([coalition.bit_count() for coalition in range(1 << n)])
    share = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    worth = np.empty((n, *values.shape[1:]))
    for k in range(n):
        without = np.flatnonzero(~np.arange(1 << n) & (1 << k))
        worth[k] = np.tensordot(share[size[without]], values[without + (1 << k)] - values[without], 1)
    return worth


def block_moments(earned: FloatArray, block: IntArray) -> FloatArray:
    """earned (D, K) by component, block (D,) ascending -> sums a block (B, 1 + K + K K): count, firsts, products."""
    n, k = earned.shape
    products = (earned[:, :, None] * earned[:, None, :]).reshape(n, k * k)
    rows = np.column_stack([np.ones(n), earned, products])
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    return np.add.reduceat(rows, starts, axis=0) if n else rows


def coalition_sharpes(moments: FloatArray, n_components: int) -> FloatArray:
    """Sums (..., 1 + K + K K) of block_moments -> Sharpe ratio a decision of every coalition, (2^K, ...).

    0 for the empty one and where nothing varies.
    """
    n = n_components
    member = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
    count = np.maximum(moments[..., 0], 1.0)
    mean = (moments[..., 1 : 1 + n] / count[..., None]) @ member.T
    second = (moments[..., 1 + n :] / count[..., None]).reshape(*moments.shape[:-1], n, n)
    square = np.einsum("...ij,ci,cj->...c", second, member, member, optimize=True)
    variance = square - mean**2
    spread = np.sqrt(np.maximum(variance, 0.0))
    ratio = np.divide(mean, spread, out=np.zeros_like(mean), where=variance > _NO_SPREAD * square)
    return np.moveaxis(ratio, -1, 0)


def _half_widths(moments: FloatArray, n_components: int, long_enough: bool) -> FloatArray:
    """Half the widths (K,) of intervals that together err FAMILY_ERROR of the time at most (Bonferroni)."""
    blocks = len(moments)
    if not long_enough or blocks < BLOCKS:
        return np.full(n_components, np.nan)
    from scipy.stats import t  # slow to import, and only reports need it

    worth = shapley(coalition_sharpes(moments.sum(axis=0) - moments, n_components))  # (K, BLOCKS)
    error = np.sqrt((blocks - 1) * worth.var(axis=1))
    return np.asarray(error * t.ppf(1.0 - FAMILY_ERROR / n_components / 2, blocks - 1))
