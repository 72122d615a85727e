"""An account and its open lots as rows of float64, so that thousands of them live in two arrays.

account (N_ACCOUNT,): the columns named below, the ones that every bar reads first. lots (max_lots, N_LOT): a ring; open
are the rows (HEAD + k) % max_lots, k < N_LOTS, oldest first, all of one side. The rows before HEAD hold the lots closed
last, newest nearest, until a new lot takes their place, so a reader that looks after every bar finds each one whole.
Functions here write into the rows they are given and into nothing else.
"""

import math

import numpy as np

from btcai.compiled import cache_lines, compiled, inlined
from btcai.market.reward import bonus_return, bounded_return
from btcai.schema import FloatArray

CASH = 0  # USDT; what shorts were sold for included
HELD_BTC = 1  # sum of the open lots, below 0 when short
EQUITY = 2  # USDT at the mark of the last bar stepped
START_EQUITY = 3  # USDT; it, PEAK_EQUITY and DAY_START_EQUITY scale with each transfer
PEAK_EQUITY = 4  # USDT, the highest EQUITY; restarts after a drawdown halt
N_LOTS = 5  # open lots
HEAD = 6  # row of the oldest open lot
PENDING = 7  # the order that waits, NO_ORDER when none does
PENDING_FRAC = 8  # size_frac of a pending OPEN_LONG or OPEN_SHORT
PENDING_DELAY = 9  # present bars until it arrives
PENDING_REST = 10  # present bars it may still rest before it crosses the spread
HIGHEST_ENTRY = 11  # at least the highest entry price of the open lots, 0 without any
LOWEST_ENTRY = 12  # at most the lowest, NO_ENTRY without any
HALT = 13  # NO_HALT, DAILY_HALT or DRAWDOWN_HALT of risk.py
COOL_DOWN = 14  # bars until the halt ends; of a drawdown halt at least 1 while a lot is left
SINCE_TRADE = 15  # decisions since the last fill, or since the start
DAY = 16  # UTC day of the last bar stepped, -1 before the first
DAY_START_EQUITY = 17  # USDT, EQUITY before the first bar of the day
COSTS_PAID = 18  # USDT: fees + spread + impact against the price without them, and funding; a resting order earns some
TRADED_USDT = 19  # notional of all fills
TRADED_BEFORE = 20  # TRADED_USDT when the 30 days began that fee tiers look at
CLOSED_LOTS = 21
WIN_USDT = 22  # sum over closed lots of cost * bounded_return: what the win_rate term of the reward pays
BONUS_USDT = 23  # the same of bonus_return
FUNDING_PAID = 24  # USDT, part of COSTS_PAID
TRANSFERRED = 25  # USDT, deposits less withdrawals
SEED = 26  # of the account's random transfers
DAY_TRADED = 27  # and the columns after it: TRADED_USDT at the start of each of the last TIER_DAYS days, a ring
TIER_DAYS = 30
N_ACCOUNT = 64  # whole cache lines

LOT_BTC = 0  # what is still held, below 0 when short
LOT_SIZE_BTC = 1  # what was bought or sold short
LOT_COST_USDT = 2  # paid for the whole lot (a short: received for it), all costs included
LOT_ENTRY_PRICE = 3  # fill price, spread and impact included
LOT_ENTRY_BAR = 4  # index of the bar it was filled on
LOT_PROCEEDS_USDT = (
    5  # received so far, all costs included; a short: cost + profit, so that a return is always / cost - 1
)
LOT_EXIT_USDT = 6  # notional of its exits so far
N_LOT = 8  # a cache line

NO_ORDER, OPEN_LONG, REDUCE, CLOSE_ALL, OPEN_SHORT = range(5)
"""Kinds of orders; the first four have the numbers of the actions that give them on spot."""

NO_ENTRY = 1e300


