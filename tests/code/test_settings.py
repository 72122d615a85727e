"""No setting is ignored: each field of the rules, and each of the settings that make them, changes a result."""

from pathlib import Path

import numpy as np
import pytest
from market_wild import wild_market
from market_world import FREE, Trader
from pydantic import BaseModel

from btcai.config import (
    BucketConfig,
    Config,
    CostConfig,
    ExchangeConfig,
    FeeTier,
    MarketConfig,
    PerpetualConfig,
    RewardConfig,
    RiskConfig,
    SizingConfig,
    TransfersConfig,
)
from btcai.market.account import COSTS_PAID, EQUITY, FUNDING_PAID, START_EQUITY, TRADED_USDT, TRANSFERRED
from btcai.market.rules import Rules, make_rules
from btcai.market.sizing import lot_sizes
from btcai.params import load_config
from btcai.schema import Action

N_BARS = 400
RESULTS = [EQUITY, COSTS_PAID, FUNDING_PAID, TRANSFERRED, TRADED_USDT, START_EQUITY]

LIVE = FREE._replace(
    taker_fee_frac=0.001,
    maker_fee_frac=0.0004,
    tier_usdt=(2e3, 5e3, 1e4, 2e4),
    tier_maker_factor=(0.9, 0.8, 0.7, 0.6),
    tier_taker_factor=(0.9, 0.8, 0.7, 0.6),
    half_spread_frac=0.0005,
    impact_coef=1.0,
    max_volume_share=0.2,
    lot_step_btc=0.001,
    tick_usdt=0.01,
    min_notional_usdt=20.0,
    maker_bars=1,
    perpetual=True,
    allow_short=True,
    missing_funding_frac=0.001,
    transfer_every_days=2,
    transfer_usdt=500.0,
    transfer_daily_probability=0.2,
    transfer_max_frac=0.3,
    max_lots=4,
    stop_loss_frac=0.08,
    take_profit_frac=0.06,
    max_exposure_frac=0.5,
    daily_loss_halt_frac=0.03,
    drawdown_halt_frac=0.06,
    cool_down_bars=6,
    goal_frac=0.1,
    w_cost=0.1,
    w_drawdown=0.1,
    w_win_rate=0.1,
    w_bonus=0.1,
    w_goal=0.1,
)
"""Rules under which every field speaks; a case below may prepare the ground of its own."""

UNSTOPPED = {"stop_loss_frac": 0.0, "drawdown_halt_frac": 1.0, "daily_loss_halt_frac": 1.0, "max_exposure_frac": 1.0}
CHANGED: dict[str, object] = {name: value * 2 for name, value in LIVE._asdict().items() if type(value) is float} | {
    "tier_usdt": (4e3, 9e3, 2e4, 5e4),
    "tier_maker_factor": (0.8, 0.7, 0.6, 0.5),
    "tier_taker_factor": (0.8, 0.7, 0.6, 0.5),
    "min_notional_usdt": 1_500.0,
    "latency_bars": 1,
    "maker_bars": 2,
    "perpetual": False,
    "allow_short": False,
    "maintenance_frac": 0.5,
    "transfer_every_days": 3,
    "max_lots": 2,
    "cool_down_bars": 3,
    "patch_bars": 2,
    "compound": True,
}
GROUND: dict[str, dict[str, object]] = {"maintenance_frac": UNSTOPPED, "perpetual": {"allow_short": False}}


def walked(rules: Rules, equity_usdt: float = 10_000.0) -> list[float]:
    """The sum of rewards and what the account has at the end, over three markets."""
    out = []
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        trader, total = Trader(wild_market(rng, N_BARS), rules, equity_usdt, seed), 0.0
        actions, sizes = rng.choice(4, N_BARS, p=[0.3, 0.35, 0.3, 0.05]), rng.uniform(0.05, 0.4, N_BARS)
        while trader.t + rules.patch_bars < N_BARS:
            total += trader.decide(actions[trader.t], sizes[trader.t])[0]
        out += [total, *trader.account[RESULTS].tolist()]
    assert np.isfinite(out).all()  # nan would differ from itself
    return out


def test_there_is_a_case_for_every_field_of_the_rules() -> None:
    assert set(CHANGED) == set(Rules._fields)


@pytest.mark.parametrize("name", Rules._fields)
def test_every_rule_changes_the_result(name: str) -> None:
    ground = LIVE._replace(**GROUND.get(name, {}))
    assert getattr(ground, name) != CHANGED[name]
    assert walked(ground._replace(**{name: CHANGED[name]})) != walked(ground)


# params.yaml

