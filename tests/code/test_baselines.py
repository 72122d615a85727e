"""Baselines: exact where arithmetic gives the answer, causal, and paying what a bucket pays."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import make_market
from result_fakes import path_result

from btcai.evaluation import rules_of_thumb
from btcai.evaluation.baselines import run_baselines, run_rules_of_thumb, run_twins
from btcai.evaluation.metrics import DAY_NS
from btcai.evaluation.result import LABELS, BacktestResult
from btcai.evaluation.rules_of_thumb import RULES_OF_THUMB, momentum
from btcai.evaluation.targets import run_targets
from btcai.evaluation.twins import Ranks
from btcai.features.splits import Splits
from btcai.market.bars import bar_arrays
from btcai.market.rules import FREE_RULES
from btcai.schema import BARS_PER_DAY, MarketData, Span

SIMPLE = FREE_RULES._replace(taker_fee_frac=1e-3, half_spread_frac=1e-4)
HARSH = SIMPLE._replace(impact_coef=1.0, max_volume_share=0.1)
DAILY = 100 * BARS_PER_DAY
Baselines = dict[str, dict[str, BacktestResult]]
Twinned = tuple[dict[str, dict[str, BacktestResult]], dict[str, Ranks]]


def with_marks(market: MarketData, mark: np.ndarray) -> MarketData:
    """Every price of a bar equals its mark."""
    bars = replace(market.bars, open=mark.copy(), high=mark.copy(), low=mark.copy(), close=mark.copy())
    return replace(market, bars=bars, mark=mark)


def daily_market(marks: list[float]) -> MarketData:
    """Days on the UTC calendar, each at one price; bar 0 closes at midnight, so day k is known at bar k * 288."""
    return with_marks(make_market(len(marks) * BARS_PER_DAY, first_close_bar=0), np.repeat(marks, BARS_PER_DAY))


def test_buy_and_hold_equals_the_analytic_result() -> None:
    market, span = make_market(600, seed=1), Span(50, 600)
    targets, note = rules_of_thumb.buy_and_hold(market, span)
    result = run_targets(targets, market, span, SIMPLE, 10_000.0)
    bought = 10_000.0 / (market.bars.open[51] * (1 + 1e-4) * (1 + 1e-3))
    assert result.equity_usdt[0] == 10_000.0
    assert result.equity_usdt[1:] == pytest.approx(bought * market.mark[51:600], rel=1e-9)
    assert result.costs_usdt == pytest.approx(10_000.0 - bought * market.bars.open[51], rel=1e-9)
    assert (note, len(result.trades)) == ("", 0)


def test_cash_never_moves() -> None:
    market, span = make_market(400), Span(10, 400)
    result = run_rules_of_thumb(market, span, {"base": HARSH}, 5_000.0, bar_arrays(market))["cash"]["base"]
    assert np.array_equal(result.equity_usdt, np.full(390, 5_000.0))
    assert result.traded_usdt == 0.0


def test_volatility_target_by_hand() -> None:
    # Daily marks alternate by +-2 %: log returns +-d; 30 of them, mean 0, ddof-1 spread d * sqrt(30/29).
    days = np.arange(DAILY) // BARS_PER_DAY
    market = with_marks(make_market(DAILY), np.where(days % 2 == 0, 100.0, 102.0))
    targets, note = rules_of_thumb.volatility_targeted(market, Span(60 * BARS_PER_DAY, DAILY))
    volatility = np.log(1.02) * (30 / 29) ** 0.5 * 365**0.5
    assert note == ""
    assert targets[0] == pytest.approx(0.30 / volatility)
    assert 0.7 < targets[0] < 0.8


def test_calm_markets_are_held_whole_but_never_geared() -> None:
    market = with_marks(make_market(DAILY), np.full(DAILY, 100.0))
    targets, _ = rules_of_thumb.volatility_targeted(market, Span(60 * BARS_PER_DAY, DAILY))
    assert np.nanmax(targets) == np.nanmin(targets) == 1.0


def test_momentum_turns_when_the_price_falls_below_that_of_ninety_days_ago() -> None:
    first = 91 * BARS_PER_DAY
    mark = np.where(np.arange(DAILY) < 95 * BARS_PER_DAY, 101.0, 99.0)
    mark[: 5 * BARS_PER_DAY] = 100.0
    market = with_marks(make_market(DAILY, first_close_bar=0), mark)
    span = Span(first, DAILY)
    targets, note = momentum(market, span, 90)
    assert note == ""
    decided = np.flatnonzero(np.isfinite(targets)) + first
    assert np.array_equal(decided, np.arange(first, DAILY, BARS_PER_DAY))
    assert targets[decided - first].tolist() == [1.0] * 4 + [0.0] * 5


def test_the_ensemble_is_the_mean_of_three_and_is_scaled_down_in_storms() -> None:
    # On day 95 the price is above that of 14 and 28 days ago and below that of 90: two thirds. 30 returns alternate by
    # +-2 % until then, but for the step from 97 to 102: their spread is worked out below.
    marks = [110.0] * 10 + [100.0, 98.0] * 42 + [102.0] * 4
    market, span = daily_market(marks), Span(95 * BARS_PER_DAY, 96 * BARS_PER_DAY)
    targets, note = rules_of_thumb.momentum_ensemble(market, span)
    assert (note, targets[0]) == ("", pytest.approx(2 / 3))
    returns = np.diff(np.log(marks[65:96]))
    share = min(1.0, 0.30 / (np.std(returns, ddof=1) * 365**0.5))
    assert 0.5 < share < 0.95
    scaled, _ = rules_of_thumb.momentum_volatility_targeted(market, span)
    assert scaled[0] == pytest.approx(share * 2 / 3)
    assert np.isnan(np.delete(scaled, 0)).all()


def test_reversal_buys_for_the_hour_after_one_that_fell() -> None:
    # Closes on the hour are bars 0, 12, 24, ...: the second hour fell, the third rose, the fourth did not move.
    mark = np.repeat([100.0, 99.0, 101.0, 101.0], 12)
    market = with_marks(make_market(49, first_close_bar=0), np.concatenate([[100.0], mark]))
    targets, note = rules_of_thumb.reversal(market, Span(12, 49))
    assert note == ""
    assert {k + 12: targets[k] for k in np.flatnonzero(np.isfinite(targets))} == {12: 0.0, 24: 1.0, 36: 0.0, 48: 0.0}


def test_bollinger_buys_below_the_band_and_leaves_at_the_mean() -> None:
    # 20 marks: 19 of 100 and the newest 90, mean 99.5, spread 2.18: 90 is below 95.1. Next 97 between: as it is.
    # Then 101 above the mean: out.
    market = daily_market([100.0] * 21 + [90.0, 97.0, 101.0])
    targets, note = rules_of_thumb.bollinger(market, Span(20 * BARS_PER_DAY, 24 * BARS_PER_DAY))
    assert note == ""
    assert targets[::BARS_PER_DAY].tolist() == pytest.approx([0.0, 1.0, np.nan, 0.0], nan_ok=True)


def test_missing_history_is_said_and_spent_in_cash() -> None:
    first = 88 * BARS_PER_DAY
    market, span = make_market(DAILY, first_close_bar=0, drift=1e-5), Span(first, DAILY)
    targets, note = momentum(market, span, 90)
    assert note == "in cash for the first 2 of 12 decisions: needs 90 days of history"
    assert np.isnan(targets[: 2 * BARS_PER_DAY]).all()
    result = run_targets(targets, market, span, HARSH, 1_000.0, note=note)
    assert result.note == note
    assert not result.position_frac[: 2 * BARS_PER_DAY].any()


def test_daily_decisions_fall_on_midnight_utc_after_the_first() -> None:
    market, span = make_market(DAILY, first_close_bar=0), Span(31 * BARS_PER_DAY + 7, DAILY)
    targets, _ = rules_of_thumb.volatility_targeted(market, span)
    decided = np.flatnonzero(np.isfinite(targets))
    assert decided[0] == 0
    assert (market.bars.close_ts_ns[decided[1:] + span.first] % DAY_NS == 0).all()
    assert len(decided) == 1 + (DAILY - span.first) // BARS_PER_DAY


def poisoned(market: MarketData, cut: int) -> MarketData:
    """Another market after bar `cut`, three times dearer, features included."""
    other = make_market(len(market), seed=5)
    columns = {}
    for name in ("open", "high", "low", "close", "volume"):
        columns[name] = getattr(market.bars, name).copy()
        columns[name][cut + 1 :] = 3.0 * getattr(other.bars, name)[cut + 1 :]
    mark, features = market.mark.copy(), market.features.copy()
    mark[cut + 1 :], features[cut + 1 :] = columns["close"][cut + 1 :], 2.0 * other.features[cut + 1 :]
    return replace(market, bars=replace(market.bars, **columns), mark=mark, features=features)


def splits_of(n_days: int) -> Splits:
    """Half to train on, a fifth each to validate and test on, two days between."""
    day = BARS_PER_DAY
    train, valid = Span(0, n_days // 2 * day), Span((n_days // 2 + 2) * day, n_days * 7 // 10 * day)
    test = Span((n_days * 7 // 10 + 2) * day, (n_days * 9 // 10) * day)
    return Splits(train=train, valid=valid, test=test, folds=(test,), sealed=Span(test.stop, n_days * day))


@pytest.fixture(scope="module")
def honest_run() -> Baselines:
    """What the baselines do on 130 days as they were."""
    return run_baselines(make_market(130 * BARS_PER_DAY, seed=4), splits_of(130), {"a": HARSH}, 1e5, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("cut_day", [93, 105, 116])
def test_overwriting_the_future_changes_no_baseline_up_to_then(cut_day: int, honest_run: Baselines) -> None:
    splits, cut = splits_of(130), cut_day * BARS_PER_DAY + 13
    assert splits.test.first < cut < splits.test.stop
    market = poisoned(make_market(130 * BARS_PER_DAY, seed=4), cut)
    after = run_baselines(market, splits, {"a": HARSH}, 1e5, seed=3)
    kept = cut + 1 - splits.test.first
    for name, by in honest_run.items():
        honest, changed = by["a"], after[name]["a"]
        assert np.array_equal(honest.equity_usdt[:kept], changed.equity_usdt[:kept]), name
        assert np.array_equal(honest.position_frac[:kept], changed.position_frac[:kept]), name
    ends = [one["buy_and_hold"]["a"].equity_usdt[-1] for one in (honest_run, after)]
    assert ends[0] != ends[1]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_every_baseline_has_a_label(honest_run: Baselines) -> None:
    one, market = honest_run, make_market(130 * BARS_PER_DAY, seed=4)
    two = run_baselines(market, splits_of(130), {"a": HARSH}, 1e5, seed=3)
    assert list(one) == [*RULES_OF_THUMB, "ridge_1d", "boosted_1d"]
    assert set(one) - {"cash"} <= set(LABELS)
    for name, by in one.items():
        assert np.array_equal(by["a"].equity_usdt, two[name]["a"].equity_usdt), name
        assert by["a"].trades.equals(two[name]["a"].trades), name


def bucket_result(held: np.ndarray, span: Span, equity: np.ndarray | None = None) -> BacktestResult:
    """A bucket that held these shares of equity."""
    path = np.full(len(held), 1e5) if equity is None else equity
    traded = float(np.abs(held).sum())
    return path_result(path, start=1e5, position=held, first=span.first, traded=traded)


def twins_of(held: np.ndarray, market: MarketData, span: Span, seed: int = 1, n: int = 40) -> Twinned:
    """Of a bucket that holds these shares and earns what following them earns."""
    targets = np.where(np.diff(held, append=held[-1]) != 0.0, np.append(held[1:], held[-1]), np.nan)
    followed = run_targets(targets, market, span, SIMPLE, 1e5, band_frac=0.0)
    buckets = {"long": {name: followed for name in ("a", "b")}}
    rules = {"a": SIMPLE, "b": HARSH}
    return run_twins(market, span, rules, 1e5, buckets=buckets, severity="a", seed=seed, twins=n)


def test_a_bucket_is_ranked_among_its_twins_and_the_one_in_the_middle_is_shown() -> None:
    span, market = Span(0, 60 * BARS_PER_DAY), make_market(60 * BARS_PER_DAY, seed=4)
    held = np.zeros(len(span))
    held[100:900], held[2000:2600] = 0.5, 1.0
    middles, ranks = twins_of(held, market, span)
    net, sharpe = ranks["long"].net_return, ranks["long"].sharpe
    assert net.low < net.median < net.high
    assert ranks["long"].chance == max(net.chance, sharpe.chance)
    assert list(middles) == ["random_long"]
    shown = middles["random_long"]
    assert shown["a"].equity_usdt[-1] / 1e5 - 1.0 == pytest.approx(net.median, abs=0.01)
    assert shown["b"].equity_usdt[-1] < shown["a"].equity_usdt[-1]  # the same draw at other costs
    assert shown["a"].note == "in the middle of 40 draws"
    again, other = (twins_of(held, market, span, seed=seed) for seed in (1, 2))
    assert again[1] == ranks
    assert np.array_equal(again[0]["random_long"]["b"].equity_usdt, shown["b"].equity_usdt)
    assert other[1] != ranks


def test_who_knows_when_prices_rise_is_above_its_twins() -> None:
    days = np.arange(60 * BARS_PER_DAY) // BARS_PER_DAY
    market = with_marks(
        make_market(len(days)), 100.0 * np.exp(0.01 * np.cumsum(np.where(days % 2, 1, -1)) / BARS_PER_DAY)
    )
    knows = np.append((days % 2 == 1)[1:], False) * 1.0  # held from the bar after the decision
    knows[0] = 0.0
    chance = {name: twins_of(held, market, Span(0, len(days)))[1]["long"].chance for name, held in
              (("knows", knows), ("knows not", np.where(np.arange(len(days)) > 0, 1.0 - knows, 0.0)))}  # fmt: skip
    assert chance["knows"] == pytest.approx(1 / 41)
    assert chance["knows not"] == 1.0


def test_buckets_that_never_traded_or_were_ever_short_have_no_twins() -> None:
    market, span = make_market(50), Span(0, 50)
    short = np.zeros(50)
    short[10:20], short[30:40] = 0.5, -0.5
    for held in (np.zeros(50), short):
        buckets = {"long": {"base": bucket_result(held, span)}}
        found = run_twins(market, span, {"base": HARSH}, 1e5, buckets=buckets, severity="base", seed=1, twins=3)
        assert found == ({}, {})
