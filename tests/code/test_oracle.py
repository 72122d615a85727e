"""The compiled kernel against the plain-Python oracle: the same numbers after every decision, whatever the rules."""

from collections import Counter
from math import log1p, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_oracle import CLOSE, OPEN_LONG, OPEN_SHORT, REDUCE, Oracle
from market_wild import FIELDS, wild_market, wild_rules
from market_world import Trader

from btcai.market import account as column
from btcai.market.account import random_transfer_draw
from btcai.market.bars import BarArrays
from btcai.market.reward import TERMS
from btcai.market.risk import DAILY_HALT, DRAWDOWN_HALT, NO_HALT
from btcai.market.rules import Rules

START_USDT = 10_000.0
LEAST_USDT = 1.0
"""An account that withdrew all but this is left: the sums of its life no longer resolve what it earns."""
ORDERS = {
    OPEN_LONG: column.OPEN_LONG,
    OPEN_SHORT: column.OPEN_SHORT,
    REDUCE: column.REDUCE,
    CLOSE: column.CLOSE_ALL,
}
HALTS = {"": NO_HALT, "day": DAILY_HALT, "drawdown": DRAWDOWN_HALT}
EVENTS = {
    *(f"{kind}, {how}" for kind in (OPEN_LONG, OPEN_SHORT, REDUCE) for how in ("taken", "rested")),
    f"{CLOSE}, taken",
    *("opened", "whole", "partial", "stop", "target", "liquidation"),
    *("funding", "funding unknown", "deposit", "withdrawal"),
    *("daily halt", "drawdown halt", "drawdown halt prolonged"),
}
"""What the walks must have met, or their agreement says nothing about it."""


def counts(trader: Trader) -> list[float]:
    columns = (column.N_LOTS, column.CLOSED_LOTS, column.SINCE_TRADE, column.HALT, column.PENDING)
    return [trader[name] for name in columns]


def counts_of(oracle: Oracle) -> list[float]:
    order = ORDERS[oracle.order.kind] if oracle.order else column.NO_ORDER
    return [len(oracle.lots), len(oracle.closed), oracle.since_trade, HALTS[oracle.halt], order]


def money(trader: Trader) -> list[float]:
    names = "CASH EQUITY START_EQUITY PEAK_EQUITY DAY_START_EQUITY COSTS_PAID FUNDING_PAID TRANSFERRED TRADED_USDT"
    return [trader[getattr(column, name)] for name in names.split()]


def money_of(oracle: Oracle) -> list[float]:
    ledger = oracle.ledger
    account = [oracle.cash, oracle.equity, oracle.start, oracle.peak, oracle.day_start]
    return [*account, ledger.costs, ledger.funding, ledger.transfers, sum(oracle.notional.values())]


def lots(trader: Trader) -> np.ndarray:
    names = "BTC SIZE_BTC COST_USDT ENTRY_PRICE ENTRY_BAR PROCEEDS_USDT EXIT_USDT"
    return trader.open[:, [getattr(column, f"LOT_{name}") for name in names.split()]]


def lots_of(oracle: Oracle) -> np.ndarray:
    rows = [(lot.btc, lot.whole, lot.cost, lot.entry, lot.bar, lot.proceeds, lot.exits) for lot in oracle.lots]
    return np.array(rows).reshape(-1, 7)


def seen_of(oracle: Oracle, bars: BarArrays, t: int) -> dict[str, float]:
    """The account half of the observation at the close of t."""
    sigma_patch = float(bars.sigma[t]) * sqrt(oracle.rules.patch_bars)
    returns = [lot.side * (float(bars.mark[t]) / lot.entry - 1) / sigma_patch for lot in oracle.lots] or [0.0]
    return {
        "cash_frac": 1 - oracle.value / oracle.equity,
        "lots_frac": oracle.side * len(oracle.lots) / oracle.rules.max_lots,
        "open_return_sigmas": max(-5.0, min(5.0, sum(returns) / len(returns))),
        "oldest_return_sigmas": max(-5.0, min(5.0, returns[0])),
        "drawdown_frac": oracle.drawdown,
        "goal_progress": max(-1.0, oracle.goal),
        "decisions_since_trade": log1p(oracle.since_trade) / 5,
        "can_buy": float(oracle.can_buy),
        "can_sell": float(oracle.can_sell),
    }


