"""Exposure cap and the two halts."""

import pytest
from market_world import FREE, MIDNIGHT_NS, Trader, make_market

from btcai.market import account as orders
from btcai.market.account import (
    CASH,
    COOL_DOWN,
    EQUITY,
    HALT,
    HELD_BTC,
    N_LOTS,
    PEAK_EQUITY,
    PENDING,
    PENDING_DELAY,
    exposure_frac,
)
from btcai.market.risk import DAILY_HALT, DRAWDOWN_HALT, NO_HALT
from btcai.schema import BAR_NS, Action


def test_exposure_after_costs_stays_at_the_cap() -> None:
    trader = Trader(make_market([100] * 5), FREE._replace(taker_fee_frac=0.01, max_exposure_frac=0.5))
    trader.decide(Action.BUY, 0.4)
    trader.decide(Action.BUY, 0.4)
    assert exposure_frac(trader.account) == pytest.approx(0.5)
    assert trader.seen()["can_buy"] == 0.0


def test_lot_too_small_for_the_exchange_is_not_bought() -> None:
    trader = Trader(make_market([100] * 4), FREE)
    trader.decide(Action.BUY, 0.99995)  # leaves half a dollar
    trader.decide(Action.BUY, 0.5)
    assert trader[N_LOTS] == 1
    assert trader.seen()["can_buy"] == 0.0


def test_cash_pays_the_fee_too() -> None:
    trader = Trader(make_market([100] * 3), FREE._replace(taker_fee_frac=0.01))
    trader.decide(Action.BUY, 1.0)
    assert 0.0 <= trader[CASH] < 1e-6
    assert trader[EQUITY] == pytest.approx(10_000 / 1.01)


def daily_trader(cool_down_bars: int) -> Trader:
    """Half the equity in a lot that loses 10 % on bar 2: the day is down 5 %."""
    rules = FREE._replace(daily_loss_halt_frac=0.05, cool_down_bars=cool_down_bars)
    trader = Trader(make_market([100, 100, 100] + [90] * 20), rules)
    trader.decide(Action.BUY, 0.5)
    trader.decide(Action.HOLD)
    return trader


def test_daily_loss_stops_new_lots_until_the_cool_down_has_passed() -> None:
    trader = daily_trader(cool_down_bars=3)
    assert trader[HALT] == DAILY_HALT
    refused = []
    for _ in range(4):
        refused.append(trader.seen()["can_buy"] == 0.0)
        trader.decide(Action.BUY, 0.1)
    assert refused == [True, True, True, False]
    assert trader[N_LOTS] == 2


def test_daily_halt_keeps_open_lots_and_lets_them_be_sold() -> None:
    trader = daily_trader(cool_down_bars=10)
    assert trader[N_LOTS] == 1
    assert trader.seen()["can_sell"] == 1.0
    trader.decide(Action.SELL)
    assert trader[N_LOTS] == 0


def test_after_a_daily_halt_only_a_new_loss_trips_it() -> None:
    trader = daily_trader(cool_down_bars=3)
    for _ in range(6):
        trader.decide(Action.HOLD)
    assert trader[HALT] == NO_HALT


def test_new_day_measures_its_loss_from_its_own_start() -> None:
    # 3 % lost on either side of midnight (the border between bars 2 and 3): no day lost 5 %
    rules = FREE._replace(daily_loss_halt_frac=0.05, cool_down_bars=9)
    data = make_market([100, 100, 100, 97, 94, 94], first_open_ns=MIDNIGHT_NS - 3 * BAR_NS)
    trader = Trader(data, rules)
    trader.decide(Action.BUY, 1.0)
    for _ in range(4):
        trader.decide(Action.HOLD)
    assert trader[EQUITY] == pytest.approx(9400)
    assert trader[HALT] == NO_HALT
    same_day = Trader(make_market([100, 100, 100, 97, 94, 94]), rules)
    same_day.decide(Action.BUY, 1.0)
    for _ in range(4):
        same_day.decide(Action.HOLD)
    assert same_day[HALT] == DAILY_HALT


def test_drawdown_halt_closes_everything_at_the_next_open() -> None:
    trader = Trader(make_market([100, 100, 100, 80, 85, 85]), FREE._replace(drawdown_halt_frac=0.15))
    trader.decide(Action.BUY, 0.5)
    trader.decide(Action.BUY, 0.5)  # the close of bar 2 is 80: down 20 %
    assert trader[HALT] == DRAWDOWN_HALT
    assert trader[PENDING] == orders.CLOSE_ALL
    trader.decide(Action.BUY, 0.5)
    assert trader[N_LOTS] == 0
    assert trader[CASH] == pytest.approx(10_000 * 0.8)  # bar 3 opens at 80


def test_peak_restarts_when_the_drawdown_halt_ends() -> None:
    rules = FREE._replace(drawdown_halt_frac=0.15, cool_down_bars=2)
    trader = Trader(make_market([100, 100, 100] + [80] * 8), rules)
    trader.decide(Action.BUY, 1.0)
    trader.decide(Action.HOLD)
    assert (trader[HALT], trader[COOL_DOWN]) == (DRAWDOWN_HALT, 2)
    trader.decide(Action.HOLD)
    assert trader[PEAK_EQUITY] == 10_000.0
    assert trader.seen()["can_buy"] == 0.0
    trader.decide(Action.HOLD)
    assert trader[HALT] == NO_HALT
    assert trader[PEAK_EQUITY] == pytest.approx(8000.0)
    assert trader.seen()["can_buy"] == 1.0
    assert trader.seen()["drawdown_frac"] == 0.0


