"""Forecasting rivals: fitted on the training span, tuned on the validation span, and good where there is something."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import make_market

from btcai.evaluation import forecasters
from btcai.evaluation.forecasters import Labelled, choose_threshold, fit_ridge, fit_trees, labelled, threshold_targets
from btcai.evaluation.metrics import DAYS_PER_YEAR, daily_returns, sharpe
from btcai.evaluation.targets import run_targets
from btcai.features.scaling import CLIP, Scaler, fit_scaler
from btcai.features.splits import Splits
from btcai.market.bars import bar_arrays
from btcai.market.rules import FREE_RULES
from btcai.schema import BARS_PER_DAY, MarketData, Span

COSTLY = FREE_RULES._replace(taker_fee_frac=1e-3, half_spread_frac=1e-4)
SPLITS = Splits(
    train=Span(0, 100 * BARS_PER_DAY),
    valid=Span(102 * BARS_PER_DAY, 140 * BARS_PER_DAY),
    test=Span(142 * BARS_PER_DAY, 180 * BARS_PER_DAY),
    folds=(Span(142 * BARS_PER_DAY, 180 * BARS_PER_DAY),),
    sealed=Span(182 * BARS_PER_DAY, 190 * BARS_PER_DAY),
)
IDENTITY = Scaler(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32))


def drifting_market(seed: int, strength: float) -> MarketData:
    """190 days whose hidden drift (memory two days, `strength` daily standard deviations a day) is feature 0."""
    n = 190 * BARS_PER_DAY
    rng = np.random.default_rng(1_000 + seed)  # the market's own noise is another
    keep = np.exp(-1.0 / (2 * BARS_PER_DAY))
    noise = rng.standard_normal(n) * (1 - keep**2) ** 0.5
    drift = np.empty(n)
    drift[0] = rng.standard_normal()
    for k in range(1, n):
        drift[k] = keep * drift[k - 1] + noise[k]
    market = make_market(n, seed=seed, drift=strength * drift * 0.002 / BARS_PER_DAY**0.5)  # type: ignore[arg-type]
    features = market.features.copy()
    features[:, 0] = drift
    return replace(market, features=features)


def sample(n: int, seed: int, answer: object = None) -> Labelled:
    """n rows of three features, of which the first tells the return by `answer`, with noise."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 3))
    told = features[:, 0] if answer is None else answer(features[:, 0])  # type: ignore[operator]
    return Labelled(rows=np.arange(n), features=features, returns=0.3 * told + rng.standard_normal(n))


def test_labels_by_hand() -> None:
    # Bars 0, 12, 24 and 36 close on the hour; over 12 bars the mark goes 100, 110, 99; sigma 1 % a bar.
    mark = np.concatenate([[100.0], np.repeat([110.0, 99.0, 99.0], 12)])
    market = replace(make_market(37, missing=(24,)), mark=mark, sigma=np.full(37, 0.01))
    found = labelled(market, Span(0, 37), IDENTITY, 12)
    assert found.rows.tolist() == [0, 12]  # 24 is missing, from 36 no whole horizon is left
    assert found.returns == pytest.approx([np.log(1.1) / (0.01 * 12**0.5), np.log(0.9) / (0.01 * 12**0.5)])
    assert found.features == pytest.approx(np.clip(market.features[[0, 12]], -CLIP, CLIP))
    assert labelled(replace(market, sigma=np.full(37, 1e-4)), Span(0, 37), IDENTITY, 12).returns.tolist() == [
        CLIP,
        -CLIP,
    ]


@pytest.mark.parametrize("horizon_bars", [12, 100, 288])
def test_no_label_reaches_beyond_its_span(horizon_bars: int) -> None:
    market, span = make_market(4_000, seed=1), Span(500, 3_001)
    honest = labelled(market, span, IDENTITY, horizon_bars)
    assert honest.rows.min() >= span.first
    assert honest.rows.max() + horizon_bars < span.stop
    mark = market.mark.copy()
    mark[span.stop :] *= 7.0
    assert np.array_equal(labelled(replace(market, mark=mark), span, IDENTITY, horizon_bars).returns, honest.returns)
    mark = market.mark.copy()
    mark[honest.rows[-1] + horizon_bars] *= 7.0
    changed = labelled(replace(market, mark=mark), span, IDENTITY, horizon_bars).returns
    assert changed[-1] != honest.returns[-1]


def test_ridge_is_the_closed_form_with_the_penalty_that_errs_least_on_the_validation_span() -> None:
    train, valid = sample(300, 1), sample(200, 2)
    mean = train.features.mean(axis=0)
    centred, level = train.features - mean, train.returns.mean()
    errors, forecasts = [], []
    for scale in forecasters.RIDGE_LAMBDAS:
        weights = np.linalg.solve(centred.T @ centred + 300 * scale * np.eye(3), centred.T @ (train.returns - level))
        forecasts.append((valid.features - mean) @ weights + level)
        errors.append(np.mean((forecasts[-1] - valid.returns) ** 2))
    assert fit_ridge(train, valid)(valid.features) == pytest.approx(forecasts[int(np.argmin(errors))])


