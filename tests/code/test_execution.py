"""Fill prices, quantities and the tiers of fees, as pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_world import FREE, make_market

from btcai.market.account import TRADED_BEFORE, TRADED_USDT, new_accounts
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.execution import (
    affordable_btc,
    maker_fee,
    maker_price,
    slippage_frac,
    taker_fee,
    taker_price,
    tick_down,
    tick_up,
    whole_steps,
)

COSTLY = FREE._replace(half_spread_frac=0.01, impact_coef=1.0)


@pytest.fixture(scope="module")
def bars() -> BarArrays:
    return bar_arrays(make_market([100, 100, 100], volume=[1.0, 40.0, 0.0], sigma=[0.02, 0.5, 0.5]))


def test_buy_pays_half_spread_and_square_root_impact(bars: BarArrays) -> None:
    # 10 of 40 BTC: sqrt(0.25) = 0.5; impact 1 * 0.02 * 0.5 = 1 %, by the sigma before the bar; half spread 1 %
    assert taker_price(True, 100.0, 10.0, bars, 1, COSTLY) == pytest.approx(102.0)


def test_sell_receives_less_by_the_same_share(bars: BarArrays) -> None:
    assert taker_price(False, 100.0, 10.0, bars, 1, COSTLY) == pytest.approx(98.0)


def test_without_costs_the_price_is_the_reference(bars: BarArrays) -> None:
    assert taker_price(True, 100.0, 10.0, bars, 1, FREE) == taker_price(False, 100.0, 10.0, bars, 1, FREE) == 100.0


def test_impact_grows_with_the_square_root_of_the_order() -> None:
    assert slippage_frac(0.0, 1.0, 0.02, 40.0, 1000.0) == pytest.approx(2 * slippage_frac(0.0, 1.0, 0.02, 10.0, 1000.0))


def test_bar_without_volume_costs_the_impact_of_the_whole_bar(bars: BarArrays) -> None:
    assert taker_price(False, 100.0, 10.0, bars, 2, COSTLY) == pytest.approx(100 * (1 - 0.01 - 0.5))


def test_price_received_is_never_negative(bars: BarArrays) -> None:
    assert taker_price(False, 100.0, 10.0, bars, 2, COSTLY._replace(impact_coef=10.0)) == 0.0


def test_resting_orders_wait_half_a_spread_from_the_open_on_the_tick() -> None:
    rules = COSTLY._replace(tick_usdt=2.0)
    assert maker_price(True, 101.0, rules) == pytest.approx(98.0)  # 99.99
    assert maker_price(False, 101.0, rules) == pytest.approx(104.0)  # 102.01


def test_multiples_of_the_tick_stay_whatever_their_rounding() -> None:
    assert tick_up(100.07, 0.01) == pytest.approx(100.07, rel=1e-15)  # 100.07 / 0.01 = 10006.999999999998
    assert tick_down(100.07, 0.01) == pytest.approx(100.07, rel=1e-15)
    assert (tick_up(100.071, 0.01), tick_down(100.069, 0.01)) == pytest.approx((100.08, 100.06))
    assert tick_up(100.071, 0.0) == tick_down(100.071, 0.0) == 100.071


def test_quantities_are_floored_to_the_step() -> None:
    assert whole_steps(0.3, 0.1) == pytest.approx(0.3)  # 0.3 / 0.1 = 2.9999999999999996
    assert whole_steps(0.39, 0.1) == pytest.approx(0.3)
    assert whole_steps(0.39, 0.0) == 0.39
    assert whole_steps(0.09, 0.1) == 0.0


def test_fee_falls_at_each_tier_by_the_volume_of_thirty_days() -> None:
    rules = FREE._replace(
        taker_fee_frac=0.01,
        maker_fee_frac=0.02,
        tier_usdt=(10.0, 20.0, 30.0, 40.0),
        tier_taker_factor=(0.9, 0.8, 0.7, 0.6),
        tier_maker_factor=(0.5, 0.4, 0.3, 0.0),
    )
    account = new_accounts(1, 1, 100.0)[0][0]
    account[TRADED_BEFORE] = 1000.0
    for traded, taker, maker in ((9.99, 1.0, 1.0), (10, 0.9, 0.5), (29, 0.8, 0.4), (30, 0.7, 0.3), (1e9, 0.6, 0.0)):
        account[TRADED_USDT] = 1000.0 + traded
        assert taker_fee(account, rules) == pytest.approx(0.01 * taker)
        assert maker_fee(account, rules) == pytest.approx(0.02 * maker)


def test_purchase_is_cut_to_what_cash_pays_with_its_costs() -> None:
    assert affordable_btc(50.0, 1010.0, 1e9, 1.0, 100.0, 1.0) == pytest.approx(10.0)


def test_purchase_is_cut_to_the_exposure_left_after_its_own_costs() -> None:
    # cap 50 % of 10,000: x BTC at 100 worth 100 x <= 0.5 * (10,000 - 2 x) at 2 USDT cost each: x = 5000 / 101
    assert affordable_btc(90.0, 1e9, 5000.0, 0.5, 100.0, 2.0) == pytest.approx(5000.0 / 101.0)


@given(steps=st.integers(2, 10**7), price=st.integers(1, 10**7), ulps=st.integers(-8, 8))
def test_cash_of_a_whole_number_of_steps_buys_one_less_however_it_was_rounded(
    steps: int, price: int, ulps: int
) -> None:
    # not the same number or one less by chance; all of it could take the account below zero
    cash = steps * 1e-5 * price * (1 + ulps * 2.0**-52)
    bought = whole_steps(affordable_btc(1e9, cash, 1e18, 1.0, float(price), 0.0), 1e-5)
    assert bought == pytest.approx((steps - 1) * 1e-5, rel=1e-12)


def test_no_exposure_left_buys_nothing() -> None:
    assert affordable_btc(1.0, 1e9, -5.0, 0.5, 100.0, 0.0) == 0.0
