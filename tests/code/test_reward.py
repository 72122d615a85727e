"""Rewards and observations, by hand."""

from math import log, log1p, sqrt

import numpy as np
import pytest
from market_world import FREE, Trader, make_market

from btcai.market.account import SINCE_TRADE, exposure_frac
from btcai.market.reward import TERMS, bonus_return, bounded_return, return_weight
from btcai.schema import Action

HOLD, BUY, SELL, CLOSE_ALL = Action
GOAL = FREE._replace(goal_frac=0.5)


def test_terms_have_their_names_in_this_order() -> None:
    assert TERMS == ("net_profit", "cost", "drawdown", "win_rate", "bonus", "goal")


def test_terms_of_a_loss_by_hand_and_their_weighted_sum() -> None:
    rules = GOAL._replace(taker_fee_frac=0.01, w_cost=2.0, w_drawdown=3.0, w_win_rate=5.0, w_bonus=6.0, w_goal=7.0)
    trader = Trader(make_market([100, 100, 90, 90], sigma=0.02), rules)
    trader.decide(BUY)  # 10 BTC, 1,000 + 10 paid; equity 9,990 - 100
    assert trader.terms == pytest.approx([-0.011, -0.001, -0.011, 0.0, 0.0, -0.011 / 0.5])
    reward, _ = trader.decide(SELL)  # 900 - 9; net return 891 / 1,010 - 1
    net_return = 891 / 1010 - 1
    won = 1010 / 10_000 * net_return / sqrt(1 + (net_return / 0.02) ** 2)
    expected = [-0.0009, -0.0009, -0.0009, won, 0.0, -0.0009 / 0.5]
    assert trader.terms == pytest.approx(expected)
    assert reward == pytest.approx(sum(w * term for w, term in zip((1, 2, 3, 5, 6, 7), expected, strict=True)))


def test_bonus_of_a_gain_is_the_gain_times_the_share_of_the_goal_it_reached() -> None:
    half, beyond = (Trader(make_market([100, 100, price, price]), GOAL).walk(BUY, SELL) for price in (125, 200))
    assert half.term("bonus") == pytest.approx(0.1 * 0.25 * 0.5)  # a lot of 10 % of the equity gained 25 %
    assert beyond.term("bonus") == pytest.approx(0.1 * 1.0)  # doubled: beyond the goal the gain counts once more


def test_win_rate_term_is_bounded_by_one_sigma_of_a_patch_for_gain_and_loss() -> None:
    assert bounded_return(1e-6, 0.02) == pytest.approx(1e-6, rel=1e-6)
    assert bounded_return(50.0, 0.02) == pytest.approx(0.02, rel=1e-6)
    assert bounded_return(-0.5, 0.02) == -bounded_return(0.5, 0.02)


def test_a_loss_has_no_bonus() -> None:
    assert bonus_return(-0.3, 0.5) == 0.0


def test_short_lots_win_and_lose_by_their_own_profit() -> None:
    rules = GOAL._replace(perpetual=True, allow_short=True)
    trader = Trader(make_market([100, 100, 75, 75], sigma=0.02), rules).walk(SELL, BUY)
    assert trader.term("bonus") == pytest.approx(0.1 * 0.25 * 0.5)
    assert trader.term("win_rate") == pytest.approx(0.1 * 0.25 / sqrt(1 + 12.5**2))


def test_funding_is_a_cost_and_one_received_is_a_negative_one() -> None:
    rules = FREE._replace(perpetual=True, allow_short=True)
    market = make_market([100] * 4, funding={2: 0.01})
    assert Trader(market, rules).walk(BUY, HOLD).term("cost") == pytest.approx(-0.001)
    assert Trader(market, rules).walk(SELL, HOLD).term("cost") == pytest.approx(0.001)


def test_compounding_profit_is_a_log_return() -> None:
    trader = Trader(make_market([100, 100, 110, 110]), FREE._replace(compound=True)).walk(BUY, size_frac=0.5)
    assert trader.term("net_profit") == pytest.approx(log(1.05))


def test_compounding_profits_add_up_to_the_log_of_the_whole_growth() -> None:
    trader = Trader(make_market([100, 100, 130, 90, 120, 150, 150]), FREE._replace(compound=True))
    rewards = [trader.decide(action, 0.7)[0] for action in (BUY, HOLD, SELL, BUY, HOLD)]
    assert sum(rewards) == pytest.approx(log(trader.account[2] / 10_000))


def test_goal_term_stops_at_the_goal() -> None:
    trader = Trader(make_market([100, 100, 300, 600]), GOAL).walk(BUY, size_frac=0.5)  # doubled: 50 % reached
    assert trader.term("goal") == 1.0
    assert trader.walk(HOLD).term("goal") == 0.0


