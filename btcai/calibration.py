"""Static calibration of forecasts: conformal offsets per quantile, a factor on the standard deviation. numpy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


MIN_INDEPENDENT = 30
"""Least number of outcomes that do not overlap for a horizon to be calibrated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StaticCalibration:
    """Added to each predicted quantile (H, Q), and multiplied into each standard deviation (H,)."""

    offset: Array
    std_factor: Array


def fit_static(
    target: Array, known: NDArray[np.bool_], mean: Array, std: Array, quantiles: Array, levels: Array, overlap: Array
) -> StaticCalibration:
    """Offsets that give every predicted quantile its level on held-out outcomes.

    target, known, mean, std (D, H); quantiles (D, H, Q); levels (Q,). The offset of level q is the conformal quantile
    of the residuals target - prediction: the ceil((n + 1) q)-th smallest for q > 0.5, its mirror below (conformalised
    quantile regression, Romano et al. 2019, arXiv 1905.03222, eq. 6 applied to each side). Outcomes overlap: overlap
    (H,) consecutive rows share one, and a horizon with fewer than MIN_INDEPENDENT of them apart is left as it is: a few
    outcomes say where the market went, not how wrong the forecast is.
    """
    n_horizons, n_levels = quantiles.shape[1:]
    offset, factor = np.zeros((n_horizons, n_levels)), np.ones(n_horizons)
    for h in range(n_horizons):
        rows = known[:, h]
        if rows.sum() / overlap[h] < MIN_INDEPENDENT:
            continue
        factor[h] = np.sqrt(np.mean((target[rows, h] - mean[rows, h]) ** 2) / np.mean(std[rows, h] ** 2))
        for q, level in enumerate(levels):
            offset[h, q] = conformal_quantile(target[rows, h] - quantiles[rows, h, q], float(level))
    return StaticCalibration(offset=offset, std_factor=factor)


def conformal_quantile(residual: Array, level: float) -> float:
    """Finite-sample quantile of residuals (n,): the ceil((n + 1) level)-th smallest above one half, mirrored below."""
    if level < 0.5:
        return -conformal_quantile(-residual, 1 - level)
    n = len(residual)
    rank = min(int(np.ceil((n + 1) * level)), n)
    return float(np.partition(residual, rank - 1)[rank - 1])


def coverage(target: Array, known: NDArray[np.bool_], lower: Array, upper: Array) -> Array:
    """Share of known outcomes inside [lower, upper], per horizon: (D, H) -> (H,); nan without outcomes."""
    inside = (target >= lower) & (target <= upper) & known
    with np.errstate(invalid="ignore"):
        return np.asarray(inside.sum(0) / known.sum(0))
