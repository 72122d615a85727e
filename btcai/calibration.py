"""Calibration of forecasts on outcomes: conformal offsets, a temperature, offsets that follow the market. numpy only.

All in units of sigma * sqrt(horizon), in which residuals of every bucket and horizon are of the size of 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MIN_INDEPENDENT = 30
"""Least number of outcomes that do not overlap for a horizon to be calibrated."""

MAX_TEMPERATURE = 100.0
"""Largest temperature, and 1 / the smallest one: at this one every probability is a half."""

STEP_START, STEP_FLOOR = 0.5, 0.02
"""First and least step of the adaptive offsets an independent outcome: the least after 625 of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StaticCalibration:
    """What is fitted on held-out outcomes, once, and goes into the bundle."""

    offset: FloatArray
    """(H, Q), added to each predicted quantile."""
    std_factor: FloatArray
    """(H,), multiplied into each standard deviation."""
    temperature: FloatArray
    """(H,) >= 1, what the log odds of a rise (rise_log_odds) are to be divided by: dividing the mean does that."""


def fit_static(
    target: Array, known: BoolArray, mean: Array, std: Array, quantiles: Array, levels: Array, overlap: Array
) -> StaticCalibration:
    """Offsets that give every predicted quantile its level on held-out outcomes, and the scales of std and mean.

    target, known, mean, std (D, H); quantiles (D, H, Q); levels (Q,). The offset of level q is the conformal quantile
    of the residuals target - prediction: the ceil((n + 1) q)-th smallest for q > 0.5, its mirror below (conformalised
    quantile regression, Romano et al. 2019, arXiv 1905.03222, eq. 6 applied to each side). Outcomes overlap: overlap
    (H,) consecutive rows share one, and a horizon with fewer than MIN_INDEPENDENT of them apart is left as it is: a few
    outcomes say where the market went, not how wrong the forecast is.
    """
    n_horizons, n_levels = quantiles.shape[1:]
    offset, factor, temperature = np.zeros((n_horizons, n_levels)), np.ones(n_horizons), np.ones(n_horizons)
    for h in range(n_horizons):
        rows = known[:, h]
        if rows.sum() / overlap[h] < MIN_INDEPENDENT:
            continue
        factor[h] = np.sqrt(np.mean((target[rows, h] - mean[rows, h]) ** 2) / np.mean(std[rows, h] ** 2))
        for q, level in enumerate(levels):
            offset[h, q] = conformal_quantile(target[rows, h] - quantiles[rows, h, q], float(level))
        log_odds = rise_log_odds(mean[rows, h], std[rows, h] * factor[h])
        # Never below 1: what looks too timid on a held-out span was luck on the one after it.
        temperature[h] = max(1.0, fit_temperature(log_odds, target[rows, h] > 0, float(overlap[h])))
    return StaticCalibration(offset=offset, std_factor=factor, temperature=temperature)


def conformal_quantile(residual: Array, level: float) -> float:
    """Finite-sample quantile of residuals (n,): the ceil((n + 1) level)-th smallest above one half, mirrored below."""
    if level < 0.5:
        return -conformal_quantile(-residual, 1 - level)
    n = len(residual)
    rank = min(int(np.ceil((n + 1) * level)), n)
    return float(np.partition(residual, rank - 1)[rank - 1])


def coverage(target: Array, known: BoolArray, lower: Array, upper: Array) -> Array:
    """Share of known outcomes inside [lower, upper], per horizon: (D, H) -> (H,); nan without outcomes."""
    inside = (target >= lower) & (target <= upper) & known
    with np.errstate(invalid="ignore"):
        return np.asarray(inside.sum(0) / known.sum(0))


def rise_log_odds(mean: Array, std: Array) -> FloatArray:
    """Log odds (n,) that a normal forecast gives a rise: logit(Phi(mean / std)), as market.sizing reads it.

    About 1.6 mean / std: to 1 % below half a std.
    """
    z = np.clip(np.asarray(mean, np.float64) / std, -8.0, 8.0) / math.sqrt(2.0)
    tail = np.frompyfunc(math.erfc, 1, 1)
    return np.asarray(np.log(np.asarray(tail(-z) / tail(z), np.float64)))


