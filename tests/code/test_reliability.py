"""Forecasts beside their outcomes: which outcomes count, how many tell, and every figure by hand."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import FakePolicy, make_market

from btcai.agent.task import Task, forecast_targets
from btcai.calibration import StaticCalibration
from btcai.config import Config
from btcai.evaluation.backtest import backtest
from btcai.evaluation.reliability import expected_shares, outcomes, pinball, reliability, sigma_of
from btcai.evaluation.result import BacktestResult
from btcai.market.bars import bar_arrays
from btcai.market.rules import make_rules
from btcai.params import load_config
from btcai.paths import PARAMS
from btcai.schema import QUANTILE_LEVELS, MarketData, Span

HORIZONS = (3, 12, 36)
NORMAL = np.array([-1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645])
"""Standard normal quantiles at QUANTILE_LEVELS."""
HISTORY, TEST = Span(0, 3000), Span(3000, 6000)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(PARAMS)


@pytest.fixture(scope="module")
def market() -> MarketData:
    return make_market(6000, seed=1)


@pytest.fixture(scope="module")
def walked(config: Config, market: MarketData) -> BacktestResult:
    """A backtest of the scalping bucket; what it predicts is put in by `predicting`."""
    bucket = config.buckets["scalping"]
    rules = [make_rules(bucket, config.market, config.risk)]
    (result,) = backtest(FakePolicy(), market, TEST, bucket, rules, config.sizing, 1e5)
    return result


def predicting(
    walked: BacktestResult, market: MarketData, *, spread: float = 1.0, belief: float = 0.0
) -> BacktestResult:
    """The result of a policy that predicts normal quantiles `spread` times as wide as the walk's own.

    Its mean is `belief` standard deviations times a signal that knows nothing.
    """
    assert walked.encoded is not None
    scale = sigma_of(market, walked.decisions, np.asarray(HORIZONS))
    quantiles = (spread * scale[..., None] * NORMAL).astype(np.float32)
    mean = (belief * scale * np.random.default_rng(8).normal(size=(len(scale), 1))).astype(np.float32)
    encoded = replace(walked.encoded, quantiles=quantiles, mean=mean, std=scale.astype(np.float32))
    return replace(walked, encoded=encoded)


def test_outcomes_are_the_targets_that_training_learns(config: Config) -> None:
    market = make_market(600, missing=(300, 301, 420))
    bucket, span, bars = config.buckets["short"], Span(200, 580), np.arange(200, 580, 7)
    task = Task(
        features=market.features,
        bars=bar_arrays(market),
        rules=make_rules(bucket, config.market, config.risk),
        bucket=bucket,
        train=span,
        valid=span,
        sizes=lambda mean, std, sigma, unfamiliarity: (sigma, sigma > 0),
        equity_usdt=1e5,
    )
    target, known = forecast_targets(task, span, bars)
    mine, counted = outcomes(market, span, bars, np.asarray(bucket.horizons_bars))
    # training's first target is the return to the next decision, which nobody is told
    assert counted.tolist() == known[..., 1:].tolist()
    assert mine == pytest.approx(target[..., 1:].astype(np.float64), rel=1e-6)


def test_an_outcome_counts_where_its_horizon_ends_inside_the_span() -> None:
    market = make_market(100, missing=(70,))
    _, known = outcomes(market, Span(10, 80), np.array([40, 70, 76, 77]), np.array([3, 30]))
    assert known.tolist() == [[True, False], [False, False], [True, False], [False, False]]


def test_forecasts_that_are_right_hold_what_they_promise(
    config: Config, market: MarketData, walked: BacktestResult
) -> None:
    shortest, _, longest = reliability(
        predicting(walked, market, belief=0.1), market, config.buckets["scalping"], HISTORY
    )
    # 3000 bars, of which the last one decides nothing and the last two have no outcome 3 bars on.
    assert (shortest.outcomes, shortest.apart) == (2997, 999)
    assert (longest.outcomes, longest.apart) == (2964, 82)
    for held in (shortest.static, shortest.adaptive):
        assert all(
            low <= share <= high for low, share, high in zip(shortest.low, held.observed, shortest.high, strict=True)
        )
        assert shortest.coverage_low <= held.coverage_frac <= shortest.coverage_high
        assert held.pinball_ratio == pytest.approx(1.0, abs=0.01)  # as good as volatility alone, and no better
    assert np.isnan(shortest.raw.coverage_frac)  # no static calibration to take off
    assert abs(shortest.information_coefficient) < 2 * shortest.information_noise
    assert shortest.information_noise == pytest.approx(1.96 / 999**0.5)


def test_forecasts_that_are_too_sure_are_found_out(config: Config, market: MarketData, walked: BacktestResult) -> None:
    narrow = predicting(walked, market, spread=0.5)
    shortest, *_ = reliability(narrow, market, config.buckets["scalping"], HISTORY)
    # Half as wide: P(|z| < 0.8225) = 59 %.
    assert shortest.static.coverage_frac == pytest.approx(0.59, abs=0.03)
    assert shortest.static.observed[0] > shortest.high[0]
    assert shortest.static.observed[-1] < shortest.low[-1]
    assert shortest.static.pinball_ratio > 1.05


def test_forecasts_that_are_too_sure_are_mended_as_outcomes_come(
    config: Config, market: MarketData, walked: BacktestResult
) -> None:
    narrow = predicting(walked, market, spread=0.5)
    shortest, _, longest = reliability(narrow, market, config.buckets["scalping"], HISTORY)
    assert 0.87 < shortest.adaptive.coverage_frac < 0.93
    assert shortest.adaptive.pinball_ratio < 1.01 < shortest.static.pinball_ratio
    # 82 outcomes apart: on the way
    assert longest.static.coverage_frac + 0.1 < longest.adaptive.coverage_frac < 0.93


def test_quantiles_before_their_static_offsets_are_shown_beside(
    config: Config, market: MarketData, walked: BacktestResult
) -> None:
    bucket = config.buckets["scalping"]
    # Half as wide as they should be; the bundle says them with offsets that make up for it.
    offsets = np.tile(0.5 * NORMAL, (3, 1))
    static = StaticCalibration(offset=offsets, std_factor=np.ones(3), temperature=np.ones(3))
    right, narrow = (
        reliability(predicting(walked, market, spread=spread), market, bucket, HISTORY, static)[0]
        for spread in (1.0, 0.5)
    )
    assert right.raw.observed == pytest.approx(narrow.static.observed, abs=1e-3)
    assert right.raw.coverage_frac == pytest.approx(0.59, abs=0.03)
    assert right.static.coverage_frac == pytest.approx(0.9, abs=0.02)


def test_odds_of_a_rise_that_know_nothing_are_too_sure_at_any_temperature(
    config: Config, market: MarketData, walked: BacktestResult
) -> None:
    believing = predicting(walked, market, belief=0.5)
    shortest, _, longest = reliability(believing, market, config.buckets["scalping"], HISTORY)
    assert shortest.rise_temperature_low > 1.0
    assert shortest.rise_temperature_high == np.inf
    assert longest.rise_temperature >= longest.rise_temperature_low
    silent, *_ = reliability(predicting(walked, market), market, config.buckets["scalping"], HISTORY)
    assert np.isnan([silent.rise_temperature, silent.rise_temperature_low, silent.rise_temperature_high]).all()


@pytest.mark.parametrize("horizon", [1, 24])
def test_the_band_holds_right_forecasts_of_outcomes_that_overlap(horizon: int) -> None:
    rng, held = np.random.default_rng(horizon), []
    levels = np.asarray(QUANTILE_LEVELS)
    low, high = expected_shares(levels, 2400 // horizon)
    for _ in range(300):
        path = np.cumsum(rng.normal(size=2400 + horizon))
        outcome = (path[horizon:] - path[:-horizon]) / horizon**0.5
        observed = (outcome[:, None] <= NORMAL).mean(0)
        held.append((low <= observed) & (observed <= high))
    assert (np.mean(held, axis=0) > 0.92).all()


def test_a_horizon_that_never_ends_inside_the_span_has_no_figures(
    config: Config, market: MarketData, walked: BacktestResult
) -> None:
    bucket = config.buckets["scalping"].model_copy(update={"horizons_bars": (3, 12, 4000)})
    result = predicting(walked, market)
    *_, longest = reliability(result, market, bucket, HISTORY)
    assert (longest.outcomes, longest.apart, longest.is_judged) == (0, 0, False)
    assert (longest.low, longest.high) == ((0.0,) * 7, (1.0,) * 7)
    for held in (longest.raw, longest.static, longest.adaptive):
        assert np.isnan([held.coverage_frac, held.pinball_ratio, *held.observed]).all()
    assert np.isnan([longest.information_coefficient, longest.rise_temperature]).all()


def test_a_baseline_has_no_forecasts_to_measure(config: Config, market: MarketData, walked: BacktestResult) -> None:
    with pytest.raises(ValueError, match="needs the forecasts of a bucket"):
        reliability(replace(predicting(walked, market), encoded=None), market, config.buckets["scalping"], HISTORY)


def test_expected_shares_are_the_binomial_ones() -> None:
    # Of 4 coins: no head or four of them come with chance 1/16 each, more than 2.5 %.
    low, high = expected_shares(np.array([0.5]), 4)
    assert (low[0], high[0]) == (0.0, 1.0)
    # Of 100: 40 to 60 heads.
    low, high = expected_shares(np.array([0.5]), 100)
    assert (low[0], high[0]) == (0.4, 0.6)


def test_pinball_loss_by_hand() -> None:
    # One outcome at 1 above quantiles all at 0 costs each its level; below them, 1 - level.
    assert pinball(np.array([1.0]), np.zeros(7)) == pytest.approx(np.mean(QUANTILE_LEVELS))
    assert pinball(np.array([-2.0]), np.zeros((1, 7))) == pytest.approx(2 * (1 - np.mean(QUANTILE_LEVELS)))
