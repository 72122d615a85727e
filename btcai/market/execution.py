"""What an order gets: price worse by half the spread and by square-root impact, quantity capped by the bar's volume.

Impact: impact_coef * sigma * sqrt(quantity / volume) of the price (the square-root law of Donier and Bonart,
arXiv 1412.4503), sigma of one bar known before the fill. quantity / volume counts as 1 at most: a forced stop on a bar
without volume pays the impact of taking the whole bar. A resting order gets its own price and the maker's fee. Prices
are rounded to the tick against the trader, quantities down to the lot step.
"""

import math

from btcai.compiled import inlined
from btcai.market.account import TRADED_BEFORE, TRADED_USDT
from btcai.market.bars import BarArrays
from btcai.market.rules import Rules, Tiers
from btcai.schema import FEE_TIERS, FloatArray

_NEARLY = 1e-12  # relative: a quantity or price that is a multiple but for its rounding is one
NOT_QUITE = 1.0 - 1e-11  # rounding must not take cash below zero; beyond _NEARLY, or chance decides on cash's last step


@inlined
def slippage_frac(
    half_spread_frac: float, impact_coef: float, sigma: float, quantity_btc: float, volume_btc: float
) -> float:
    """Half spread plus impact as a fraction of the price, >= 0."""
    share = quantity_btc / volume_btc if volume_btc > quantity_btc else 1.0
    return half_spread_frac + impact_coef * sigma * math.sqrt(share)


@inlined
def taker_price(buys: bool, reference: float, quantity_btc: float, bars: BarArrays, t: int, rules: Rules) -> float:
    """USDT per BTC paid or received in bar t before the fee, worse than the reference; never below 0."""
    slippage = slippage_frac(
        rules.half_spread_frac, rules.impact_coef, bars.sigma_before[t], quantity_btc, bars.volume[t]
    )
    if buys:
        return tick_up(reference * (1.0 + slippage), rules.tick_usdt)
    return tick_down(reference * max(0.0, 1.0 - slippage), rules.tick_usdt)


@inlined
def maker_price(buys: bool, open_price: float, rules: Rules) -> float:
    """Where an order rests that joins the near side of the spread at a bar's open."""
    if buys:
        return tick_down(open_price * (1.0 - rules.half_spread_frac), rules.tick_usdt)
    return tick_up(open_price * (1.0 + rules.half_spread_frac), rules.tick_usdt)


@inlined
def tick_up(price: float, tick_usdt: float) -> float:
    return price if tick_usdt <= 0.0 else math.ceil(price * ((1.0 - _NEARLY) / tick_usdt)) * tick_usdt


@inlined
def tick_down(price: float, tick_usdt: float) -> float:
    return price if tick_usdt <= 0.0 else math.floor(price * ((1.0 + _NEARLY) / tick_usdt)) * tick_usdt


@inlined
def whole_steps(quantity_btc: float, lot_step_btc: float) -> float:
    """The quantity that the exchange takes of this one."""
    if lot_step_btc <= 0.0:
        return quantity_btc
    return math.floor(quantity_btc * ((1.0 + _NEARLY) / lot_step_btc)) * lot_step_btc


@inlined
def tiered(account: FloatArray, fee_frac: float, usdt: Tiers, factor: Tiers) -> float:
    """The fee in the tier of what the account traded within 30 days."""
    traded = account[TRADED_USDT] - account[TRADED_BEFORE]
    if traded < usdt[0]:
        return fee_frac
    tier = 0
    while tier + 1 < FEE_TIERS and traded >= usdt[tier + 1]:
        tier += 1
    return fee_frac * factor[tier]


@inlined
def taker_fee(account: FloatArray, rules: Rules) -> float:
    return tiered(account, rules.taker_fee_frac, rules.tier_usdt, rules.tier_taker_factor)


@inlined
def maker_fee(account: FloatArray, rules: Rules) -> float:
    return tiered(account, rules.maker_fee_frac, rules.tier_usdt, rules.tier_maker_factor)


@inlined
def largest_cost(buys: bool, reference: float, bars: BarArrays, t: int, fee_frac: float, rules: Rules) -> float:
    """USDT per BTC that opening as a taker costs at most: of an order that takes all it may of the bar's volume."""
    impact: float = rules.impact_coef * bars.sigma_before[t] * math.sqrt(rules.max_volume_share)
    slippage = reference * (rules.half_spread_frac + impact) + rules.tick_usdt
    return slippage + fee_frac * (reference + slippage) if buys else slippage + fee_frac * reference


@inlined
def affordable_btc(
    wanted_btc: float,
    cash: float,
    exposure_room_usdt: float,
    max_exposure_frac: float,
    reference: float,
    cost_per_btc: float,
) -> float:
    """wanted_btc cut to what cash pays (reference + costs each) and to what keeps exposure under its cap after costs.

    exposure_room_usdt = max_exposure_frac * equity - value held, at reference, the price without costs; each BTC opened
    adds reference to the value held and takes its costs, here an upper bound, from the equity.
    """
    paid, room = reference + cost_per_btc, reference + max_exposure_frac * cost_per_btc
    cash, exposure_room_usdt = cash * NOT_QUITE, exposure_room_usdt * NOT_QUITE
    if wanted_btc * paid <= cash and wanted_btc * room <= exposure_room_usdt:
        return wanted_btc
    return max(0.0, min(cash / paid, exposure_room_usdt / room))
