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

_STRATEGIES = ("confidence_adjusted", "uncertainty_adjusted", "full_probabilistic", "fixed")
_CONFIDENCE_ADJUSTED, _UNCERTAINTY_ADJUSTED, _FULL_PROBABILISTIC = range(3)


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
    forecast = np.array([mean, std, sigma, unfamiliarity], np.float64)  # ValueError unless all are (D,)
    size_frac, allowed = np.empty(len(mean)), np.empty(len(mean), np.bool_)
    _size_each(
        forecast,
        horizon_bars,
        max_lots,
        _STRATEGIES.index(config.strategy),
        config.target_volatility,
        config.max_uncertainty,
        config.max_unfamiliarity,
        size_frac,
        allowed,
    )
    return size_frac, allowed


@compiled
def _size_each(
    forecast: FloatArray,
    horizon_bars: int,
    max_lots: int,
    strategy: int,
    target_volatility: float,
    max_uncertainty: float,
    max_unfamiliarity: float,
    size_frac: FloatArray,
    allowed: BoolArray,
) -> None:
    """lot_sizes into size_frac (D,) and allowed (D,); forecast (4, D) as lot_sizes has it, strategy: its place in
    _STRATEGIES."""
    for i in range(forecast.shape[1]):
        mean, std, sigma, unfamiliarity = forecast[0, i], forecast[1, i], forecast[2, i], forecast[3, i]
        size_frac[i], allowed[i] = 0.0, False
        if math.isfinite(mean) and math.isfinite(std) and math.isfinite(sigma) and std > 0.0 and sigma > 0.0:
            uncertainty = std / (sigma * math.sqrt(horizon_bars))
            held = _held_frac(mean, std, sigma * math.sqrt(BARS_PER_YEAR), uncertainty, strategy, target_volatility)
            size_frac[i] = held / max_lots
            allowed[i] = uncertainty <= max_uncertainty and unfamiliarity <= max_unfamiliarity


@compiled
def _held_frac(
    mean: float, std: float, yearly: float, uncertainty: float, strategy: int, target_volatility: float
) -> float:
    """Share of the equity that all lots hold, at a yearly volatility."""
    held = min(1.0, target_volatility / yearly)
    if strategy == _CONFIDENCE_ADJUSTED:
        return held * (0.5 * math.erfc(-(mean / std) / math.sqrt(2.0)))  # the normal distribution function
    if strategy == _UNCERTAINTY_ADJUSTED:
        return min(1.0, target_volatility / (yearly * max(1.0, uncertainty)))
    if strategy == _FULL_PROBABILISTIC:
        kelly = (mean + std**2 / 2) / std**2  # mean of the simple return / its variance
        return np.minimum(held, np.maximum(0.0, KELLY_SHARE * kelly))  # type: ignore[no-any-return]  # a nan stays one
    return min(1.0, target_volatility)
