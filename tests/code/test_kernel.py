"""What happens to an order after the close that decides it: by hand, against a plain-Python oracle, as invariants."""

from math import log, log1p, sqrt, tanh
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_oracle import Oracle
from market_world import FREE, MIDNIGHT_NS, Trader, make_market

from btcai.config import load_config
from btcai.market.account import (
    CASH,
    CLOSED_LOTS,
    COSTS_PAID,
    EQUITY,
    LOT_BTC,
    LOT_ENTRY_PRICE,
    N_LOTS,
    PENDING,
    SINCE_TRADE,
)
from btcai.market.kernel import Rules, bar_arrays, make_rules
from btcai.market.reward import TERMS
from btcai.schema import BAR_NS, Action, MarketData


def test_order_fills_at_the_next_open_and_not_at_the_close_it_was_decided_on() -> None:
    data = make_market([100, 100, 130])
    data.bars.open[1] = 104.0  # a gap between the close of bar 0, 100, and the open of bar 1
    trader = Trader(data, FREE)
    trader.decide(Action.BUY)
    assert trader.lots[0, LOT_ENTRY_PRICE] == 104.0
    assert trader.lots[0, LOT_BTC] == pytest.approx(1000 / 104)


def test_bars_after_the_fill_change_nothing_before_them() -> None:
    calm, crash = (Trader(make_market([100, 100, 110, price]), FREE) for price in (110, 1))
    calm.decide(Action.BUY)
    crash.decide(Action.BUY)
    np.testing.assert_array_equal(calm.account, crash.account)


def test_less_than_one_coin_can_be_bought() -> None:
    trader = Trader(make_market([50_000, 50_000, 50_000]), FREE)
    trader.decide(Action.BUY, 0.01)
    assert trader.lots[0, LOT_BTC] == pytest.approx(0.002)


def test_order_waits_over_missing_bars_and_no_other_is_taken() -> None:
    trader = Trader(make_market([100, 101, 102, 105, 107], missing=[1, 2]), FREE)
    trader.decide(Action.BUY)
    assert trader[PENDING] == Action.BUY
    assert trader[EQUITY] == 10_000.0
    assert trader.seen()["can_buy"] == 0.0
    trader.decide(Action.BUY, 0.9)  # ignored: one is waiting
    trader.decide(Action.HOLD)
    assert trader[N_LOTS] == 1
    assert trader.lots[0, [LOT_ENTRY_PRICE, LOT_BTC]] == pytest.approx([105.0, 1000 / 105])


def test_open_lot_is_not_for_sale_while_a_sale_waits() -> None:
    trader = Trader(make_market([100] * 6, missing=[2, 3]), FREE)
    trader.decide(Action.BUY)
    assert trader.seen()["can_sell"] == 1.0
    trader.decide(Action.SELL)
    assert trader.seen()["can_sell"] == 0.0


def test_order_fills_a_share_of_the_volume_and_the_rest_is_dropped() -> None:
    trader = Trader(make_market([100] * 4, volume=40.0), FREE._replace(max_volume_share=0.1))
    trader.decide(Action.BUY, 0.1)  # 10 BTC wanted, 4 filled
    trader.decide(Action.HOLD)
    assert trader.lots[0, LOT_BTC] == pytest.approx(4.0)


def test_bar_without_volume_fills_no_order() -> None:
    trader = Trader(make_market([100] * 3, volume=0.0), FREE)
    trader.decide(Action.BUY)
    assert trader[N_LOTS] == 0
    assert trader[PENDING] == Action.HOLD


@pytest.mark.parametrize("action", [Action.SELL, Action.CLOSE_ALL])
def test_selling_nothing_is_hold(action: Action) -> None:
    trader = Trader(make_market([100, 100, 200]), FREE)
    trader.decide(action)
    assert trader[PENDING] == Action.HOLD
    assert trader[CASH] == 10_000.0


@pytest.mark.parametrize(("size", "allowed"), [(0.1, False), (0.0, True), (float("nan"), True)])
def test_buy_without_leave_or_size_is_hold(size: float, allowed: bool) -> None:
    trader = Trader(make_market([100, 100, 200]), FREE)
    trader.decide(Action.BUY, size, allowed)
    assert trader[N_LOTS] == 0


def test_no_more_lots_than_allowed() -> None:
    trader = Trader(make_market([100] * 7), FREE)
    for _ in range(5):
        trader.decide(Action.BUY)
    assert trader[N_LOTS] == 3
    assert trader.seen()["lots_frac"] == 1.0
    assert trader.seen()["can_buy"] == 0.0


def test_stop_fills_at_its_price_when_the_bar_trades_through_it() -> None:
    trader = Trader(make_market([100, 100, 95, 96], lows={2: 85}), FREE._replace(stop_loss_frac=0.1))
    trader.decide(Action.BUY)
    trader.decide(Action.HOLD)
    assert trader[CASH] == pytest.approx(9000 + 10 * 90)


