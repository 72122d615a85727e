"""What happens to an order after the close that decides it: when it fills, how much of it, at which price."""

import numpy as np
import pytest
from market_world import FREE, Trader, make_market

from btcai.market.account import (
    CASH,
    CLOSED_LOTS,
    COSTS_PAID,
    EQUITY,
    LOT_BTC,
    LOT_ENTRY_BAR,
    LOT_ENTRY_PRICE,
    N_LOTS,
    NO_ORDER,
    PENDING,
    TRADED_USDT,
)
from btcai.schema import Action

HOLD, BUY, SELL, CLOSE_ALL = Action


def test_order_fills_at_the_next_open_and_not_at_the_close_it_was_decided_on() -> None:
    data = make_market([100, 100, 130])
    data.bars.open[1] = 104.0  # a gap between the close of bar 0, 100, and the open of bar 1
    trader = Trader(data, FREE).walk(BUY)
    assert trader.open[0, LOT_ENTRY_PRICE] == 104.0
    assert trader.open[0, LOT_BTC] == pytest.approx(1000 / 104)


def test_bars_after_the_fill_change_nothing_before_them() -> None:
    calm, crash = (Trader(make_market([100, 100, 110, price]), FREE).walk(BUY) for price in (110, 1))
    np.testing.assert_array_equal(calm.account, crash.account)


def test_less_than_one_coin_can_be_bought() -> None:
    trader = Trader(make_market([50_000, 50_000, 50_000]), FREE).walk(BUY, size_frac=0.01)
    assert trader.open[0, LOT_BTC] == pytest.approx(0.002)


def test_order_waits_over_missing_bars_and_no_other_is_taken() -> None:
    trader = Trader(make_market([100, 101, 102, 105, 107], missing=[1, 2]), FREE).walk(BUY)
    assert trader[PENDING] != NO_ORDER
    assert trader[EQUITY] == 10_000.0
    assert trader.seen()["can_buy"] == 0.0
    trader.decide(BUY, 0.9)  # ignored: one is waiting
    trader.decide(HOLD)
    assert trader[N_LOTS] == 1
    assert trader.open[0, [LOT_ENTRY_PRICE, LOT_BTC]] == pytest.approx([105.0, 1000 / 105])


def test_open_lot_is_not_for_sale_while_a_sale_waits() -> None:
    trader = Trader(make_market([100] * 6, missing=[2, 3]), FREE).walk(BUY)
    assert trader.seen()["can_sell"] == 1.0
    trader.decide(SELL)
    assert trader.seen()["can_sell"] == 0.0


def test_order_arrives_as_many_present_bars_late_as_the_latency_says() -> None:
    market = make_market([100, 101, 102, 103, 104, 105], missing=[2])
    trader = Trader(market, FREE._replace(latency_bars=2)).walk(BUY, BUY, HOLD)
    assert trader[N_LOTS] == 0  # bars 1 and 3 went by, bar 2 is missing
    trader.decide(HOLD)
    assert trader.open[:, LOT_ENTRY_PRICE].tolist() == [104.0]


def test_order_fills_a_share_of_the_volume_and_the_rest_is_dropped() -> None:
    trader = Trader(make_market([100] * 4, volume=40.0), FREE._replace(max_volume_share=0.1))
    trader.walk(BUY, HOLD)  # 10 BTC wanted, 4 filled
    assert trader.open[:, LOT_BTC] == pytest.approx([4.0])


def test_bar_without_volume_fills_no_order() -> None:
    trader = Trader(make_market([100] * 3, volume=0.0), FREE).walk(BUY)
    assert (trader[N_LOTS], trader[PENDING]) == (0, NO_ORDER)


@pytest.mark.parametrize("action", [SELL, CLOSE_ALL])
def test_selling_nothing_is_hold(action: Action) -> None:
    trader = Trader(make_market([100, 100, 200]), FREE).walk(action)
    assert (trader[PENDING], trader[CASH]) == (NO_ORDER, 10_000.0)


