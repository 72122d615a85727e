"""The one execution model of training, backtest and live: compiled steps of one account over 5-minute bars.

An order decided when bar t closes fills at the first present bar after t, at its open, less costs; until then it waits
and no other order is taken. On each present bar: the pending order at the open, then the stops, then the mark. A lot
bought at the open of t can be stopped in t. Volume share limits orders; stops fill whole. Rows passed in are written.
"""

import math
from typing import NamedTuple

import numpy as np

from btcai.config import BucketConfig, CostConfig, RiskConfig
from btcai.market.account import (
    CASH,
    COSTS_PAID,
    EQUITY,
    LOT_BTC,
    LOT_ENTRY_PRICE,
    N_LOTS,
    PEAK_EQUITY,
    PENDING,
    PENDING_FRAC,
    SINCE_TRADE,
    START_EQUITY,
    WIN_USDT,
    drawdown_frac,
    equity_usdt,
    held_btc,
    open_lot,
    sell_from_lot,
)
from btcai.market.compiled import inlined
from btcai.market.execution import affordable_btc, buy_price, fill_quantity, sell_price
from btcai.market.reward import COST, DRAWDOWN, GOAL, NET_PROFIT, WIN, goal_progress, net_profit
from btcai.market.risk import MIN_LOT_FRAC, apply_halts, can_buy, can_sell, start_day
from btcai.schema import BAR_NS, BARS_PER_DAY, Action, BoolArray, Float32Array, FloatArray, IntArray, MarketData

RUIN_FRAC = 0.1
"""An account at or below this share of its start's equity is finished."""

_HOLD, _BUY, _CLOSE_ALL = int(Action.HOLD), int(Action.BUY), int(Action.CLOSE_ALL)
_OBSERVED_SIGMAS = 5.0


class BarArrays(NamedTuple):
    """What the kernel reads of a market, plain arrays (T,): prices and mark USDT, volume BTC, day = UTC day number."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    mark: FloatArray
    sigma: FloatArray
    present: BoolArray
    day: IntArray


class Rules(NamedTuple):
    """Scalars of one bucket under one cost severity; units in the names, weights of reward.TERMS in w_*."""

    fee_frac: float
    half_spread_frac: float
    impact_coef: float
    max_volume_share: float
    max_lots: int
    stop_loss_frac: float
    max_exposure_frac: float
    daily_loss_halt_frac: float
    drawdown_halt_frac: float
    cool_down_bars: int
    goal_frac: float
    patch_bars: int
    w_net_profit: float
    w_cost: float
    w_drawdown: float
    w_win: float
    w_goal: float
    compound: bool


def bar_arrays(data: MarketData) -> BarArrays:
    """Copies of the market's bars in memory; a bar belongs to the UTC day in which it opens."""
    bars = data.bars
    return BarArrays(
        open=np.array(bars.open, dtype=np.float64),
        high=np.array(bars.high, dtype=np.float64),
        low=np.array(bars.low, dtype=np.float64),
        close=np.array(bars.close, dtype=np.float64),
        volume=np.array(bars.volume, dtype=np.float64),
        mark=np.array(data.mark, dtype=np.float64),
        sigma=np.array(data.sigma, dtype=np.float64),
        present=np.array(bars.present, dtype=np.bool_),
        day=(np.array(bars.close_ts_ns, dtype=np.int64) - BAR_NS) // (BAR_NS * BARS_PER_DAY),
    )


def make_rules(bucket: BucketConfig, costs: CostConfig, risk: RiskConfig) -> Rules:
    """The rules of a bucket: profits compound."""
    weights = bucket.reward
    return Rules(
        fee_frac=float(costs.fee_bps) / 1e4,
        half_spread_frac=float(costs.half_spread_bps) / 1e4,
        impact_coef=float(costs.impact_coef),
        max_volume_share=float(costs.max_volume_share),
        max_lots=int(bucket.max_lots),
        stop_loss_frac=float(bucket.stop_loss_frac),
        max_exposure_frac=float(risk.max_exposure_frac),
        daily_loss_halt_frac=float(risk.daily_loss_halt_frac),
        drawdown_halt_frac=float(risk.drawdown_halt_frac),
        cool_down_bars=int(risk.cool_down_bars),
        goal_frac=float(bucket.goal_frac),
        patch_bars=int(bucket.patch_bars),
        w_net_profit=float(weights.net_profit),
        w_cost=float(weights.cost),
        w_drawdown=float(weights.drawdown),
        w_win=float(weights.win),
        w_goal=float(weights.goal),
        compound=True,
    )


