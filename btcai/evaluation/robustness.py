"""The costs that a result must survive beside the one that is judged: all severities, dearer, and later."""

from btcai.config import CostConfig, MarketConfig

DEARER = 1.5
LATER_BARS = 1
HIGHER_COSTS, ONE_BAR_LATER = f"costs_x{DEARER:g}", "one_bar_later"


def cost_variants(market: MarketConfig) -> dict[str, CostConfig]:
    """The severities, then costs_x1.5 and one_bar_later made from the judged one; by name, in this order.

    Dearer: fees, spread and impact times DEARER; a rebate stays as it is. Later: orders arrive LATER_BARS later.
    """
    judged = market.costs
    dearer = {
        name: max(getattr(judged, name), DEARER * getattr(judged, name))
        for name in ("taker_fee_bps", "maker_fee_bps", "half_spread_bps", "impact_coef")
    }
    found: dict[str, CostConfig] = dict(market.severities.items())
    found[HIGHER_COSTS] = judged.model_copy(update=dearer)
    found[ONE_BAR_LATER] = judged.model_copy(update={"latency_bars": judged.latency_bars + LATER_BARS})
    return found
