"""Deposits and withdrawals: never profit or loss; and the draws of the random ones."""

import numpy as np
import pytest
from market_world import FREE, MIDNIGHT_NS, Trader, make_market

from btcai.market.account import (
    CASH,
    DAY_START_EQUITY,
    EQUITY,
    HALT,
    N_LOTS,
    PEAK_EQUITY,
    START_EQUITY,
    TRANSFERRED,
    random_transfer_draw,
)
from btcai.market.risk import NO_HALT
from btcai.market.rules import Rules
from btcai.schema import BAR_NS, Action, MarketData

HOLD, BUY, SELL, CLOSE_ALL = Action
DAY = MIDNIGHT_NS // 86_400_000_000_000  # 19676


def around_midnight(opens: list[float], bars_before: int = 3) -> MarketData:
    return make_market(opens, first_open_ns=MIDNIGHT_NS - bars_before * BAR_NS)


def scheduled(usdt: float, **others: float) -> Rules:
    return FREE._replace(transfer_every_days=2, transfer_usdt=usdt, **others)


def test_deposit_comes_on_its_day_before_the_fill_and_scales_what_gain_is_measured_from() -> None:
    trader = Trader(around_midnight([100, 100, 100, 110, 110, 110]), scheduled(2_000.0)).walk(BUY, HOLD, size_frac=0.5)
    assert trader[TRANSFERRED] == 0.0
    reward, _ = trader.decide(HOLD)
    # equity 10,500 (5,000 in 50 BTC at 110); 2,000 more is 12,500 / 10,500 of it
    scale = 12_500 / 10_500
    columns = [CASH, EQUITY, START_EQUITY, PEAK_EQUITY, DAY_START_EQUITY, TRANSFERRED]
    assert trader.account[columns] == pytest.approx([7000, 12_500, 10_000 * scale, 12_500, 12_500, 2000])
    assert reward == pytest.approx(0.0, abs=1e-12)
    assert trader.seen()["drawdown_frac"] == 0.0
    assert trader.seen()["goal_progress"] == pytest.approx(0.05)


def test_day_that_is_no_multiple_has_no_transfer() -> None:
    assert DAY % 2 == 0
    market = around_midnight([100] * 8)
    assert Trader(market, scheduled(2_000.0)._replace(transfer_every_days=3)).walk(*[HOLD] * 6)[TRANSFERRED] == 0.0


def test_an_accounts_first_day_has_no_transfer() -> None:
    assert Trader(make_market([100] * 5), scheduled(2_000.0)).walk(HOLD, HOLD)[TRANSFERRED] == 0.0


def test_withdrawal_is_no_loss_and_trips_no_halt() -> None:
    rules = scheduled(-4_000.0, daily_loss_halt_frac=0.01, drawdown_halt_frac=0.01)
    trader = Trader(around_midnight([100] * 7), rules).walk(BUY, *[HOLD] * 4)
    assert trader[EQUITY] == pytest.approx(6_000)
    assert trader[START_EQUITY] == trader[PEAK_EQUITY] == pytest.approx(6_000)
    assert trader[HALT] == NO_HALT


@pytest.mark.parametrize(("invested", "withdrawn"), [(0.2, 5_000.0), (0.8, 2_000.0), (1.0, 0.0)])
def test_withdrawal_takes_free_cash_and_half_of_the_equity_at_most(invested: float, withdrawn: float) -> None:
    trader = Trader(around_midnight([100] * 6), scheduled(-9_000.0)).walk(BUY, *[HOLD] * 3, size_frac=invested)
    assert trader[TRANSFERRED] == pytest.approx(-withdrawn, abs=1e-6)
    assert trader[CASH] >= 0.0
    assert trader[N_LOTS] == 1


def test_cash_that_secures_a_short_is_not_withdrawn() -> None:
    # 8,000 USDT sold short: cash 18,000, of which 10,000 - 8,000 are free
    rules = scheduled(-9_000.0, perpetual=True, allow_short=True)
    trader = Trader(around_midnight([100] * 6), rules).walk(SELL, *[HOLD] * 3, size_frac=0.8)
    assert trader[TRANSFERRED] == pytest.approx(-2_000)


def test_lot_of_a_compounding_account_grows_with_the_deposit_of_its_morning() -> None:
    rules = scheduled(10_000.0, compound=True)
    trader = Trader(around_midnight([100] * 6), rules).walk(HOLD, HOLD, BUY, size_frac=0.1)  # fills on the new day
    assert trader[CASH] == pytest.approx(20_000 - 2_000)


def test_random_transfer_is_the_draw_of_its_day_times_the_equity() -> None:
    rules = FREE._replace(transfer_daily_probability=1.0, transfer_max_frac=0.2)
    trader = Trader(around_midnight([100] * 6), rules, seed=5).walk(*[HOLD] * 3)
    assert trader[TRANSFERRED] == pytest.approx(random_transfer_draw(5.0, DAY)[1] * 0.2 * 10_000)


def test_random_transfers_come_as_often_as_their_probability_says() -> None:
    rules = FREE._replace(transfer_daily_probability=0.3, transfer_max_frac=0.2)
    market = around_midnight([100] * 6)
    moved = [Trader(market, rules, seed=seed).walk(*[HOLD] * 3)[TRANSFERRED] != 0 for seed in range(1000)]
    assert np.mean(moved) == pytest.approx(0.3, abs=0.05)  # 3 standard errors


# The draws


def draws(seeds: range, days: range) -> np.ndarray:
    """(seed, day, 2): event and size, both as 0 .. 1."""
    drawn = np.array([[random_transfer_draw(float(seed), day) for day in days] for seed in seeds])
    return np.stack([drawn[..., 0], (drawn[..., 1] + 1) / 2], axis=-1)


def test_draws_are_uniform() -> None:
    drawn = draws(range(200), range(DAY, DAY + 200)).reshape(-1, 2)
    assert ((drawn >= 0) & (drawn < 1)).all()
    for values in drawn.T:
        counts = np.histogram(values, 20, (0, 1))[0]
        assert ((counts - 2000) ** 2 / 2000).sum() < 43.8  # chi-square, 19 degrees of freedom, 0.1 %


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_draws_of_days_and_seeds_are_independent(shift: int) -> None:
    drawn = draws(range(100), range(DAY, DAY + 100))
    pairs = {
        "event and size": (drawn[..., 0], np.roll(drawn[..., 1], shift, axis=1)),
        "size and size of another seed": (drawn[..., 1], np.roll(drawn[..., 1], shift or 2, axis=0)),
        "event and event of another day": (drawn[..., 0], np.roll(drawn[..., 0], shift or 2, axis=1)),
    }
    for name, (one, other) in pairs.items():
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.04, name  # 4 standard errors of 10,000


def test_draw_is_a_function_of_seed_and_day_alone() -> None:
    forwards = [random_transfer_draw(3.0, day) for day in range(50)]
    random_transfer_draw(4.0, 7)
    assert [random_transfer_draw(3.0, day) for day in reversed(range(50))] == forwards[::-1]
    assert random_transfer_draw(4.0, 7) != random_transfer_draw(3.0, 7)
