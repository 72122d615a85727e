"""A described account as the market's rules see it: rows of the kernel, its halts applied, what an order comes to."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from btcai.errors import DataError
from btcai.market.account import (
    CASH,
    COOL_DOWN,
    DAY,
    DAY_START_EQUITY,
    HALT,
    LOT_BTC,
    LOT_COST_USDT,
    LOT_ENTRY_PRICE,
    LOT_SIZE_BTC,
    N_ACCOUNT,
    N_LOT,
    N_LOTS,
    NO_ORDER,
    OPEN_LONG,
    PEAK_EQUITY,
    PENDING,
    REDUCE,
    SINCE_TRADE,
    START_EQUITY,
)
from btcai.market.risk import DAILY_HALT, DRAWDOWN_HALT, NO_HALT
from btcai.market.rules import Rules
from btcai.market.single import RulesArray, halt, hold, order, packed
from btcai.schema import Action, FloatArray

KEYS = (
    "cash_usdt",
    "lots",
    "equity_start_usdt",
    "peak_equity_usdt",
    "day_start_equity_usdt",
    "decisions_since_trade",
    "cool_down_bars",
    "halt",
    "order_pending",
)
_KNOWN, _LOT_KEYS = frozenset(KEYS), frozenset({"btc", "entry_price"})
_NUMBER = (int, float)
HALTS = {"daily": DAILY_HALT, "drawdown": DRAWDOWN_HALT}
ORDERS = {"entry": OPEN_LONG, "exit": REDUCE}
HOLD, BUY, SELL, CLOSE_ALL = ACTIONS = tuple(Action)
"""By these names, for Python 3.11 runs several functions to look a member of an enum up."""
NOT_ALLOWED = "a lot is not allowed"
"""Note of an entry that sizing forbids; its figures are for the caller to add."""

_TINY, _HUGE = 1e-12, 1e15
"""What an amount above nothing is at least, and what no number of an account is above: no sum or product overflows."""


class Rulebook(NamedTuple):
    """A market's rules for Python to read, and as the record that compiled code takes: found once, for a decision is
    over sooner than forty numbers are hashed."""

    rules: Rules
    record: RulesArray

    @classmethod
    def of(cls, rules: Rules) -> "Rulebook":
        return cls(rules, packed(rules))


def account_at_close(
    account: Mapping[str, Any], book: Rulebook, mark: float, day: int
) -> tuple[FloatArray, FloatArray]:
    """The account (N_ACCOUNT,) and lots (max_lots, N_LOT) as the kernel leaves them at a bar's close, halts included.

    `account` (KEYS; amounts in USDT) describes that moment; all but cash_usdt may be left out:
    lots                   [{"btc", "entry_price"}], oldest first, btc below 0 where short; none
    equity_start_usdt      what the goal is measured from; the equity now
    peak_equity_usdt       since the start or since the last drawdown halt ended, whichever is later; the equity now
    day_start_equity_usdt  when the UTC day began, or when the last halt ended if that is later; the equity now
    decisions_since_trade  decisions made since the last fill, this one not counted; 0
    cool_down_bars         how many bars a halt still lasts, 0 without one; a drawdown halt 1 at least while a lot is
                           left; 0
    halt                   "daily" or "drawdown": which halt that is; daily
    order_pending          which order still waits for its fill: "entry", which a halt drops (cancel it), or "exit";
                           true is an exit; false
    A deposit or withdrawal of x at an equity E is no profit or loss: scale start, peak and day's start by (E + x) / E.
    mark is the bar's known price in USDT, day its UTC day number.
    """
    row, lots = account_rows(account, book.rules, mark)
    row[DAY] = day
    if row[HALT] != NO_HALT:
        row[COOL_DOWN] += 1  # apply_halts takes the bar off that the description has already taken off
    halt(row, book.record)
    return row, lots


def account_rows(account: Mapping[str, Any], rules: Rules, mark: float) -> tuple[FloatArray, FloatArray]:
    """A described account as kernel rows, valued at `mark`; DataError names what is wrong with the description."""
    if unknown := account.keys() - _KNOWN:
        raise DataError(f"an account holds {', '.join(KEYS)}; remove {', '.join(sorted(unknown)):.80}")
    if "cash_usdt" not in account:
        raise DataError('an account needs "cash_usdt"; an empty one is {"cash_usdt": 100000}')
    row, lots = np.zeros(N_ACCOUNT), np.zeros((rules.max_lots, N_LOT))
    row[DAY] = -1
    row[CASH] = _amount(account, "cash_usdt", 0.0, least=-_HUGE if rules.perpetual else 0.0)  # funding may be owed
    equity = hold(row, lots, _fill_lots(account.get("lots", []), lots, rules.allow_short), mark)
    if equity <= 0.0:  # every share of the observation is of it
        raise DataError("an account must be worth more than nothing: give cash_usdt above 0 or its open lots")
    row[START_EQUITY] = _amount(account, "equity_start_usdt", equity, least=_TINY)
    row[PEAK_EQUITY] = max(equity, _amount(account, "peak_equity_usdt", 0.0, least=0.0))
    row[DAY_START_EQUITY] = _amount(account, "day_start_equity_usdt", equity, least=_TINY)
    row[SINCE_TRADE] = _count(account, "decisions_since_trade")
    row[COOL_DOWN] = _count(account, "cool_down_bars")
    row[HALT] = _halt(account, row[COOL_DOWN] > 0)
    row[PENDING] = _order(account)
    return row, lots


def _fill_lots(lots: Any, lot_row: FloatArray, allow_short: bool) -> int:
    """Write the described lots into lot_row (max_lots, N_LOT); returns how many."""
    if not isinstance(lots, list) or any(not isinstance(lot, dict) or lot.keys() - _LOT_KEYS for lot in lots):
        raise DataError(f'account: lots must be a list of {{"btc": ..., "entry_price": ...}}, was {shown(lots)}')
    if len(lots) > len(lot_row):
        raise DataError(
            f"this bucket holds at most {len(lot_row)} open lots, the account has {len(lots)}; close some first"
        )
    for k, lot in enumerate(lots):
        btc = _btc(lot.get("btc"), f"lots[{k}].btc", allow_short)
        price = _number(lot.get("entry_price"), f"lots[{k}].entry_price", _TINY)
        row = lot_row[k]
        row[LOT_BTC] = row[LOT_SIZE_BTC] = btc
        row[LOT_ENTRY_PRICE], row[LOT_COST_USDT] = price, abs(btc) * price
    if len({lot["btc"] > 0 for lot in lots}) > 1:
        raise DataError("account: lots are all long or all short; close one side first")
    return len(lots)


def _btc(value: object, name: str, allow_short: bool) -> float:
    """A lot's size; below 0 where the market lets an account be short."""
    if allow_short and isinstance(value, _NUMBER) and value < 0:
        return -_number(-value, name, _TINY)
    return _number(value, name, _TINY)