@pytest.mark.slow
def test_trees_find_what_no_weighted_sum_can() -> None:
    train, valid, test = (sample(2_000, seed, np.abs) for seed in (1, 2, 3))
    truth = 0.3 * np.abs(test.features[:, 0])
    trees, ridge = fit_trees(train, valid, 0)(test.features), fit_ridge(train, valid)(test.features)
    assert np.corrcoef(trees, truth)[0, 1] > 0.8
    assert abs(np.corrcoef(ridge, truth)[0, 1]) < 0.3


@pytest.mark.slow
def test_of_noise_few_trees_are_kept() -> None:
    train, valid = sample(1_000, 1, np.zeros_like), sample(1_000, 2, np.zeros_like)
    forecasts = fit_trees(train, valid, 0)(valid.features)
    assert np.std(forecasts) < 0.15  # of returns with a spread of 1


def test_the_threshold_is_the_one_that_earned_most_on_the_validation_span() -> None:
    market, span = drifting_market(3, strength=1.5), SPLITS.valid
    forecasts = np.full(len(span), np.nan)
    forecasts[::12] = market.features[span.first : span.stop : 12, 0]
    chosen = choose_threshold(forecasts, market, span, COSTLY, 1e5, bar_arrays(market))

    def earned(threshold: float) -> float:
        result = run_targets(threshold_targets(forecasts, threshold), market, span, COSTLY, 1e5)
        return sharpe(daily_returns(result.equity_usdt, result.close_ts_ns, 1e5), DAYS_PER_YEAR)

    tried = np.quantile(np.abs(forecasts[::12]), forecasters.LOUDEST_SHARES)
    assert chosen in tried
    assert earned(chosen) == max(earned(one) for one in tried) > 0.0


def test_where_costs_eat_everything_the_threshold_is_out_of_reach() -> None:
    market, span = drifting_market(3, strength=1.5), SPLITS.valid
    forecasts = np.full(len(span), np.nan)
    forecasts[::12] = np.random.default_rng(0).standard_normal(len(forecasts[::12]))
    ruinous = COSTLY._replace(taker_fee_frac=0.05)
    assert choose_threshold(forecasts, market, span, ruinous, 1e5, bar_arrays(market)) == np.inf


def test_targets_of_a_threshold_by_hand() -> None:
    forecasts = np.array([0.2, 0.05, -0.05, -0.2, np.nan])
    assert threshold_targets(forecasts, 0.1).tolist() == pytest.approx([1.0, np.nan, np.nan, 0.0, np.nan], nan_ok=True)
    assert np.isnan(threshold_targets(forecasts, np.inf)).all()


@pytest.mark.slow
def test_both_earn_what_a_planted_drift_offers_and_say_their_threshold() -> None:
    market = drifting_market(3, strength=1.5)
    results = forecasters.run_forecasters(market, SPLITS, {"costly": COSTLY}, 1e5, bar_arrays(market), seed=1)
    assert list(results) == ["ridge_1d", "boosted_1d"]
    held = market.mark[SPLITS.test.stop - 1] / market.mark[SPLITS.test.first]
    for by in results.values():
        result = by["costly"]
        daily = daily_returns(result.equity_usdt, result.close_ts_ns, 1e5)
        assert sharpe(daily, DAYS_PER_YEAR) > 2.0
        assert result.equity_usdt[-1] / 1e5 > held
        assert "chosen on the validation span" in result.note


@pytest.mark.slow
def test_nothing_after_the_training_span_changes_a_fit_but_through_the_validation_span() -> None:
    market = drifting_market(5, strength=1.5)
    mark, features = market.mark.copy(), market.features.copy()
    mark[SPLITS.valid.stop :] *= np.exp(np.random.default_rng(1).normal(0, 0.1, len(mark) - SPLITS.valid.stop))
    features[SPLITS.valid.stop :] = 9.0
    poisoned = replace(market, mark=mark, features=features)
    fits = []
    for one in (market, poisoned):
        scaler = fit_scaler(one.features, SPLITS.train)
        train, valid = (labelled(one, span, scaler, BARS_PER_DAY) for span in (SPLITS.train, SPLITS.valid))
        fits.append((fit_ridge(train, valid), fit_trees(train, valid, 1)))
    probe = sample(500, 9).features
    for honest, changed in zip(*fits, strict=True):
        assert np.array_equal(honest(probe), changed(probe))


@pytest.mark.slow
def test_overwriting_the_future_changes_no_trade_up_to_then() -> None:
    market, cut = drifting_market(3, strength=1.5), 160 * BARS_PER_DAY + 5
    mark, features, opens = market.mark.copy(), market.features.copy(), market.bars.open.copy()
    for column in (mark, features, opens):
        column[cut + 1 :] *= 3.0
    poisoned = replace(market, mark=mark, features=features, bars=replace(market.bars, open=opens))
    honest, changed = (
        forecasters.run_forecasters(one, SPLITS, {"costly": COSTLY}, 1e5, bar_arrays(one), seed=1)
        for one in (market, poisoned)
    )
    kept = cut + 1 - SPLITS.test.first
    for name in honest:
        one, other = honest[name]["costly"], changed[name]["costly"]
        assert np.array_equal(one.equity_usdt[:kept], other.equity_usdt[:kept])
        assert one.position_frac[:kept].any()
        assert not np.array_equal(one.equity_usdt, other.equity_usdt)
        assert one.note == other.note
