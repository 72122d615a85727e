"""The compiled inner loop of a backtest: several accounts over the bars up to the next decision, recorded."""

from typing import NamedTuple

import numpy as np

from btcai.compiled import compiled
from btcai.market.account import (
    CASH,
    CLOSED_LOTS,
    COSTS_PAID,
    EQUITY,
    HEAD,
    LOT_COST_USDT,
    LOT_ENTRY_BAR,
    LOT_ENTRY_PRICE,
    LOT_EXIT_USDT,
    LOT_PROCEEDS_USDT,
    LOT_SIZE_BTC,
    N_LOTS,
    START_EQUITY,
    TRADED_USDT,
)
from btcai.market.bars import BarArrays
from btcai.market.kernel import observe, place, step_bar
from btcai.market.rules import Rules
from btcai.schema import Float32Array, FloatArray, IntArray

NO_DECISION = -1
"""In place of an action: bars pass without the bucket being asked (before its first decision time)."""
CLOSED_COLUMNS = 7


class Record(NamedTuple):
    """What R accounts leave behind over n bars: equity_usdt, position_frac, n_lots (R, n); closed lots (R, K, 7);
    costs_usdt and traded_usdt (R,).

    A closed lot's row: entry bar, exit bar, btc, entry price, mean exit price, cost and proceeds in USDT. All
    amounts are what they would be of the start's equity alone: deposits and withdrawals are taken out of them.
    """

    equity_usdt: FloatArray
    position_frac: FloatArray
    n_lots: IntArray
    closed: FloatArray
    costs_usdt: FloatArray
    traded_usdt: FloatArray


def new_record(n_accounts: int, n_bars: int, n_decisions: int) -> Record:
    """Room for n_bars; each decision opens one lot at most, so n_decisions bounds the closed ones."""
    path = (n_accounts, n_bars)
    closed = np.zeros((n_accounts, n_decisions, CLOSED_COLUMNS))
    totals = np.zeros(n_accounts), np.zeros(n_accounts)
    return Record(np.zeros(path), np.zeros(path), np.zeros(path, np.int64), closed, *totals)


@compiled
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
    start_equity_usdt: float,
) -> None:
    """Place actions (R,) at the close of bar t, step bars t+1 .. until, then observe (R, A) at the close of `until`.

    accounts (R, N_ACCOUNT) and lots (R, max_lots, N_LOT) are written; record's column 0 is bar `first`.
    """
    for r in range(len(accounts)):
        account, own, rule = accounts[r], lots[r], rules[r]
        if actions[r] != NO_DECISION:
            place(account, actions[r], size_frac, entry_allowed, rule)
        for bar in range(t + 1, until + 1):
            before, costs, traded = int(account[CLOSED_LOTS]), account[COSTS_PAID], account[TRADED_USDT]
            step_bar(account, own, bars, bar, rule)
            share = start_equity_usdt / account[START_EQUITY]
            record.costs_usdt[r] += share * (account[COSTS_PAID] - costs)
            record.traded_usdt[r] += share * (account[TRADED_USDT] - traded)
            record.equity_usdt[r, bar - first] = share * account[EQUITY]
            record.position_frac[r, bar - first] = 1.0 - account[CASH] / account[EQUITY]
            record.n_lots[r, bar - first] = int(account[N_LOTS])
            newly_closed = int(account[CLOSED_LOTS]) - before
            for k in range(newly_closed):  # their rows lie before the open ones, newest last
                lot = own[(int(account[HEAD]) - newly_closed + k) % len(own)]
                row = record.closed[r, before + k]
                row[0], row[1], row[2] = lot[LOT_ENTRY_BAR], bar, share * lot[LOT_SIZE_BTC]
                row[3], row[4] = lot[LOT_ENTRY_PRICE], lot[LOT_EXIT_USDT] / abs(lot[LOT_SIZE_BTC])
                row[5], row[6] = share * lot[LOT_COST_USDT], share * lot[LOT_PROCEEDS_USDT]
        observe(account, own, bars, until, rule, observed[r])
