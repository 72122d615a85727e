"""The one execution model of training, backtest and live: compiled steps of accounts over 5-minute bars.

An order decided when bar t closes fills at the first present bar after t, latency_bars later where an order takes that
long, at its open, less costs; until then it waits and no other order is taken. In a bar: a new UTC day's transfers; if
it is present, the waiting order, then stops and liquidation (which a lot can meet in the bar it is opened in), then
targets; funding; the mark; the halts. Where a bar does not tell which price came first, the worse did. Rows passed in
are written.
"""

import math

from btcai.compiled import inlined, prefetch, stepping
from btcai.market.account import (
    BONUS_USDT,
    CLOSE_ALL,
    COSTS_PAID,
    EQUITY,
    HELD_BTC,
    LOT_ENTRY_PRICE,
    N_LOTS,
    NO_ORDER,
    OPEN_LONG,
    OPEN_SHORT,
    PEAK_EQUITY,
    PENDING,
    PENDING_DELAY,
    PENDING_FRAC,
    PENDING_REST,
    REDUCE,
    SEED,
    SINCE_TRADE,
    START_EQUITY,
    WIN_USDT,
    drawdown_frac,
    equity_usdt,
    free_usdt,
    lot_row,
    pay_funding,
    random_transfer_draw,
    start_day,
    transfer,
)
from btcai.market.bars import BarArrays
from btcai.market.fills import fill_pending, fill_stops, fill_targets, liquidate
from btcai.market.reward import BONUS, COST, DRAWDOWN, GOAL, NET_PROFIT, WIN_RATE, goal_progress, net_profit
from btcai.market.risk import apply_halts, can_buy, can_open, can_sell
from btcai.market.rules import Rules
from btcai.schema import Action, BoolArray, Float32Array, FloatArray, IntArray

RUIN_FRAC = 0.1
"""An account at or below this share of its start's equity is finished."""

_HOLD, _BUY, _SELL = int(Action.HOLD), int(Action.BUY), int(Action.SELL)
_OBSERVED_SIGMAS = 5.0
_AHEAD = 4  # accounts whose bar is fetched while one is stepped


@inlined
def observe(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules, out: Float32Array) -> None:
    """Write the account half of the observation at the close of bar t into out: schema.ACCOUNT_FEATURES, float32."""
    observe_at(account, lots, bars.mark[t], bars.sigma[t], rules, out)


@inlined
def observe_at(
    account: FloatArray, lots: FloatArray, mark: float, sigma: float, rules: Rules, out: Float32Array
) -> None:
    """observe at a bar's mark and sigma."""
    n_lots = int(account[N_LOTS])
    side = 1.0 if account[HELD_BTC] >= 0.0 else -1.0
    mean_return, oldest_return = 0.0, 0.0
    if n_lots > 0:
        sigma_patch = sigma * math.sqrt(rules.patch_bars)
        total = 0.0
        for k in range(n_lots):
            total += mark / lots[lot_row(account, lots, k), LOT_ENTRY_PRICE]
        mean_return = side * (total / n_lots - 1.0) / sigma_patch
        oldest_return = side * (mark / lots[lot_row(account, lots, 0), LOT_ENTRY_PRICE] - 1.0) / sigma_patch
    gain = account[EQUITY] / account[START_EQUITY]
    out[0] = free_usdt(account) / account[EQUITY] if account[EQUITY] > 0.0 else 0.0
    out[1] = side * n_lots / rules.max_lots
    out[2] = min(max(mean_return, -_OBSERVED_SIGMAS), _OBSERVED_SIGMAS)
    out[3] = min(max(oldest_return, -_OBSERVED_SIGMAS), _OBSERVED_SIGMAS)
    out[4] = drawdown_frac(account)
    out[5] = max(goal_progress(gain, rules.goal_frac), -1.0)
    out[6] = math.log1p(account[SINCE_TRADE]) / 5.0
    out[7] = 1.0 if can_buy(account, rules) else 0.0
    out[8] = 1.0 if can_sell(account, rules) else 0.0


@inlined
def place(account: FloatArray, action: int, size_frac: float, entry_allowed: bool, rules: Rules) -> None:
    """Take the order of a decision at the close of a bar; what cannot be done is HOLD."""
    account[SINCE_TRADE] += 1.0
    if action == _HOLD or account[PENDING] != NO_ORDER:
        return
    held, order = account[HELD_BTC], NO_ORDER
    if action == CLOSE_ALL or (action == _BUY and held < 0.0) or (action == _SELL and held > 0.0):
        if account[N_LOTS] > 0.0:
            order = CLOSE_ALL if action == CLOSE_ALL else REDUCE
    elif entry_allowed and size_frac > 0.0 and (action == _BUY or rules.allow_short) and can_open(account, rules):
        order = OPEN_LONG if action == _BUY else OPEN_SHORT
        account[PENDING_FRAC] = size_frac
    if order != NO_ORDER:
        account[PENDING], account[PENDING_DELAY], account[PENDING_REST] = order, rules.latency_bars, rules.maker_bars