def test_gap_through_stop_fills_at_open() -> None:
    data = make_market([100, 100, 80, 82], lows={2: 75})
    data.bars.close[1] = data.mark[1] = 99.0
    data.bars.low[1] = 99.0
    trader = Trader(data, FREE._replace(stop_loss_frac=0.1))
    trader.decide(Action.BUY)
    trader.decide(Action.HOLD)
    assert trader[CASH] == pytest.approx(9000 + 10 * 80)


def test_lot_bought_at_the_open_can_be_stopped_in_the_same_bar() -> None:
    trader = Trader(make_market([100, 100, 99], lows={1: 90}), FREE._replace(stop_loss_frac=0.1))
    trader.decide(Action.BUY)
    assert trader[CLOSED_LOTS] == 1
    assert trader[CASH] == pytest.approx(9000 + 10 * 90)


def test_stop_pays_costs_and_fills_whole_whatever_the_volume() -> None:
    rules = FREE._replace(
        fee_frac=0.01, half_spread_frac=0.01, impact_coef=1.0, stop_loss_frac=0.1, max_volume_share=1e-6
    )
    trader = Trader(make_market([100, 100, 95, 96], volume=[1e9, 1e9, 0.0, 1e9], lows={2: 85}), rules)
    trader.decide(Action.BUY)
    entry = trader.lots[0, LOT_ENTRY_PRICE]
    quantity, cash = trader.lots[0, LOT_BTC], trader[CASH]
    trader.decide(Action.HOLD)
    # no volume: impact of the whole bar, sigma 0.01 * 1; price = stop * (1 - 0.01 - 0.01)
    assert trader[CASH] == pytest.approx(cash + quantity * entry * 0.9 * 0.98 * 0.99)
    assert trader[N_LOTS] == 0


def test_low_above_the_stop_keeps_the_lot() -> None:
    trader = Trader(make_market([100, 100, 95, 96], lows={2: 90.01}), FREE._replace(stop_loss_frac=0.1))
    trader.decide(Action.BUY)
    trader.decide(Action.HOLD)
    assert trader[N_LOTS] == 1


def test_compounding_lot_is_a_share_of_the_equity_of_the_moment() -> None:
    sizes = []
    for compound in (True, False):
        trader = Trader(make_market([100, 100, 200, 200]), FREE._replace(compound=compound))
        trader.decide(Action.BUY, 0.5)
        trader.decide(Action.BUY, 0.1)
        sizes.append(trader.lots[1, LOT_BTC] * 200)
    assert sizes == pytest.approx([1500, 1000])  # equity 15,000, started with 10,000


def test_buy_and_hold_with_a_fee_is_the_analytic_result() -> None:
    prices = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, 300)))
    trader = Trader(make_market(prices), FREE._replace(fee_frac=0.001))
    trader.decide(Action.BUY, 1.0)
    while trader.t < 299:
        trader.decide(Action.HOLD)
    assert trader[EQUITY] == pytest.approx(10_000 / 1.001 * prices[-1] / prices[1], rel=1e-9)
    assert trader[CASH] >= 0.0


def test_doing_nothing_earns_nothing() -> None:
    trader = Trader(make_market([100, 150, 50, 300]), FREE)
    assert [trader.decide(Action.HOLD)[0] for _ in range(3)] == [0.0, 0.0, 0.0]
    assert trader[EQUITY] == 10_000.0


def test_decision_holds_for_a_whole_patch() -> None:
    trader = Trader(make_market([100, 100, 110, 120, 130]), FREE._replace(patch_bars=3))
    reward, _ = trader.decide(Action.BUY)
    assert trader.t == 3
    assert reward == pytest.approx(10 * 30 / 10_000)  # 10 BTC from the open of bar 1 to the close of bar 3


def test_ruin_terminates() -> None:
    trader = Trader(make_market([100, 100, 11, 9, 9]), FREE)
    assert trader.decide(Action.BUY, 1.0)[1] is False  # 11 % left
    assert trader.decide(Action.HOLD)[1] is True


def test_reward_terms_by_hand() -> None:
    rules = FREE._replace(fee_frac=0.01, w_cost=2.0, w_drawdown=3.0, w_win=5.0, w_goal=7.0)
    trader = Trader(make_market([100, 100, 90, 90], sigma=0.02), rules)
    trader.decide(Action.BUY)  # 10 BTC, 1,000 + 10 paid; equity 9,990 - 100
    assert trader.terms == pytest.approx([-0.011, -0.001, -0.011, 0.0, -0.011 / 0.5])
    reward, _ = trader.decide(Action.SELL)  # 900 - 9; net return 891 / 1,010 - 1
    won = 1010 / 10_000 * 0.02 * tanh((891 / 1010 - 1) / 0.02)
    expected = [-0.0009, -0.0009, -0.0009, won, -0.0009 / 0.5]
    assert trader.terms == pytest.approx(expected)
    assert reward == pytest.approx(sum(w * term for w, term in zip((1, 2, 3, 5, 7), expected, strict=True)))