@pytest.mark.parametrize(("size", "allowed"), [(0.1, False), (0.0, True), (float("nan"), True)])
def test_buy_without_leave_or_size_is_hold(size: float, allowed: bool) -> None:
    trader = Trader(make_market([100, 100, 200]), FREE)
    trader.decide(BUY, size, allowed)
    assert trader[N_LOTS] == 0


def test_no_more_lots_than_allowed() -> None:
    trader = Trader(make_market([100] * 7), FREE).walk(*[BUY] * 5)
    assert trader[N_LOTS] == 3
    assert trader.seen()["lots_frac"] == 1.0
    assert trader.seen()["can_buy"] == 0.0


def test_twenty_five_lots_are_closed_oldest_first_around_the_ring() -> None:
    trader = Trader(make_market([100] * 60, volume=1e9), FREE._replace(max_lots=25))
    trader.walk(*[BUY] * 25, *[SELL] * 10, *[BUY] * 6, size_frac=0.03)
    assert trader.open[:, LOT_ENTRY_BAR].tolist() == [*range(11, 26), *range(36, 42)]
    trader.walk(CLOSE_ALL)
    assert (trader[N_LOTS], trader[CLOSED_LOTS], trader[CASH]) == (0, 31, pytest.approx(10_000.0))


def test_compounding_lot_is_a_share_of_the_equity_of_the_moment() -> None:
    sizes = []
    for compound in (True, False):
        trader = Trader(make_market([100, 100, 200, 200]), FREE._replace(compound=compound))
        trader.decide(BUY, 0.5)
        trader.decide(BUY, 0.1)
        sizes.append(trader.open[1, LOT_BTC] * 200)
    assert sizes == pytest.approx([1500, 1000])  # equity 15,000, started with 10,000


def test_decision_holds_for_a_whole_patch() -> None:
    trader = Trader(make_market([100, 100, 110, 120, 130]), FREE._replace(patch_bars=3))
    reward, _ = trader.decide(BUY)
    assert trader.t == 3
    assert reward == pytest.approx(10 * 30 / 10_000)  # 10 BTC from the open of bar 1 to the close of bar 3


# The exchange's filters


def test_quantity_is_floored_to_the_lot_step() -> None:
    trader = Trader(make_market([300] * 3), FREE._replace(lot_step_btc=0.5)).walk(BUY)
    assert trader.open[0, LOT_BTC] == 3.0  # 1000 / 300 = 3.33


def test_quantity_that_is_whole_steps_but_for_its_rounding_is_kept() -> None:
    trader = Trader(make_market([1000] * 3), FREE._replace(lot_step_btc=0.1)).walk(BUY, size_frac=0.03)
    assert trader.open[0, LOT_BTC] == pytest.approx(0.3)  # 0.3 / 0.1 = 2.9999999999999996


def test_partial_sale_is_floored_to_the_lot_step_and_the_rest_stays() -> None:
    volume = [1e9, 1e9, 7.3, 1e9]
    trader = Trader(make_market([100] * 4, volume=volume), FREE._replace(lot_step_btc=2.0)).walk(BUY, SELL)
    assert trader.open[:, LOT_BTC] == pytest.approx([4.0])  # 10 less 6 of the 7.3 that the bar would take


def test_prices_are_rounded_to_the_tick_against_the_trader() -> None:
    # 1 % of 101 on either side: 102.01 is paid as 102.5, 99.99 received as 99.5
    trader = Trader(make_market([101] * 4), FREE._replace(half_spread_frac=0.01, tick_usdt=0.5)).walk(BUY)
    quantity = 1000 / 101
    assert trader.open[0, LOT_ENTRY_PRICE] == pytest.approx(102.5)
    trader.walk(SELL)
    assert trader[CASH] == pytest.approx(10_000 + quantity * (99.5 - 102.5))


def test_open_on_the_grid_is_paid_as_it_is() -> None:
    trader = Trader(make_market([100.07] * 4), FREE._replace(tick_usdt=0.01)).walk(BUY, SELL)  # 100.07 / 0.01 < 10007
    assert trader[CASH] == pytest.approx(10_000.0, rel=1e-12)


