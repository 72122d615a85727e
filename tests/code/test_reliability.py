"""Forecasts beside their outcomes: which outcomes count, how many tell, and every figure by hand."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import FakePolicy, make_market

from btcai.agent.task import Task, forecast_targets
from btcai.config import Config, load_config
from btcai.evaluation.backtest import backtest
from btcai.evaluation.reliability import expected_shares, outcomes, pinball, reliability, sigma_of
from btcai.evaluation.result import BacktestResult
from btcai.market.bars import bar_arrays
from btcai.market.rules import make_rules
from btcai.paths import PARAMS
from btcai.schema import QUANTILE_LEVELS, MarketData, Span

HORIZONS = (3, 12, 36)
NORMAL = np.array([-1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645])
"""Standard normal quantiles at QUANTILE_LEVELS."""
HISTORY, TEST = Span(0, 3000), Span(3000, 6000)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(PARAMS)


def walked(config: Config, market: MarketData, *, spread: float = 1.0) -> BacktestResult:
    """A backtest whose policy predicts normal quantiles `spread` times as wide as the walk's own."""
    bucket = config.buckets["scalping"]
    rules = [make_rules(bucket, config.market, config.risk)]
    (result,) = backtest(FakePolicy(), market, TEST, bucket, rules, config.sizing, 1e5)
    assert result.encoded is not None
    scale = sigma_of(market, result.decisions, np.asarray(HORIZONS))
    quantiles = (spread * scale[..., None] * NORMAL).astype(np.float32)
    return replace(result, encoded=replace(result.encoded, quantiles=quantiles))


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
        sizes=lambda mean, std, sigma: (sigma, sigma > 0),
        equity_usdt=1e5,
    )
    target, known = forecast_targets(task, span, bars)
    mine, counted = outcomes(market, span, bars, np.asarray(bucket.horizons_bars))
    assert counted.tolist() == known.tolist()
    assert mine == pytest.approx(target.astype(np.float64), rel=1e-6)


def test_an_outcome_counts_where_its_horizon_ends_inside_the_span() -> None:
    market = make_market(100, missing=(70,))
    _, known = outcomes(market, Span(10, 80), np.array([40, 70, 76, 77]), np.array([3, 30]))
    assert known.tolist() == [[True, False], [False, False], [True, False], [False, False]]


def test_forecasts_that_are_right_hold_what_they_promise(config: Config) -> None:
    market = make_market(6000, seed=1)
    shortest, _, longest = reliability(walked(config, market), market, config.buckets["scalping"], HISTORY)
    # 3000 bars, of which the last one decides nothing and the last two have no outcome 3 bars on.
    assert (shortest.outcomes, shortest.apart) == (2997, 999)
    assert (longest.outcomes, longest.apart) == (2964, 82)
    assert all(
        low <= share <= high for low, share, high in zip(shortest.low, shortest.observed, shortest.high, strict=True)
    )
    assert shortest.coverage_low <= shortest.coverage_frac <= shortest.coverage_high
    assert shortest.pinball_ratio == pytest.approx(1.0, abs=0.01)  # as good as volatility alone, and no better
    assert abs(shortest.information_coefficient) < 2 * shortest.information_noise
    assert shortest.information_noise == pytest.approx(1.96 / 999**0.5)


def test_forecasts_that_are_too_sure_are_found_out(config: Config) -> None:
    market = make_market(6000, seed=1)
    narrow = walked(config, market, spread=0.5)
    shortest, *_ = reliability(narrow, market, config.buckets["scalping"], HISTORY)
    # Half as wide: P(|z| < 0.8225) = 59 %.
    assert shortest.coverage_frac == pytest.approx(0.59, abs=0.03)
    assert shortest.observed[0] > shortest.high[0]
    assert shortest.observed[-1] < shortest.low[-1]
    assert shortest.pinball_ratio > 1.05


def test_a_horizon_that_never_ends_inside_the_span_has_no_figures(config: Config) -> None:
    market = make_market(6000)
    bucket = config.buckets["scalping"].model_copy(update={"horizons_bars": (3, 12, 4000)})
    result = walked(config, market)
    *_, longest = reliability(result, market, bucket, HISTORY)
    assert (longest.outcomes, longest.apart, longest.is_judged) == (0, 0, False)
    assert (longest.low, longest.high) == ((0.0,) * 7, (1.0,) * 7)
    assert np.isnan([longest.coverage_frac, longest.pinball_ratio, longest.information_coefficient]).all()
    assert np.isnan(longest.observed).all()


def test_a_baseline_has_no_forecasts_to_measure(config: Config) -> None:
    market = make_market(6000)
    with pytest.raises(ValueError, match="needs the forecasts of a bucket"):
        reliability(replace(walked(config, market), encoded=None), market, config.buckets["scalping"], HISTORY)


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
