"""What an order gets: price worse by half the spread and by square-root impact, quantity capped by the bar's volume.

Impact: impact_coef * sigma * sqrt(quantity / volume) of the price (the square-root law of Donier and Bonart,
arXiv 1412.4503), sigma of one bar known before the fill. quantity / volume counts as 1 at most: a forced stop on a bar
without volume pays the impact of taking the whole bar.
"""

import math

from btcai.market.compiled import inlined


@inlined
def slippage_frac(
    half_spread_frac: float, impact_coef: float, sigma: float, quantity_btc: float, volume_btc: float
) -> float:
    """Half spread plus impact as a fraction of the price, >= 0."""
    share = quantity_btc / volume_btc if volume_btc > quantity_btc else 1.0
    return half_spread_frac + impact_coef * sigma * math.sqrt(share)


@inlined
def buy_price(
    open_price: float, half_spread_frac: float, impact_coef: float, sigma: float, quantity_btc: float, volume_btc: float
) -> float:
    """USDT per BTC paid, before the fee."""
    return open_price * (1.0 + slippage_frac(half_spread_frac, impact_coef, sigma, quantity_btc, volume_btc))


@inlined
def sell_price(
    open_price: float, half_spread_frac: float, impact_coef: float, sigma: float, quantity_btc: float, volume_btc: float
) -> float:
    """USDT per BTC received, before the fee; never below 0."""
    return open_price * max(0.0, 1.0 - slippage_frac(half_spread_frac, impact_coef, sigma, quantity_btc, volume_btc))


@inlined
def fill_quantity(wanted_btc: float, volume_btc: float, max_volume_share: float) -> float:
    """What one order fills of wanted_btc: at most max_volume_share of the bar's volume; the rest is dropped."""
    return min(wanted_btc, max_volume_share * volume_btc)


@inlined
def affordable_btc(
    wanted_btc: float,
    cash: float,
    exposure_room_usdt: float,
    max_exposure_frac: float,
    reference: float,
    price: float,
    fee_frac: float,
) -> float:
    """wanted_btc cut to what cash pays (fee included) and to what keeps exposure under its cap after the costs.

    exposure_room_usdt = max_exposure_frac * equity - value held, at reference, the price without costs; each BTC bought
    adds reference to the value held and takes its costs from the equity. price is an upper bound of the fill price.
    """
    paid_per_btc = price * (1.0 + fee_frac)
    room_per_btc = reference + max_exposure_frac * (paid_per_btc - reference)
    most = min(cash / paid_per_btc, exposure_room_usdt / room_per_btc)
    if wanted_btc <= most:
        return wanted_btc
    return max(0.0, most * (1.0 - 1e-12))  # rounding must not take cash below zero
