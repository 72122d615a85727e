"""What must hold of the market whatever one does on it: known results, and costs that never help."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_wild import wild_market
from market_world import FREE, Trader, make_market

from btcai.market.account import CASH, EQUITY
from btcai.market.rules import NEVER_USDT, Rules
from btcai.schema import Action, FloatArray

HOLD, BUY, SELL, CLOSE_ALL = Action


def prices(seed: int, n_bars: int = 300) -> FloatArray:
    return np.asarray(100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, n_bars))))


@given(seed=st.integers(0, 2**32), fee=st.floats(0, 0.02), spread=st.floats(0, 0.01), impact=st.floats(0, 2))
@settings(max_examples=40)
def test_buy_and_hold_of_a_share_is_the_analytic_result(seed: int, fee: float, spread: float, impact: float) -> None:
    path, volume, sigma = prices(seed), 1000.0, 0.02
    rules = FREE._replace(taker_fee_frac=fee, half_spread_frac=spread, impact_coef=impact)
    trader = Trader(make_market(path, volume=volume, sigma=sigma), rules).walk(BUY, *[HOLD] * 298, size_frac=0.6)
    quantity = 0.6 * 10_000 / path[1]
    paid = path[1] * (1 + spread + impact * sigma * np.sqrt(quantity / volume)) * (1 + fee)
    assert trader[EQUITY] == pytest.approx(10_000 + quantity * (path[-1] - paid), rel=1e-9)


@given(seed=st.integers(0, 2**32), fee=st.floats(0, 0.02), spread=st.floats(0, 0.01))
@settings(max_examples=40)
def test_buy_and_hold_of_everything_is_the_price_ratio_after_costs(seed: int, fee: float, spread: float) -> None:
    path = prices(seed)
    rules = FREE._replace(taker_fee_frac=fee, half_spread_frac=spread, compound=True)
    trader = Trader(make_market(path), rules).walk(BUY, *[HOLD] * 298, size_frac=1.0)
    assert trader[EQUITY] == pytest.approx(10_000 * path[-1] / path[1] / (1 + spread) / (1 + fee), rel=1e-9)
    assert trader[CASH] >= 0.0


@given(seed=st.integers(0, 2**32), fee=st.floats(0, 0.02), rate=st.floats(-0.001, 0.001))
@settings(max_examples=40)
def test_sell_short_and_hold_is_the_analytic_result_with_its_funding(seed: int, fee: float, rate: float) -> None:
    path = prices(seed, 100)
    marks = np.append(path[1:], path[-1])
    rules = FREE._replace(taker_fee_frac=fee, perpetual=True, allow_short=True)
    market = make_market(path, funding=dict.fromkeys(range(100), rate))
    trader = Trader(market, rules).walk(SELL, *[HOLD] * 98, size_frac=0.3)
    quantity = 0.3 * 10_000 / path[1]
    sold, funded = quantity * path[1] * (1 - fee), quantity * rate * marks[1:].sum()
    assert trader[EQUITY] == pytest.approx(10_000 + sold - quantity * path[-1] + funded, rel=1e-9)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_doing_nothing_earns_nothing_under_any_rules(seed: int) -> None:
    rules = COSTLY._replace(perpetual=True, allow_short=True, stop_loss_frac=0.1, take_profit_frac=0.1)
    trader = Trader(wild_market(np.random.default_rng(seed)), rules)
    assert [trader.decide(HOLD)[0] for _ in range(79)] == [0.0] * 79
    assert trader[EQUITY] == 10_000.0


COSTLY = FREE._replace(
    max_lots=5,
    taker_fee_frac=0.004,
    maker_fee_frac=0.002,
    half_spread_frac=0.001,
    impact_coef=0.5,
    missing_funding_frac=0.001,
    tick_usdt=0.01,
    tier_usdt=(500.0, 5_000.0, NEVER_USDT, NEVER_USDT),
    tier_taker_factor=(0.5, 0.3, 1.0, 1.0),
    tier_maker_factor=(0.5, 0.3, 1.0, 1.0),
)
"""With small sizes that are shares of the start's equity and no stop, target or limit near, the same decisions fill the
same quantities. Where a cost also changes what is held (a lot cut to the cash there is, a stop below a dearer entry, a
halt after a larger loss) a higher one may by chance be followed by a better result."""

RESTING = COSTLY._replace(maker_bars=2)
FUNDED = COSTLY._replace(perpetual=True, allow_short=True)
HIGHER: dict[str, tuple[Rules, object]] = {
    "taker_fee_frac": (FUNDED, 0.01),
    "maker_fee_frac": (RESTING, 0.01),
    "half_spread_frac": (FUNDED, 0.003),
    "impact_coef": (FUNDED, 2.0),
    "missing_funding_frac": (FUNDED, 0.004),
    "tick_usdt": (FUNDED, 0.25),  # a multiple: each price on the coarser grid is on the finer one
    "tier_usdt": (FUNDED, (1_000.0, 6_000.0, NEVER_USDT, NEVER_USDT)),
    "tier_taker_factor": (FUNDED, (0.9, 0.5, 1.0, 1.0)),
    "tier_maker_factor": (RESTING, (0.9, 0.5, 1.0, 1.0)),
}


@pytest.mark.parametrize("name", HIGHER)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_the_same_decisions_never_earn_more_at_a_higher_cost(name: str, seed: int) -> None:
    def walked(rules: Rules) -> Trader:
        rng = np.random.default_rng(seed)
        return Trader(wild_market(rng), rules).walk(*rng.integers(0, 4, 79), size_frac=0.02)

    rules, higher = HIGHER[name]
    low, high = walked(rules), walked(rules._replace(**{name: higher}))
    np.testing.assert_allclose(high.open[:, :2], low.open[:, :2], rtol=1e-12)  # the same lots
    assert high[EQUITY] <= low[EQUITY] + 1e-9


@pytest.mark.parametrize("name", HIGHER)
def test_each_of_these_costs_is_paid_on_some_market(name: str) -> None:
    rules, higher = HIGHER[name]
    rng = np.random.default_rng(3)
    market, actions = wild_market(rng), rng.integers(0, 4, 79)
    low, high = (Trader(market, r).walk(*actions, size_frac=0.02) for r in (rules, rules._replace(**{name: higher})))
    assert high[EQUITY] < low[EQUITY] - 1e-6


def test_a_cost_that_trips_a_halt_may_save_from_a_loss() -> None:
    rules = FREE._replace(daily_loss_halt_frac=0.01, cool_down_bars=9)
    market = make_market([100, 100, 100, 20, 20])
    cheap, dear = (
        Trader(market, rules._replace(taker_fee_frac=fee)).walk(BUY, BUY, size_frac=0.4) for fee in (0.0, 0.03)
    )
    assert dear[EQUITY] > cheap[EQUITY]
