"""Baselines: exact where arithmetic gives the answer, causal, and paying what a bucket pays."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import make_market
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.evaluation.baselines import (
    BASELINES,
    buy_and_hold_targets,
    momentum_targets,
    run_baselines,
    run_targets,
    volatility_targets,
)
from btcai.evaluation.metrics import DAY_NS
from btcai.market.rules import FREE_RULES
from btcai.schema import BARS_PER_DAY, MarketData, Span

FREE = FREE_RULES
SIMPLE = FREE_RULES._replace(taker_fee_frac=1e-3, half_spread_frac=1e-4)
HARSH = SIMPLE._replace(impact_coef=1.0, max_volume_share=0.1)
DAILY = 100 * BARS_PER_DAY


def _with_marks(market: MarketData, mark: np.ndarray) -> MarketData:
    """Every price of a bar equals its mark."""
    bars = replace(market.bars, open=mark.copy(), high=mark.copy(), low=mark.copy(), close=mark.copy())
    return replace(market, bars=bars, mark=mark)


def test_buy_and_hold_equals_the_analytic_result() -> None:
    market, span = make_market(600, seed=1), Span(50, 600)
    targets, note = buy_and_hold_targets(market, span)
    result = run_targets(targets, market, span, SIMPLE, 10_000.0)
    bought = 10_000.0 / (market.bars.open[51] * (1 + 1e-4) * (1 + 1e-3))
    assert result.equity_usdt[0] == 10_000.0
    assert result.equity_usdt[1:] == pytest.approx(bought * market.mark[51:600], rel=1e-9)
    assert result.costs_usdt == pytest.approx(10_000.0 - bought * market.bars.open[51], rel=1e-9)
    assert (note, len(result.trades)) == ("", 0)


def test_cash_never_moves() -> None:
    market, span = make_market(400), Span(10, 400)
    result = run_baselines(market, span, {"base": HARSH}, 5_000.0)["cash"]["base"]
    assert np.array_equal(result.equity_usdt, np.full(390, 5_000.0))
    assert result.traded_usdt == 0.0


def test_round_trip_by_hand() -> None:
    # 1,000 USDT at 100 with 10 bp fee and 1 bp spread: 1000 / (100.01 * 1.001) BTC; sold at 110 * 0.9999 less 10 bp.
    market = _with_marks(make_market(5), np.array([100.0, 100.0, 110.0, 110.0, 110.0]))
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
    market = _with_marks(make_market(4), np.full(4, 100.0))
    volumes = replace(market.bars, volume=np.full(4, 100.0))
    market = replace(market, bars=volumes, sigma=np.array([0.02, 0.03, 0.5, 0.5]))
    costs = FREE_RULES._replace(impact_coef=1.0)
    result = run_targets(np.array([0.1, 0.0, np.nan, np.nan]), market, Span(0, 4), costs, 1_000.0)
    (trade,) = result.trades.itertuples()
    assert trade.btc == pytest.approx(1.0)
    assert (trade.entry_price, trade.exit_price) == pytest.approx((100.2, 99.7))
    assert result.costs_usdt == pytest.approx(0.5)


def test_two_purchases_are_sold_first_in_first_out() -> None:
    market = _with_marks(make_market(6), np.array([100.0, 100.0, 200.0, 200.0, 200.0, 200.0]))
    targets = np.array([0.5, 0.9, np.nan, 0.45, np.nan, np.nan])
    result = run_targets(targets, market, Span(0, 6), FREE, 1_000.0)
    # 5 BTC at 100; equity 1,500 at 200, so 1.75 BTC more; then half of 6.75 BTC is sold: all from the first lot.
    assert len(result.trades) == 1
    assert result.trades.btc[0] == pytest.approx(3.375)
    assert result.trades.net_return[0] == pytest.approx(1.0)
    assert result.equity_usdt[-1] == pytest.approx(1_500.0)


def test_an_order_larger_than_the_volume_goes_on_in_the_next_bars() -> None:
    market = _with_marks(make_market(8), np.full(8, 100.0))
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
    market = _with_marks(make_market(6), np.full(6, 100.0))
    targets = np.array([0.5, 0.54, 0.56, 0.52, 0.0, np.nan])
    result = run_targets(targets, market, Span(0, 6), FREE, 1_000.0)
    assert result.position_frac == pytest.approx([0.0, 0.5, 0.5, 0.56, 0.56, 0.0])


def test_volatility_target_by_hand() -> None:
    # Daily marks alternate by +-2 %: log returns +-d; 30 of them, mean 0, ddof-1 spread d * sqrt(30/29).
    days = np.arange(DAILY) // BARS_PER_DAY
    market = _with_marks(make_market(DAILY), np.where(days % 2 == 0, 100.0, 102.0))
    targets, note = volatility_targets(market, Span(60 * BARS_PER_DAY, DAILY))
    volatility = np.log(1.02) * (30 / 29) ** 0.5 * 365**0.5
    assert note == ""
    assert targets[0] == pytest.approx(0.30 / volatility)
    assert 0.7 < targets[0] < 0.8


def test_calm_markets_are_held_whole_but_never_geared() -> None:
    market = _with_marks(make_market(DAILY), np.full(DAILY, 100.0))
    targets, _ = volatility_targets(market, Span(60 * BARS_PER_DAY, DAILY))
    assert np.nanmax(targets) == np.nanmin(targets) == 1.0


def test_momentum_turns_when_the_price_falls_below_that_of_ninety_days_ago() -> None:
    first = 91 * BARS_PER_DAY
    mark = np.where(np.arange(DAILY) < 95 * BARS_PER_DAY, 101.0, 99.0)
    mark[: 5 * BARS_PER_DAY] = 100.0
    market = _with_marks(make_market(DAILY, first_close_bar=0), mark)
    span = Span(first, DAILY)
    targets, note = momentum_targets(market, span)
    assert note == ""
    decided = np.flatnonzero(np.isfinite(targets)) + first
    assert np.array_equal(decided, np.arange(first, DAILY, BARS_PER_DAY))
    assert targets[decided - first].tolist() == [1.0] * 4 + [0.0] * 5


def test_missing_history_is_said_and_spent_in_cash() -> None:
    first = 88 * BARS_PER_DAY
    market, span = make_market(DAILY, first_close_bar=0, drift=1e-5), Span(first, DAILY)
    targets, note = momentum_targets(market, span)
    assert note == "in cash for the first 2 of 12 daily decisions: needs 90 days of history"
    assert np.isnan(targets[: 2 * BARS_PER_DAY]).all()
    result = run_targets(targets, market, span, HARSH, 1_000.0, note=note)
    assert result.note == note
    assert not result.position_frac[: 2 * BARS_PER_DAY].any()


def test_daily_decisions_fall_on_midnight_utc_after_the_first() -> None:
    market, span = make_market(DAILY, first_close_bar=0), Span(31 * BARS_PER_DAY + 7, DAILY)
    targets, _ = volatility_targets(market, span)
    decided = np.flatnonzero(np.isfinite(targets))
    assert decided[0] == 0
    assert (market.bars.close_ts_ns[decided[1:] + span.first] % DAY_NS == 0).all()
    assert len(decided) == 1 + (DAILY - span.first) // BARS_PER_DAY


@pytest.mark.parametrize("cut_day", [92, 95, 99])
def test_overwriting_the_future_changes_no_baseline_up_to_then(cut_day: int) -> None:
    span, cut = Span(91 * BARS_PER_DAY, DAILY), cut_day * BARS_PER_DAY + 13
    market = make_market(DAILY, seed=4)
    other = make_market(DAILY, seed=5)
    scale = 3.0
    columns = {}
    for name in ("open", "high", "low", "close", "volume"):
        column = getattr(market.bars, name).copy()
        column[cut + 1 :] = scale * getattr(other.bars, name)[cut + 1 :]
        columns[name] = column
    mark = market.mark.copy()
    mark[cut + 1 :] = columns["close"][cut + 1 :]
    poisoned = replace(market, bars=replace(market.bars, **columns), mark=mark)
    costs = {"pessimistic": HARSH}
    before, after = (run_baselines(one, span, costs, 1e5) for one in (market, poisoned))
    for name in BASELINES:
        honest, changed = before[name]["pessimistic"], after[name]["pessimistic"]
        kept = cut + 1 - span.first
        assert np.array_equal(honest.equity_usdt[:kept], changed.equity_usdt[:kept]), name
        assert np.array_equal(honest.position_frac[:kept], changed.position_frac[:kept]), name
    ends = [one["buy_and_hold"]["pessimistic"].equity_usdt[-1] for one in (before, after)]
    assert ends[0] != ends[1]


def test_targets_outside_zero_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="targets must be 3 shares of equity"):
        run_targets(np.array([0.5, 1.5, np.nan]), make_market(3), Span(0, 3), FREE, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=30, max_size=30), st.integers(0, 5))
def test_money_is_never_made_or_lost_but_by_prices_and_costs(wanted: list[float | None], seed: int) -> None:
    market, span = make_market(30, seed=seed, missing=(9, 10)), Span(0, 30)
    targets = np.array([np.nan if one is None else one for one in wanted])
    result = run_targets(targets, market, span, HARSH, 1e6, band_frac=0.0)
    bars = market.bars
    btc = result.position_frac * result.equity_usdt / market.mark
    cash = result.equity_usdt * (1 - result.position_frac)
    assert cash.min() >= -1e-6
    assert btc.min() >= 0.0
    gains = 0.0
    for k in range(1, 30):  # what was held gains close to open, the rest of the bar belongs to the new holding
        start = market.mark[k - 1]
        fill = bars.open[k] if bars.present[k] else start
        gains += btc[k - 1] * (fill - start) + btc[k] * (market.mark[k] - fill)
    assert result.equity_usdt[-1] - 1e6 == pytest.approx(gains - result.costs_usdt, abs=1e-6)


def test_a_held_swap_pays_funding_and_spot_does_not() -> None:
    # bought whole at the open of bar 1 at a flat 100: the rate of 1 % due at the close of bar 2 costs 10 of 1,000
    market = replace(make_market(5), funding=np.array([0.0, 0.0, 0.01, 0.0, 0.0]))
    flat = np.full(5, 100.0)
    market = replace(market, bars=replace(market.bars, open=flat, high=flat, low=flat, close=flat), mark=flat)
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
