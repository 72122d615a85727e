"""Lots, cash and costs of one account, by hand."""

import numpy as np
import pytest
from market_world import FREE, Trader, make_market

from btcai.market.account import (
    CASH,
    CLOSED_LOTS,
    COSTS_PAID,
    EQUITY,
    HEAD,
    HELD_BTC,
    LOT_BTC,
    LOT_COST_USDT,
    LOT_ENTRY_BAR,
    LOT_ENTRY_PRICE,
    LOT_EXIT_USDT,
    LOT_PROCEEDS_USDT,
    N_ACCOUNT,
    N_LOT,
    N_LOTS,
    TRADED_USDT,
    equity_usdt,
    exposure_frac,
    new_accounts,
)
from btcai.schema import Action

COSTS = FREE._replace(taker_fee_frac=0.01, half_spread_frac=0.01, impact_coef=1.0)


def test_new_accounts_hold_only_cash() -> None:
    account, lots = new_accounts(3, 4, 500.0)
    assert account.shape == (3, N_ACCOUNT)
    assert lots.shape == (3, 4, N_LOT)
    assert equity_usdt(account[2], 123.0) == 500.0
    assert exposure_frac(account[2]) == 0.0


def test_buy_hold_sell_with_fee_spread_and_impact() -> None:
    trader = Trader(make_market([100, 100, 120, 120], volume=40.0, sigma=0.02), COSTS)
    trader.decide(Action.BUY, 0.1)
    # 1,000 USDT at the open of 100: 10 BTC; price 100 * (1 + 0.01 + 1 * 0.02 * sqrt(10 / 40)) = 102;
    # paid 1,020 * 1.01 = 1,030.20; costs 30.20; marked at the close of 120: 8,969.80 + 1,200
    assert trader[CASH] == pytest.approx(8969.80)
    assert trader[COSTS_PAID] == pytest.approx(30.20)
    assert trader[EQUITY] == pytest.approx(10169.80)
    assert trader.open[0, [LOT_BTC, LOT_ENTRY_PRICE, LOT_COST_USDT]] == pytest.approx([10.0, 102.0, 1030.20])
    trader.decide(Action.SELL)
    # 10 BTC at 120 * (1 - 0.02) = 117.60; received 1,176 * 0.99 = 1,164.24; costs 35.76
    assert trader[CASH] == pytest.approx(10134.04)
    assert trader[COSTS_PAID] == pytest.approx(65.96)
    assert trader[TRADED_USDT] == pytest.approx(1020.0 + 1176.0)
    assert trader[N_LOTS] == 0
    assert trader[CLOSED_LOTS] == 1


def test_lot_that_gains_less_than_its_costs_has_lost() -> None:
    trader = Trader(make_market([100, 100, 101, 101]), COSTS).walk(Action.BUY, Action.SELL)
    assert trader[CLOSED_LOTS] == 1
    assert trader.term("win_rate") < 0
    assert trader.term("bonus") == 0


def test_lots_are_sold_first_in_first_out() -> None:
    trader = Trader(make_market([100, 100, 110, 120, 130]), FREE)
    trader.decide(Action.BUY, 0.1)
    trader.decide(Action.BUY, 0.2)
    trader.decide(Action.SELL)
    assert trader[N_LOTS] == 1
    assert trader.open[0, LOT_ENTRY_PRICE] == 110.0
    assert trader[CASH] == pytest.approx(10000 - 1000 - 2000 + 1200)  # the first lot's 10 BTC at 120


def test_lots_closed_last_stay_readable_before_the_open_ones() -> None:
    trader = Trader(make_market([100, 100, 110, 120, 130]), FREE)
    trader.walk(Action.BUY, Action.BUY, Action.CLOSE_ALL)
    head = int(trader[HEAD])
    newest, oldest = trader.lots[head - 1], trader.lots[head - 2]
    assert oldest[[LOT_ENTRY_BAR, LOT_COST_USDT, LOT_PROCEEDS_USDT, LOT_EXIT_USDT]] == pytest.approx(
        [1, 1000, 1200, 1200]
    )
    assert newest[[LOT_ENTRY_BAR, LOT_COST_USDT, LOT_EXIT_USDT]] == pytest.approx([2, 1000, 1000 / 110 * 120])
    assert trader[HELD_BTC] == 0.0


def test_partial_sale_leaves_the_rest_as_the_lot() -> None:
    volume = [40.0, 1000.0, 40.0, 1000.0, 40.0]
    trader = Trader(make_market([100] * 5, volume=volume), FREE._replace(max_volume_share=0.1))
    trader.decide(Action.BUY, 0.1)
    trader.decide(Action.SELL)  # 4 of 10 BTC
    assert trader[N_LOTS] == 1
    assert trader[CLOSED_LOTS] == 0
    assert trader.open[0, [LOT_BTC, LOT_PROCEEDS_USDT]] == pytest.approx([6.0, 400.0])
    trader.decide(Action.SELL)
    assert trader[CLOSED_LOTS] == 1
    assert trader[CASH] == pytest.approx(10_000.0)


def test_close_all_short_of_volume_closes_the_oldest_first() -> None:
    trader = Trader(make_market([100] * 5, volume=[1e9, 1e9, 1e9, 15.0, 1e9]), FREE)
    trader.decide(Action.BUY, 0.1)
    trader.decide(Action.BUY, 0.1)
    trader.decide(Action.CLOSE_ALL)  # 15 of 20 BTC
    assert trader[N_LOTS] == 1
    assert trader.open[0, [LOT_ENTRY_BAR, LOT_BTC]] == pytest.approx([2.0, 5.0])


def test_account_and_lots_are_all_the_state() -> None:
    trader = Trader(make_market([100, 100, 110, 120, 130, 125]), COSTS)
    trader.decide(Action.BUY)
    twin = Trader(make_market([100, 100, 110, 120, 130, 125]), COSTS)
    twin.account[:], twin.lots[:], twin.t = trader.account, trader.lots, trader.t
    assert trader.decide(Action.SELL) == twin.decide(Action.SELL)
    np.testing.assert_array_equal(trader.account, twin.account)
