"""How the orders of one account fill in bar t: at once, resting, by its stops, by liquidation, by its targets."""

import math

from btcai.compiled import inlined
from btcai.market.account import (
    CASH,
    CLOSE_ALL,
    EQUITY,
    HELD_BTC,
    HIGHEST_ENTRY,
    LOT_BTC,
    LOT_ENTRY_BAR,
    LOT_ENTRY_PRICE,
    LOWEST_ENTRY,
    N_LOTS,
    NO_ORDER,
    OPEN_LONG,
    OPEN_SHORT,
    PENDING,
    PENDING_DELAY,
    PENDING_FRAC,
    PENDING_REST,
    REDUCE,
    START_EQUITY,
    lot_row,
    open_lot,
    reduce_lot,
    tighten_entries,
)
from btcai.market.bars import BarArrays
from btcai.market.execution import (
    NOT_QUITE,
    affordable_btc,
    largest_cost,
    maker_fee,
    maker_price,
    taker_fee,
    taker_price,
    tick_down,
    tick_up,
    whole_steps,
)
from btcai.market.risk import least_usdt
from btcai.market.rules import Rules
from btcai.schema import FloatArray

_UNLIMITED = 1e300


@inlined
def fill_pending(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """One present bar of the order that waits: it arrives, rests, or crosses the spread and is gone, filled or not."""
    if account[PENDING_DELAY] > 0.0:
        account[PENDING_DELAY] -= 1.0
        return
    order = int(account[PENDING])
    rests = account[PENDING_REST] > 0.0 and order != CLOSE_ALL
    if rests:
        buys = order == OPEN_LONG or (order == REDUCE and account[HELD_BTC] < 0.0)
        limit = maker_price(buys, bars.open[t], rules)
        reached = bars.low[t] < limit if buys else bars.high[t] > limit
        if order == REDUCE and reached:
            reached = not _oldest_stopped(account, lots, bars, t, rules)
        if not reached and (order != REDUCE or account[N_LOTS] > 0.0):
            account[PENDING_REST] -= 1.0
            return
    account[PENDING] = NO_ORDER
    if order == OPEN_LONG or order == OPEN_SHORT:
        _open(account, lots, bars, t, order == OPEN_LONG, rests, rules)
    else:
        _reduce(account, lots, bars, t, order == CLOSE_ALL, rests, rules)


@inlined
def _open(
    account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, buys: bool, rests: bool, rules: Rules
) -> None:
    """Open a lot of PENDING_FRAC of the equity at the last mark, measured at the open, as far as the limits let it."""
    reference = bars.open[t]
    base = account[EQUITY] if rules.compound else account[START_EQUITY]
    wanted = min(account[PENDING_FRAC] * base / reference, rules.max_volume_share * bars.volume[t])
    fee = maker_fee(account, rules) if rests else taker_fee(account, rules)
    if rests:
        price = maker_price(buys, reference, rules)
        cost = price * (1.0 + fee) - reference if buys else reference - price * (1.0 - fee)
    else:
        cost = largest_cost(buys, reference, bars, t, fee, rules)
    value = account[HELD_BTC] * reference
    room = rules.max_exposure_frac * (account[CASH] + value) - abs(value)
    cash = account[CASH] if buys else _UNLIMITED
    quantity = affordable_btc(wanted, cash, room, rules.max_exposure_frac, reference, cost)
    quantity = whole_steps(quantity, rules.lot_step_btc)
    if quantity * reference < least_usdt(account, rules):
        return
    if not rests:
        price = taker_price(buys, reference, quantity, bars, t, rules)
    open_lot(account, lots, t, quantity if buys else -quantity, price, reference, fee)


@inlined
def _reduce(
    account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, all_lots: bool, rests: bool, rules: Rules
) -> None:
    """Close the oldest lot, or all of them oldest first, as one order at one price."""
    if account[N_LOTS] == 0.0:
        return
    reference, buys = bars.open[t], account[HELD_BTC] < 0.0
    wanted = abs(account[HELD_BTC]) if all_lots else abs(lots[lot_row(account, lots, 0), LOT_BTC])
    if not all_lots and wanted * reference < rules.min_notional_usdt:
        return
    left = min(wanted, rules.max_volume_share * bars.volume[t])
    whole = left >= wanted  # then lots are emptied exactly, whatever the sum's rounding
    if not whole:
        left = whole_steps(left, rules.lot_step_btc)
    fee = maker_fee(account, rules) if rests else taker_fee(account, rules)
    price = maker_price(buys, reference, rules) if rests else taker_price(buys, reference, left, bars, t, rules)
    sigma_patch = bars.sigma_before[t] * math.sqrt(rules.patch_bars)
    for _ in range(int(account[N_LOTS]) if all_lots else 1):
        held = abs(lots[lot_row(account, lots, 0), LOT_BTC])
        quantity = held if whole or left >= held * NOT_QUITE else left
        if quantity <= 0.0:
            return
        left = max(0.0, left - quantity)
        reduce_lot(account, lots, 0, quantity, price, reference, fee, sigma_patch, rules.goal_frac)


@inlined
def fill_stops(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """Close every lot whose stop the bar reached, whole, at the stop or a worse open, less their joint costs."""
    is_long = account[HELD_BTC] > 0.0
    keep = 1.0 - rules.stop_loss_frac if is_long else 1.0 + rules.stop_loss_frac
    if is_long and bars.low[t] > account[HIGHEST_ENTRY] * keep:
        return
    if not is_long and bars.high[t] < account[LOWEST_ENTRY] * keep:
        return
    total = 0.0
    for k in range(int(account[N_LOTS])):
        lot = lots[lot_row(account, lots, k)]
        if _stopped(lot[LOT_ENTRY_PRICE] * keep, is_long, bars, t):
            total += abs(lot[LOT_BTC])
    k = 0
    while total > 0.0 and k < int(account[N_LOTS]):
        lot = lots[lot_row(account, lots, k)]
        stop = lot[LOT_ENTRY_PRICE] * keep
        if _stopped(stop, is_long, bars, t):
            reference = min(bars.open[t], stop) if is_long else max(bars.open[t], stop)
            _force(account, lots, bars, t, k, reference, total, rules)
        else:
            k += 1
    tighten_entries(account, lots)


@inlined
def _oldest_stopped(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> bool:
    """Whether the bar reaches the stop of the lot that an order rests to close: which came first, nobody knows."""
    if rules.stop_loss_frac <= 0.0 or account[N_LOTS] == 0.0:
        return False
    is_long, entry = account[HELD_BTC] > 0.0, lots[lot_row(account, lots, 0), LOT_ENTRY_PRICE]
    return _stopped(entry * (1.0 - rules.stop_loss_frac if is_long else 1.0 + rules.stop_loss_frac), is_long, bars, t)


@inlined
def _stopped(stop: float, is_long: bool, bars: BarArrays, t: int) -> bool:
    return bars.low[t] <= stop if is_long else bars.high[t] >= stop  # type: ignore[no-any-return]


@inlined
def liquidate(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """Buy back every short lot where the bar's high leaves less equity than maintenance_frac of their value."""
    if account[HELD_BTC] >= 0.0:
        return
    trigger = account[CASH] / (-account[HELD_BTC] * (1.0 + rules.maintenance_frac))
    if bars.high[t] < trigger:
        return
    reference, total = max(bars.open[t], trigger), -account[HELD_BTC]
    while account[N_LOTS] > 0.0:
        _force(account, lots, bars, t, 0, reference, total, rules)


@inlined
def _force(
    account: FloatArray,
    lots: FloatArray,
    bars: BarArrays,
    t: int,
    k: int,
    reference: float,
    total_btc: float,
    rules: Rules,
) -> None:
    """Close lot k whole as a taker, one of several that trade total_btc together."""
    lot = lots[lot_row(account, lots, k)]
    price = taker_price(lot[LOT_BTC] < 0.0, reference, total_btc, bars, t, rules)
    sigma_patch = bars.sigma_before[t] * math.sqrt(rules.patch_bars)
    fee = taker_fee(account, rules)
    reduce_lot(account, lots, k, abs(lot[LOT_BTC]), price, reference, fee, sigma_patch, rules.goal_frac)


@inlined
def fill_targets(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """Close the lots whose target the bar traded through, at the target itself, within a share of the bar's volume.

    A target rests from the bar after the entry on: in that of the entry, nobody knows which price came first.
    """
    is_long = account[HELD_BTC] > 0.0
    gain = 1.0 + rules.take_profit_frac if is_long else 1.0 - rules.take_profit_frac
    if is_long and bars.high[t] <= account[LOWEST_ENTRY] * gain:
        return
    if not is_long and bars.low[t] >= account[HIGHEST_ENTRY] * gain:
        return
    left = rules.max_volume_share * bars.volume[t]
    sigma_patch = bars.sigma_before[t] * math.sqrt(rules.patch_bars)
    k = 0
    while k < int(account[N_LOTS]):
        lot = lots[lot_row(account, lots, k)]
        raw, held = lot[LOT_ENTRY_PRICE] * gain, abs(lot[LOT_BTC])
        target = tick_up(raw, rules.tick_usdt) if is_long else tick_down(raw, rules.tick_usdt)
        reached = bars.high[t] > target if is_long else bars.low[t] < target
        reached = reached and lot[LOT_ENTRY_BAR] < t
        quantity = held if left >= held else whole_steps(left, rules.lot_step_btc)
        if reached and quantity > 0.0:
            left -= quantity
            fee = maker_fee(account, rules)
            reduce_lot(account, lots, k, quantity, target, target, fee, sigma_patch, rules.goal_frac)
        if not reached or quantity < held:
            k += 1
    tighten_entries(account, lots)
