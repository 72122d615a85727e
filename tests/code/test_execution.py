"""Fill prices and quantities."""

import pytest

from btcai.market.execution import affordable_btc, buy_price, fill_quantity, sell_price


def test_buy_pays_half_spread_and_square_root_impact() -> None:
    # 10 of 40 BTC: sqrt(0.25) = 0.5; impact 1 * 0.02 * 0.5 = 1 %; half spread 1 %; 100 * 1.02
    assert buy_price(100.0, 0.01, 1.0, 0.02, 10.0, 40.0) == pytest.approx(102.0)


def test_sell_receives_less_by_the_same_share() -> None:
    assert sell_price(100.0, 0.01, 1.0, 0.02, 10.0, 40.0) == pytest.approx(98.0)


def test_without_costs_the_price_is_the_open() -> None:
    assert buy_price(100.0, 0.0, 0.0, 0.02, 10.0, 40.0) == 100.0
    assert sell_price(100.0, 0.0, 0.0, 0.02, 10.0, 40.0) == 100.0


def test_bar_without_volume_costs_the_impact_of_the_whole_bar() -> None:
    assert sell_price(100.0, 0.01, 1.0, 0.02, 10.0, 0.0) == pytest.approx(97.0)


def test_price_received_is_never_negative() -> None:
    assert sell_price(100.0, 0.0, 10.0, 0.5, 10.0, 10.0) == 0.0


def test_fill_is_a_share_of_the_volume_and_not_a_whole_coin() -> None:
    assert fill_quantity(10.0, 40.0, 0.1) == pytest.approx(4.0)
    assert fill_quantity(0.003, 40.0, 0.1) == 0.003
    assert fill_quantity(10.0, 0.0, 0.1) == 0.0


def test_purchase_is_cut_to_what_cash_pays_with_the_fee() -> None:
    # 1010 USDT at 100 plus 1 % pays for 10 BTC
    assert affordable_btc(50.0, 1010.0, 1e9, 1.0, 100.0, 100.0, 0.01) == pytest.approx(10.0)


def test_purchase_is_cut_to_the_exposure_left_after_its_own_costs() -> None:
    # cap 50 % of 10,000: x BTC at 100 worth 100 x <= 0.5 * (10,000 - 2 x) at 2 USDT cost each: x = 5000 / 101
    assert affordable_btc(90.0, 1e9, 5000.0, 0.5, 100.0, 102.0, 0.0) == pytest.approx(5000.0 / 101.0)


def test_no_exposure_left_buys_nothing() -> None:
    assert affordable_btc(1.0, 1e9, -5.0, 0.5, 100.0, 100.0, 0.0) == 0.0