def test_compounding_profit_is_a_log_return() -> None:
    trader = Trader(make_market([100, 100, 110, 110]), FREE._replace(compound=True))
    trader.decide(Action.BUY, 0.5)
    assert trader.terms[TERMS.index("net_profit")] == pytest.approx(log(1.05))


def test_goal_term_stops_at_the_goal() -> None:
    trader = Trader(make_market([100, 100, 300, 600]), FREE)
    trader.decide(Action.BUY, 0.5)  # doubled: goal of 50 % reached
    assert trader.terms[TERMS.index("goal")] == 1.0
    trader.decide(Action.HOLD)
    assert trader.terms[TERMS.index("goal")] == 0.0


def test_observation_of_a_new_account() -> None:
    seen = Trader(make_market([100, 100]), FREE).seen()
    assert seen == dict(zip(seen, [1, 0, 0, 0, 0, 0, 0, 1, 0], strict=True))


def test_observation_by_hand() -> None:
    rules = FREE._replace(patch_bars=4, max_lots=4)
    trader = Trader(make_market([100] * 5 + [110, 99, 99, 99, 99], sigma=0.05), rules)
    trader.decide(Action.BUY, 0.2)  # at 100; close of bar 4 is 110
    trader.decide(Action.BUY, 0.2)  # at 110; close of bar 8 is 99
    seen = trader.seen()
    equity = 6000 + 20 * 99 + 2000 / 110 * 99
    returns = [(99 / 100 - 1) / 0.1, (99 / 110 - 1) / 0.1]  # sigma of a patch: 0.05 * sqrt(4)
    assert seen["cash_frac"] == pytest.approx(6000 / equity)
    assert seen["lots_frac"] == pytest.approx(0.5)
    assert seen["open_return_sigmas"] == pytest.approx(sum(returns) / 2)
    assert seen["oldest_return_sigmas"] == pytest.approx(returns[0])
    assert seen["drawdown_frac"] == pytest.approx(1 - equity / 10_200)
    assert seen["goal_progress"] == pytest.approx((equity / 10_000 - 1) / 0.5)
    assert seen["decisions_since_trade"] == 0.0
    assert seen["can_buy"] == seen["can_sell"] == 1.0


def test_decisions_since_the_last_fill_are_counted() -> None:
    trader = Trader(make_market([100] * 8), FREE)
    trader.decide(Action.BUY)
    for _ in range(3):
        trader.decide(Action.HOLD)
    assert trader[SINCE_TRADE] == 3
    assert trader.seen()["decisions_since_trade"] == pytest.approx(log1p(3) / 5)


def test_observed_returns_and_goal_are_clipped() -> None:
    trader = Trader(make_market([100, 100, 900, 900]), FREE)
    trader.decide(Action.BUY, 0.9)
    seen = trader.seen()
    assert (seen["open_return_sigmas"], seen["oldest_return_sigmas"], seen["goal_progress"]) == (5.0, 5.0, 1.0)


def test_bar_that_closes_at_midnight_belongs_to_the_day_it_opened_in() -> None:
    bars = bar_arrays(make_market([100] * 3, first_open_ns=MIDNIGHT_NS - 2 * BAR_NS))
    assert np.diff(bars.day).tolist() == [0, 1]


def test_arrays_of_the_kernel_are_copies() -> None:
    data = make_market([100, 100])
    bar_arrays(data).open[0] = 5.0
    assert data.bars.open[0] == 100.0


def test_rules_come_from_the_shipped_settings(root: Path) -> None:
    config = load_config(root / "params.yaml")
    costs = config.market.severities["pessimistic"]
    for bucket in config.buckets.values():
        rules = make_rules(bucket, costs, config.risk)
        assert rules.fee_frac == pytest.approx(costs.fee_bps / 1e4)
        assert rules.half_spread_frac == pytest.approx(costs.half_spread_bps / 1e4)
        assert (rules.patch_bars, rules.max_lots) == (bucket.patch_bars, bucket.max_lots)
        assert (rules.w_win, rules.w_goal) == (bucket.reward.win, bucket.reward.goal)
        assert [type(value) for value in rules] == [Rules.__annotations__[name] for name in Rules._fields]


