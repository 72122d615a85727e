"""Limits on an account, the same in training, backtest and live: who may open a lot, and the two halts.

In training and backtest the kernel calls them on every bar; live, `decide` calls them on the account it is told of
(btcai/holdings.py), and whoever keeps that account restarts its peak and its day's start when a halt ends, as below.

Daily halt: equity daily_loss_halt_frac below where the UTC day began: no new lots until cool_down_bars have passed; the
day's start then restarts at the equity of the moment. Drawdown halt: drawdown_halt_frac below the peak: all lots are
closed (again on every bar until none is left) and no new lots until cool_down_bars have passed; the peak then restarts
at the equity of the moment. A halt lasts one bar at least; a limit of 1 never trips.
"""

from btcai.market.account import (
    CASH,
    COOL_DOWN,
    DAY,
    DAY_START_EQUITY,
    EQUITY,
    HALT,
    N_LOTS,
    PEAK_EQUITY,
    PENDING,
    START_EQUITY,
    drawdown_frac,
)
from btcai.market.compiled import inlined
from btcai.schema import Action, FloatArray

NO_HALT, DAILY_HALT, DRAWDOWN_HALT = 0, 1, 2

MIN_LOT_FRAC = 1e-4
"""Smallest lot, of the start's equity (10 USDT of 100,000, near an exchange's least order): less is not bought."""

_HOLD, _CLOSE_ALL = int(Action.HOLD), int(Action.CLOSE_ALL)


@inlined
def can_buy(account: FloatArray, max_lots: int, max_exposure_frac: float, fee_frac: float) -> bool:
    """Whether a lot may be opened now: a free row, no order waiting, no halt, cash and exposure left."""
    if account[PENDING] != _HOLD or account[HALT] != NO_HALT or account[N_LOTS] >= max_lots:
        return False
    least = MIN_LOT_FRAC * account[START_EQUITY]
    room = max_exposure_frac * account[EQUITY] - (account[EQUITY] - account[CASH])
    return account[CASH] > least * (1.0 + fee_frac) and room > least  # type: ignore[no-any-return]


@inlined
def can_sell(account: FloatArray) -> bool:
    """Whether a lot may be closed now: one is open and no order is waiting."""
    return account[PENDING] == _HOLD and account[N_LOTS] > 0  # type: ignore[no-any-return]


@inlined
def start_day(account: FloatArray, day: int) -> None:
    """Note the equity with which a new UTC day begins."""
    if account[DAY] != day:
        account[DAY] = day
        account[DAY_START_EQUITY] = account[EQUITY]


@inlined
def apply_halts(
    account: FloatArray, daily_loss_halt_frac: float, drawdown_halt_frac: float, cool_down_bars: int
) -> None:
    """End of a bar, equity marked: count down a halt, trip one, and order the close of a drawdown halt.

    That order replaces any other that waits. A second call at the same close counts a bar too many, and else agrees.
    """
    if account[HALT] != NO_HALT:
        account[COOL_DOWN] -= 1
        if account[COOL_DOWN] <= 0:
            _end_halt(account)
    if account[HALT] != DRAWDOWN_HALT and drawdown_frac(account) >= drawdown_halt_frac:
        account[HALT], account[COOL_DOWN] = DRAWDOWN_HALT, cool_down_bars
    elif account[HALT] == NO_HALT and account[EQUITY] <= account[DAY_START_EQUITY] * (1.0 - daily_loss_halt_frac):
        account[HALT], account[COOL_DOWN] = DAILY_HALT, cool_down_bars
    if account[HALT] == DRAWDOWN_HALT and account[N_LOTS] > 0:
        account[PENDING] = _CLOSE_ALL


@inlined
def _end_halt(account: FloatArray) -> None:
    """Restart the measure that tripped, so that it trips on a new loss only."""
    if account[HALT] == DRAWDOWN_HALT:
        account[PEAK_EQUITY] = account[EQUITY]
    account[DAY_START_EQUITY] = account[EQUITY]
    account[HALT], account[COOL_DOWN] = NO_HALT, 0
