"""One account stepped from Python with rules as a record: the bits of the kernel with rules as a tuple."""

import numpy as np
import pytest

from btcai.market.account import (
    DAY_START_EQUITY,
    EQUITY,
    HALT,
    LOT_BTC,
    LOT_ENTRY_PRICE,
    PEAK_EQUITY,
    PENDING,
    equity_usdt,
    new_accounts,
    set_lots,
)
from btcai.market.bars import BarArrays
from btcai.market.kernel import observe, place
from btcai.market.risk import apply_halts, can_open
from btcai.market.rules import FREE_RULES, Rules
from btcai.market.single import halt, hold, observe_one, order, packed
from btcai.schema import ACCOUNT_FEATURES, FloatArray

RULES = FREE_RULES._replace(
    taker_fee_frac=0.001, daily_loss_halt_frac=0.03, drawdown_halt_frac=0.1, cool_down_bars=5, latency_bars=1,
    goal_frac=0.2, patch_bars=3, min_notional_usdt=10.0,
)  # fmt: skip
SHORTS = RULES._replace(perpetual=True, allow_short=True, max_exposure_frac=0.4)


N_SEEN = len(ACCOUNT_FEATURES)


def drawn(rng: np.random.Generator, rules: Rules) -> tuple[FloatArray, FloatArray, int]:
    """An account with 0 to 3 lots of one side, around its limits."""
    accounts, lots = new_accounts(1, rules.max_lots, 100_000.0 * rng.uniform(0.8, 1.2))
    n_lots, side = int(rng.integers(0, 4)), -1.0 if rules.allow_short and rng.random() < 0.5 else 1.0
    accounts[0, [PEAK_EQUITY, DAY_START_EQUITY]] = rng.uniform(80_000.0, 160_000.0, 2)
    lots[0, :n_lots, LOT_BTC] = side * rng.uniform(0.1, 1.0, n_lots)
    lots[0, :n_lots, LOT_ENTRY_PRICE] = rng.uniform(20_000.0, 40_000.0, n_lots)
    return accounts[0], lots[0], n_lots


def one_bar(mark: float, sigma: float) -> BarArrays:
    blank, day, present = np.zeros(1), np.zeros(1, np.int32), np.ones(1, np.bool_)
    return BarArrays(blank, blank, blank, blank, np.array([mark]), np.array([sigma]), blank, day, present, blank)


@pytest.mark.parametrize("rules", [RULES, SHORTS], ids=["spot", "shorts"])
def test_each_step_has_the_bits_of_the_kernels(rules: Rules) -> None:
    rng, ordered, halted = np.random.default_rng(0), 0, 0
    for _ in range(300):
        account, lots, n_lots = drawn(rng, rules)
        mark, sigma, action = rng.uniform(25_000.0, 35_000.0), rng.uniform(1e-4, 1e-2), int(rng.integers(0, 4))
        wanted, wanted_lots = account.copy(), lots.copy()
        set_lots(wanted, wanted_lots, n_lots)
        wanted[EQUITY] = equity_usdt(wanted, mark)
        assert hold(account, lots, n_lots, mark) == wanted[EQUITY]
        halt(account, packed(rules))
        apply_halts(wanted, rules)
        halted += account[HALT] != 0.0
        seen, wanted_seen = (
            np.empty((1, len(ACCOUNT_FEATURES)), np.float32),
            np.empty(len(ACCOUNT_FEATURES), np.float32),
        )
        observe_one(account, lots, mark, sigma, packed(rules), seen)
        observe(wanted, wanted_lots, one_bar(mark, sigma), 0, rules, wanted_seen)
        np.testing.assert_array_equal(seen[0], wanted_seen)
        assert order(account, action, 0.1, True, packed(rules)) == can_open(wanted, rules)
        place(wanted, action, 0.1, True, rules)
        np.testing.assert_array_equal(account, wanted)
        np.testing.assert_array_equal(lots, wanted_lots)
        ordered += account[PENDING] != 0
    assert 30 < ordered < 270  # and not one answer to all
    assert 30 < halted < 270


def test_the_record_holds_every_rule_and_nobody_writes_it() -> None:
    record = packed(SHORTS)
    assert record.dtype.names == Rules._fields
    for name, value in SHORTS._asdict().items():
        np.testing.assert_array_equal(record[name][0], value)
    assert packed(SHORTS._replace()) is record
    with pytest.raises(ValueError, match="read-only"):
        record["max_lots"] = 9
