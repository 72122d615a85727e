"""An account and its open lots as rows of float64, so that thousands of them live in two arrays.

account (N_ACCOUNT,): the columns named below. lots (max_lots, N_LOT): rows 0 .. N_LOTS - 1 are open, oldest first; the
rows after them hold the lots closed last, newest first, until a new lot takes their place, so a reader that looks after
every bar finds each closed lot whole. Functions here write into the rows they are given and into nothing else.
"""

import numpy as np

from btcai.market.compiled import inlined
from btcai.market.reward import bounded_return
from btcai.schema import FloatArray

CASH = 0  # USDT
START_EQUITY = 1  # USDT
EQUITY = 2  # USDT at the mark of the last bar stepped
PEAK_EQUITY = 3  # USDT, the highest EQUITY; restarts after a drawdown halt
DAY = 4  # UTC day of the last bar stepped, -1 before the first
DAY_START_EQUITY = 5  # USDT, EQUITY before the first bar of the day
N_LOTS = 6  # open lots
PENDING = 7  # Action waiting for the next present bar, HOLD when none
PENDING_FRAC = 8  # size_frac of a pending BUY
HALT = 9  # NO_HALT, DAILY_HALT or DRAWDOWN_HALT of risk.py
COOL_DOWN = 10  # bars until the halt ends
SINCE_TRADE = 11  # decisions since the last fill, or since the start
COSTS_PAID = 12  # USDT: fees + spread + impact, against the open (orders) or the stop's reference price
TRADED_USDT = 13  # notional of all fills
CLOSED_LOTS = 14
WON_LOTS = 15  # closed lots that returned more than they cost, all costs included
WIN_USDT = 16  # sum over closed lots of cost * bounded_return: what the win term of the reward pays
N_ACCOUNT = 17

LOT_BTC = 0  # what is still held
LOT_COST_USDT = 1  # paid for the whole lot, all costs included
LOT_ENTRY_PRICE = 2  # fill price, spread and impact included
LOT_ENTRY_BAR = 3  # index of the bar it was filled on
LOT_PROCEEDS_USDT = 4  # received so far, net of all costs
LOT_EXIT_PRICE = 5  # of the last sale
N_LOT = 6


def new_accounts(n: int, max_lots: int, equity_usdt: float) -> tuple[FloatArray, FloatArray]:
    """n accounts in cash: account (n, N_ACCOUNT), lots (n, max_lots, N_LOT)."""
    account = np.zeros((n, N_ACCOUNT))
    account[:, [CASH, START_EQUITY, EQUITY, PEAK_EQUITY, DAY_START_EQUITY]] = equity_usdt
    account[:, DAY] = -1
    return account, np.zeros((n, max_lots, N_LOT))


@inlined
def held_btc(account: FloatArray, lots: FloatArray) -> float:
    """BTC in all open lots."""
    total = 0.0
    for lot in range(int(account[N_LOTS])):
        total += lots[lot, LOT_BTC]
    return total


@inlined
def equity_usdt(account: FloatArray, lots: FloatArray, mark: float) -> float:
    """Cash and open lots at the mark, USDT."""
    return account[CASH] + held_btc(account, lots) * mark  # type: ignore[no-any-return]


@inlined
def exposure_frac(account: FloatArray, lots: FloatArray, mark: float) -> float:
    """Value of the open lots / equity, 0 .. 1."""
    return 1.0 - account[CASH] / equity_usdt(account, lots, mark)  # type: ignore[no-any-return]


@inlined
def drawdown_frac(account: FloatArray) -> float:
    """How far the equity is below its peak, 0 .. 1."""
    return 1.0 - account[EQUITY] / account[PEAK_EQUITY]  # type: ignore[no-any-return]


@inlined
def open_lot(
    account: FloatArray,
    lots: FloatArray,
    bar: int,
    quantity_btc: float,
    price: float,
    reference: float,
    fee_frac: float,
) -> None:
    """Buy quantity_btc at price plus the fee as a new lot; reference is the price without any cost."""
    notional = quantity_btc * price
    paid = notional * (1.0 + fee_frac)
    lot = lots[int(account[N_LOTS])]
    lot[LOT_BTC] = quantity_btc
    lot[LOT_COST_USDT] = paid
    lot[LOT_ENTRY_PRICE] = price
    lot[LOT_ENTRY_BAR] = bar
    lot[LOT_PROCEEDS_USDT] = 0.0
    lot[LOT_EXIT_PRICE] = np.nan
    account[N_LOTS] += 1
    account[CASH] -= paid
    account[COSTS_PAID] += paid - quantity_btc * reference
    account[TRADED_USDT] += notional
    account[SINCE_TRADE] = 0


@inlined
def sell_from_lot(
    account: FloatArray,
    lots: FloatArray,
    index: int,
    quantity_btc: float,
    price: float,
    reference: float,
    fee_frac: float,
    sigma_patch: float,
) -> None:
    """Sell quantity_btc of lot index at price less the fee; a lot with nothing left is closed."""
    lot = lots[index]
    received = quantity_btc * price * (1.0 - fee_frac)
    lot[LOT_BTC] -= quantity_btc
    lot[LOT_PROCEEDS_USDT] += received
    lot[LOT_EXIT_PRICE] = price
    account[CASH] += received
    account[COSTS_PAID] += quantity_btc * reference - received
    account[TRADED_USDT] += quantity_btc * price
    account[SINCE_TRADE] = 0
    if lot[LOT_BTC] <= 0.0:
        _close_lot(account, lots, index, sigma_patch)


@inlined
def _close_lot(account: FloatArray, lots: FloatArray, index: int, sigma_patch: float) -> None:
    """Count the lot, and move its row behind the open ones."""
    net_return = lots[index, LOT_PROCEEDS_USDT] / lots[index, LOT_COST_USDT] - 1.0
    account[CLOSED_LOTS] += 1
    account[WON_LOTS] += 1.0 if net_return > 0.0 else 0.0
    account[WIN_USDT] += lots[index, LOT_COST_USDT] * bounded_return(net_return, sigma_patch)
    account[N_LOTS] -= 1
    last = int(account[N_LOTS])
    for column in range(N_LOT):
        moved = lots[index, column]
        for row in range(index, last):
            lots[row, column] = lots[row + 1, column]
        lots[last, column] = moved
