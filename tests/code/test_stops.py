"""Stops and targets: when a bar reaches them, and what they pay."""

import pytest
from market_world import FREE, Trader, make_market

from btcai.market.account import CASH, CLOSED_LOTS, COSTS_PAID, LOT_BTC, LOT_ENTRY_PRICE, N_LOTS
from btcai.schema import Action

HOLD, BUY, SELL, CLOSE_ALL = Action
STOP = FREE._replace(stop_loss_frac=0.1)
TARGET = FREE._replace(take_profit_frac=0.1)
SHORTS = {"perpetual": True, "allow_short": True}


def test_stop_fills_at_its_price_when_the_bar_trades_through_it() -> None:
    trader = Trader(make_market([100, 100, 95, 96], lows={2: 85}), STOP).walk(BUY, HOLD)
    assert trader[CASH] == pytest.approx(9000 + 10 * 90)


def test_gap_through_stop_fills_at_open() -> None:
    data = make_market([100, 100, 80, 82], lows={1: 99, 2: 75})
    data.bars.close[1] = data.mark[1] = 99.0
    trader = Trader(data, STOP).walk(BUY, HOLD)
    assert trader[CASH] == pytest.approx(9000 + 10 * 80)


def test_lot_bought_at_the_open_can_be_stopped_in_the_same_bar() -> None:
    trader = Trader(make_market([100, 100, 99], lows={1: 90}), STOP).walk(BUY)
    assert trader[CLOSED_LOTS] == 1
    assert trader[CASH] == pytest.approx(9000 + 10 * 90)


def test_stop_pays_costs_and_fills_whole_whatever_the_volume() -> None:
    rules = STOP._replace(taker_fee_frac=0.01, half_spread_frac=0.01, impact_coef=1.0, max_volume_share=1e-6)
    trader = Trader(make_market([100, 100, 95, 96], volume=[1e9, 1e9, 0.0, 1e9], lows={2: 85}), rules).walk(BUY)
    entry, quantity, cash = *trader.open[0, [LOT_ENTRY_PRICE, LOT_BTC]], trader[CASH]
    trader.walk(HOLD)
    # no volume: impact of the whole bar, sigma 0.01 * 1; price = stop * (1 - 0.01 - 0.01)
    assert trader[CASH] == pytest.approx(cash + quantity * entry * 0.9 * 0.98 * 0.99)
    assert trader[N_LOTS] == 0


def test_low_above_the_stop_keeps_the_lot() -> None:
    trader = Trader(make_market([100, 100, 95, 96], lows={2: 90.01}), STOP).walk(BUY, HOLD)
    assert trader[N_LOTS] == 1


def test_stops_of_one_bar_share_their_impact_and_leave_the_lots_they_do_not_reach() -> None:
    # lots of 10 at 100, 5 at 200, 10 at 100; stops 90, 180, 90: the crash to 150 takes the middle one alone
    opens = [100, 100, 200, 100, 200, 200]
    rules = STOP._replace(stop_loss_frac=0.1)
    trader = Trader(make_market(opens, lows={1: 100, 2: 190, 3: 100, 4: 150}), rules).walk(BUY)
    trader.decide(BUY, 0.1)
    assert trader.open[:, LOT_ENTRY_PRICE].tolist() == [100.0, 200.0]
    trader.decide(BUY, 0.1)  # bar 3 opens at 100: the lot of 200 gaps through its stop
    assert trader.open[:, LOT_ENTRY_PRICE].tolist() == [100.0, 100.0]
    trader.decide(HOLD)
    assert trader[N_LOTS] == 2
    assert trader[CASH] == pytest.approx(10_000 - 3000 + 5 * 100)


def test_older_lot_keeps_its_stop_after_a_dearer_one_was_stopped() -> None:
    # lots at 100, 200 and 80 with stops at 70, 140 and 56: bar 3 opens through 140, bar 4 falls to 65
    rules = FREE._replace(stop_loss_frac=0.3)
    trader = Trader(make_market([100, 100, 200, 80, 80, 80], lows={2: 190, 4: 65}), rules).walk(BUY, BUY, BUY)
    assert trader.open[:, LOT_ENTRY_PRICE].tolist() == [100.0, 80.0]
    assert trader.walk(HOLD).open[:, LOT_ENTRY_PRICE].tolist() == [80.0]


def test_two_stops_of_one_bar_pay_the_impact_of_their_sum() -> None:
    # 20 of 80 BTC: sqrt(1/4) * sigma 0.02 = 1 % of the stop at 90
    rules = STOP._replace(impact_coef=1.0)
    market = make_market([100] * 5, sigma=0.02, volume=[1e18, 1e18, 1e18, 80.0, 1e18], lows={3: 80})
    trader = Trader(market, rules).walk(BUY, BUY, HOLD)
    assert trader[CASH] == pytest.approx(8000 + 20 * 90 * 0.99)
    assert trader[COSTS_PAID] == pytest.approx(20 * 0.9, rel=1e-6)


