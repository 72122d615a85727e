"""Fees by tier of the 30-day volume, and what an account has paid."""

import numpy as np
import pytest
from market_world import FREE, MIDNIGHT_NS, Trader, make_market

from btcai.market.account import CASH, COSTS_PAID, TRADED_USDT
from btcai.market.rules import NEVER_USDT
from btcai.schema import Action, MarketData

HOLD, BUY, SELL, CLOSE_ALL = Action
TIERS = FREE._replace(
    taker_fee_frac=0.01,
    maker_fee_frac=0.002,
    tier_usdt=(1000.0, 3000.0, NEVER_USDT, NEVER_USDT),
    tier_taker_factor=(0.5, 0.25, 1.0, 1.0),
    tier_maker_factor=(0.5, 0.1, 1.0, 1.0),
)


def fees(trader: Trader, *actions: Action, size_frac: float = 0.1) -> list[float]:
    """What each decision paid."""
    paid = []
    for action in actions:
        before = trader[COSTS_PAID]
        trader.decide(action, size_frac)
        paid.append(trader[COSTS_PAID] - before)
    return paid


def test_fee_is_that_of_the_volume_before_the_fill() -> None:
    paid = fees(Trader(make_market([100] * 6), TIERS), BUY, BUY, SELL, SELL)
    assert paid == pytest.approx([10, 5, 5, 2.5])  # after 0, 1000, 2000 and 3000 USDT


def test_makers_have_their_own_factors() -> None:
    rules = TIERS._replace(maker_bars=1)
    market = make_market([100] * 5, lows={1: 99, 2: 99}, highs={3: 101, 4: 101})
    assert fees(Trader(market, rules), BUY, BUY, SELL, SELL) == pytest.approx([2, 1, 1, 0.2])


def daily(n_bars: int) -> MarketData:
    """One bar a day."""
    data = make_market([100] * n_bars)
    data.bars.close_ts_ns[:] = MIDNIGHT_NS + np.arange(1, n_bars + 1) * 86_400_000_000_000
    return data


def test_volume_counts_on_its_day_and_the_29_days_after_it() -> None:
    trader = Trader(daily(40), TIERS)
    paid = fees(trader, BUY, *[HOLD] * 28, BUY)  # days 1 and 30
    assert paid[0] == pytest.approx(10)
    assert paid[-1] == pytest.approx(5)
    late = Trader(daily(40), TIERS)
    assert fees(late, BUY, *[HOLD] * 29, BUY)[-1] == pytest.approx(10)  # days 1 and 31


def test_rules_without_tiers_charge_the_base_fee_whatever_is_traded() -> None:
    rules = FREE._replace(taker_fee_frac=0.01)
    trader = Trader(make_market([100] * 20), rules)
    assert fees(trader, *[BUY, SELL] * 9, size_frac=1.0)[-1] == pytest.approx(0.01 * 10_000, rel=0.2)
    assert trader[TRADED_USDT] > 150_000


def test_lots_of_a_close_all_pay_one_fee_and_the_lots_of_a_stop_one_each() -> None:
    rules = TIERS._replace(tier_usdt=(2500.0, NEVER_USDT, NEVER_USDT, NEVER_USDT))
    closed = Trader(make_market([100] * 5), rules)
    assert fees(closed, BUY, BUY, CLOSE_ALL)[-1] == pytest.approx(20)  # 2,000 traded before the order
    stopped = Trader(make_market([100] * 5, lows={3: 50}), rules._replace(stop_loss_frac=0.1))
    assert fees(stopped, BUY, BUY, HOLD)[-1] == pytest.approx(9 + 4.5)  # 2,000, then 2,900


def test_costs_are_all_that_a_round_trip_at_one_price_loses() -> None:
    rules = TIERS._replace(half_spread_frac=0.01, impact_coef=1.0)
    trader = Trader(make_market([100] * 5, volume=1000.0), rules).walk(BUY, BUY, SELL, SELL)
    assert trader[CASH] == pytest.approx(10_000 - trader[COSTS_PAID])
    assert trader[COSTS_PAID] > 0
