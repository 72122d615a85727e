"""One account's walk written down bar by bar, with every fill and what caused it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from btcai.envs.scenario import Scenario
from btcai.market.account import (
    CLOSE_ALL,
    CLOSED_LOTS,
    COSTS_PAID,
    EQUITY,
    FUNDING_PAID,
    HEAD,
    HELD_BTC,
    LOT_BTC,
    LOT_ENTRY_BAR,
    LOT_ENTRY_PRICE,
    LOT_EXIT_USDT,
    LOT_SIZE_BTC,
    N_LOTS,
    NO_ORDER,
    PENDING,
    PENDING_DELAY,
    REDUCE,
    START_EQUITY,
    TRANSFERRED,
    drawdown_frac,
    new_accounts,
    open_lots,
)
from btcai.market.bars import BarArrays
from btcai.market.kernel import place, step_bar
from btcai.market.rules import Rules
from btcai.schema import FloatArray, IntArray

OPENED, ORDERED, STOPPED, LIQUIDATED, TARGET = "opened", "closed", "stopped", "liquidated", "target"
"""What causes a fill; the last four are exits."""


class Fill(NamedTuple):
    """btc > 0 bought, < 0 sold; entry_bar names the lot."""

    bar: int
    cause: str
    btc: float
    price_usdt: float
    entry_bar: int


class Walk(NamedTuple):
    """Columns (n + 1,) of an account at the closes of bars `bar`, the first before anything happened; its fills."""

    bar: IntArray
    close_ts_ns: IntArray
    mark_usdt: FloatArray
    equity_usdt: FloatArray
    start_equity_usdt: FloatArray
    transferred_usdt: FloatArray
    costs_usdt: FloatArray
    funding_usdt: FloatArray
    drawdown_frac: FloatArray
    held_btc: FloatArray
    n_lots: FloatArray
    fills: tuple[Fill, ...]


_COLUMNS = Walk._fields[3:-1]  # of _row


def record_walk(scenario: Scenario, start_bar: int, actions: Sequence[int], account_seed: int) -> Walk:
    """The account that takes `actions`, one a patch from the close of start_bar on: the kernel's own steps."""
    rules, bars = scenario.rules, scenario.bars
    accounts, all_lots = new_accounts(1, rules.max_lots, scenario.equity_usdt, np.array([account_seed], np.float64))
    account, lots = accounts[0], all_lots[0]
    rows, fills = [_row(account)], list[Fill]()
    for decision, action in enumerate(actions):
        t = start_bar + decision * rules.patch_bars
        place(account, action, float(scenario.size_frac[t]), bool(scenario.entry_allowed[t]), rules)
        for bar in range(t + 1, t + 1 + rules.patch_bars):
            before, held_before = account.copy(), open_lots(account, lots)
            step_bar(account, lots, bars, bar, rules)
            held_after = _open_and_closed(account, lots, int(account[CLOSED_LOTS] - before[CLOSED_LOTS]))
            fills += _fills(bars, bar, rules, _executed(before, account), held_before, held_after)
            rows.append(_row(account))
    walked = np.arange(start_bar, start_bar + len(rows))
    columns: dict[str, Any] = dict(zip(_COLUMNS, np.array(rows).T, strict=True))
    return Walk(walked, scenario.close_ts_ns[walked], bars.mark[walked], **columns, fills=tuple(fills))


def _row(account: FloatArray) -> list[float]:
    columns = [EQUITY, START_EQUITY, TRANSFERRED, COSTS_PAID, FUNDING_PAID]
    return [*account[columns], drawdown_frac(account), account[HELD_BTC], account[N_LOTS]]


def _executed(before: FloatArray, after: FloatArray) -> int:
    """The order that waited, if the bar took it; a close-all never rests, and outlives its bar only by a halt."""
    order = int(before[PENDING])
    arrived = before[PENDING_DELAY] == 0 and (order == CLOSE_ALL or after[PENDING] != order)
    return order if arrived else NO_ORDER


def _open_and_closed(account: FloatArray, lots: FloatArray, n_closed: int) -> FloatArray:
    """The open lots, and the rows before HEAD of those that the last bar closed."""
    closed = (int(account[HEAD]) - 1 - np.arange(n_closed)) % len(lots)
    return np.concatenate([lots[closed], open_lots(account, lots)])


def _fills(bars: BarArrays, bar: int, rules: Rules, order: int, before: FloatArray, after: FloatArray) -> list[Fill]:
    """What changed in the lots over one bar; a bar opens one lot at most, so that its entry bar names a lot."""
    known = {int(lot[LOT_ENTRY_BAR]): lot for lot in before}
    oldest = int(before[0, LOT_ENTRY_BAR]) if len(before) else -1
    fills = []
    for lot in sorted(after, key=lambda lot: float(lot[LOT_ENTRY_BAR])):
        entry_bar, was = int(lot[LOT_ENTRY_BAR]), known.get(int(lot[LOT_ENTRY_BAR]))
        if was is None:
            fills.append(Fill(bar, OPENED, float(lot[LOT_SIZE_BTC]), float(lot[LOT_ENTRY_PRICE]), entry_bar))
        held, paid = (lot[LOT_SIZE_BTC], 0.0) if was is None else (was[LOT_BTC], was[LOT_EXIT_USDT])
        traded = float(lot[LOT_BTC] - held)
        if traded:
            ordered = order == CLOSE_ALL or (order == REDUCE and entry_bar == oldest)
            price = float((lot[LOT_EXIT_USDT] - paid) / abs(traded))
            cause = ORDERED if ordered and was is not None else _forced(bars, bar, rules, lot, price)
            fills.append(Fill(bar, cause, traded, price, entry_bar))
    return fills


def _forced(bars: BarArrays, bar: int, rules: Rules, lot: FloatArray, price: float) -> str:
    """Why a lot was closed that no order closed: its target beyond the entry, its stop reached, or liquidation."""
    side = np.sign(lot[LOT_SIZE_BTC])
    entry = lot[LOT_ENTRY_PRICE]
    if rules.take_profit_frac > 0 and side * (price / entry - 1) >= rules.take_profit_frac * (1 - 1e-9):
        return TARGET
    worst = bars.low[bar] if side > 0 else bars.high[bar]
    if rules.stop_loss_frac > 0 and side * (worst / entry - 1) <= -rules.stop_loss_frac * (1 - 1e-9):
        return STOPPED
    return LIQUIDATED
