"""Money is never made: equity changes only by price moves, costs and transfers, over 100 million random steps.

The moves are counted apart from the kernel, from the lots before and after each bar: what was held is worth more by
the way from the last mark to the open, what is held after the order by the way from the open to the mark, and a lot
that the bar itself closed ends at its stop, its liquidation or its target. What the order did is seen on a twin account
whose rules know none of these three.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from market_wild import wild_market
from market_world import FREE

from btcai.market.account import (
    CASH,
    COSTS_PAID,
    EQUITY,
    HEAD,
    LOT_BTC,
    LOT_COST_USDT,
    LOT_ENTRY_BAR,
    LOT_ENTRY_PRICE,
    LOT_PROCEEDS_USDT,
    LOT_SIZE_BTC,
    N_LOT,
    N_LOTS,
    PENDING,
    PENDING_DELAY,
    PENDING_REST,
    REDUCE,
    TRADED_USDT,
    TRANSFERRED,
    new_accounts,
)
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.execution import tick_down, tick_up
from btcai.market.kernel import decision_step
from btcai.market.reward import TERMS
from btcai.market.rules import Rules
from btcai.schema import FloatArray

STEPS = 100_000_000
MARKETS = 8
N_BARS = 3_000
COUNTED = ("stops", "liquidations", "targets", "fills", "transfers", "ruins", "shorts")

jit = numba.njit(error_model="numpy", nogil=True)


@jit
def held(account: FloatArray, lots: FloatArray) -> float:
    total = 0.0
    for k in range(int(account[N_LOTS])):
        total += lots[(int(account[HEAD]) + k) % lots.shape[0], LOT_BTC]
    return total


@jit
def row_of(lots: FloatArray, entry_bar: float) -> int:
    for row in range(lots.shape[0]):
        if lots[row, LOT_ENTRY_BAR] == entry_bar and lots[row, LOT_SIZE_BTC] != 0.0:
            return row
    return -1


@jit
def stop_of(lot: FloatArray, bars: BarArrays, t: int, rules: Rules) -> float:
    """The reference at which the bar stops this lot, nan where it does not."""
    if rules.stop_loss_frac <= 0.0:
        return np.nan
    if lot[LOT_SIZE_BTC] > 0.0:
        stop = lot[LOT_ENTRY_PRICE] * (1.0 - rules.stop_loss_frac)
        return min(stop, bars.open[t]) if bars.low[t] <= stop else np.nan
    stop = lot[LOT_ENTRY_PRICE] * (1.0 + rules.stop_loss_frac)
    return max(stop, bars.open[t]) if bars.high[t] >= stop else np.nan


@jit
def rests_at_a_stop(account: FloatArray, lots: FloatArray, bars: BarArrays, t: int, rules: Rules) -> bool:
    """Whether an order that rests to close the oldest lot meets a bar that stops this lot."""
    if account[PENDING] != REDUCE or account[PENDING_DELAY] > 0.0 or account[PENDING_REST] == 0.0:
        return False
    return account[N_LOTS] > 0.0 and not np.isnan(stop_of(lots[int(account[HEAD])], bars, t, rules))


@jit
def liquidation_of(
    twin: FloatArray, before: FloatArray, after: FloatArray, bars: BarArrays, t: int, rules: Rules
) -> float:
    """The reference at which the bar liquidates what its stops left, nan where it does not."""
    if not rules.perpetual:
        return np.nan
    cash, left = twin[CASH], 0.0
    for k in range(int(twin[N_LOTS])):
        lot = before[(int(twin[HEAD]) + k) % before.shape[0]]
        if np.isnan(stop_of(lot, bars, t, rules)):
            left += lot[LOT_BTC]
        elif lot[LOT_BTC] < 0.0:
            closed = after[row_of(after, lot[LOT_ENTRY_BAR])]
            share = lot[LOT_BTC] / lot[LOT_SIZE_BTC]
            cash -= 2.0 * lot[LOT_COST_USDT] * share - (closed[LOT_PROCEEDS_USDT] - lot[LOT_PROCEEDS_USDT])
    if left >= 0.0:
        return np.nan
    trigger = cash / (-left * (1.0 + rules.maintenance_frac))
    return max(trigger, bars.open[t]) if bars.high[t] >= trigger else np.nan


@jit
def closed_by_the_bar(
    twin: FloatArray, before: FloatArray, after: FloatArray, bars: BarArrays, t: int, rules: Rules, counts: FloatArray
) -> float:
    """USDT by which the lots that bar t itself closed end apart from the mark."""
    moves, liquidation = 0.0, liquidation_of(twin, before, after, bars, t, rules)
    for k in range(int(twin[N_LOTS])):
        lot = before[(int(twin[HEAD]) + k) % before.shape[0]]
        btc = lot[LOT_BTC] - after[row_of(after, lot[LOT_ENTRY_BAR]), LOT_BTC]
        if btc == 0.0:
            continue
        reference = stop_of(lot, bars, t, rules)
        if not np.isnan(reference):
            counts[0] += 1
        elif not np.isnan(liquidation):
            reference = liquidation
            counts[1] += 1
        elif btc > 0.0:
            reference = tick_up(lot[LOT_ENTRY_PRICE] * (1.0 + rules.take_profit_frac), rules.tick_usdt)
            counts[2] += 1
        else:
            reference = tick_down(lot[LOT_ENTRY_PRICE] * (1.0 - rules.take_profit_frac), rules.tick_usdt)
            counts[2] += 1
        moves += btc * (reference - bars.mark[t])
    return moves


@jit
def worst_errors(
    bars: BarArrays,
    rules: Rules,
    order_rules: Rules,
    steps: int,
    rng: np.random.Generator,
    fresh: FloatArray,
    counts: FloatArray,
) -> tuple[float, float]:
    """Largest relative error of one step, and of a whole life."""
    account, lots, terms = fresh.copy(), np.zeros((rules.max_lots, N_LOT)), np.zeros(len(TERMS))
    t, worst, worst_life, moved, largest, terminated = 0, 0.0, 0.0, 0.0, 0.0, True
    for _ in range(steps):
        if terminated or t + 1 >= len(bars.open):
            account[:], lots[:], moved, largest = fresh, 0.0, 0.0, 0.0
            t = rng.integers(0, len(bars.open) - 2)
        start, twin, before, held0 = account.copy(), account.copy(), lots.copy(), held(account, lots)
        if rests_at_a_stop(twin, before, bars, t + 1, rules):
            twin[PENDING_DELAY] = 1.0  # the twin knows no stop for which the order would wait
        action, size, allowed = rng.integers(0, 6) % 4, rng.random() * 0.5, rng.random() < 0.9
        decision_step(twin, before, bars, t, action, size, allowed, order_rules, terms)
        terminated = decision_step(account, lots, bars, t, action, size, allowed, rules, terms)[1]
        t += 1
        moves = held0 * (bars.mark[t] - bars.mark[t - 1])
        if bars.present[t]:
            moves = held0 * (bars.open[t] - bars.mark[t - 1]) + held(twin, before) * (bars.mark[t] - bars.open[t])
            moves += closed_by_the_bar(twin, before, lots, bars, t, rules, counts)
        moved += moves
        change = account - start
        scale = max(abs(start[EQUITY]), abs(account[EQUITY]), abs(account[CASH]))
        largest = max(largest, scale)
        error = change[EQUITY] - moves + change[COSTS_PAID] - change[TRANSFERRED]
        life = account[EQUITY] - fresh[EQUITY] - moved + account[COSTS_PAID] - account[TRANSFERRED]
        worst, worst_life = max(worst, abs(error) / scale), max(worst_life, abs(life) / largest)
        counts[3] += change[TRADED_USDT] > 0.0
        counts[4] += change[TRANSFERRED] != 0.0
        counts[5] += terminated
        counts[6] += held(account, lots) < 0.0
    return worst, worst_life


EVERYTHING = FREE._replace(
    taker_fee_frac=0.001,
    maker_fee_frac=0.0004,
    tier_usdt=(2e4, 5e4, 1e5, 1e6),
    tier_maker_factor=(0.9, 0.8, 0.7, 0.6),
    tier_taker_factor=(0.9, 0.8, 0.7, 0.6),
    half_spread_frac=0.0005,
    impact_coef=1.0,
    max_volume_share=0.2,
    lot_step_btc=0.001,
    tick_usdt=0.01,
    min_notional_usdt=20.0,
    perpetual=True,
    allow_short=True,
    missing_funding_frac=0.001,
    maintenance_frac=0.05,
    transfer_every_days=2,
    transfer_usdt=500.0,
    transfer_daily_probability=0.2,
    transfer_max_frac=0.3,
    max_lots=6,
    stop_loss_frac=0.05,
    take_profit_frac=0.05,
    daily_loss_halt_frac=0.2,
    drawdown_halt_frac=0.5,
    cool_down_bars=5,
    compound=True,
)
"""Every rule on."""

VARIANTS = {
    "everything": EVERYTHING,
    "late and resting": EVERYTHING._replace(latency_bars=1, maker_bars=2),
    "without stops": EVERYTHING._replace(stop_loss_frac=0.0, take_profit_frac=0.3, drawdown_halt_frac=1.0),
    "spot of 25 lots": EVERYTHING._replace(perpetual=False, allow_short=False, max_lots=25, compound=False),
}


def walk(rules: Rules, steps: int) -> tuple[float, float, FloatArray]:
    """Largest errors of a step and of a life, and how often each of COUNTED was met, on MARKETS markets."""
    order_rules = rules._replace(stop_loss_frac=0.0, take_profit_frac=0.0, perpetual=False)
    fresh = new_accounts(1, rules.max_lots, 10_000.0, np.array([7.0]))[0][0]

    def on_market(seed: int) -> tuple[float, float, FloatArray]:
        bars, counts = bar_arrays(wild_market(np.random.default_rng(seed), N_BARS)), np.zeros(len(COUNTED))
        rng = np.random.default_rng(seed)
        return *worst_errors(bars, rules, order_rules, steps // MARKETS, rng, fresh, counts), counts

    with ThreadPoolExecutor(2) as threads:  # what is compiled holds no GIL
        by_step, by_life, counts = zip(*threads.map(on_market, range(MARKETS)), strict=True)
    return max(by_step), max(by_life), sum(counts)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_equity_changes_only_by_price_moves_costs_and_transfers(name: str) -> None:
    step, life, counts = walk(VARIANTS[name], STEPS // len(VARIANTS))
    met = dict(zip(COUNTED, counts.tolist(), strict=True))
    assert max(step, life) <= 1e-9, (step, life, met)
    absent = {"without stops": {"stops"}, "spot of 25 lots": {"liquidations", "shorts"}}.get(name, {"liquidations"})
    assert {what for what, times in met.items() if times == 0} == absent, met
