"""The bare loop that `btcai bench env` measures the market against: by hand, and compiled as in plain Python."""

import math

import numpy as np
import pytest

from bench.markets import random_walk
from bench.references.bare_loop import AHEAD, BareAccounts, BarePrices, bare_accounts, bare_prices, step_bare
from btcai.schema import Action

FEE, SLIPPAGE, STOP_LOSS = 0.01, 0.02, 0.05


def prices(*bars: tuple[float, float, float, float]) -> BarePrices:
    """(open, high, low, close) of each bar."""
    return bare_prices(*(np.array(column) for column in zip(*bars, strict=True)))


def walk(accounts: BareAccounts, market: BarePrices, *actions: Action) -> None:
    """The loop in plain Python."""
    for action in actions:
        step_bare.py_func(accounts, market, np.array([action]), FEE, SLIPPAGE, STOP_LOSS, 0, 0, len(accounts.t))


FLAT_BAR = (100.0, 101.0, 99.0, 100.0)


def test_bare_loop_buys_at_the_next_open_and_closes_there() -> None:
    market = prices(FLAT_BAR, (100, 106, 99, 105), (110, 112, 108, 111), FLAT_BAR, FLAT_BAR)
    account = bare_accounts(np.array([0]))
    walk(account, market, Action.BUY)
    assert account.marked[0] == pytest.approx(0.99 * 105 / 102)  # fee 1 %, filled at 102
    assert account.reward[0] == pytest.approx(math.log(0.99 * 105 / 102))
    walk(account, market, Action.CLOSE_ALL)
    assert account.marked[0] == pytest.approx(0.99 * (107.8 / 102) * 0.99)  # sold at 110 less 2 %, fee again
    assert account.side[0] == 0
    assert account.reward[0] == pytest.approx(math.log(0.99 * 107.8 / 105))


def test_bare_loop_gaps_through_a_stop() -> None:
    market = prices(FLAT_BAR, FLAT_BAR, (90, 91, 89, 90), FLAT_BAR, FLAT_BAR)
    account = bare_accounts(np.array([0]))
    walk(account, market, Action.BUY, Action.HOLD)
    assert account.marked[0] == pytest.approx(0.99 * (88.2 / 102) * 0.99)  # stop at 96.9, filled at the open of 90
    assert account.side[0] == 0


def test_bare_loop_stops_a_short_at_its_level() -> None:
    market = prices(FLAT_BAR, FLAT_BAR, (100, 103, 99, 101), FLAT_BAR, FLAT_BAR)
    account = bare_accounts(np.array([0]))
    walk(account, market, Action.SELL, Action.HOLD)  # sold at 98, stopped at 98 * 1.05 = 102.9
    assert account.marked[0] == pytest.approx(0.99 * (2 - 102.9 * 1.02 / 98) * 0.99)


def test_bare_loop_starts_afresh_at_the_end_of_the_bars() -> None:
    market = prices(*[FLAT_BAR] * 6)
    account = bare_accounts(np.array([3]))
    walk(account, market, Action.BUY)
    assert account.t[0] == 4 * 7919 % 4
    assert (account.side[0], account.settled[0], account.marked[0]) == (0, 1.0, 1.0)


@pytest.mark.slow
def test_bare_loop_compiled_is_the_loop_in_plain_python() -> None:
    bars, n = random_walk(300), 12
    market = bare_prices(bars.open, bars.high, bars.low, bars.close)
    rng = np.random.default_rng(3)
    starts = rng.integers(0, 290, n)
    one, other = bare_accounts(starts), bare_accounts(starts)
    for _ in range(400):
        actions = rng.integers(0, len(Action), n)
        step_bare(one, market, actions, 1e-3, 1e-4, 3e-3, AHEAD, 0, n)
        for i in range(n):  # alone, for plain Python cannot fetch ahead
            step_bare.py_func(other, market, actions, 1e-3, 1e-4, 3e-3, 0, i, i + 1)
    for found, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
