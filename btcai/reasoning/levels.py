"""Support and resistance: prices at which the market turned before."""

import math
from collections.abc import Mapping

import numpy as np

from btcai.compiled import compiled
from btcai.config import BucketConfig
from btcai.reasoning.records import Component
from btcai.reasoning.situation import Situation, component
from btcai.reasoning.words import capital, counted, lasting, number
from btcai.schema import TOKENS, BoolArray, FloatArray, IntArray

NAME = "support_resistance"

SWING_PATCHES = 6
"""A swing is the extreme of so many patches on either side, and known when the later ones have closed."""
TOUCH = 0.5
"""Swings this near to a level, in sigmas of a patch, touched it."""
FARTHEST = math.sqrt(TOKENS)
"""Sigmas of a patch that count as the way to a level where there is none: one sigma of the lookback."""


def measure(situation: Situation) -> Component:
    """Swing highs and lows of the lookback are levels; which one is support depends on where the price is now.

    (A broken resistance supports: Edwards, Magee 1948; that such levels interrupt trends: Osler 2000.) Of the levels
    below, support is the one with the most touches for its distance, touches / (1 + sigmas); resistance the same above.
    score = (way up - way down) / (way up + way down); confidence = n / (n + 4) for n touches of both, times
    reach / (reach + way to the nearer), reach: the move expected over the shortest horizon.
    """
    bucket, bars, sigma = situation.bucket, situation.data.bars, situation.sigma_patch
    half = SWING_PATCHES * bucket.patch_bars
    rows, prices = swings(bars.high, bars.low, half)
    first = np.searchsorted(rows, situation.decisions - bucket.lookback_bars + 1)
    stop = np.searchsorted(rows, situation.decisions - half, side="right")
    with np.errstate(invalid="ignore", divide="ignore"):  # nan where no price is known
        place = np.log(situation.mark)
    levels = _levels(np.log(prices), first, stop, place, sigma)
    down, up = (np.where(np.isnan(way), FARTHEST, np.minimum(way, FARTHEST)) for way in (levels[1], levels[4]))
    touches = np.nan_to_num(levels[2]) + np.nan_to_num(levels[5])
    reach = math.sqrt(bucket.horizons_bars[0] / bucket.patch_bars)
    whole = down + up
    return component(
        situation,
        NAME,
        np.where(whole > 0.0, (up - down) / np.where(whole > 0.0, whole, 1.0), 0.0),
        touches / (touches + 4.0) * reach / (reach + np.minimum(down, up)),
        {
            "support_usdt": np.exp(levels[0]),
            "support_sigmas": levels[1],
            "support_touches": levels[2],
            "resistance_usdt": np.exp(levels[3]),
            "resistance_sigmas": levels[4],
            "resistance_touches": levels[5],
        },
    )


def swings(high: FloatArray, low: FloatArray, half: int) -> tuple[IntArray, FloatArray]:
    """Rows (N,), ascending, and prices (N,) at which a high or a low was the extreme of `half` rows on either side.

    The first of equal ones counts; missing rows (nan) contradict none and are none. Row i is known at row i + half.
    """
    top, bottom = _extreme(high, half), _extreme(-low, half)
    rows = np.concatenate((np.flatnonzero(top), np.flatnonzero(bottom)))
    prices = np.concatenate((high[top], low[bottom]))
    order = np.argsort(rows, kind="stable")
    return rows[order], prices[order]


@compiled
def _extreme(values: FloatArray, half: int) -> BoolArray:
    """Whether each of values (T,) is the first largest of the rows i - half .. i + half, all of them inside."""
    found = np.zeros(len(values), np.bool_)
    for i in range(half, len(values) - half):
        largest = not np.isnan(values[i])
        for k in range(1, half + 1):
            if values[i - k] >= values[i] or values[i + k] > values[i]:
                largest = False
            if not largest:
                break
        found[i] = largest
    return found


@compiled
def _levels(prices: FloatArray, first: IntArray, stop: IntArray, place: FloatArray, sigma: FloatArray) -> FloatArray:
    """Support's log price, sigmas below and touches, and resistance's, sigmas above (6, D); nan where there is none.

    prices (N,) logs of the swings; those first[d] .. stop[d] - 1 are a decision's; place (D,) is the log of its price.
    """
    out = np.full((6, len(place)), np.nan)
    for d in range(len(place)):
        best = np.zeros(2)
        for i in range(first[d], stop[d]):
            way = (prices[i] - place[d]) / sigma[d]
            side = 1 if way > 0.0 else 0
            touches = 0.0
            for k in range(first[d], stop[d]):
                if abs(prices[k] - prices[i]) <= TOUCH * sigma[d]:
                    touches += 1.0
            worth = touches / (1.0 + abs(way))
            if worth > best[side]:
                best[side] = worth
                out[3 * side, d], out[3 * side + 1, d], out[3 * side + 2, d] = prices[i], abs(way), touches
    return out


def sentence(facts: Mapping[str, float], bucket: BucketConfig) -> str:
    unit = f"sigma of {lasting(bucket.patch_bars)}"
    told = [
        f"{name} at {number(facts[f'{name}_usdt'], 0)} USDT, {number(facts[f'{name}_sigmas'])} {unit} {side}, "
        f"{counted(facts[f'{name}_touches'], 'turn')}"
        if math.isfinite(facts[f"{name}_usdt"])
        else f"no {name} {side} in {lasting(bucket.lookback_bars)}"
        for name, side in (("support", "below"), ("resistance", "above"))
    ]
    return f"{capital('; '.join(told))}."
