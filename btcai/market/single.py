"""Steps of one account for callers in Python, where the call itself is what costs.

numba takes the tuple of Rules apart at every call, in 4.5 us, and the same numbers as an array of one record in .3 us.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from btcai.compiled import stepping
from btcai.market.account import EQUITY, equity_usdt, set_lots
from btcai.market.kernel import observe_at, place
from btcai.market.risk import apply_halts, can_open
from btcai.market.rules import Rules
from btcai.schema import Float32Array, FloatArray

RulesArray = np.ndarray[Any, np.dtype[np.void]]
"""(1,), its fields those of Rules."""


@lru_cache(maxsize=64)
def packed(rules: Rules) -> RulesArray:
    """The rules as one record, which nobody may write."""
    kinds = [(name, np.asarray(value).dtype, np.shape(value)) for name, value in rules._asdict().items()]
    record = np.array([tuple(rules)], dtype=kinds)
    record.flags.writeable = False
    return record


@stepping
def hold(account: FloatArray, lots: FloatArray, n_lots: int, mark: float) -> float:
    """Make the first n_lots rows of lots the account's open ones; returns its equity at the mark, which is noted."""
    set_lots(account, lots, n_lots)
    account[EQUITY] = equity_usdt(account, mark)
    return account[EQUITY]  # type: ignore[no-any-return]


@stepping
def halt(account: FloatArray, rules: RulesArray) -> None:
    """risk.apply_halts."""
    apply_halts(account, rules[0])


@stepping
def observe_one(
    account: FloatArray, lots: FloatArray, mark: float, sigma: float, rules: RulesArray, out: Float32Array
) -> None:
    """kernel.observe into out (1, A), of the bar whose mark and sigma these are."""
    observe_at(account, lots, mark, sigma, rules[0], out[0])


@stepping
def order(account: FloatArray, action: int, size_frac: float, entry_allowed: bool, rules: RulesArray) -> bool:
    """kernel.place; returns whether a lot could be opened before it."""
    room = can_open(account, rules[0])
    place(account, action, size_frac, entry_allowed, rules[0])
    return room