BUCKET = "buckets.scalping"
COSTS = "market.severities.pessimistic"
SECTIONS: dict[str, type[BaseModel]] = {
    "market": MarketConfig,
    COSTS: CostConfig,
    "market.exchange": ExchangeConfig,
    "market.exchange.fee_tiers.0": FeeTier,
    "market.perpetual": PerpetualConfig,
    "market.transfers": TransfersConfig,
    "risk": RiskConfig,
    "sizing": SizingConfig,
    BUCKET: BucketConfig,
    f"{BUCKET}.reward": RewardConfig,
}
ELSEWHERE = {
    f"{BUCKET}.discount",  # the learner's: tests/model/test_learning.py
    f"{BUCKET}.horizons_bars",  # what is predicted: tests/model/test_rollout.py
    *(f"market.{name}" for name in ("severities", "exchange", "perpetual", "transfers")),  # sections of their own
    f"{BUCKET}.reward",
}
GIVEN: dict[str, object] = {
    f"{COSTS}.maker_fee_bps": 4.0,
    f"{COSTS}.max_volume_share": 0.2,
    "market.equity_usdt": 10_000.0,
    "market.exchange.maker_bars": 1,
    "market.exchange.fee_tiers": [{"traded_usdt": 2e3, "maker_factor": 0.9, "taker_factor": 0.9}],
    "market.exchange.min_notional_usdt": 20.0,
    "market.perpetual.enabled": True,
    "market.perpetual.allow_short": True,
    "market.transfers.every_days": 2,
    "market.transfers.usdt": 500.0,
    "market.transfers.daily_probability": 0.2,
    "market.transfers.max_frac": 0.3,
    "risk.max_exposure_frac": 0.5,
    "risk.daily_loss_halt_frac": 0.03,
    "risk.drawdown_halt_frac": 0.06,
    "risk.cool_down_bars": 6,
    "sizing.target_volatility": 4.0,
    f"{BUCKET}.max_lots": 4,
    f"{BUCKET}.goal_frac": 0.1,
    f"{BUCKET}.stop_loss_frac": 0.08,
    f"{BUCKET}.take_profit_frac": 0.06,
    f"{BUCKET}.reward": dict.fromkeys(RewardConfig.model_fields, 0.1),
}
ALONE = {
    "risk.max_exposure_frac": 1.0,
    "risk.daily_loss_halt_frac": 1.0,
    "risk.drawdown_halt_frac": 1.0,
    f"{BUCKET}.stop_loss_frac": 0.0,
}
OTHER: dict[str, object] = {
    "market.equity_usdt": 20_000.0,
    "market.severity": "optimistic",
    f"{COSTS}.taker_fee_bps": 20.0,
    f"{COSTS}.maker_fee_bps": 8.0,
    f"{COSTS}.half_spread_bps": 2.0,
    f"{COSTS}.impact_coef": 2.0,
    f"{COSTS}.max_volume_share": 0.4,
    f"{COSTS}.latency_bars": 1,
    "market.exchange.lot_step_btc": 0.5,
    "market.exchange.tick_usdt": 1.0,
    "market.exchange.min_notional_usdt": 800.0,
    "market.exchange.maker_bars": 0,
    "market.exchange.fee_tiers": [],
    "market.exchange.fee_tiers.0.traded_usdt": 9e3,
    "market.exchange.fee_tiers.0.maker_factor": 0.5,
    "market.exchange.fee_tiers.0.taker_factor": 0.5,
    "market.perpetual.enabled": False,
    "market.perpetual.allow_short": False,
    "market.perpetual.missing_funding_bps": 30.0,
    "market.perpetual.maintenance_frac": 0.5,
    "market.transfers.every_days": 3,
    "market.transfers.usdt": -500.0,
    "market.transfers.daily_probability": 0.8,
    "market.transfers.max_frac": 0.1,
    "risk.max_exposure_frac": 0.8,
    "risk.daily_loss_halt_frac": 0.5,
    "risk.drawdown_halt_frac": 0.5,
    "risk.cool_down_bars": 3,
    "sizing.strategy": "confidence_adjusted",
    "sizing.target_volatility": 0.5,
    "sizing.max_uncertainty": 1.0,
    "sizing.max_unfamiliarity": 0.5,
    f"{BUCKET}.patch_bars": 2,
    f"{BUCKET}.max_lots": 2,
    f"{BUCKET}.goal_frac": 0.3,
    f"{BUCKET}.stop_loss_frac": 0.02,
    f"{BUCKET}.take_profit_frac": 0.02,
    **{f"{BUCKET}.reward.{name}": 0.5 for name in RewardConfig.model_fields},
}
PREPARED: dict[str, dict[str, object]] = {
    "market.perpetual.maintenance_frac": ALONE,
    "market.perpetual.enabled": {"market.perpetual.allow_short": False},
    "sizing.strategy": {"market.perpetual.allow_short": False},
}


def with_values(config: Config, values: dict[str, object]) -> Config:
    """The settings with these, by dotted names, validated anew."""
    raw = config.model_dump(mode="json")
    for name, value in values.items():
        *parents, last = name.split(".")
        section = raw
        for key in parents:
            section = section[int(key)] if isinstance(section, list) else section[key]
        section[last] = value
    return Config.model_validate(raw)


def judged(config: Config) -> list[float]:
    """A walk of one bucket under its settings, sized by forecasts drawn at random."""
    bucket = config.buckets["scalping"]
    rules = make_rules(bucket, config.market, config.risk)
    out = []
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        data = wild_market(rng, N_BARS)
        mean, std = rng.normal(0, 0.02, N_BARS), data.sigma * rng.uniform(1, 4, N_BARS)
        sizes, allowed = lot_sizes(mean, std, data.sigma, np.ones(N_BARS), 3, bucket.max_lots, config.sizing)
        trader, total = Trader(data, rules, config.market.equity_usdt, seed), 0.0
        actions = rng.choice(4, N_BARS, p=[0.3, 0.35, 0.3, 0.05])
        while trader.t + rules.patch_bars < N_BARS:
            total += trader.decide(Action(actions[trader.t]), sizes[trader.t], allowed[trader.t])[0]
        out += [total, *trader.account[RESULTS].tolist()]
    assert np.isfinite(out).all()  # nan would differ from itself
    return out


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return with_values(load_config(root / "params.yaml"), GIVEN)


def test_there_is_a_case_for_every_setting_of_the_market() -> None:
    fields = {f"{section}.{name}" for section, kind in SECTIONS.items() for name in kind.model_fields}
    assert set(OTHER) == fields - ELSEWHERE


@pytest.mark.parametrize("name", OTHER)
def test_every_setting_changes_the_result(config: Config, name: str) -> None:
    ground = with_values(config, PREPARED.get(name, {}))
    assert judged(with_values(ground, {name: OTHER[name]})) != judged(ground)