def wild_market(rng: np.random.Generator, n_bars: int = 80) -> MarketData:
    """Jumps, gaps between bars, missing bars and bars without volume."""
    prices = 100 * np.exp(np.cumsum(rng.normal(0, 0.03, n_bars)))
    volume = rng.choice([0.0, 5.0, 200.0], n_bars)
    missing = 1 + np.flatnonzero(rng.random(n_bars - 1) < 0.1)
    first = MIDNIGHT_NS - 40 * BAR_NS
    sigma = rng.uniform(0.01, 0.05, n_bars)
    data = make_market(prices, volume=volume.tolist(), sigma=sigma.tolist(), missing=missing, first_open_ns=first)
    data.bars.open[:] *= np.exp(rng.normal(0, 0.01, n_bars))
    data.bars.low[:] = np.minimum(data.bars.low, data.bars.open) * rng.uniform(0.95, 1.0, n_bars)
    return data


def wild_rules(rng: np.random.Generator) -> Rules:
    return FREE._replace(
        fee_frac=rng.uniform(0, 0.02),
        half_spread_frac=rng.uniform(0, 0.01),
        impact_coef=rng.uniform(0, 3),
        max_volume_share=rng.uniform(0.05, 1),
        max_lots=int(rng.integers(1, 6)),
        stop_loss_frac=float(rng.choice([0.0, 0.03, 0.1])),
        max_exposure_frac=rng.uniform(0.2, 1),
        daily_loss_halt_frac=rng.uniform(0.02, 0.3),
        drawdown_halt_frac=rng.uniform(0.05, 0.5),
        cool_down_bars=int(rng.integers(0, 9)),
        patch_bars=int(rng.integers(1, 4)),
        compound=bool(rng.integers(2)),
    )


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_kernel_agrees_with_the_oracle_and_never_makes_money(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trader = Trader(wild_market(rng), wild_rules(rng))
    oracle = Oracle(trader.rules, 10_000.0)
    while trader.t + trader.rules.patch_bars < len(trader.bars.open):
        action, size, allowed = int(rng.integers(4)), float(rng.uniform(0.05, 1)), bool(rng.random() < 0.9)
        t = trader.t
        trader.decide(action, size, allowed)
        oracle.decide(action, size, allowed)
        for bar in range(t + 1, trader.t + 1):
            oracle.bar(trader.bars, bar)
        assert trader[N_LOTS] == len(oracle.lots)
        assert trader[CASH] >= 0.0
        assert (trader.lots[:, LOT_BTC] >= 0.0).all()
        assert trader[EQUITY] == pytest.approx(oracle.equity, rel=1e-9)
        moves = oracle.moves + oracle.open_moves(float(trader.bars.mark[trader.t]))
        assert abs(trader[EQUITY] - 10_000.0 - moves + trader[COSTS_PAID]) <= 1e-9 * 10_000.0


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_higher_fee_never_raises_the_result_of_the_same_fills(seed: int) -> None:
    def final_equity(fee_frac: float) -> float:
        rng = np.random.default_rng(seed)
        trader = Trader(wild_market(rng), FREE._replace(fee_frac=fee_frac, half_spread_frac=0.001))
        for action in rng.integers(0, 4, 79):
            trader.decide(action, 0.02)
        return trader[EQUITY]

    low, high = sorted(np.random.default_rng((seed, 1)).uniform(0, 0.02, 2))
    assert final_equity(high) <= final_equity(low)


BASE = FREE._replace(
    fee_frac=0.001,
    half_spread_frac=0.0005,
    impact_coef=1.0,
    max_volume_share=0.02,
    stop_loss_frac=0.04,
    max_exposure_frac=0.3,
    daily_loss_halt_frac=0.015,
    drawdown_halt_frac=0.03,
    cool_down_bars=6,
    w_cost=0.1,
    w_drawdown=0.1,
    w_win=0.1,
    w_goal=0.1,
)
CHANGED = {name: value * 2 for name, value in BASE._asdict().items()} | {"compound": True, "max_lots": 2}


@pytest.mark.parametrize("name", Rules._fields)
def test_every_rule_changes_the_result(name: str) -> None:
    def rewards(rules: Rules) -> float:
        rng = np.random.default_rng(4)
        prices = 100 * np.exp(np.cumsum(rng.normal(0, 0.012, 400)))
        trader = Trader(make_market(prices, volume=600.0), rules)
        actions, total = rng.choice(4, 400, p=[0.3, 0.5, 0.1, 0.1]), 0.0
        while trader.t + rules.patch_bars < 400:
            total += trader.decide(actions[trader.t], 0.24)[0]
        return total

    assert rewards(BASE._replace(**{name: CHANGED[name]})) != rewards(BASE)


def test_impact_grows_with_the_square_root_of_the_order() -> None:
    costs = []
    for size in (0.1, 0.4):
        trader = Trader(make_market([100] * 3, volume=1000.0), FREE._replace(impact_coef=1.0))
        trader.decide(Action.BUY, size)
        costs.append(trader[COSTS_PAID] / trader.lots[0, LOT_BTC])
    assert costs[1] / costs[0] == pytest.approx(sqrt(4))
