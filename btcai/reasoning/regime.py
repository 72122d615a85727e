"""Regime: does the market trend or range, is it calm or stormy?"""

from collections.abc import Mapping

import numpy as np

from btcai.config import BucketConfig
from btcai.reasoning.records import Component
from btcai.reasoning.situation import Situation, component, normal_share, windows_of
from btcai.reasoning.words import lasting, number, percent, signed
from btcai.schema import FloatArray

NAME = "regime"

TREND_DRIFT, TREND_FIT = 1.0, 0.7
"""Least drift, in standard errors, and least |correlation with time| of a trend: half of the variance is a line's."""

STORM_RATIO = 1.25
"""Volatility of the day over that of the week from which the market is stormy."""


def course(situation: Situation) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Over the trend window, (D,) each: drift in standard errors, correlation with time, and the trend, -1 .. 1.

    Under a random walk the window's return over its own standard deviation is a standard normal number: the
    t-statistic of the drift. (That of a line through prices is not: Granger, Newbold 1974.) A trend is |correlation|
    tanh(t / 2) where line and drift agree, else 0.
    """
    window = situation.windows.trend
    own = {
        72: np.exp(situation.feature("vol_ratio_72_288")),
        288: np.ones(len(situation)),
        2016: np.exp(-situation.feature("vol_ratio_288_2016")),
    }[window]
    drift, fit = situation.feature(f"return_{window}") / own, situation.feature(f"trend_{window}")
    return drift, fit, np.where(drift * fit > 0.0, np.abs(fit) * np.tanh(0.5 * drift), 0.0)


def measure(situation: Situation) -> Component:
    """score = the trend; confidence = share of random walks that drift less, over the storm ratio where above 1."""
    drift, fit, trend = course(situation)
    storm = np.exp(situation.feature("vol_ratio_288_2016"))
    trending = (trend != 0.0) & (np.abs(drift) >= TREND_DRIFT) & (np.abs(fit) >= TREND_FIT)
    return component(
        situation,
        NAME,
        trend,
        normal_share(drift) / np.maximum(1.0, storm),
        {
            "drift_errors": drift,
            "fit": fit,
            "variance_ratio": np.exp(2.0 * situation.feature("variance_ratio_12_288")),
            "storm_ratio": storm,
            "trending": np.where(trending, np.sign(drift), 0.0),
            "stormy": np.where(storm >= STORM_RATIO, 1.0, 0.0),
        },
    )


def sentence(facts: Mapping[str, float], bucket: BucketConfig) -> str:
    window = windows_of(bucket.lookback_bars).trend
    course = {1.0: "Trends up", -1.0: "Trends down"}.get(facts["trending"], "Ranges")
    weather = "stormy" if facts["stormy"] else "calm"
    return (
        f"{course}, {weather}: {signed(facts['drift_errors'])} standard errors of drift over {lasting(window)}, a line "
        f"explains {percent(facts['fit'] ** 2, 0)} of the price; the day's volatility "
        f"is {number(facts['storm_ratio'], 2)} x the week's, the variance ratio {number(facts['variance_ratio'], 2)}."
    )