def fit_temperature(logit: Array, outcome: BoolArray, overlap: float = 1.0) -> float:
    """What log odds (n,) of an event must be divided by to fit whether it came (n,): above 1 they were too sure.

    The maximum of the likelihood (Guo et al. 2017, arXiv 1706.04599, section 4.2, for two classes), found by bisection:
    the slope of the likelihood falls in 1 / temperature. Within 1 / MAX_TEMPERATURE .. MAX_TEMPERATURE, the larger end
    where the event came more often the less likely it was called; 1 with fewer than MIN_INDEPENDENT outcomes apart, of
    which `overlap` rows share one, and where nothing was said (all log odds 0).
    """
    if len(logit) / overlap < MIN_INDEPENDENT or not np.any(logit):
        return 1.0
    x, came = np.asarray(logit, np.float64), np.asarray(outcome, np.float64)
    low, high = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)
    for _ in range(60):  # to 1e-17 of the range
        middle = (low + high) / 2
        likelier_hotter = x @ (came - sigmoid(x * np.exp(-middle))) < 0
        low, high = (middle, high) if likelier_hotter else (low, middle)
    return float(np.exp((low + high) / 2))


def temperature_interval(logit: Array, temperature: float, overlap: float = 1.0) -> tuple[float, float]:
    """95 % interval of a fitted temperature, from the Fisher information that outcomes apart hold of 1 / temperature.

    The high end is inf where the log odds (n,) may as well say nothing.
    """
    p = sigmoid(np.asarray(logit, np.float64) / temperature)
    information = float(np.sum(np.square(logit) * p * (1.0 - p))) / overlap
    half = 1.96 / np.sqrt(information) if information > 0 else np.inf
    slope = 1.0 / temperature
    return 1.0 / (slope + half), 1.0 / (slope - half) if slope > half else np.inf


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, elementwise."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptiveCalibration:
    """Offsets of the predicted quantiles that follow the outcomes: all that is kept from one decision to the next.

    The first and the last level are a pair, so are the second and the last but one, and so on: each moves outwards by
    step / 2 * p with every outcome outside it and inwards by step / 2 * (1 - p) with every one inside, where p is the
    share that it promises to hold: adaptive conformal inference (Gibbs and Candes 2021, arXiv 2106.00170, eq. 2) on the
    quantiles themselves (quantile tracking, Angelopoulos et al. 2023, arXiv 2307.16896) with the score of conformalised
    quantile regression, so that there is no window of scores to keep and no infinite interval. A median stays: offsets
    of each level on its own follow where the market went, and call that a forecast. On bitcoin's returns of 2022 and
    2023, over 15 minutes to a day, those made the mean CRPS of a network's quantiles up to .5 % worse or better, pairs
    .1 % worse to .6 % better, at the same coverage. An outcome is held against the quantiles that were issued for it,
    which came from older offsets: feedback a horizon late. Quantiles that the offsets would make cross are issued at
    the mean of those that do, and learn from what was issued (Ding et al. 2025, arXiv 2512.23671).

    The step is STEP_START over the root of the independent outcomes seen, at least STEP_FLOOR (Angelopoulos et al.
    2024, arXiv 2402.01139), divided by `overlap`, for that many consecutive outcomes tell no more than one. It replaces
    experts that vote on the step (AgACI, arXiv 2202.07282; DtACI, 2208.08401), which nothing makes hold their level.

    With scores (by how much an outcome lies outside a pair as predicted, below 0 inside; and 0) in a range R, at most d
    outcomes waited for and steps falling from s_1 to s_T, the share of T outcomes inside the pair differs from p by at
    most (2 R + (1 + d) s_1) / (s_T T), whatever the outcomes: an offset never leaves a range of R + (1 + d) s_1 / 2,
    and the misses are its moves over half the steps (as in arXiv 2402.01139, where d = 0). So for a pair on its own;
    that it holds for several that keep each other in order is tested, not proven.
    """

    levels: FloatArray
    """(Q,) rising."""
    overlap: FloatArray
    """(H,) consecutive decisions that share one independent outcome: horizon / patch, at least 1."""
    offset: FloatArray
    """(H, Q), in units of sigma * sqrt(horizon)."""
    updates: IntArray
    """(H,) outcomes learned from."""


