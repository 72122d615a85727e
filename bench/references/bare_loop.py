"""The least that a trading loop can do, as a bar for ours: one position, flat costs, a stop, a log reward.

No lots, no cash, no volume, no limits, no masked bars: an account is long, short or flat with all its equity. BUY goes
long, SELL short, CLOSE_ALL flat, HOLD keeps, at the next bar's open. State is one array per quantity, each (N,).

As people write it, a bar is read when it is needed: packed bars are no faster than four arrays then. Fetched ahead, as
the market's are, they are faster than any of five layouts tried.
"""

import math
from typing import NamedTuple

import numpy as np

from btcai.compiled import cache_lines, prefetch, stepping
from btcai.schema import FloatArray, IntArray

EPISODE_BARS = 2000
"""An account starts afresh, at a bar of its own, whenever it passes a multiple of this."""

RUIN = 0.5
"""Share of the start's equity at which an account starts afresh."""

AHEAD = 8
"""Accounts whose bar is best fetched while one is stepped: the steps are shorter than the market's."""

JUMP_BAR, JUMP_ACCOUNT = 7919, 104_729  # primes that scatter the new starts


class BarePrices(NamedTuple):
    """Bars without gaps, USDT, (T,) each; see bare_prices."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray


class BareAccounts(NamedTuple):
    """t bar whose close was seen last; side -1, 0, 1; entry USDT; settled equity without the open position; marked
    equity with it; reward log(marked / marked before). Equity starts at 1."""

    t: IntArray
    side: IntArray
    entry: FloatArray
    settled: FloatArray
    marked: FloatArray
    reward: FloatArray


def bare_prices(open: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray) -> BarePrices:
    """Copies (T,) packed so that a bar is half a cache line."""
    columns = BarePrices(open, high, low, close)
    packed = cache_lines(len(open) * len(columns)).reshape(-1, len(columns))
    for index, prices in enumerate(columns):
        packed[:, index] = prices
    return BarePrices(*packed.T)


def bare_accounts(t: IntArray) -> BareAccounts:
    """Flat accounts at bars t (N,)."""
    n = len(t)
    return BareAccounts(
        t=t.copy(),
        side=np.zeros(n, np.int64),
        entry=np.ones(n),
        settled=np.ones(n),
        marked=np.ones(n),
        reward=np.zeros(n),
    )


@stepping
def step_bare(
    accounts: BareAccounts,
    prices: BarePrices,
    actions: IntArray,
    fee_frac: float,
    slippage_frac: float,
    stop_loss_frac: float,
    ahead: int,
    first: int,
    stop: int,
) -> None:
    """Accounts first .. stop - 1 each take their action (N,) at the open of bar t + 1 and are marked at its close.

    ahead: how many accounts before its turn a bar is fetched, 0 for not before it is read.
    """
    n_bars = len(prices.close)
    for i in range(first, stop):
        if ahead > 0 and i + ahead < stop:
            prefetch(prices.open, accounts.t[i + ahead] + 1)
        bar = accounts.t[i] + 1
        side, entry, equity = accounts.side[i], accounts.entry[i], accounts.settled[i]
        action = actions[i]
        wanted = side if action == 0 else (1 if action == 1 else (-1 if action == 2 else 0))
        if wanted != side:
            price = prices.open[bar]
            if side != 0:
                equity *= (1.0 + side * (price * (1.0 - slippage_frac * side) / entry - 1.0)) * (1.0 - fee_frac)
            if wanted != 0:
                entry = price * (1.0 + slippage_frac * wanted)
                equity *= 1.0 - fee_frac
            side = wanted
        marked = equity
        if side != 0:
            level = entry * (1.0 - side * stop_loss_frac)
            if side > 0 and prices.low[bar] <= level:
                fill = min(prices.open[bar], level) * (1.0 - slippage_frac)
                equity *= fill / entry * (1.0 - fee_frac)
                side, marked = 0, equity
            elif side < 0 and prices.high[bar] >= level:
                fill = max(prices.open[bar], level) * (1.0 + slippage_frac)
                equity *= (2.0 - fill / entry) * (1.0 - fee_frac)
                side, marked = 0, equity
            else:
                marked = equity * (1.0 + side * (prices.close[bar] / entry - 1.0))
        accounts.reward[i] = math.log(marked / accounts.marked[i]) if marked > 0.0 else -1.0
        if marked < RUIN or bar >= n_bars - 2 or bar % EPISODE_BARS == 0:
            bar = (bar * JUMP_BAR + i * JUMP_ACCOUNT) % (n_bars - 2)
            side, equity, marked = 0, 1.0, 1.0
        accounts.t[i], accounts.side[i], accounts.entry[i] = bar, side, entry
        accounts.settled[i], accounts.marked[i] = equity, marked