@inlined
def observe(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules, out: Float32Array) -> None:
    """Write the account half of the observation at the close of bar t into out: schema.ACCOUNT_FEATURES, float32."""
    n_lots = int(account[N_LOTS])
    mean_return, oldest_return = 0.0, 0.0
    if n_lots > 0:
        mark, sigma_patch = bars.mark[t], bars.sigma[t] * math.sqrt(rules.patch_bars)
        total = 0.0
        for lot in range(n_lots):
            total += mark / lots[lot, LOT_ENTRY_PRICE]
        mean_return = (total / n_lots - 1.0) / sigma_patch
        oldest_return = (mark / lots[0, LOT_ENTRY_PRICE] - 1.0) / sigma_patch
    out[0] = account[CASH] / account[EQUITY]
    out[1] = n_lots / rules.max_lots
    out[2] = min(max(mean_return, -_OBSERVED_SIGMAS), _OBSERVED_SIGMAS)
    out[3] = min(max(oldest_return, -_OBSERVED_SIGMAS), _OBSERVED_SIGMAS)
    out[4] = drawdown_frac(account)
    out[5] = max(goal_progress(account[EQUITY], account[START_EQUITY], rules.goal_frac), -1.0)
    out[6] = math.log1p(account[SINCE_TRADE]) / 5.0
    out[7] = 1.0 if can_buy(account, rules.max_lots, rules.max_exposure_frac, rules.fee_frac) else 0.0
    out[8] = 1.0 if can_sell(account) else 0.0


@inlined
def place(
    account: FloatArray, lots: FloatArray, action: int, size_frac: float, entry_allowed: bool, rules: Rules
) -> None:
    """Take the order of a decision at the close of a bar; what cannot be done is HOLD."""
    account[SINCE_TRADE] += 1
    if action == _BUY:
        free = can_buy(account, rules.max_lots, rules.max_exposure_frac, rules.fee_frac)
        if free and entry_allowed and size_frac > 0.0:
            account[PENDING], account[PENDING_FRAC] = _BUY, size_frac
    elif action != _HOLD and can_sell(account):
        account[PENDING] = action