def test_stop_is_worked_on_the_first_bar_there_is() -> None:
    trader = Trader(make_market([100, 100, 100, 80, 100], missing=[2]), STOP).walk(BUY, HOLD)
    assert trader[N_LOTS] == 1
    assert trader.walk(HOLD)[CASH] == pytest.approx(9000 + 10 * 80)


def test_target_fills_at_its_price_and_never_better_for_the_makers_fee() -> None:
    rules = TARGET._replace(maker_fee_frac=0.001, half_spread_frac=0.0, impact_coef=5.0)
    trader = Trader(make_market([100, 100, 130, 130], volume=1e30), rules).walk(BUY, HOLD)  # bar 2 opens above it
    assert trader[CASH] == pytest.approx(9000 + 10 * 110 * 0.999)
    assert trader[COSTS_PAID] == pytest.approx(1.1)


def test_touching_the_target_is_not_enough() -> None:
    trader = Trader(make_market([100, 100, 100, 100], highs={2: 110.0}), TARGET).walk(BUY, HOLD)
    assert trader[N_LOTS] == 1


def test_target_is_rounded_up_to_the_tick() -> None:
    rules = TARGET._replace(tick_usdt=4.0)
    trader = Trader(make_market([100] * 5, highs={2: 111.9, 3: 112.1}), rules).walk(BUY, HOLD)
    assert trader[N_LOTS] == 1
    assert trader.walk(HOLD)[CASH] == pytest.approx(9000 + 10 * 112)


def test_targets_of_one_bar_share_its_volume_oldest_first() -> None:
    volume = [1e9, 1e9, 1e9, 30.0, 1e9]
    rules = TARGET._replace(max_volume_share=0.5, lot_step_btc=2.0)
    trader = Trader(make_market([100] * 5, volume=volume, highs={3: 120}), rules).walk(BUY, BUY, HOLD)
    # 15 of 20 BTC: the first lot whole, of the second 4 of the 5 that are left
    assert trader.open[:, LOT_BTC] == pytest.approx([6.0])
    assert trader[CASH] == pytest.approx(8000 + 14 * 110)


def test_bar_that_reaches_both_stop_and_target_is_stopped() -> None:
    rules = STOP._replace(take_profit_frac=0.1)
    trader = Trader(make_market([100] * 4, lows={2: 85}, highs={2: 120}), rules).walk(BUY, HOLD)
    assert trader[CASH] == pytest.approx(9000 + 10 * 90)


def test_target_rests_from_the_bar_after_the_entry_on() -> None:
    market = make_market([100] * 4, highs={1: 111, 2: 111})
    assert Trader(market, TARGET).walk(BUY)[N_LOTS] == 1  # whether the high came after the open of bar 1 nobody knows
    assert Trader(market, TARGET).walk(BUY, HOLD)[CASH] == pytest.approx(9000 + 10 * 110)


def test_sale_that_rests_does_not_fill_in_a_bar_that_reaches_the_stop() -> None:
    # bought at 100 with a stop at 90; bar 2 trades above its open (the resting sale) and below the stop
    market = make_market([100] * 4, highs={2: 101}, lows={2: 89})
    rules = STOP._replace(maker_bars=2)
    rested = Trader(make_market([100] * 4, highs={2: 101}, lows={1: 99, 2: 91}), rules).walk(BUY, SELL)
    assert rested[CASH] == pytest.approx(10_000)
    market.bars.low[1] = 99.0  # the resting purchase fills
    assert Trader(market, rules).walk(BUY, SELL)[CASH] == pytest.approx(9000 + 10 * 90)


def test_short_is_stopped_above_its_entry_and_gaps_through_to_the_open() -> None:
    rules = STOP._replace(**SHORTS)
    through = Trader(make_market([100, 100, 100, 100], highs={2: 115}), rules).walk(SELL, HOLD)
    assert through[CASH] == pytest.approx(11_000 - 10 * 110)
    gapped = make_market([100, 100, 120, 120], highs={1: 100})
    gapped.bars.close[1] = gapped.mark[1] = 100.0
    assert Trader(gapped, rules).walk(SELL, HOLD)[CASH] == pytest.approx(11_000 - 10 * 120)


def test_short_reaches_its_target_below_its_entry() -> None:
    rules = TARGET._replace(**SHORTS)
    assert Trader(make_market([100] * 4, lows={2: 90}), rules).walk(SELL, HOLD)[N_LOTS] == 1  # touched
    trader = Trader(make_market([100] * 4, lows={2: 89}), rules).walk(SELL, HOLD)
    assert trader[CASH] == pytest.approx(11_000 - 10 * 90)
