"""How large a lot a BUY opens, from the calibrated forecast at each decision time; the policy only says when.

All strategies begin with the size that aims at target_volatility: a bucket with all max_lots lots open holds
w = min(1, target_volatility / yearly sigma) of its equity, one lot w / max_lots. They differ in what the forecast adds.
"""

import math

import numpy as np

from btcai.compiled import compiled
from btcai.config import SizingConfig
from btcai.schema import BARS_PER_YEAR, BoolArray, FloatArray

KELLY_SHARE = 0.5
"""Half of the growth-optimal bet: about three quarters of its growth at half its volatility."""


@compiled
def _normal_cdf(x: FloatArray) -> FloatArray:
    """Standard normal distribution function, elementwise (D,)."""
    out = np.empty(len(x))
    for i in range(len(x)):
        out[i] = 0.5 * math.erfc(-x[i] / math.sqrt(2.0))
    return out


def lot_sizes(
    mean: FloatArray,
    std: FloatArray,
    sigma: FloatArray,
    unfamiliarity: FloatArray,
    horizon_bars: int,
    max_lots: int,
    config: SizingConfig,
) -> tuple[FloatArray, BoolArray]:
    """Forecast log return over horizon_bars, mean (D,) and std (D,), and sigma (D,) of one bar -> what a BUY may open.

    size_frac (D,) share of equity of one lot, 0 .. 1 / max_lots; entry_allowed (D,) bool, False where the predicted
    std / (sigma * sqrt(horizon_bars)) is above max_uncertainty, where the market's unfamiliarity (D,) to the network is
    above max_unfamiliarity, or where the forecast is not finite (size 0 there).

    confidence_adjusted   w * P(return > 0): half of w without an opinion
    uncertainty_adjusted  w with the larger of sigma and the forecast's std per bar: a model in doubt holds less
    full_probabilistic    min(w, half Kelly of the lognormal forecast): nothing where no gain is expected
    fixed                 min(1, target_volatility), whatever is forecast: what the others are held against
    """
    mean, std, sigma = (np.asarray(values, dtype=np.float64) for values in (mean, std, sigma))
    known = np.isfinite(mean) & np.isfinite(std) & np.isfinite(sigma) & (std > 0) & (sigma > 0)
    mean, std, sigma = np.where(known, mean, 0.0), np.where(known, std, 1.0), np.where(known, sigma, 1.0)
    uncertainty = std / (sigma * math.sqrt(horizon_bars))
    yearly = sigma * math.sqrt(BARS_PER_YEAR)
    held = np.minimum(1.0, config.target_volatility / yearly)
    if config.strategy == "confidence_adjusted":
        held = held * _normal_cdf(mean / std)
    elif config.strategy == "uncertainty_adjusted":
        held = np.minimum(1.0, config.target_volatility / (yearly * np.maximum(1.0, uncertainty)))
    elif config.strategy == "full_probabilistic":
        kelly = (mean + std**2 / 2) / std**2  # mean of the simple return / its variance
        held = np.minimum(held, np.maximum(0.0, KELLY_SHARE * kelly))
    else:
        held = np.full(len(mean), min(1.0, config.target_volatility))
    allowed = (uncertainty <= config.max_uncertainty) & (unfamiliarity <= config.max_unfamiliarity)
    return np.where(known, held / max_lots, 0.0), known & allowed
