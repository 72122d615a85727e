"""What the kernel reads, and that a batch of accounts is each account by itself."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_wild import wild_market, wild_rules
from market_world import FREE, MIDNIGHT_NS, Trader, make_market

from btcai.market.account import new_accounts
from btcai.market.bars import bar_arrays
from btcai.market.kernel import observe_accounts, step_accounts
from btcai.market.reward import TERMS
from btcai.market.rules import Rules, make_rules
from btcai.params import load_config
from btcai.schema import ACCOUNT_FEATURES, BAR_NS


def test_bar_that_closes_at_midnight_belongs_to_the_day_it_opened_in() -> None:
    bars = bar_arrays(make_market([100] * 3, first_open_ns=MIDNIGHT_NS - 2 * BAR_NS))
    assert np.diff(bars.day).tolist() == [0, 1]


def test_arrays_of_the_kernel_are_copies() -> None:
    data = make_market([100, 100])
    bar_arrays(data).open[0] = 5.0
    assert data.bars.open[0] == 100.0


def test_rules_come_from_the_shipped_settings(root: Path) -> None:
    config = load_config(root / "params.yaml")
    costs = config.market.severities["pessimistic"]
    for bucket in config.buckets.values():
        rules = make_rules(bucket, config.market, config.risk, costs)
        assert rules.taker_fee_frac == pytest.approx(costs.taker_fee_bps / 1e4)
        assert rules.half_spread_frac == pytest.approx(costs.half_spread_bps / 1e4)
        assert (rules.patch_bars, rules.max_lots) == (bucket.patch_bars, bucket.max_lots)
        assert (rules.w_win_rate, rules.w_goal) == (bucket.reward.win_rate, bucket.reward.goal)
        for value, example in zip(rules, FREE, strict=True):
            assert type(value) is type(example)


def test_rules_without_a_cost_given_take_that_of_the_severity(root: Path) -> None:
    config = load_config(root / "params.yaml")
    bucket, market = config.buckets["long"], config.market.model_copy(update={"severity": "optimistic"})
    assert make_rules(bucket, market, config.risk).taker_fee_frac == pytest.approx(4e-4)


@settings(max_examples=25)
@given(rules=wild_rules, seed=st.integers(0, 2**31))
def test_a_batch_of_accounts_is_each_account_by_itself(rules: Rules, seed: int) -> None:
    rng, n = np.random.default_rng(seed), 5
    traders = [Trader(wild_market(np.random.default_rng(seed)), rules, seed=number) for number in range(n)]
    bars = traders[0].bars
    accounts, lots = new_accounts(n, rules.max_lots, 10_000.0, np.arange(n, dtype=float))
    starts = rng.integers(0, 20, n)
    for trader, start in zip(traders, starts, strict=True):
        trader.t = int(start)
    for step in range(15):
        actions, sizes, allowed = rng.integers(0, 4, n), rng.uniform(0, 0.6, n), rng.random(n) < 0.9
        reward, terminated, terms = np.zeros(n), np.zeros(n, bool), np.zeros((n, len(TERMS)))
        t = starts + step * rules.patch_bars
        for first, stop in ((0, 2), (2, n)):
            step_accounts(
                accounts, lots, bars, t, actions, sizes, allowed, rules, reward, terminated, terms, first, stop
            )
        alone = [trader.decide(*order) for trader, *order in zip(traders, actions, sizes, allowed, strict=True)]
        assert list(zip(reward.tolist(), terminated.tolist(), strict=True)) == alone
        np.testing.assert_array_equal(terms, [trader.terms for trader in traders])
        np.testing.assert_array_equal(accounts, [trader.account for trader in traders])
        np.testing.assert_array_equal(lots, [trader.lots for trader in traders])
        seen = np.zeros((n, len(ACCOUNT_FEATURES)), np.float32)
        observe_accounts(accounts, lots, bars, t + rules.patch_bars, rules, seen, 0, n)
        np.testing.assert_array_equal(seen, [list(trader.seen().values()) for trader in traders])


def test_accounts_outside_the_range_are_not_touched() -> None:
    bars = bar_arrays(make_market([100] * 4))
    accounts, lots = new_accounts(3, 2, 100.0)
    before = accounts.copy()
    step_accounts(
        accounts, lots, bars, np.zeros(3, np.int64), np.ones(3, np.int64), np.full(3, 0.5), np.ones(3, bool),
        FREE._replace(max_lots=2), np.zeros(3), np.zeros(3, bool), np.zeros((3, len(TERMS))), 1, 2,
    )  # fmt: skip
    assert (accounts == before).all(axis=1).tolist() == [True, False, True]