def new_accounts(
    n: int, max_lots: int, equity_usdt: float, seeds: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """n accounts in cash: account (n, N_ACCOUNT), lots (n, max_lots, N_LOT); seeds (n,) of random transfers."""
    account = cache_lines(n * N_ACCOUNT).reshape(n, N_ACCOUNT)
    account[:, [CASH, START_EQUITY, EQUITY, PEAK_EQUITY, DAY_START_EQUITY]] = equity_usdt
    account[:, DAY] = -1
    account[:, LOWEST_ENTRY] = NO_ENTRY
    if seeds is not None:
        account[:, SEED] = seeds
    return account, cache_lines(n * max_lots * N_LOT).reshape(n, max_lots, N_LOT)


def open_lots(account: FloatArray, lots: FloatArray) -> FloatArray:
    """A copy (N_LOTS, N_LOT) of one account's open lots, oldest first."""
    rows = (int(account[HEAD]) + np.arange(int(account[N_LOTS]))) % len(lots)
    return lots[rows]


@inlined
def lot_row(account: FloatArray, lots: FloatArray, k: int) -> int:
    """Row of open lot k, 0 the oldest."""
    row = int(account[HEAD]) + k
    return row if row < lots.shape[0] else row - lots.shape[0]


@inlined
def equity_usdt(account: FloatArray, mark: float) -> float:
    """Cash and open lots at the mark (any, without one), USDT; below 0 where a short lost more than there was."""
    return account[CASH] + account[HELD_BTC] * mark if account[N_LOTS] > 0.0 else account[CASH]  # type: ignore[no-any-return]


@inlined
def free_usdt(account: FloatArray) -> float:
    """Equity that is in no lot: cash, for a short less what its lots were sold for and their loss since."""
    return account[CASH] if account[HELD_BTC] >= 0.0 else 2.0 * account[EQUITY] - account[CASH]  # type: ignore[no-any-return]


@inlined
def exposure_frac(account: FloatArray) -> float:
    """Value of the open lots / equity at the last mark, below 0 when short."""
    return 1.0 - account[CASH] / account[EQUITY]  # type: ignore[no-any-return]


@inlined
def drawdown_frac(account: FloatArray) -> float:
    """How far the equity is below its peak, 0 .. 1; more where it is below 0. 1 where the peak restarted at nothing."""
    return 1.0 - account[EQUITY] / account[PEAK_EQUITY] if account[PEAK_EQUITY] > 0.0 else 1.0


@inlined
def open_lot(
    account: FloatArray, lots: FloatArray, bar: int, btc: float, price: float, reference: float, fee_frac: float
) -> None:
    """A new lot of btc (below 0: sold short) at price and fee; reference is the price without any cost."""
    lot = lots[lot_row(account, lots, int(account[N_LOTS]))]
    paid = btc * price + abs(btc) * price * fee_frac  # below 0: received
    lot[LOT_BTC] = btc
    lot[LOT_SIZE_BTC] = btc
    lot[LOT_COST_USDT] = abs(paid)
    lot[LOT_ENTRY_PRICE] = price
    lot[LOT_ENTRY_BAR] = bar
    lot[LOT_PROCEEDS_USDT] = 0.0
    lot[LOT_EXIT_USDT] = 0.0
    account[N_LOTS] += 1.0
    account[HELD_BTC] += btc
    account[CASH] -= paid
    account[COSTS_PAID] += paid - btc * reference
    account[TRADED_USDT] += abs(btc) * price
    account[SINCE_TRADE] = 0.0
    account[HIGHEST_ENTRY] = max(account[HIGHEST_ENTRY], price)
    account[LOWEST_ENTRY] = min(account[LOWEST_ENTRY], price)


@inlined
def reduce_lot(
    account: FloatArray,
    lots: FloatArray,
    k: int,
    quantity_btc: float,
    price: float,
    reference: float,
    fee_frac: float,
    sigma_patch: float,
    goal_frac: float,
) -> None:
    """Sell quantity_btc > 0 of open lot k, or buy it back where it is short; a lot with nothing left is closed."""
    lot = lots[lot_row(account, lots, k)]
    notional = quantity_btc * price
    if lot[LOT_BTC] > 0.0:
        sold = quantity_btc
        received = notional * (1.0 - fee_frac)
        lot[LOT_PROCEEDS_USDT] += received
    else:
        sold = -quantity_btc
        received = -notional * (1.0 + fee_frac)
        lot[LOT_PROCEEDS_USDT] += 2.0 * lot[LOT_COST_USDT] * (sold / lot[LOT_SIZE_BTC]) + received
    lot[LOT_EXIT_USDT] += notional
    lot[LOT_BTC] -= sold
    account[HELD_BTC] -= sold
    account[CASH] += received
    account[COSTS_PAID] += sold * reference - received
    account[TRADED_USDT] += notional
    account[SINCE_TRADE] = 0.0
    if lot[LOT_BTC] == 0.0:
        _close_lot(account, lots, k, sigma_patch, goal_frac)


@inlined
def _close_lot(account: FloatArray, lots: FloatArray, k: int, sigma_patch: float, goal_frac: float) -> None:
    """Count open lot k and move its row before the open ones."""
    lot = lots[lot_row(account, lots, k)]
    cost = lot[LOT_COST_USDT]
    net_return = lot[LOT_PROCEEDS_USDT] / cost - 1.0
    account[CLOSED_LOTS] += 1.0
    account[WIN_USDT] += cost * bounded_return(net_return, sigma_patch)
    account[BONUS_USDT] += cost * bonus_return(net_return, goal_frac)
    for older in range(k, 0, -1):
        newer, moved = lots[lot_row(account, lots, older)], lots[lot_row(account, lots, older - 1)]
        for column in range(N_LOT):
            newer[column], moved[column] = moved[column], newer[column]
    account[HEAD] = lot_row(account, lots, 1)
    account[N_LOTS] -= 1.0
    if account[N_LOTS] == 0.0:
        account[HELD_BTC] = 0.0  # whatever the sums' rounding
        account[HIGHEST_ENTRY] = 0.0
        account[LOWEST_ENTRY] = NO_ENTRY


@inlined
def tighten_entries(account: FloatArray, lots: FloatArray) -> None:
    """Make HIGHEST_ENTRY and LOWEST_ENTRY exact."""
    highest, lowest = 0.0, NO_ENTRY
    for k in range(int(account[N_LOTS])):
        entry = lots[lot_row(account, lots, k), LOT_ENTRY_PRICE]
        highest, lowest = max(highest, entry), min(lowest, entry)
    account[HIGHEST_ENTRY], account[LOWEST_ENTRY] = highest, lowest


@inlined
def set_lots(account: FloatArray, lots: FloatArray, n_lots: int) -> None:
    """Make rows 0 .. n_lots - 1, filled in by the caller, the account's open lots."""
    held = 0.0
    for k in range(n_lots):
        held += lots[k, LOT_BTC]
    account[N_LOTS], account[HEAD], account[HELD_BTC] = n_lots, 0.0, held
    tighten_entries(account, lots)


@inlined
def pay_funding(account: FloatArray, rate: float, missing_funding_frac: float, mark: float) -> None:
    """Funding of a bar's close: a long pays `rate` of its value, a short receives it; where it is nan, either pays."""
    value = account[HELD_BTC] * mark
    paid = missing_funding_frac * abs(value) if math.isnan(rate) else rate * value
    account[CASH] -= paid
    account[COSTS_PAID] += paid
    account[FUNDING_PAID] += paid


@inlined
def start_day(account: FloatArray, day: int) -> bool:
    """Note equity and volume with which a new UTC day begins; whether it is one, and not the account's first."""
    first, begins = account[DAY] < 0.0, account[DAY] != day
    if begins:
        account[DAY] = day
        account[DAY_START_EQUITY] = account[EQUITY]
        account[DAY_TRADED + day % TIER_DAYS] = account[TRADED_USDT]
        account[TRADED_BEFORE] = account[DAY_TRADED + (day + 1) % TIER_DAYS]
    return begins and not first


@inlined
def transfer(account: FloatArray, usdt: float) -> None:
    """Deposit usdt, or withdraw where it is below 0: free_usdt and half of the equity at most.

    The equities that gain, drawdown and daily loss are measured from scale along, so that none of them notices.
    """
    equity = account[EQUITY]
    if equity <= 0.0:
        return
    moved = max(usdt, -max(0.0, min(free_usdt(account), 0.5 * equity)))
    scale = (equity + moved) / equity
    account[CASH] += moved
    account[TRANSFERRED] += moved
    account[EQUITY] = equity + moved
    account[START_EQUITY] *= scale
    account[PEAK_EQUITY] *= scale
    account[DAY_START_EQUITY] *= scale


@compiled
def random_transfer_draw(seed: float, day: int) -> tuple[float, float]:
    """Two uniform numbers of an account's day, 0 .. 1 and -1 .. 1: does money move, and how much.

    A hash (SplitMix64; Steele, Lea and Flood 2014) and not a stream: neither the order of calls nor other accounts
    change it.
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    state = np.uint64(np.int64(seed)) * np.uint64(0xD1342543DE82EF95) + np.uint64(2 * day) * step
    event, size = _mixed(state + step), _mixed(state + step + step)
    return event, 2.0 * size - 1.0


@compiled
def _mixed(state: np.uint64) -> float:
    """SplitMix64's output function as a number in 0 .. 1."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return float(state >> np.uint64(11)) * 2.0**-53
