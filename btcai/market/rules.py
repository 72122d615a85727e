"""The scalars that a market obeys for one bucket under one cost severity, and how params.yaml becomes them."""

from typing import NamedTuple

from btcai.config import BucketConfig, CostConfig, MarketConfig, RiskConfig
from btcai.schema import FEE_TIERS

NEVER_USDT = 1e300
"""Traded volume that nobody reaches: the threshold of a fee tier that is not there."""

Tiers = tuple[float, float, float, float]


class Rules(NamedTuple):
    """Units in the names; weights of reward.TERMS in w_*. What a number does is said where it is used.

    Orders: execution.py and fills.py. Limits: risk.py. Funding, transfers: account.py. Reward: reward.py.
    """

    taker_fee_frac: float
    maker_fee_frac: float
    tier_usdt: Tiers  # 30-day traded volume from which a tier holds, ascending
    tier_maker_factor: Tiers  # of maker_fee_frac
    tier_taker_factor: Tiers  # of taker_fee_frac
    half_spread_frac: float
    impact_coef: float
    max_volume_share: float
    lot_step_btc: float  # 0: any quantity
    tick_usdt: float  # 0: any price
    min_notional_usdt: float
    latency_bars: int  # present bars an order needs to arrive, beyond the next open
    maker_bars: int  # present bars an order rests at the near side before it crosses the spread
    perpetual: bool  # a swap that pays funding; else spot
    allow_short: bool
    missing_funding_frac: float  # paid by either side where a funding rate is due and unknown
    maintenance_frac: float  # equity / value below which a short is liquidated
    transfer_every_days: int
    transfer_usdt: float  # > 0 deposits, < 0 withdraws
    transfer_daily_probability: float
    transfer_max_frac: float  # of the equity
    max_lots: int
    stop_loss_frac: float
    take_profit_frac: float
    max_exposure_frac: float
    daily_loss_halt_frac: float
    drawdown_halt_frac: float
    cool_down_bars: int
    goal_frac: float
    patch_bars: int
    w_net_profit: float
    w_cost: float
    w_drawdown: float
    w_win_rate: float
    w_bonus: float
    w_goal: float
    compound: bool  # False: lots and profits are shares of the start's equity


FREE_RULES = Rules(
    taker_fee_frac=0.0,
    maker_fee_frac=0.0,
    tier_usdt=(NEVER_USDT, NEVER_USDT, NEVER_USDT, NEVER_USDT),
    tier_maker_factor=(1.0, 1.0, 1.0, 1.0),
    tier_taker_factor=(1.0, 1.0, 1.0, 1.0),
    half_spread_frac=0.0,
    impact_coef=0.0,
    max_volume_share=1.0,
    lot_step_btc=0.0,
    tick_usdt=0.0,
    min_notional_usdt=0.0,
    latency_bars=0,
    maker_bars=0,
    perpetual=False,
    allow_short=False,
    missing_funding_frac=0.0,
    maintenance_frac=0.0,
    transfer_every_days=0,
    transfer_usdt=0.0,
    transfer_daily_probability=0.0,
    transfer_max_frac=0.0,
    max_lots=3,
    stop_loss_frac=0.0,
    take_profit_frac=0.0,
    max_exposure_frac=1.0,
    daily_loss_halt_frac=1.0,
    drawdown_halt_frac=1.0,
    cool_down_bars=0,
    goal_frac=1.0,
    patch_bars=1,
    w_net_profit=1.0,
    w_cost=0.0,
    w_drawdown=0.0,
    w_win_rate=0.0,
    w_bonus=0.0,
    w_goal=0.0,
    compound=False,
)
"""Spot without costs or limits, three lots, profit in shares of the start's equity: a market names what it adds."""


def market_rules(market: MarketConfig, costs: CostConfig) -> Rules:
    """FREE_RULES with what a market charges and takes under `costs`, without any bucket's limits and aims."""
    exchange, perpetual, transfers, tiers = (
        market.exchange,
        market.perpetual,
        market.transfers,
        market.exchange.fee_tiers,
    )
    return FREE_RULES._replace(
        taker_fee_frac=costs.taker_fee_bps / 1e4,
        maker_fee_frac=costs.maker_fee_bps / 1e4,
        tier_usdt=_four([tier.traded_usdt for tier in tiers], NEVER_USDT),
        tier_maker_factor=_four([tier.maker_factor for tier in tiers], 1.0),
        tier_taker_factor=_four([tier.taker_factor for tier in tiers], 1.0),
        half_spread_frac=costs.half_spread_bps / 1e4,
        impact_coef=float(costs.impact_coef),
        max_volume_share=float(costs.max_volume_share),
        lot_step_btc=float(exchange.lot_step_btc),
        tick_usdt=float(exchange.tick_usdt),
        min_notional_usdt=float(exchange.min_notional_usdt),
        latency_bars=int(costs.latency_bars),
        maker_bars=int(exchange.maker_bars),
        perpetual=bool(perpetual.enabled),
        allow_short=bool(perpetual.allow_short),
        missing_funding_frac=perpetual.missing_funding_bps / 1e4,
        maintenance_frac=float(perpetual.maintenance_frac),
        transfer_every_days=int(transfers.every_days),
        transfer_usdt=float(transfers.usdt),
        transfer_daily_probability=float(transfers.daily_probability),
        transfer_max_frac=float(transfers.max_frac),
    )


def make_rules(bucket: BucketConfig, market: MarketConfig, risk: RiskConfig, costs: CostConfig | None = None) -> Rules:
    """The rules of a bucket under `costs`, by default those of the market's severity; profits compound."""
    weights = bucket.reward
    return market_rules(market, market.costs if costs is None else costs)._replace(
        max_lots=int(bucket.max_lots),
        stop_loss_frac=float(bucket.stop_loss_frac),
        take_profit_frac=float(bucket.take_profit_frac),
        max_exposure_frac=float(risk.max_exposure_frac),
        daily_loss_halt_frac=float(risk.daily_loss_halt_frac),
        drawdown_halt_frac=float(risk.drawdown_halt_frac),
        cool_down_bars=max(1, risk.cool_down_bars),  # a halt lasts one bar at least, and a halted account says so
        goal_frac=float(bucket.goal_frac),
        patch_bars=int(bucket.patch_bars),
        w_net_profit=float(weights.net_profit),
        w_cost=float(weights.cost),
        w_drawdown=float(weights.drawdown),
        w_win_rate=float(weights.win_rate),
        w_bonus=float(weights.bonus),
        w_goal=float(weights.goal),
        compound=True,
    )


def _four(values: list[float], absent: float) -> Tiers:
    """Padded: rules of every severity have one shape, so that one compiled loop walks them together."""
    first, second, third, fourth = (*map(float, values), *[absent] * (FEE_TIERS - len(values)))
    return first, second, third, fourth
