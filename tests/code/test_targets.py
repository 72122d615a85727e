"""Targets followed: worked by hand, conserving money, and to the bit what the slow walk does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import make_market
from hypothesis import given, settings
from hypothesis import strategies as st
from targets_oracle import run_targets_slowly

from btcai.data.sources import read_bars
from btcai.data.store import to_grid
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.rules_of_thumb import reversal
from btcai.evaluation.targets import run_targets
from btcai.features.pipeline import build_market
from btcai.market.rules import FREE_RULES, Rules
from btcai.schema import MarketData, Span

FREE = FREE_RULES
SIMPLE = FREE_RULES._replace(taker_fee_frac=1e-3, half_spread_frac=1e-4)
HARSH = SIMPLE._replace(impact_coef=1.0, max_volume_share=0.1)
EVERYTHING = HARSH._replace(
    lot_step_btc=1e-3, tick_usdt=0.5, latency_bars=2, perpetual=True, missing_funding_frac=3e-4, max_volume_share=0.02
)
TARGETS = st.lists(st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=40, max_size=40)


def with_marks(market: MarketData, mark: np.ndarray) -> MarketData:
    """Every price of a bar equals its mark."""
    bars = replace(market.bars, open=mark.copy(), high=mark.copy(), low=mark.copy(), close=mark.copy())
    return replace(market, bars=bars, mark=mark)


def wild_market(seed: int) -> MarketData:
    """40 bars with gaps and funding, of which one rate is unknown."""
    market = make_market(40, seed=seed, missing=(9, 10, 27))
    funding = np.where(np.arange(40) % 6 == 0, np.random.default_rng(seed).normal(0.0, 1e-3, 40), 0.0)
    funding[18] = np.nan
    return replace(market, funding=funding)


def shares(wanted: list[float | None]) -> np.ndarray:
    return np.array([np.nan if one is None else one for one in wanted])


def test_round_trip_by_hand() -> None:
    # 1,000 USDT at 100 with 10 bp fee and 1 bp spread: 1000 / (100.01 * 1.001) BTC; sold at 110 * 0.9999 less 10 bp.
    market = with_marks(make_market(5), np.array([100.0, 100.0, 110.0, 110.0, 110.0]))
    result = run_targets(np.array([1.0, 0.0, np.nan, np.nan, np.nan]), market, Span(0, 5), SIMPLE, 1_000.0)
    btc = 1_000.0 / (100.01 * 1.001)
    money = btc * 110.0 * 0.9999 * 0.999
    assert result.equity_usdt == pytest.approx([1000.0, btc * 100.0, money, money, money])
    trade = result.trades.iloc[0]
    assert (trade.entry_ts_ns, trade.exit_ts_ns) == tuple(market.bars.close_ts_ns[[1, 2]])
    assert trade.net_return == pytest.approx(money / 1_000.0 - 1)
    assert trade.profit_usdt == pytest.approx(money - 1_000.0)


def test_impact_by_hand_uses_the_volatility_known_before_the_fill() -> None:
    # 1 BTC of a volume of 100: share 1 %, root 0.1; sigma 2 % before the first fill, 3 % before the second.
    market = with_marks(make_market(4), np.full(4, 100.0))
    volumes = replace(market.bars, volume=np.full(4, 100.0))
    market = replace(market, bars=volumes, sigma=np.array([0.02, 0.03, 0.5, 0.5]))
    costs = FREE_RULES._replace(impact_coef=1.0)
    result = run_targets(np.array([0.1, 0.0, np.nan, np.nan]), market, Span(0, 4), costs, 1_000.0)
    (trade,) = result.trades.itertuples()
    assert trade.btc == pytest.approx(1.0)
    assert (trade.entry_price, trade.exit_price) == pytest.approx((100.2, 99.7))
    assert result.costs_usdt == pytest.approx(0.5)


def test_two_purchases_are_sold_first_in_first_out() -> None:
    market = with_marks(make_market(6), np.array([100.0, 100.0, 200.0, 200.0, 200.0, 200.0]))
    targets = np.array([0.5, 0.9, np.nan, 0.45, np.nan, np.nan])
    result = run_targets(targets, market, Span(0, 6), FREE, 1_000.0)
    # 5 BTC at 100; equity 1,500 at 200, so 1.75 BTC more; then half of 6.75 BTC is sold: all from the first lot.
    assert len(result.trades) == 1
    assert result.trades.btc[0] == pytest.approx(3.375)
    assert result.trades.net_return[0] == pytest.approx(1.0)
    assert result.equity_usdt[-1] == pytest.approx(1_500.0)


@given(TARGETS, st.integers(0, 5))
def test_what_a_sums_rounding_leaves_of_a_lot_is_no_trade(wanted: list[float | None], seed: int) -> None:
    rules = HARSH._replace(lot_step_btc=1e-3)
    result = run_targets(shares(wanted), wild_market(seed), Span(0, 40), rules, 1e6, band_frac=0.0)
    assert (result.trades.btc > 0.999e-3).all()
    assert np.isfinite(result.trades.net_return).all()


def test_an_order_larger_than_the_volume_goes_on_in_the_next_bars() -> None:
    market = with_marks(make_market(8), np.full(8, 100.0))
    market = replace(market, bars=replace(market.bars, volume=np.full(8, 20.0)))
    costs = FREE_RULES._replace(max_volume_share=0.1)
    result = run_targets(np.array([1.0] + [np.nan] * 7), market, Span(0, 8), costs, 500.0)
    assert result.position_frac == pytest.approx([0.0, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0])


def test_nothing_fills_on_a_missing_bar() -> None:
    market, span = make_market(100, missing=(11, 12)), Span(10, 100)
    result = run_targets(np.array([1.0] + [np.nan] * 89), market, span, SIMPLE, 1_000.0)
    assert result.position_frac[:4] == pytest.approx([0, 0, 0, 1])
    assert np.isfinite(result.equity_usdt).all()


def test_a_position_near_its_target_is_left_alone() -> None:
    market = with_marks(make_market(6), np.full(6, 100.0))
    targets = np.array([0.5, 0.54, 0.56, 0.52, 0.0, np.nan])
    result = run_targets(targets, market, Span(0, 6), FREE, 1_000.0)
    assert result.position_frac == pytest.approx([0.0, 0.5, 0.5, 0.56, 0.56, 0.0])


def test_targets_outside_zero_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="targets must be 3 shares of equity"):
        run_targets(np.array([0.5, 1.5, np.nan]), make_market(3), Span(0, 3), FREE, 1.0)


def test_a_held_swap_pays_funding_and_spot_does_not() -> None:
    # bought whole at the open of bar 1 at a flat 100: the rate of 1 % due at the close of bar 2 costs 10 of 1,000
    market = replace(make_market(5), funding=np.array([0.0, 0.0, 0.01, 0.0, 0.0]))
    market = with_marks(market, np.full(5, 100.0))
    targets = np.array([1.0] + [np.nan] * 4)
    spot = run_targets(targets, market, Span(0, 5), FREE, 1_000.0)
    swap = run_targets(targets, market, Span(0, 5), FREE._replace(perpetual=True), 1_000.0)
    assert spot.equity_usdt[-1] == pytest.approx(1_000.0)
    assert swap.equity_usdt.tolist() == pytest.approx([1_000.0, 1_000.0, 990.0, 990.0, 990.0])
    assert swap.costs_usdt - spot.costs_usdt == pytest.approx(10.0)


def test_orders_of_a_late_market_fill_later_and_in_whole_steps() -> None:
    market = make_market(6)
    late = run_targets(np.array([1.0] + [np.nan] * 5), market, Span(0, 6), FREE._replace(latency_bars=2), 1_000.0)
    assert late.position_frac[:3].tolist() == [0.0, 0.0, 0.0]
    assert late.position_frac[3] > 0.9
    steps = run_targets(np.array([1.0] + [np.nan] * 5), market, Span(0, 6), FREE._replace(lot_step_btc=0.001), 1_000.0)
    held = steps.position_frac[-1] * steps.equity_usdt[-1] / market.mark[5]
    assert held / 0.001 == pytest.approx(round(held / 0.001), abs=1e-6)


@settings(max_examples=60)
@given(TARGETS, st.integers(0, 5), st.sampled_from([FREE, HARSH, EVERYTHING]), st.sampled_from([0.0, 0.05]))
def test_the_compiled_walk_does_to_the_bit_what_the_slow_one_does(
    wanted: list[float | None], seed: int, rules: Rules, band_frac: float
) -> None:
    market, span = wild_market(seed), Span(0, 40)
    one = run_targets(shares(wanted), market, span, rules, 1e6, band_frac=band_frac)
    other = run_targets_slowly(shares(wanted), market, span, rules, 1e6, band_frac=band_frac)
    _assert_same(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("rules", [FREE, HARSH, EVERYTHING])
def test_a_long_walk_agrees_to_the_bit_with_the_slow_one(rules: Rules) -> None:
    market, span = make_market(20_000, seed=3, missing=tuple(range(500, 600, 7))), Span(100, 19_900)
    drawn = np.random.default_rng(1).uniform(0.0, 1.0, len(span))
    targets = np.where(np.arange(len(span)) % 5 == 0, drawn, np.nan)
    one = run_targets(targets, market, span, rules, 1e5)
    _assert_same(one, run_targets_slowly(targets, market, span, rules, 1e5, band_frac=0.05))
    assert len(one.trades) > 1_000


@pytest.mark.slow
@pytest.mark.real
def test_an_hourly_rule_over_the_real_bars_agrees_to_the_bit_with_the_slow_walk(real_bars_path: Path) -> None:
    market = build_market(to_grid(read_bars(real_bars_path)))
    span = Span(0, len(market))
    targets, _ = reversal(market, span)
    one = run_targets(targets, market, span, HARSH, 1e5)
    _assert_same(one, run_targets_slowly(targets, market, span, HARSH, 1e5, band_frac=0.05))
    assert len(one.trades) > 1_000


def _assert_same(one: BacktestResult, other: BacktestResult) -> None:
    for name in ("equity_usdt", "position_frac", "n_lots", "decisions", "close_ts_ns"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.trades.equals(other.trades)
    assert (one.costs_usdt, one.traded_usdt) == (other.costs_usdt, other.traded_usdt)


@settings(max_examples=60)
@given(TARGETS, st.integers(0, 5), st.sampled_from([HARSH, HARSH._replace(perpetual=True, missing_funding_frac=3e-4)]))
def test_money_is_never_made_or_lost_but_by_prices_and_costs(
    wanted: list[float | None], seed: int, rules: Rules
) -> None:
    market, span = wild_market(seed), Span(0, 40)
    result = run_targets(shares(wanted), market, span, rules, 1e6, band_frac=0.0)
    bars = market.bars
    btc = result.position_frac * result.equity_usdt / market.mark
    assert btc.min() >= 0.0
    gains = 0.0
    for k in range(1, 40):  # what was held gains close to open, the rest of the bar belongs to the new holding
        start = market.mark[k - 1]
        fill = bars.open[k] if bars.present[k] else start
        gains += btc[k - 1] * (fill - start) + btc[k] * (market.mark[k] - fill)
    assert result.equity_usdt[-1] - 1e6 == pytest.approx(gains - result.costs_usdt, abs=1e-9 * 1e6)
    if not rules.perpetual:  # funding may take the last cash
        assert (result.equity_usdt * (1 - result.position_frac)).min() >= -1e-6
