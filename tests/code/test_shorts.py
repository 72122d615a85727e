"""Perpetual swaps: selling short, funding and liquidation."""

import numpy as np
import pytest
from market_world import FREE, Trader, make_market

from btcai.market.account import (
    CASH,
    CLOSED_LOTS,
    COSTS_PAID,
    EQUITY,
    FUNDING_PAID,
    LOT_BTC,
    LOT_COST_USDT,
    LOT_PROCEEDS_USDT,
    N_LOTS,
    NO_ORDER,
    PENDING,
    exposure_frac,
)
from btcai.market.bars import bar_arrays
from btcai.schema import Action, MarketData

HOLD, BUY, SELL, CLOSE_ALL = Action
SWAP = FREE._replace(perpetual=True, allow_short=True)


def test_short_earns_what_the_price_falls() -> None:
    trader = Trader(make_market([100, 100, 90, 80, 80]), SWAP).walk(SELL)
    assert trader.open[0, LOT_BTC] == pytest.approx(-10.0)
    assert trader[EQUITY] == pytest.approx(10_000 + 10 * 10)
    assert exposure_frac(trader.account) == pytest.approx(-900 / 10_100)
    trader.walk(HOLD)
    assert trader[EQUITY] == pytest.approx(10_000 + 10 * 20)
    trader.walk(BUY)  # at 80
    assert (trader[N_LOTS], trader[CASH]) == (0, pytest.approx(10_200.0))


def test_profit_of_a_short_by_hand_with_fee_and_spread() -> None:
    rules = SWAP._replace(taker_fee_frac=0.01, half_spread_frac=0.02)
    trader = Trader(make_market([100, 100, 80, 80]), rules).walk(SELL)
    assert trader.open[0, LOT_COST_USDT] == pytest.approx(10 * 98 * 0.99)  # what it was sold for
    trader.walk(BUY)
    assert trader[CASH] == pytest.approx(10_000 + 10 * 98 * 0.99 - 10 * 81.6 * 1.01)
    assert trader[COSTS_PAID] == pytest.approx(10 * (100 - 97.02) + 10 * (82.416 - 80))


def test_proceeds_of_a_short_bought_back_in_parts_are_its_cost_and_profit() -> None:
    # 10 BTC sold at 100; 4 bought back at 90, 6 at 80: profit 40 + 120, return 16 %
    volume = [1e9, 1e9, 4.0, 1e9, 1e9]
    trader = Trader(make_market([100, 100, 90, 80, 80], volume=volume), SWAP).walk(SELL, BUY)
    assert trader.open[0, [LOT_BTC, LOT_PROCEEDS_USDT]] == pytest.approx([-6.0, 2 * 1000 * 0.4 - 360])
    trader.walk(BUY)
    assert trader[CLOSED_LOTS] == 1
    assert trader.lots[0, LOT_PROCEEDS_USDT] == pytest.approx(1160.0)


@pytest.mark.parametrize("allowed", [{"allow_short": False}, {"perpetual": False, "allow_short": False}])
def test_spot_sells_nothing_it_does_not_hold(allowed: dict[str, bool]) -> None:
    trader = Trader(make_market([100, 100, 90]), SWAP._replace(**allowed)).walk(SELL)
    assert (trader[PENDING], trader[CASH]) == (NO_ORDER, 10_000.0)


def test_buy_closes_the_oldest_short_and_opens_nothing_even_without_leave() -> None:
    trader = Trader(make_market([100] * 6), SWAP).walk(SELL, SELL)
    trader.decide(BUY, 0.0, entry_allowed=False)
    assert trader.open[:, LOT_BTC] == pytest.approx([-10.0])


def test_shorts_keep_to_the_exposure_cap_and_to_the_lots_there_are() -> None:
    trader = Trader(make_market([100] * 6), SWAP._replace(max_exposure_frac=0.5)).walk(SELL, SELL, size_frac=0.4)
    assert exposure_frac(trader.account) == pytest.approx(-0.5)
    assert trader.seen()["can_sell"] == 1.0  # to close
    full = Trader(make_market([100] * 6), SWAP).walk(SELL, SELL, SELL, SELL)
    assert full[N_LOTS] == 3
    assert full.seen()["lots_frac"] == -1.0


def test_exposure_left_after_a_shorts_own_costs() -> None:
    # x BTC sold at 99 worth 100 x <= 0.5 * (10,000 - x): x = 5000 / 100.5
    trader = Trader(make_market([100] * 3), SWAP._replace(max_exposure_frac=0.5, half_spread_frac=0.01))
    assert trader.walk(SELL, size_frac=0.9).open[0, LOT_BTC] == pytest.approx(-5000 / 100.5)


def test_flat_account_of_a_swap_may_buy_and_sell() -> None:
    seen = Trader(make_market([100] * 3), SWAP).seen()
    assert (seen["can_buy"], seen["can_sell"]) == (1.0, 1.0)