def test_order_below_the_least_notional_is_not_opened() -> None:
    rules = FREE._replace(min_notional_usdt=500.0)
    assert Trader(make_market([100] * 3), rules).walk(BUY, size_frac=0.0499)[N_LOTS] == 0
    assert Trader(make_market([100] * 3), rules).walk(BUY, size_frac=0.0501)[N_LOTS] == 1


def test_rest_below_the_least_notional_is_only_closed_with_everything() -> None:
    # 10 BTC, 8 of them sold: 200 USDT are left
    rules = FREE._replace(min_notional_usdt=500.0, max_volume_share=0.5)
    trader = Trader(make_market([100] * 6, volume=[0, 1e9, 16.0, 1e9, 1e9, 1e9]), rules).walk(BUY, SELL, SELL)
    assert trader.open[:, LOT_BTC] == pytest.approx([2.0])
    assert trader[PENDING] == NO_ORDER
    trader.walk(CLOSE_ALL)
    assert trader[N_LOTS] == 0


# Orders that rest


def resting(opens: list[float], rules: dict[str, float] | None = None, **market: object) -> Trader:
    """A buyer of 1000 USDT 1 % below the open, for two bars; maker's fee 0.1 %, taker's 1 %."""
    chosen = {"half_spread_frac": 0.01, "maker_fee_frac": 0.001, "taker_fee_frac": 0.01, "maker_bars": 2}
    return Trader(make_market(opens, **market), FREE._replace(**chosen, **(rules or {}))).walk(BUY)


def test_resting_buy_fills_at_its_limit_for_the_makers_fee_when_the_bar_trades_below_it() -> None:
    trader = resting([100, 100, 100], lows={1: 98.9})
    assert trader.open[0, [LOT_ENTRY_PRICE, LOT_BTC]] == pytest.approx([99.0, 10.0])
    assert trader[CASH] == pytest.approx(10_000 - 990 * 1.001)
    assert trader[COSTS_PAID] == pytest.approx(0.99 - 10)  # the half spread is earned


def test_touching_the_limit_is_not_enough() -> None:
    trader = resting([100, 100, 100], lows={1: 99.0})
    assert trader[N_LOTS] == 0
    assert trader[PENDING] != NO_ORDER


def test_resting_order_follows_the_open_and_crosses_the_spread_when_its_bars_are_over() -> None:
    trader = resting([100, 100, 110, 120, 120]).walk(HOLD, HOLD)
    assert trader.open[0, [LOT_ENTRY_PRICE, LOT_BTC, LOT_ENTRY_BAR]] == pytest.approx([121.2, 1000 / 120, 3])
    assert trader[TRADED_USDT] == pytest.approx(1010)
    assert trader[CASH] == pytest.approx(10_000 - 1010 * 1.01)


def test_resting_sale_fills_above_the_open() -> None:
    trader = resting([100, 100, 100, 100], lows={1: 98.9}, highs={2: 101.1}).walk(SELL)
    assert trader[CASH] == pytest.approx(10_000 - 990 * 1.001 + 1010 * 0.999)


def test_limits_are_rounded_to_the_tick_away_from_the_market() -> None:
    trader = resting([100, 100, 100, 100], {"tick_usdt": 2.0}, lows={1: 97.9}, highs={2: 102.1}).walk(SELL)
    assert trader[TRADED_USDT] == pytest.approx(10 * 98 + 10 * 102)


def test_close_all_never_rests() -> None:
    trader = resting([100, 100, 100, 100], lows={1: 98.9}).walk(CLOSE_ALL)
    assert trader[CASH] == pytest.approx(10_000 - 990 * 1.001 + 990 * 0.99)


def test_sale_that_waits_for_a_lot_that_a_stop_took_is_gone() -> None:
    rules = FREE._replace(stop_loss_frac=0.1, latency_bars=1)
    trader = Trader(make_market([100] * 8, lows={3: 80}), rules).walk(BUY, HOLD)
    trader.walk(SELL)  # late by one bar, bar 3, in which the stop takes the lot
    assert trader[CLOSED_LOTS] == 1
    trader.walk(HOLD)
    assert (trader[PENDING], trader[CASH]) == (NO_ORDER, pytest.approx(9_900.0))