def new_adaptive(levels: Array, overlap: Array) -> AdaptiveCalibration:
    """Offsets of 0 for levels (Q,) and overlap (H,)."""
    return AdaptiveCalibration(
        levels=np.asarray(levels, np.float64),
        overlap=np.asarray(overlap, np.float64),
        offset=np.zeros((len(overlap), len(levels))),
        updates=np.zeros(len(overlap), np.int64),
    )


def overlap_and_delay(horizons_bars: Sequence[int] | IntArray, patch_bars: int) -> tuple[FloatArray, IntArray]:
    """Of decisions every patch_bars: how many consecutive ones share an outcome of each horizon, overlap (H,) >= 1, and
    after how many it has ended, delay (H,) >= 1."""
    patches = np.asarray(horizons_bars) / patch_bars
    return np.maximum(1.0, patches), np.ceil(patches).astype(np.int64)


def adjust(state: AdaptiveCalibration, quantiles: Array) -> FloatArray:
    """The forecast of one decision, (H, Q), as it is to be issued: offsets added, in order."""
    return in_order(quantiles + state.offset)


def learn(state: AdaptiveCalibration, issued: Array, outcome: Array, known: BoolArray) -> AdaptiveCalibration:
    """The state after one outcome of each horizon (H,) became known, beside what was issued for it (H, Q).

    The horizons' outcomes may be of different decisions. One that is not known, or not a finite number, or whose
    forecast was not, changes nothing.
    """
    usable = known & np.isfinite(outcome) & np.isfinite(issued).all(axis=1)
    independent = np.maximum(1.0, state.updates / state.overlap)
    step = usable * np.maximum(STEP_FLOOR, STEP_START / np.sqrt(independent)) / state.overlap
    over = state.levels - (outcome[:, None] <= issued)
    return AdaptiveCalibration(
        levels=state.levels,
        overlap=state.overlap,
        offset=state.offset + step[:, None] * (over - over[:, ::-1]) / 2,  # both of a pair, as far apart
        updates=state.updates + usable,
    )


def follow(
    state: AdaptiveCalibration, quantiles: Array, outcome: Array, known: BoolArray, delay: IntArray
) -> tuple[FloatArray, AdaptiveCalibration]:
    """Issue the forecasts (D, H, Q) of consecutive decisions, learning at each from what became known at it.

    outcome, known (D, H); delay (H,) >= 1: decisions until a horizon has ended, so that row d learns of row d - delay.
    Returns the issued quantiles (D, H, Q) and the state after the last row. A row at a time is the same, bit for bit.
    """
    issued = np.empty(quantiles.shape)
    horizons = np.arange(len(delay))
    for d in range(len(quantiles)):
        ended = d - delay
        at = np.maximum(ended, 0), horizons
        state = learn(state, issued[at], outcome[at], known[at] & (ended >= 0))
        issued[d] = adjust(state, quantiles[d])
    return issued, state


def in_order(values: Array) -> FloatArray:
    """The closest rising values to each row (..., Q): isotonic regression, by its max-min form."""
    rising = (values[..., 1:] >= values[..., :-1]).all(axis=-1, keepdims=True)
    if rising.all():
        return np.asarray(values, np.float64)
    n = values.shape[-1]
    first, last = np.arange(n)[:, None], np.arange(n)  # of a block of values that are issued as their mean
    sums = np.zeros((*values.shape[:-1], n + 1))
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    means = (sums[..., None, 1:] - sums[..., :-1, None]) / np.maximum(last + 1 - first, 1)
    smallest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]  # [j, i]: over blocks j .. k with k >= i
    return np.where(rising, values, np.where(first <= last, smallest, -np.inf).max(axis=-2))
