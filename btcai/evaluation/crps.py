"""Continuous ranked probability score in closed form: of a Student-t, and of what seven quantiles say in between.

CRPS = integral of (F(x) - 1[outcome <= x])^2 dx = 2 * integral over levels of the pinball loss, in the outcome's unit;
lower is better, and the true distribution has the lowest mean (Gneiting and Raftery 2007).
"""

import numpy as np

from btcai.schema import QUANTILE_LEVELS, FloatArray

_LEAST_STEP = 1e-12
"""Between two quantiles that say the same, so that nothing is divided by 0."""


def student_t_crps(outcome: FloatArray, scale: FloatArray, degrees: float) -> FloatArray:
    """Of outcomes (n,) under a Student-t around 0 with scales (n,) > 0 (no standard deviations) and degrees > 1.

    Jordan, Krueger and Lerch 2019 (J. Stat. Softw. 90(12)), appendix A.
    """
    from scipy.special import beta, stdtr  # slow to import, and only reports need it

    z = outcome / scale
    density = (1.0 + z**2 / degrees) ** (-(degrees + 1.0) / 2) / (np.sqrt(degrees) * beta(0.5, degrees / 2))
    spread = 2.0 * np.sqrt(degrees) / (degrees - 1.0) * beta(0.5, degrees - 0.5) / beta(0.5, degrees / 2) ** 2
    around = z * (2.0 * stdtr(degrees, z) - 1.0) + 2.0 * density * (degrees + z**2) / (degrees - 1.0)
    return np.asarray(scale * (around - spread))


def quantile_crps(outcome: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Of outcomes (n,) under the distributions through quantiles (n, Q), rising, at QUANTILE_LEVELS.

    Their quantile function is a straight line from one level to the next and goes on exponentially beyond the outer
    ones, as between the outer two: Q(p) = q_1 + (q_2 - q_1) ln(p / p_1) / ln(p_2 / p_1) below p_1, mirrored above.
    """
    levels = np.asarray(QUANTILE_LEVELS)
    flipped = np.ascontiguousarray(-quantiles[:, ::-1])
    total = _tail(outcome, quantiles, levels) + _tail(-outcome, flipped, 1.0 - levels[::-1])
    for low in range(len(levels) - 1):
        total += _between(outcome, quantiles[:, low], quantiles[:, low + 1], *levels[low : low + 2].tolist())
    return np.asarray(2.0 * total)


def _between(outcome: FloatArray, left: FloatArray, right: FloatArray, low: float, high: float) -> FloatArray:
    """Pinball loss integrated over the levels low .. high, where the quantile goes straight from left to right.

    With d(p) = Q(p) - outcome: the integral of d over the levels past the outcome's own, less that of p d over all.
    """
    share = np.clip((outcome - left) / np.maximum(right - left, _LEAST_STEP), 0.0, 1.0)
    first, last = left - outcome, right - outcome
    past = (high - low) * (1.0 - share) * (first + share * (right - left) + last) / 2
    weighted = (high - low) / 6 * (first * (2 * low + high) + last * (low + 2 * high))
    return np.asarray(past - weighted)


def _tail(outcome: FloatArray, quantiles: FloatArray, levels: FloatArray) -> FloatArray:
    """The same over the levels below the first one, p_1: Q(p) = q_1 + slope ln(p / p_1)."""
    edge, step = float(levels[0]), np.maximum(quantiles[:, 1] - quantiles[:, 0], _LEAST_STEP)
    slope, beyond = step / np.log(levels[1] / levels[0]), np.maximum(0.0, quantiles[:, 0] - outcome)
    left = np.exp(-beyond / slope)  # of the outcome's level, as a share of p_1
    above = edge * ((quantiles[:, 0] - outcome - slope) * (1.0 - left) + beyond * left)
    return np.asarray(above - edge**2 * ((quantiles[:, 0] - outcome) / 2 - slope / 4))