def test_drawdown_halt_sells_again_until_nothing_is_left() -> None:
    volume = [1e9, 1e9, 1e9, 30.0, 30.0, 50.0, 1e9, 1e9]
    rules = FREE._replace(drawdown_halt_frac=0.15, cool_down_bars=10)
    trader = Trader(make_market([100, 100, 100] + [80] * 5, volume=volume), rules)
    trader.decide(Action.BUY, 1.0)  # 100 BTC
    trader.decide(Action.HOLD)
    for left in (70.0, 40.0, 0.0):
        trader.decide(Action.HOLD)
        held = exposure_frac(trader.account) * trader[EQUITY] / 80
        assert held == pytest.approx(left, rel=1e-10, abs=1e-9)


@pytest.mark.parametrize(("cool_down_bars", "outage"), [(0, 0), (5, 6)])
def test_drawdown_halt_outlasts_its_cool_down_until_the_account_is_flat(cool_down_bars: int, outage: int) -> None:
    # 50 BTC bought at 100 with half the equity; at the close of bar 2, 60, it is down 20 %, and each bar after that (or
    # after an outage) takes 10 BTC
    missing = range(3, 3 + outage)
    market = make_market([100, 100, 100] + [60] * 30, volume=[1e9] * 3 + [100.0] * 30, missing=missing)
    rules = FREE._replace(drawdown_halt_frac=0.15, cool_down_bars=cool_down_bars, max_volume_share=0.1)
    trader = Trader(market, rules)
    trader.decide(Action.BUY, 0.5)
    trader.decide(Action.HOLD)
    assert trader[HALT] == DRAWDOWN_HALT
    for _ in missing:
        trader.decide(Action.BUY, 0.5)
    for left in (40, 30, 20, 10):
        trader.decide(Action.BUY, 0.5)
        assert (trader[HELD_BTC], trader[HALT], trader[PENDING]) == (left, DRAWDOWN_HALT, orders.CLOSE_ALL)
        assert trader[COOL_DOWN] >= 1
        assert trader[PEAK_EQUITY] == 10_000.0
    trader.decide(Action.BUY, 0.5)
    assert (trader[N_LOTS], trader[HALT], trader[PEAK_EQUITY], trader[CASH]) == (0, NO_HALT, 8000.0, 8000.0)
    trader.decide(Action.BUY, 0.06)
    assert trader[HELD_BTC] == pytest.approx(0.06 * 10_000 / 60)


def test_drawdown_halt_ends_though_what_is_left_is_less_than_the_exchange_takes_of_an_order() -> None:
    # 50 BTC in steps of 1; bar 3 takes 49 of its 49.5, and the last one, worth 60 where 500 is the least, goes in bar 4
    volume = [1e9, 1e9, 1e9, 49.5, 1e9, 1e9]
    rules = FREE._replace(drawdown_halt_frac=0.15, lot_step_btc=1.0, min_notional_usdt=500.0)
    trader = Trader(make_market([100, 100, 100, 60, 60, 60], volume=volume), rules)
    trader.decide(Action.BUY, 0.5)
    trader.decide(Action.HOLD)
    trader.decide(Action.SELL)
    assert (trader[HELD_BTC], trader[HALT]) == (1, DRAWDOWN_HALT)
    trader.decide(Action.SELL)
    assert (trader[HELD_BTC], trader[HALT], trader[CASH]) == (0, NO_HALT, 8000.0)


def test_halt_drops_an_entry_that_still_waits() -> None:
    # half in a lot; the second order takes two bars more to arrive, and bar 3 closes 10 % lower: the day is down 5 %
    rules = FREE._replace(daily_loss_halt_frac=0.05, cool_down_bars=50, latency_bars=2)
    trader = Trader(make_market([100, 100, 100, 100, 100] + [90] * 6), rules)
    trader.decide(Action.BUY, 0.5)
    for _ in range(2):
        trader.decide(Action.HOLD)
    assert trader[N_LOTS] == 1
    trader.decide(Action.BUY, 0.4)
    assert (trader[HALT], trader[PENDING]) == (DAILY_HALT, orders.NO_ORDER)
    for _ in range(4):
        trader.decide(Action.HOLD)
    assert trader[N_LOTS] == 1


def test_limits_of_one_never_trip() -> None:
    trader = Trader(make_market([100, 100, 1, 1, 1]), FREE)
    trader.decide(Action.BUY, 1.0)
    trader.decide(Action.HOLD)
    assert trader[HALT] == NO_HALT


def test_close_of_a_drawdown_halt_replaces_an_order_that_waits_and_is_late_once() -> None:
    rules = FREE._replace(drawdown_halt_frac=0.15, latency_bars=2, cool_down_bars=9)
    trader = Trader(make_market([100, 100, 100, 100, 80, 80, 80, 80, 80]), rules)
    for _ in range(4):
        trader.decide(Action.BUY, 0.9)  # the first fills on bar 3, whose close is 80
    assert (trader[HALT], trader[PENDING], trader[PENDING_DELAY]) == (DRAWDOWN_HALT, orders.CLOSE_ALL, 1)
    trader.decide(Action.BUY)
    assert (trader[N_LOTS], trader[PENDING_DELAY]) == (1, 0)
    trader.decide(Action.BUY)
    assert trader[N_LOTS] == 0


def test_short_loses_from_its_peak_too() -> None:
    rules = FREE._replace(perpetual=True, allow_short=True, drawdown_halt_frac=0.15)
    trader = Trader(make_market([100, 100, 120, 120]), rules)
    trader.decide(Action.SELL, 1.0)
    assert (trader[HALT], trader[PENDING]) == (DRAWDOWN_HALT, orders.CLOSE_ALL)
    trader.decide(Action.HOLD)
    assert (trader[N_LOTS], trader[CASH]) == (0, pytest.approx(8000.0))
