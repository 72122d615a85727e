"""Volatility: how high beside its own past, which way it leans, how far a horizon may go."""

import math
from collections.abc import Mapping

import numpy as np

from btcai.config import BucketConfig
from btcai.reasoning.records import Component
from btcai.reasoning.situation import Situation, component, percentile
from btcai.reasoning.words import lasting, number, percent
from btcai.schema import BARS_PER_YEAR

NAME = "volatility"


def measure(situation: Situation) -> Component:
    """score = half of which way the day's variance came from, less half tanh of how far the day is above the week.

    Variance from rises and from falls apart: Barndorff-Nielsen, Kinnebrock, Shephard 2010; volatility rises as prices
    fall: Black 1976. confidence = share of the variance that did not come in jumps, whose size nobody can estimate.
    """
    horizons = situation.bucket.horizons_bars
    week = situation.feature("vol_ratio_288_2016")
    jumps = np.clip(situation.feature("jump_288"), 0.0, 1.0)
    return component(
        situation,
        NAME,
        0.5 * situation.feature("signed_variance_288") - 0.5 * np.tanh(week),
        1.0 - jumps,
        {
            "yearly_frac": situation.sigma * math.sqrt(BARS_PER_YEAR),
            "percentile": percentile(situation.data.sigma, situation.decisions, situation.bucket.patch_bars),
            "hour_to_day": np.exp(situation.feature("vol_ratio_12_288")),
            "six_hours_to_day": np.exp(situation.feature("vol_ratio_72_288")),
            "day_to_week": np.exp(week),
            "from_jumps": jumps,
            **{f"move_{bars}_frac": situation.sigma * math.sqrt(bars) for bars in horizons},
        },
    )


def sentence(facts: Mapping[str, float], bucket: BucketConfig) -> str:
    moves = ", ".join(f"{percent(facts[f'move_{bars}_frac'], 2)} in {lasting(bars)}" for bars in bucket.horizons_bars)
    return (
        f"{percent(facts['yearly_frac'], 0)} a year, above {percent(facts['percentile'], 0)} of the last "
        f"{lasting(bucket.lookback_bars)}; hour / day {number(facts['hour_to_day'], 2)}, day / week "
        f"{number(facts['day_to_week'], 2)}, {percent(facts['from_jumps'], 0)} in jumps; one sigma: {moves}."
    )