@inlined
def step_bar(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """Bar t >= 1: the pending order at its open, stops, mark to market, halts; a missing bar only keeps the clock."""
    start_day(account, bars.day[t])
    if bars.present[t]:
        pending = int(account[PENDING])
        account[PENDING] = _HOLD
        if pending == _BUY:
            _fill_buy(account, lots, bars, t, rules)
        elif pending != _HOLD:
            _fill_sell(account, lots, bars, t, pending == _CLOSE_ALL, rules)
        if rules.stop_loss_frac > 0.0:
            _fill_stops(account, lots, bars, t, rules)
    account[EQUITY] = equity_usdt(account, lots, bars.mark[t])
    account[PEAK_EQUITY] = max(account[PEAK_EQUITY], account[EQUITY])
    apply_halts(account, rules.daily_loss_halt_frac, rules.drawdown_halt_frac, rules.cool_down_bars)


@inlined
def _fill_buy(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """Open a lot of PENDING_FRAC of the equity at the last mark, measured at the open, as far as the limits let it."""
    reference, volume, sigma = bars.open[t], bars.volume[t], bars.sigma[t - 1]
    base = account[EQUITY] if rules.compound else account[START_EQUITY]
    wanted = fill_quantity(account[PENDING_FRAC] * base / reference, volume, rules.max_volume_share)
    highest = buy_price(reference, rules.half_spread_frac, rules.impact_coef, sigma, wanted, volume)
    value = held_btc(account, lots) * reference
    room = rules.max_exposure_frac * (account[CASH] + value) - value
    quantity = affordable_btc(wanted, account[CASH], room, rules.max_exposure_frac, reference, highest, rules.fee_frac)
    if quantity * reference < MIN_LOT_FRAC * account[START_EQUITY]:
        return
    price = buy_price(reference, rules.half_spread_frac, rules.impact_coef, sigma, quantity, volume)
    open_lot(account, lots, t, quantity, price, reference, rules.fee_frac)


@inlined
def _fill_sell(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, all_lots: bool, rules: Rules) -> None:
    """Close the oldest lot, or all of them oldest first, as one order at one price."""
    reference, volume, sigma = bars.open[t], bars.volume[t], bars.sigma[t - 1]
    wanted = held_btc(account, lots) if all_lots else lots[0, LOT_BTC]
    left = fill_quantity(wanted, volume, rules.max_volume_share)
    whole = left >= wanted  # then lots are emptied exactly, whatever the sum's rounding
    price = sell_price(reference, rules.half_spread_frac, rules.impact_coef, sigma, left, volume)
    sigma_patch = sigma * math.sqrt(rules.patch_bars)
    for _ in range(int(account[N_LOTS]) if all_lots else 1):
        quantity = lots[0, LOT_BTC] if whole else min(left, lots[0, LOT_BTC])
        if quantity <= 0.0:
            return
        left -= quantity
        sell_from_lot(account, lots, 0, quantity, price, reference, rules.fee_frac, sigma_patch)


@inlined
def _fill_stops(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """Sell every lot whose stop the low reached, whole, at min(open, stop) less the costs of their joint quantity."""
    keep = 1.0 - rules.stop_loss_frac
    total = 0.0
    for lot in range(int(account[N_LOTS])):
        if bars.low[t] <= lots[lot, LOT_ENTRY_PRICE] * keep:
            total += lots[lot, LOT_BTC]
    if total <= 0.0:
        return
    volume, sigma = bars.volume[t], bars.sigma[t - 1]
    sigma_patch = sigma * math.sqrt(rules.patch_bars)
    lot = 0
    while lot < int(account[N_LOTS]):
        stop = lots[lot, LOT_ENTRY_PRICE] * keep
        if bars.low[t] > stop:
            lot += 1
            continue
        reference = min(bars.open[t], stop)
        price = sell_price(reference, rules.half_spread_frac, rules.impact_coef, sigma, total, volume)
        sell_from_lot(account, lots, lot, lots[lot, LOT_BTC], price, reference, rules.fee_frac, sigma_patch)


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

    terms (5,) receives reward.TERMS over the period, unweighted. terminated = ruin: equity at or below RUIN_FRAC of the
    start's equity. size_frac is the share of equity (of the start's equity when not compounding) that a BUY opens.
    """
    equity0, costs0, win0, drawdown0 = account[EQUITY], account[COSTS_PAID], account[WIN_USDT], drawdown_frac(account)
    start = account[START_EQUITY]
    place(account, lots, action, size_frac, entry_allowed, rules)
    for bar in range(t + 1, t + 1 + rules.patch_bars):
        step_bar(account, lots, bars, bar, rules)
    equity1 = account[EQUITY]
    base = equity0 if rules.compound else start
    terms[NET_PROFIT] = net_profit(equity0, equity1, base, rules.compound)
    terms[COST] = -(account[COSTS_PAID] - costs0) / base
    terms[DRAWDOWN] = -max(0.0, drawdown_frac(account) - drawdown0)
    terms[WIN] = (account[WIN_USDT] - win0) / base
    terms[GOAL] = goal_progress(equity1, start, rules.goal_frac) - goal_progress(equity0, start, rules.goal_frac)
    reward = (
        rules.w_net_profit * terms[NET_PROFIT]
        + rules.w_cost * terms[COST]
        + rules.w_drawdown * terms[DRAWDOWN]
        + rules.w_win * terms[WIN]
        + rules.w_goal * terms[GOAL]
    )
    return reward, equity1 <= RUIN_FRAC * start