def _amount(account: Mapping[str, Any], name: str, default: float, least: float) -> float:
    return _number(account.get(name, default), name, least)


def _number(value: object, name: str, least: float) -> float:
    if isinstance(value, _NUMBER) and not isinstance(value, bool) and least <= value <= _HUGE:
        return float(value)
    raise DataError(f"account: {name} must be a number from {least:g} to {_HUGE:g}, was {shown(value)}")


def _count(account: Mapping[str, Any], name: str) -> int:
    value = account.get(name, 0)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _HUGE:
        return value
    raise DataError(f"account: {name} must be a whole number of at least 0, was {shown(value)}")


def shown(value: object) -> str:
    """A value as messages quote it: a list or an object by its length, for its text may be as long as a body."""
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    return f"{value!r:.80}"


def _order(account: Mapping[str, Any]) -> int:
    """The order that waits; of an entry or an exit any kind, for no more matters."""
    value = account.get("order_pending", False)
    if isinstance(value, bool):
        return REDUCE if value else NO_ORDER
    if not isinstance(value, str) or value not in ORDERS:
        raise DataError(f"account: order_pending must be true, false, {' or '.join(ORDERS)}, was {shown(value)}")
    return ORDERS[value]


def _halt(account: Mapping[str, Any], cooling: bool) -> int:
    value = account.get("halt", "daily")
    if not isinstance(value, str) or value not in HALTS:
        raise DataError(f"account: halt must be {' or '.join(HALTS)}, or left out, was {shown(value)}")
    if "halt" in account and not cooling:
        raise DataError("account: halt needs cool_down_bars, the bars it still lasts; leave halt out when it is over")
    return HALTS[value] if cooling else NO_HALT


def settle(
    row: FloatArray, lots: FloatArray, wanted: Action, size_frac: float, entry_allowed: bool, book: Rulebook
) -> tuple[Action, str]:
    """What the rules make of the action a policy wants at this close, and which of them spoke ("" when none did).

    A drawdown halt closes all lots, in place of any order that waits; else nothing is ordered while one waits; what
    the kernel would not take is HOLD. The order taken is written into the row.
    """
    if row[HALT] == DRAWDOWN_HALT and row[N_LOTS] > 0:
        return CLOSE_ALL, "drawdown halt: close all"
    if row[PENDING] != NO_ORDER:
        return HOLD, "order pending"
    room = order(row, int(wanted), size_frac, entry_allowed, book.record)
    action = HOLD if row[PENDING] == NO_ORDER else wanted
    if row[HALT] != NO_HALT:
        kind = next(name for name, halt in HALTS.items() if halt == row[HALT])
        return action, f"{kind} halt: no new lots, cancel an entry that waits"
    return action, "" if action is wanted else _refusal(row, wanted, room, entry_allowed, book.rules)


def _refusal(row: FloatArray, wanted: Action, room: bool, entry_allowed: bool, rules: Rules) -> str:
    """Why an order was not taken, where neither a halt nor a waiting order is the reason."""
    if wanted is CLOSE_ALL or (wanted is SELL and not rules.allow_short):
        return "no lot is open to sell"
    if row[N_LOTS] >= rules.max_lots:
        return f"all {rules.max_lots} lots are open"
    if not room:
        return "no cash or exposure is left for a lot"
    return "a lot's size is 0: the forecast promises no gain" if entry_allowed else NOT_ALLOWED
