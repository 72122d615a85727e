"""The compiled inner loop of a backtest: several accounts over the bars up to the next decision, recorded."""

from typing import NamedTuple

import numba
import numpy as np

from btcai.market.account import (
    CASH,
    CLOSED_LOTS,
    EQUITY,
    LOT_COST_USDT,
    LOT_ENTRY_BAR,
    LOT_ENTRY_PRICE,
    LOT_PROCEEDS_USDT,
    N_LOTS,
)
from btcai.market.kernel import BarArrays, Rules, observe, place, step_bar
from btcai.schema import Float32Array, FloatArray, IntArray

NO_DECISION = -1
"""In place of an action: bars pass without the bucket being asked (before its first decision time)."""
CLOSED_COLUMNS = 7


class Record(NamedTuple):
    """What R accounts leave behind over n bars: equity_usdt, position_frac, n_lots (R, n); closed lots (R, K, 7).

    A closed lot's row: entry bar, exit bar, btc, entry price, mean exit price, cost and proceeds in USDT.
    """

    equity_usdt: FloatArray
    position_frac: FloatArray
    n_lots: IntArray
    closed: FloatArray


def new_record(n_accounts: int, n_bars: int, n_decisions: int) -> Record:
    """Room for n_bars; each decision opens one lot at most, so n_decisions bounds the closed ones."""
    path = (n_accounts, n_bars)
    closed = np.zeros((n_accounts, n_decisions, CLOSED_COLUMNS))
    return Record(np.zeros(path), np.zeros(path), np.zeros(path, np.int64), closed)


# Not cached on disk: numba keys its cache on this file alone and would miss an edit of the market's rules.
@numba.njit(nogil=True, error_model="numpy")
def walk(
    accounts: FloatArray,
    lots: FloatArray,
    bars: BarArrays,
    rules: tuple[Rules, ...],
    t: int,
    until: int,
    actions: IntArray,
    size_frac: float,
    entry_allowed: bool,
    record: Record,
    first: int,
    observed: Float32Array,
) -> None:
    """Place actions (R,) at the close of bar t, step bars t+1 .. until, then observe (R, A) at the close of `until`.

    accounts (R, N_ACCOUNT) and lots (R, max_lots, N_LOT) are written; record's column 0 is bar `first`.
    """
    for r in range(len(accounts)):
        account, own, rule = accounts[r], lots[r], rules[r]
        if actions[r] != NO_DECISION:
            place(account, own, actions[r], size_frac, entry_allowed, rule)
        for bar in range(t + 1, until + 1):
            before = int(account[CLOSED_LOTS])
            step_bar(account, own, bars, bar, rule)
            open_lots = int(account[N_LOTS])
            record.equity_usdt[r, bar - first] = account[EQUITY]
            record.position_frac[r, bar - first] = 1.0 - account[CASH] / account[EQUITY]
            record.n_lots[r, bar - first] = open_lots
            newly_closed = int(account[CLOSED_LOTS]) - before
            for k in range(newly_closed):  # their rows lie behind the open ones, newest first
                lot, row = own[open_lots + newly_closed - 1 - k], record.closed[r, before + k]
                btc = lot[LOT_COST_USDT] / (lot[LOT_ENTRY_PRICE] * (1.0 + rule.fee_frac))
                row[0], row[1], row[2] = lot[LOT_ENTRY_BAR], bar, btc
                row[3] = lot[LOT_ENTRY_PRICE]
                row[4] = lot[LOT_PROCEEDS_USDT] / (btc * (1.0 - rule.fee_frac))
                row[5], row[6] = lot[LOT_COST_USDT], lot[LOT_PROCEEDS_USDT]
        observe(account, own, bars, until, rule, observed[r])
