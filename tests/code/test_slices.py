"""Where a result was earned: parts that add up, labels that were known, numbers by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import make_market
from hypothesis import given, settings
from hypothesis import strategies as st
from result_fakes import path_result

from btcai.evaluation.metrics import DAYS_PER_YEAR, daily_returns, exposure_frac, net_return, sharpe
from btcai.evaluation.slices import SLICE_COLUMNS, bar_labels, slice_table, trend_sigmas
from btcai.schema import BARS_PER_DAY, MarketData, Span

DAY = BARS_PER_DAY
SLICINGS = ("trend", "volatility", "year", "month", "weekday", "hour")


def market_of(n_days: int, seed: int = 1) -> MarketData:
    """Begins when 1970 did; sigma wanders."""
    market = make_market(n_days * DAY, seed=seed, first_close_bar=1)
    wander = np.random.default_rng(seed).normal(0.0, 0.02, n_days * DAY).cumsum()
    return replace(market, sigma=0.002 * np.exp(wander))


def by_part(table: pd.DataFrame, slicing: str, column: str) -> dict[str, float]:
    rows = table[table.slicing == slicing]
    return dict(zip(rows.part, rows[column], strict=True))


@settings(max_examples=15)
@given(st.integers(0, 99), st.integers(1, 3 * DAY))
def test_every_slicing_adds_up_to_the_whole(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    market, first = market_of(40), 33 * DAY
    held = rng.uniform(-1.0, 1.0, n)
    entries = np.sort(rng.integers(0, n, 5))
    result = path_result(
        100.0 * np.exp(rng.normal(0.0, 0.01, n).cumsum()),
        position=held,
        trades=[(int(k), n - 1, 1.0, 1.0, 1.0, 1.0, 1.0) for k in entries],
        first=first,
        first_close_bar=first + 1,
    )
    table = slice_table(result, market, Span(0, 30 * DAY))
    assert tuple(table.columns) == SLICE_COLUMNS
    whole = table.groupby("slicing", sort=False)
    assert set(whole.groups) == set(SLICINGS)
    gain = net_return(result.equity_usdt, 100.0)
    assert whole["net_contribution"].sum().tolist() == pytest.approx([gain] * 6)
    assert whole["bars"].sum().tolist() == [n] * 6
    assert whole["trades"].sum().tolist() == [5] * 6
    mean = (table.exposure_frac * table.bars).groupby(table.slicing).sum() / n
    assert mean.tolist() == pytest.approx([exposure_frac(held)] * 6)


def test_hours_and_weekdays_by_hand() -> None:
    # From Friday 1970-01-02 23:55 on: the bars that close at 00:00, 00:05 and 00:10 gain 1, 2 and 4 of 100; lots are
    # opened in the first and the last.
    lots = [(0, 2, 1.0, 1.0, 1.0, 1.0, 1.0), (2, 2, 1.0, 1.0, 1.0, 1.0, 1.0)]
    equity, first = np.array([101.0, 103.0, 107.0]), 2 * DAY - 1
    result = path_result(equity, position=np.array([0.5, 0.0, 1.0]), trades=lots, first=first, first_close_bar=2 * DAY)
    table = slice_table(result, market_of(3), Span(0, DAY))
    assert by_part(table, "hour", "net_contribution") == pytest.approx({"00": 0.06, "23": 0.01})
    assert by_part(table, "weekday", "net_contribution") == pytest.approx({"Friday": 0.01, "Saturday": 0.06})
    assert by_part(table, "weekday", "trades") == {"Friday": 1, "Saturday": 1}
    assert by_part(table, "weekday", "exposure_frac") == {"Friday": 0.5, "Saturday": 0.5}
    assert by_part(table, "month", "bars") == {"1970-01": 3}
    assert by_part(table, "trend", "bars") == {"unknown": 3}
    assert table.sharpe.isna().all()


def test_a_slice_that_holds_all_has_the_sharpe_ratio_of_the_whole() -> None:
    rng = np.random.default_rng(4)
    result = path_result(100.0 * np.exp(rng.normal(0.0, 1e-3, 30 * DAY).cumsum()), first_close_bar=1)
    table = slice_table(result, market_of(30), Span(0, 10 * DAY))
    daily = daily_returns(result.equity_usdt, result.close_ts_ns, 100.0)
    assert by_part(table, "year", "sharpe") == pytest.approx({"1970": sharpe(daily, DAYS_PER_YEAR)})
    hours = np.diff(np.log(result.equity_usdt), prepend=np.log(100.0)).reshape(30, 24, 12).sum(axis=2)
    assert by_part(table, "hour", "sharpe")["07"] == pytest.approx(sharpe(np.expm1(hours[:, 7]), DAYS_PER_YEAR))


def test_the_trend_is_the_move_in_its_own_random_walk_units() -> None:
    # 8,640 bars alternate by + and - d, but one in three falls away: 5,760 up and 2,880 down. Their sum is 2,880 d,
    # the root of their squares sqrt(8,640) d.
    steps = np.tile([1.0, 1.0, -1.0], 30 * DAY // 3)
    mark = 100.0 * np.exp(1e-4 * np.concatenate([[0.0], steps.cumsum()]))
    found = trend_sigmas(mark)
    assert found[-1] == pytest.approx(2_880 / 8_640**0.5)
    assert np.isnan(found[:-1]).all()


def test_a_random_walk_trends_up_down_and_not_about_a_third_of_the_time_each() -> None:
    found = [trend_sigmas(make_market(30 * DAY + 1, seed=seed).mark)[-1] for seed in range(200)]
    parts = np.bincount(np.digitize(found, (-0.5, 0.5)), minlength=3) / 200
    assert parts.tolist() == pytest.approx([0.31, 0.38, 0.31], abs=0.1)


def test_volatility_is_told_by_the_training_spans_terciles() -> None:
    # In training sigma is 1 .. 900 bp: a third lies below 300.67, two thirds below 600.33.
    market = make_market(1_000)
    sigma = np.concatenate([np.arange(1, 901), np.full(100, 5)]) * 1e-4
    sigma[900:903] = [300e-4, 450e-4, 601e-4]
    labels = bar_labels(replace(market, sigma=sigma), Span(901, 905), Span(0, 900))
    assert labels["volatility"].tolist() == ["calm", "usual", "stormy", "calm"]


@pytest.mark.parametrize("cut", [31 * DAY + 7, 34 * DAY, 35 * DAY - 2])
def test_a_bars_regime_was_known_when_it_opened(cut: int) -> None:
    market, span, train = market_of(36), Span(31 * DAY, 36 * DAY), Span(0, 20 * DAY)
    mark, sigma = market.mark.copy(), market.sigma.copy()
    mark[cut:] *= np.linspace(2.0, 9.0, len(mark) - cut)
    sigma[cut:] *= 9.0
    honest, changed = (
        bar_labels(one, span, train)[["trend", "volatility"]]
        for one in (market, replace(market, mark=mark, sigma=sigma))
    )
    kept = cut + 1 - span.first  # bar `cut` opens before it is changed
    assert honest[:kept].equals(changed[:kept])
    assert not honest.equals(changed)