def agree_on_money(trader: Trader, oracle: Oracle) -> None:
    largest = 1e-9 * max(START_USDT, *map(abs, money_of(oracle)))
    np.testing.assert_allclose(money(trader), money_of(oracle), rtol=1e-9, atol=largest)
    np.testing.assert_allclose(lots(trader), lots_of(oracle), rtol=1e-9, atol=1e-9)
    moves = oracle.ledger.moves + oracle.open_moves(float(trader.bars.mark[trader.t]))
    earned = trader[column.EQUITY] - START_USDT - trader[column.TRANSFERRED] + trader[column.COSTS_PAID]
    assert earned == pytest.approx(moves, rel=1e-9, abs=max(largest, 1e-9 * trader[column.TRADED_USDT]))


def agree_on_what_comes_next(trader: Trader, oracle: Oracle) -> None:
    """Orders, halts and the observation; an account that is ruined has no next decision."""
    assert counts(trader) == counts_of(oracle)
    if oracle.order:
        assert trader[column.PENDING_DELAY] == oracle.order.delay
        assert trader[column.PENDING_REST] == oracle.order.rest or oracle.order.kind == CLOSE
    if oracle.halt:
        assert max(trader[column.COOL_DOWN], 0) == max(oracle.cool_down, 0)
    assert trader.seen() == pytest.approx(seen_of(oracle, trader.bars, trader.t), rel=1e-5, abs=1e-5)


def walk(rules: Rules, seed: int) -> Counter[str]:
    """One account from its start to the market's end or its ruin, step by step; how often each rule spoke."""
    rng = np.random.default_rng(seed)
    trader = Trader(wild_market(rng), rules, START_USDT, seed=seed % 2**31)
    oracle = Oracle(rules, START_USDT, draw=lambda day: random_transfer_draw(float(seed % 2**31), day))
    ruined = False
    weights = rng.dirichlet([1, 2, 1, 0.3])
    while trader.t + rules.patch_bars < len(trader.bars.open) and not ruined and oracle.equity > LEAST_USDT:
        action, size, allowed = int(rng.choice(4, p=weights)), float(rng.uniform(0.01, 1.2)), bool(rng.random() < 0.9)
        terms, ruined = oracle.step(trader.bars, trader.t, action, size, allowed)
        reward, terminated = trader.decide(action, size, allowed)
        assert terminated == ruined
        assert trader.terms == pytest.approx([terms[name] for name in TERMS], rel=1e-8, abs=1e-9)
        assert reward == pytest.approx(
            sum(getattr(rules, f"w_{name}") * terms[name] for name in TERMS), rel=1e-8, abs=1e-9
        )
        agree_on_money(trader, oracle)
        if not ruined:
            agree_on_what_comes_next(trader, oracle)
        oracle.events["decisions"] += 1
    return oracle.events


def test_every_field_of_the_rules_is_drawn() -> None:
    assert tuple(FIELDS) == Rules._fields


@settings(max_examples=25)
@given(rules=wild_rules, seed=st.integers(0, 2**63 - 1))
def test_kernel_agrees_with_the_oracle(rules: Rules, seed: int) -> None:
    walk(rules, seed)


@pytest.mark.slow
def test_kernel_agrees_with_the_oracle_over_many_walks_that_met_every_rule() -> None:
    met = Counter[str]()

    @settings(max_examples=2_500, database=None)
    @given(rules=wild_rules, seed=st.integers(0, 2**63 - 1))
    def walks(rules: Rules, seed: int) -> None:
        met.update(walk(rules, seed))

    walks()
    assert met["decisions"] >= 150_000
    assert {name for name in EVENTS if met[name] < 10} == set()