def test_drawdown_term_only_counts_what_deepens_it() -> None:
    trader = Trader(make_market([100, 100, 90, 95, 80, 80]), FREE).walk(BUY, size_frac=1.0)
    drawdowns = [trader.term("drawdown")] + [trader.walk(HOLD).term("drawdown") for _ in range(2)]
    assert drawdowns == pytest.approx([-0.1, 0.0, -0.15])


def test_ruin_terminates() -> None:
    trader = Trader(make_market([100, 100, 11, 9, 9]), FREE)
    assert trader.decide(BUY, 1.0)[1] is False  # 11 % left
    assert trader.decide(HOLD)[1] is True


# The account half of the observation


def test_observation_of_a_new_account() -> None:
    seen = Trader(make_market([100, 100]), FREE).seen()
    assert seen == dict(zip(seen, [1, 0, 0, 0, 0, 0, 0, 1, 0], strict=True))


def test_observation_by_hand() -> None:
    rules = GOAL._replace(patch_bars=4, max_lots=4)
    trader = Trader(make_market([100] * 5 + [110, 99, 99, 99, 99], sigma=0.05), rules)
    trader.walk(BUY, BUY, size_frac=0.2)  # at 100 and, the close of bar 4, at 110; the close of bar 8 is 99
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
    trader = Trader(make_market([100] * 8), FREE).walk(BUY, HOLD, HOLD, HOLD)
    assert trader[SINCE_TRADE] == 3
    assert trader.seen()["decisions_since_trade"] == pytest.approx(log1p(3) / 5)


def test_a_stop_is_a_trade_too() -> None:
    trader = Trader(make_market([100] * 8, lows={4: 80}), FREE._replace(stop_loss_frac=0.1)).walk(BUY, HOLD, HOLD, HOLD)
    assert trader[SINCE_TRADE] == 0


def test_observed_returns_and_goal_are_clipped() -> None:
    seen = Trader(make_market([100, 100, 900, 900]), GOAL).walk(BUY, size_frac=0.9).seen()
    assert (seen["open_return_sigmas"], seen["oldest_return_sigmas"], seen["goal_progress"]) == (5.0, 5.0, 1.0)


@pytest.mark.parametrize(
    ("drawdown_frac", "goal_progress", "price"),
    [
        (0.0, 0.0, 2.0 + 0.15 + 0.1 / 0.5),
        (0.2, -0.6, 2.0 + 0.8 * 0.15 + 0.1 * 0.7 / 0.5),  # equity 70 % of the start's
        (0.2, 0.4, 2.0 + 0.8 * 0.15 + 0.1 * 1.2 / 0.5),
        (0.2, 1.0, 2.0 + 0.8 * 0.15),  # beyond the goal no more of it is to be had
    ],
)
def test_price_of_a_return_by_hand(drawdown_frac: float, goal_progress: float, price: float) -> None:
    rules = GOAL._replace(w_net_profit=2.0, w_drawdown=0.3, w_goal=0.1, w_cost=9.0, w_win_rate=9.0, w_bonus=9.0)
    assert return_weight(np.array(drawdown_frac), np.array(goal_progress), rules) == pytest.approx(price, rel=1e-12)


@pytest.mark.parametrize("weight", ["w_net_profit", "w_cost", "w_drawdown", "w_win_rate", "w_bonus", "w_goal"])
@pytest.mark.parametrize("gain", [0.0, -0.1, 0.1, 0.19, 0.25])
@pytest.mark.parametrize(("order", "side"), [(BUY, 1), (SELL, -1)])
def test_price_of_a_return_is_what_the_kernel_pays_for_a_small_rise_and_fall(
    weight: str, gain: float, order: int, side: int
) -> None:
    # half the equity in a lot: at the start's equity, in a drawdown, on the way to the goal of 20 %, beyond it
    weights = {"w_net_profit": 0.0} | {weight: 2.0}
    rules = FREE._replace(goal_frac=0.2, compound=True, perpetual=True, allow_short=True, **weights)
    before, paid = 100 * (1 + 2 * side * gain), []
    for moved in (1e-5, -1e-5):
        trader = Trader(make_market([100, 100, before, before * (1 + moved)]), rules)
        trader.decide(order, 0.5)
        seen, exposure = trader.seen(), exposure_frac(trader.account)
        paid.append(trader.decide(HOLD)[0] / moved)
    price = return_weight(np.array(seen["drawdown_frac"]), np.array(seen["goal_progress"]), rules)
    assert np.mean(paid) == pytest.approx(exposure * price, rel=1e-4, abs=1e-9)
