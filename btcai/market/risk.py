"""Limits on an account, the same in training, backtest and live: who may open a lot, and the two halts.

In training and backtest the kernel calls them on every bar; live, `decide` calls them on the account it is told of
(inference/holdings.py); whoever keeps it restarts its peak and its day's start when a halt ends, as below.

Daily halt: equity daily_loss_halt_frac below where the UTC day began: no new lots until cool_down_bars have passed, and
an order for one that still waits is dropped; the day's start then restarts at the equity of the moment. Drawdown halt:
drawdown_halt_frac below the peak: the same, and all lots are closed, again on every bar until none is left; it lasts
until then, however long that takes, and the peak then restarts at the equity of the moment. It does end: closing all
takes lots of any size, so one bar is enough whose volume share covers them. A halt lasts one bar at least; a limit of 1
never trips a long account.
"""

from btcai.compiled import inlined
from btcai.market.account import (
    CASH,
    CLOSE_ALL,
    COOL_DOWN,
    DAY_START_EQUITY,
    EQUITY,
    HALT,
    HELD_BTC,
    N_LOTS,
    NO_ORDER,
    OPEN_LONG,
    OPEN_SHORT,
    PEAK_EQUITY,
    PENDING,
    PENDING_DELAY,
    START_EQUITY,
    free_usdt,
)
from btcai.market.rules import Rules
from btcai.schema import FloatArray

NO_HALT, DAILY_HALT, DRAWDOWN_HALT = 0, 1, 2

MIN_LOT_FRAC = 1e-4
"""Smallest lot, of the start's equity (10 USDT of 100,000), where the exchange takes less: crumbs are not bought."""


@inlined
def least_usdt(account: FloatArray, rules: Rules) -> float:
    """Smallest value of a lot that may be opened."""
    return max(rules.min_notional_usdt, MIN_LOT_FRAC * account[START_EQUITY])  # type: ignore[no-any-return]


@inlined
def can_open(account: FloatArray, rules: Rules) -> bool:
    """Whether a lot may be opened now: a free row, no order waiting, no halt, money and exposure left."""
    if account[PENDING] != NO_ORDER or account[HALT] != NO_HALT or account[N_LOTS] >= rules.max_lots:
        return False
    least, value = least_usdt(account, rules), abs(account[EQUITY] - account[CASH])
    room = rules.max_exposure_frac * account[EQUITY] - value
    return free_usdt(account) > least * (1.0 + rules.taker_fee_frac) and room > least


@inlined
def can_buy(account: FloatArray, rules: Rules) -> bool:
    """Whether BUY does something: it opens a long lot, or closes a short one."""
    if account[HELD_BTC] < 0.0:
        return account[PENDING] == NO_ORDER  # type: ignore[no-any-return]
    return can_open(account, rules)


@inlined
def can_sell(account: FloatArray, rules: Rules) -> bool:
    """Whether SELL or CLOSE_ALL does something: one closes lots, the other may open a short one."""
    if account[N_LOTS] > 0.0:
        return account[PENDING] == NO_ORDER  # type: ignore[no-any-return]
    return rules.allow_short and can_open(account, rules)


@inlined
def apply_halts(account: FloatArray, rules: Rules) -> None:
    """End of a bar, equity marked: count down a halt, trip one, and order the close of a drawdown halt.

    That order replaces any other that waits. A second call at the same close counts a bar too many, and else agrees.
    """
    if account[HALT] != NO_HALT:
        account[COOL_DOWN] -= 1
        if account[HALT] == DRAWDOWN_HALT and account[N_LOTS] > 0.0:
            account[COOL_DOWN] = max(account[COOL_DOWN], 1.0)  # it goes on while a lot is left
        if account[COOL_DOWN] <= 0:
            _end_halt(account)
    if account[HALT] != DRAWDOWN_HALT and account[EQUITY] <= account[PEAK_EQUITY] * (1.0 - rules.drawdown_halt_frac):
        account[HALT], account[COOL_DOWN] = DRAWDOWN_HALT, rules.cool_down_bars
    elif account[HALT] == NO_HALT and account[EQUITY] <= account[DAY_START_EQUITY] * (1.0 - rules.daily_loss_halt_frac):
        account[HALT], account[COOL_DOWN] = DAILY_HALT, rules.cool_down_bars
    if account[HALT] == DRAWDOWN_HALT and account[N_LOTS] > 0.0 and account[PENDING] != CLOSE_ALL:
        account[PENDING], account[PENDING_DELAY] = CLOSE_ALL, rules.latency_bars
    if account[HALT] != NO_HALT and (account[PENDING] == OPEN_LONG or account[PENDING] == OPEN_SHORT):
        account[PENDING] = NO_ORDER


@inlined
def _end_halt(account: FloatArray) -> None:
    """Restart the measure that tripped, so that it trips on a new loss only."""
    if account[HALT] == DRAWDOWN_HALT:
        account[PEAK_EQUITY] = account[EQUITY]
    account[DAY_START_EQUITY] = account[EQUITY]
    account[HALT], account[COOL_DOWN] = NO_HALT, 0
