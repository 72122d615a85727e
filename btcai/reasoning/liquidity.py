"""Liquidity: how much is traded, on which side, and what a lot would cost by the market's own rules."""

import math
from collections.abc import Mapping

import numpy as np

from btcai.compiled import compiled
from btcai.config import BucketConfig
from btcai.market.execution import slippage_frac
from btcai.reasoning.records import Component
from btcai.reasoning.situation import Situation, component, percentile, windows_of
from btcai.reasoning.words import lasting, number, percent, signed_percent
from btcai.schema import FloatArray

NAME = "liquidity"
HOUR_BARS = 12


def measure(situation: Situation) -> Component:
    """score = balance of the volume, bars that rose against bars that fell (Chordia, Roll, Subrahmanyam 2002).

    confidence = move / (move + round trip), move: one sigma of the shortest horizon; less where one bar does not take
    the lot. Costs are a taker's at the last hour's mean volume, of the largest lot: the equity over max_lots.
    """
    bucket, rules, bars = situation.bucket, situation.rules, situation.data.bars
    volume = np.where(bars.present, bars.volume, np.nan)
    hourly = situation.mean(volume, HOUR_BARS)[situation.decisions]
    patch_volume = situation.mean(volume, bucket.patch_bars)
    lot_usdt = situation.equity_usdt / bucket.max_lots
    lot_btc = lot_usdt / situation.mark
    slippage = _slippage(rules.half_spread_frac, rules.impact_coef, situation.sigma, lot_btc, hourly)
    cost = rules.taker_fee_frac + slippage
    move = situation.sigma * math.sqrt(bucket.horizons_bars[0])
    filled = np.minimum(1.0, rules.max_volume_share * hourly / lot_btc)
    return component(
        situation,
        NAME,
        situation.feature(f"imbalance_{situation.windows.flow}"),
        move / (move + 2.0 * cost) * filled,
        {
            "volume_percentile": percentile(patch_volume, situation.decisions, bucket.patch_bars),
            "day_to_week_volume": np.exp(situation.feature("volume_ratio_288_2016")),
            "flow": situation.feature(f"imbalance_{situation.windows.flow}"),
            "spread_bps": 1e4 * situation.feature("corwin_schultz_288") * situation.sigma,
            "lot_usdt": np.full(len(situation), lot_usdt),
            "cost_bps": 1e4 * cost,
            "move_bps": 1e4 * move,
            "filled_frac": filled,
        },
    )


@compiled
def _slippage(
    half_spread_frac: float, impact_coef: float, sigma: FloatArray, quantity_btc: FloatArray, volume_btc: FloatArray
) -> FloatArray:
    """market.execution.slippage_frac of each decision (D,)."""
    out = np.empty(len(sigma))
    for d in range(len(sigma)):
        out[d] = slippage_frac(half_spread_frac, impact_coef, sigma[d], quantity_btc[d], volume_btc[d])
    return out


def sentence(facts: Mapping[str, float], bucket: BucketConfig) -> str:
    flow = windows_of(bucket.lookback_bars).flow
    whole = facts["filled_frac"] >= 1.0
    taken = "" if whole else f", of which one bar takes {percent(facts['filled_frac'], 0)}"
    return (
        f"Volume above {percent(facts['volume_percentile'], 0)} of the last {lasting(bucket.lookback_bars)}; rising "
        f"less falling bars' share over {lasting(flow)}: {signed_percent(facts['flow'], 0)}; a lot of "
        f"{number(facts['lot_usdt'], 0)} USDT costs {number(facts['cost_bps'])} bp a side{taken}, one sigma of "
        f"{lasting(bucket.horizons_bars[0])} is {number(facts['move_bps'], 0)} bp."
    )