def test_observation_of_a_short_by_hand() -> None:
    trader = Trader(make_market([100, 100, 90, 90], sigma=0.05), SWAP).walk(SELL, size_frac=0.5)
    seen = trader.seen()
    assert seen["cash_frac"] == pytest.approx(1 - 4500 / 10_500)
    assert seen["lots_frac"] == pytest.approx(-1 / 3)
    assert seen["open_return_sigmas"] == seen["oldest_return_sigmas"] == pytest.approx(0.1 / 0.05)
    assert (seen["can_buy"], seen["can_sell"]) == (1.0, 1.0)


# Funding


def funded(action: Action, rate: float, **rules: float) -> Trader:
    """1000 USDT opened at 100 on bar 1; the rate is due at the close of bar 2, at 110."""
    return Trader(make_market([100, 100, 100, 110, 110], funding={2: rate}), SWAP._replace(**rules)).walk(action, HOLD)


def test_long_pays_a_positive_rate_on_its_value_at_the_mark() -> None:
    trader = funded(BUY, 0.001)
    assert trader[CASH] == pytest.approx(9000 - 1.1)
    assert (trader[FUNDING_PAID], trader[COSTS_PAID]) == (pytest.approx(1.1), pytest.approx(1.1))


def test_short_receives_it() -> None:
    trader = funded(SELL, 0.001)
    assert trader[CASH] == pytest.approx(11_000 + 1.1)
    assert trader[COSTS_PAID] == pytest.approx(-1.1)


@pytest.mark.parametrize(("action", "cash"), [(BUY, 9000), (SELL, 11_000)])
def test_unknown_rate_costs_either_side_what_the_settings_say(action: Action, cash: float) -> None:
    assert funded(action, np.nan, missing_funding_frac=0.002)[CASH] == pytest.approx(cash - 2.2)


def test_spot_pays_no_funding() -> None:
    assert funded(BUY, 0.001, perpetual=False, allow_short=False)[CASH] == pytest.approx(9000)


def test_funding_is_due_on_a_missing_bar_too() -> None:
    market = make_market([100, 100, 100, 100], missing=[2], funding={2: 0.01})
    assert Trader(market, SWAP).walk(BUY, HOLD)[CASH] == pytest.approx(9000 - 10)


def test_lot_closed_before_the_funding_pays_none() -> None:
    market = make_market([100] * 4, funding={2: 0.01})
    assert Trader(market, SWAP).walk(BUY, SELL)[CASH] == pytest.approx(10_000)


def test_market_whose_rates_nobody_recorded_owes_unknown_ones_every_eight_hours() -> None:
    data = make_market([100.0] * 300)
    unrecorded = MarketData(**{name: getattr(data, name) for name in data.__dataclass_fields__ if name != "funding"})
    due = np.flatnonzero(np.isnan(bar_arrays(unrecorded).funding))
    assert due.tolist() == [95, 191, 287]  # the market opens at midnight: closes at 08:00, 16:00 and 00:00


# Liquidation


def test_short_is_bought_back_where_its_equity_falls_to_the_maintenance() -> None:
    # 50 BTC short at 100: cash 15,000; 15,000 / (50 * 1.25) = 240
    rules = SWAP._replace(maintenance_frac=0.25)
    below = Trader(make_market([100] * 4, highs={2: 239.9}), rules).walk(SELL, HOLD, size_frac=0.5)
    assert below[N_LOTS] == 1
    trader = Trader(make_market([100] * 4, highs={2: 240.1}), rules).walk(SELL, HOLD, size_frac=0.5)
    assert (trader[N_LOTS], trader[CASH]) == (0, pytest.approx(15_000 - 50 * 240))


def test_gap_through_the_liquidation_may_leave_a_debt_that_is_recorded_and_ends_the_account() -> None:
    market = make_market([100, 100, 320, 320], highs={1: 100})
    market.bars.close[1] = market.mark[1] = 100.0
    trader = Trader(market, SWAP).walk(SELL, size_frac=0.5)
    _, terminated = trader.decide(HOLD)
    assert (terminated, trader[EQUITY]) == (True, pytest.approx(15_000 - 50 * 320))
    assert np.isfinite(trader.terms).all()


def test_liquidation_pays_the_impact_of_all_lots_together() -> None:
    # 2 lots of 25 BTC, cash 15,000: trigger 300; 50 of 200 BTC: sqrt(1/4) * 0.02 = 1 %
    rules = SWAP._replace(impact_coef=1.0)
    market = make_market([100] * 5, sigma=0.02, volume=[1e18, 1e18, 1e18, 200.0, 1e18], highs={3: 301})
    trader = Trader(market, rules).walk(SELL, SELL, HOLD, size_frac=0.25)
    assert trader[CASH] == pytest.approx(15_000 - 50 * 300 * 1.01)


def test_long_is_never_liquidated() -> None:
    trader = Trader(make_market([100, 100, 11, 11]), SWAP._replace(maintenance_frac=0.5)).walk(BUY, HOLD, size_frac=0.9)
    assert trader[N_LOTS] == 1
