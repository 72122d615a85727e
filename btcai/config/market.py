"""Settings of accounts: what trading costs, what the exchange takes, limits of risk, sizes of lots."""

from typing import Literal, Self

from pydantic import Field, model_validator

from btcai.config.section import Section
from btcai.schema import FEE_TIERS

Severity = Literal["optimistic", "base", "pessimistic"]
SizingStrategy = Literal["confidence_adjusted", "uncertainty_adjusted", "full_probabilistic", "fixed"]


class CostConfig(Section):
    """What a fill costs: price worse by half spread + impact_coef * sigma * sqrt(quantity / volume), then the fee."""

    taker_fee_bps: float = Field(ge=0, le=200)
    maker_fee_bps: float = Field(ge=-10, le=200)
    """Of orders that rest: targets, and with exchange.maker_bars every order but a stop or a close-all."""
    half_spread_bps: float = Field(ge=0, le=200)
    impact_coef: float = Field(ge=0, le=10)
    max_volume_share: float = Field(gt=0, le=1)
    """Largest share of a bar's volume one order may take; the rest of the order is dropped."""
    latency_bars: int = Field(ge=0, le=288)
    """Bars an order needs to arrive beyond the next open."""


class FeeTier(Section):
    """Fees of an account that traded this much within 30 days."""

    traded_usdt: float = Field(gt=0)
    maker_factor: float = Field(ge=0, le=1)
    taker_factor: float = Field(ge=0, le=1)


class ExchangeConfig(Section):
    """What the exchange takes: steps of quantity and price, the smallest order, resting orders, fee tiers."""

    lot_step_btc: float = Field(ge=0)
    tick_usdt: float = Field(ge=0)
    min_notional_usdt: float = Field(ge=0)
    maker_bars: int = Field(ge=0, le=288)
    """Bars an order rests at the near side of the spread before it crosses; 0 crosses at once."""
    fee_tiers: tuple[FeeTier, ...] = Field(max_length=FEE_TIERS)

    @model_validator(mode="after")
    def _tiers_ascend(self) -> Self:
        volumes = [tier.traded_usdt for tier in self.fee_tiers]
        if volumes != sorted(set(volumes)):
            raise ValueError(f"fee_tiers must have increasing traded_usdt, was {volumes}")
        return self


class PerpetualConfig(Section):
    """A perpetual swap in place of spot: it pays funding, and may be sold short."""

    enabled: bool
    allow_short: bool
    missing_funding_bps: float = Field(ge=0, le=100)
    """Paid by either side where funding is due and its rate unknown."""
    maintenance_frac: float = Field(ge=0, lt=1)
    """A short is liquidated where the account's equity is below this share of its value."""

    @model_validator(mode="after")
    def _shorts_are_swaps(self) -> Self:
        if self.allow_short and not self.enabled:
            raise ValueError("allow_short needs enabled: true; nothing can be sold short on spot")
        return self


class TransfersConfig(Section):
    """Deposits and withdrawals, never profit or loss: usdt every so many days (below 0 withdraws), and random ones."""

    every_days: int = Field(ge=0)
    usdt: float = Field(allow_inf_nan=False)
    daily_probability: float = Field(ge=0, le=1)
    max_frac: float = Field(ge=0, le=1)
    """A random transfer is up to this share of the equity, in or out."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.every_days > 0) != (self.usdt != 0):
            raise ValueError(f"every_days and usdt need each other, was {self.every_days} and {self.usdt}")
        if (self.daily_probability > 0) != (self.max_frac > 0):
            raise ValueError(
                f"daily_probability and max_frac need each other, was {self.daily_probability} and {self.max_frac}"
            )
        return self


class MarketConfig(Section):
    """The account's start and the three cost severities; `severity` names the one used to train and to judge."""

    equity_usdt: float = Field(gt=0)
    severity: Severity
    severities: dict[Severity, CostConfig]
    exchange: ExchangeConfig
    perpetual: PerpetualConfig
    transfers: TransfersConfig

    @property
    def costs(self) -> CostConfig:
        return self.severities[self.severity]

    @model_validator(mode="after")
    def _has_all_severities(self) -> Self:
        if missing := {"optimistic", "base", "pessimistic"} - set(self.severities):
            raise ValueError(f"severities must hold optimistic, base and pessimistic; missing {sorted(missing)}")
        return self


class RiskConfig(Section):
    """Limits, the same in training, backtest and live."""

    max_exposure_frac: float = Field(gt=0, le=1)
    daily_loss_halt_frac: float = Field(gt=0, le=1)
    """A UTC day's loss that stops new lots until cool_down_bars have passed."""
    drawdown_halt_frac: float = Field(gt=0, le=1)
    """A drawdown that closes everything and stops new lots until none is left and cool_down_bars have passed; the peak
    restarts then."""
    cool_down_bars: int = Field(ge=0)


class SizingConfig(Section):
    strategy: SizingStrategy
    target_volatility: float = Field(gt=0, le=5)
    max_uncertainty: float = Field(gt=0)
    """Predicted standard deviation over sigma * sqrt(horizon), above which no lot is opened."""
    max_unfamiliarity: float = Field(gt=0)
    """How unlike the training span the market may be to the network: above it no lot is opened."""