@inlined
def step_bar(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """Bar t >= 1, in the order that this module begins with; a missing bar fills nothing and keeps the clock."""
    if start_day(account, bars.day[t]):
        _transfers(account, bars.day[t], rules)
    if bars.present[t]:
        if account[PENDING] != NO_ORDER:
            fill_pending(account, lots, bars, t, rules)
        if rules.stop_loss_frac > 0.0:
            fill_stops(account, lots, bars, t, rules)
        if rules.perpetual:
            liquidate(account, lots, bars, t, rules)
        if rules.take_profit_frac > 0.0:
            fill_targets(account, lots, bars, t, rules)
    if rules.perpetual and bars.funding[t] != 0.0 and account[N_LOTS] > 0.0:
        pay_funding(account, bars.funding[t], rules.missing_funding_frac, bars.mark[t])
    account[EQUITY] = equity_usdt(account, bars.mark[t])
    account[PEAK_EQUITY] = max(account[PEAK_EQUITY], account[EQUITY])
    apply_halts(account, rules)


@inlined
def _transfers(account: FloatArray, day: int, rules: Rules) -> None:
    """What is paid in or out when a UTC day begins."""
    if rules.transfer_every_days > 0 and day % rules.transfer_every_days == 0:
        transfer(account, rules.transfer_usdt)
    if rules.transfer_daily_probability > 0.0:
        event, size = random_transfer_draw(account[SEED], day)
        if event < rules.transfer_daily_probability:
            transfer(account, size * rules.transfer_max_frac * account[EQUITY])


@inlined
def decision_step(
    account: FloatArray,
    lots: FloatArray,
    bars: BarArrays,
    t: int,
    action: int,
    size_frac: float,
    entry_allowed: bool,
    rules: Rules,
    terms: FloatArray,
) -> tuple[float, bool]:
    """Decide at the close of t, then step bars t + 1 .. t + patch_bars; returns (reward, terminated).

    terms (6,) receives reward.TERMS over the period, unweighted. terminated = ruin: equity at or below RUIN_FRAC of the
    start's equity. size_frac is the share of equity (of the start's equity when not compounding) that an entry opens.
    """
    costs0, win0, bonus0 = account[COSTS_PAID], account[WIN_USDT], account[BONUS_USDT]
    gain0, drawdown0 = account[EQUITY] / account[START_EQUITY], drawdown_frac(account)
    per_base = 1.0 / (account[EQUITY] if rules.compound else account[START_EQUITY])
    place(account, action, size_frac, entry_allowed, rules)
    for bar in range(t + 1, t + 1 + rules.patch_bars):
        step_bar(account, lots, bars, bar, rules)
    gain1 = account[EQUITY] / account[START_EQUITY]
    terms[NET_PROFIT] = net_profit(gain0, gain1, rules.compound)
    terms[COST] = (costs0 - account[COSTS_PAID]) * per_base
    terms[DRAWDOWN] = -max(0.0, drawdown_frac(account) - drawdown0)
    terms[WIN_RATE] = (account[WIN_USDT] - win0) * per_base
    terms[BONUS] = (account[BONUS_USDT] - bonus0) * per_base
    terms[GOAL] = goal_progress(gain1, rules.goal_frac) - goal_progress(gain0, rules.goal_frac)
    reward = (
        rules.w_net_profit * terms[NET_PROFIT]
        + rules.w_cost * terms[COST]
        + rules.w_drawdown * terms[DRAWDOWN]
        + rules.w_win_rate * terms[WIN_RATE]
        + rules.w_bonus * terms[BONUS]
        + rules.w_goal * terms[GOAL]
    )
    return reward, gain1 <= RUIN_FRAC


@stepping
def step_accounts(
    accounts: FloatArray,
    lots: FloatArray,
    bars: BarArrays,
    t: IntArray,
    actions: IntArray,
    size_frac: FloatArray,
    entry_allowed: BoolArray,
    rules: Rules,
    reward: FloatArray,
    terminated: BoolArray,
    terms: FloatArray,
    first: int,
    stop: int,
) -> None:
    """decision_step of the accounts first .. stop - 1, each at the close of its own bar t[i] and with its own action.

    accounts (N, N_ACCOUNT) and lots (N, max_lots, N_LOT) are written, and reward, terminated (N,), terms (N, 6); t,
    actions, size_frac, entry_allowed (N,) are read. Threads may step disjoint ranges at once.
    """
    for i in range(first, stop):
        if i + _AHEAD < stop:
            ahead = i + _AHEAD
            prefetch(bars.open, t[ahead] + 1)
            prefetch(lots[ahead, :, 0], lot_row(accounts[ahead], lots[ahead], 0))
            prefetch(lots[ahead, :, 0], lot_row(accounts[ahead], lots[ahead], int(accounts[ahead, N_LOTS])))
        reward[i], terminated[i] = decision_step(
            accounts[i], lots[i], bars, t[i], actions[i], size_frac[i], entry_allowed[i], rules, terms[i]
        )


@stepping
def observe_accounts(
    accounts: FloatArray,
    lots: FloatArray,
    bars: BarArrays,
    t: IntArray,
    rules: Rules,
    out: Float32Array,
    first: int,
    stop: int,
) -> None:
    """observe the accounts first .. stop - 1, each at the close of its own bar t[i], into out (N, A)."""
    for i in range(first, stop):
        observe(accounts[i], lots[i], bars, t[i], rules, out[i])
