"""The portfolio of several buckets: the sum of its parts, and how much they spread its risk."""

import numpy as np
import pytest
from evaluation_fakes import make_market
from hypothesis import given, settings
from hypothesis import strategies as st
from result_fakes import path_result

from btcai.evaluation.portfolio import combine, diversification_ratio
from btcai.evaluation.targets import run_targets
from btcai.market.rules import FREE_RULES
from btcai.schema import BARS_PER_DAY, BUCKETS, Span

COSTLY = FREE_RULES._replace(taker_fee_frac=1e-3, half_spread_frac=1e-4)


def test_two_buckets_by_hand() -> None:
    # 100 each, a quarter and three quarters of 100: 25 -> 27.5 and 75 -> 60. The first is all in long (27.5 of value),
    # the second half short (-30): net -2.5 of 87.5.
    first = path_result(
        np.array([100.0, 110.0]),
        position=np.array([0.0, 1.0]),
        trades=[(0, 1, 2.0, 50.0, 55.0, 100.0, 110.0)],
        costs=4.0,
        traded=200.0,
    )
    second = path_result(np.array([100.0, 80.0]), position=np.array([0.0, -0.5]), costs=8.0, traded=40.0)
    combined = combine({"short": first, "long": second}, {"short": 0.25, "long": 0.75}).result
    assert combined.equity_usdt.tolist() == [100.0, 87.5]
    assert combined.position_frac.tolist() == pytest.approx([0.0, -2.5 / 87.5])
    assert (combined.costs_usdt, combined.traded_usdt) == (7.0, 80.0)
    assert combined.n_lots.tolist() == [0, 2]
    (trade,) = combined.trades.itertuples()
    assert (trade.btc, trade.profit_usdt, trade.net_return) == pytest.approx((0.5, 2.5, 0.1))


@settings(max_examples=25)
@given(
    st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4),
    st.lists(st.floats(1e2, 1e6), min_size=4, max_size=4),
    st.integers(0, 9),
)
def test_equity_is_the_sum_of_the_four_accounts_and_changes_by_prices_and_costs_alone(
    weights: list[float], starts: list[float], seed: int
) -> None:
    market, span = make_market(120, seed=seed), Span(0, 120)
    rng = np.random.default_rng(seed)
    parts = {
        bucket: run_targets(rng.uniform(0.0, 1.0, 120), market, span, COSTLY, start)
        for bucket, start in zip(BUCKETS, starts, strict=True)
    }
    shares = {bucket: weight / sum(weights) for bucket, weight in zip(BUCKETS, weights, strict=True)}
    whole = combine(parts, shares).result
    capital = starts[0]
    scale = {bucket: shares[bucket] * capital / parts[bucket].start_equity_usdt for bucket in BUCKETS}
    expected = sum(scale[bucket] * parts[bucket].equity_usdt for bucket in BUCKETS)
    assert whole.equity_usdt == pytest.approx(expected, rel=1e-9, abs=0)
    assert whole.equity_usdt[0] == pytest.approx(capital)
    btc = whole.position_frac * whole.equity_usdt / market.mark
    opens, mark = market.bars.open, market.mark
    gains = (btc[:-1] * (opens[1:] - mark[:-1]) + btc[1:] * (mark[1:] - opens[1:])).sum()
    assert whole.equity_usdt[-1] - capital == pytest.approx(gains - whole.costs_usdt, abs=1e-9 * capital)
    assert whole.trades["exit_ts_ns"].is_monotonic_increasing
    assert len(whole.trades) == sum(len(part.trades) for part in parts.values())


def test_shares_are_equal_unless_given() -> None:
    parts = {bucket: path_result(np.array([100.0, 100.0 + k])) for k, bucket in enumerate(BUCKETS)}
    found = combine(parts)
    assert set(found.shares.values()) == {0.25}
    assert found.result.equity_usdt[-1] == pytest.approx(101.5)


def test_correlation_and_diversification_of_daily_returns() -> None:
    rng = np.random.default_rng(2)
    daily = rng.normal(0.0, 0.02, (3, 40))
    daily[1] = 0.6 * daily[0] + 0.8 * daily[1]
    parts = {
        bucket: path_result(100.0 * np.repeat(np.cumprod(1.0 + one), BARS_PER_DAY))
        for bucket, one in zip(BUCKETS, daily, strict=False)
    }
    parts["long"] = path_result(np.full(40 * BARS_PER_DAY, 100.0))
    found = combine(parts)
    assert found.correlation.loc["scalping", "short"] == pytest.approx(np.corrcoef(daily)[0, 1])
    assert np.isnan(found.correlation.loc["scalping", "long"])
    spread = np.sqrt(np.cov(np.vstack([daily, np.zeros(40)])).sum()) / 4
    assert found.diversification_ratio == pytest.approx(daily.std(axis=1, ddof=1).sum() / 4 / spread)


def test_what_moves_as_one_spreads_no_risk_and_two_strangers_root_two() -> None:
    one = np.tile([0.02, -0.02, 0.02, -0.02], 8)
    stranger = np.tile([0.02, 0.02, -0.02, -0.02], 8)
    half = np.array([0.5, 0.5])
    assert diversification_ratio(np.stack([one, one], axis=1), half) == pytest.approx(1.0)
    assert diversification_ratio(np.stack([one, stranger], axis=1), half) == pytest.approx(2**0.5)
    assert np.isnan(diversification_ratio(np.stack([one, -one], axis=1), half))  # the mix does not move
    assert np.isnan(diversification_ratio(np.stack([one, one], axis=1)[:19], half))


@pytest.mark.parametrize(
    "shares",
    [{"short": 1.0}, {"short": 0.5, "long": 0.6}, {"short": 1.5, "long": -0.5}, {"short": 1.0, "long": np.nan}],
)
def test_shares_that_are_no_division_of_the_capital_are_refused(shares: dict[str, float]) -> None:
    parts = {"short": path_result(np.array([100.0])), "long": path_result(np.array([100.0]))}
    with pytest.raises(ValueError, match="shares must be >= 0"):
        combine(parts, shares)


def test_other_spans_are_refused() -> None:
    with pytest.raises(ValueError, match="the same span"):
        combine({"short": path_result(np.array([100.0])), "long": path_result(np.array([100.0]), first=1)})
