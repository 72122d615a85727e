"""The same decisions with lots of other sizes: what is replayed, what a fixed twin is, what thresholds keep out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import BAR_SIGMA, FakePolicy, make_market

from btcai.config import BucketConfig, Config, SizingConfig
from btcai.evaluation.backtest import backtest
from btcai.evaluation.metrics import net_return
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.sizing_comparison import STRATEGIES, SizingRow, compare_sizings
from btcai.market.rules import FREE_RULES
from btcai.market.sizing import lot_sizes
from btcai.params import load_config
from btcai.schema import Action, FloatArray, MarketData, Span

SPAN = Span(200, 9_000)
RULES = FREE_RULES._replace(max_lots=4, compound=True, taker_fee_frac=1e-4)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(Path(__file__).resolve().parents[2] / "params.yaml")


@pytest.fixture(scope="module")
def bucket(config: Config) -> BucketConfig:
    return config.buckets["scalping"].model_copy(
        update={"max_lots": 4, "stop_loss_frac": 0.0, "horizons_bars": (3, 12, 36)}
    )


@pytest.fixture(scope="module")
def market() -> MarketData:
    return make_market(9_000, seed=4)


@pytest.fixture(scope="module")
def walked(config: Config, bucket: BucketConfig, market: MarketData) -> BacktestResult:
    return backtest(FakePolicy(), market, SPAN, bucket, [RULES], config.sizing, 100_000.0)[0]


def foreseen(result: BacktestResult, mean: FloatArray, std: FloatArray) -> BacktestResult:
    """The result, had the decisions rested on these forecasts (D,) of the next three bars."""
    assert result.encoded is not None
    columns = {"mean": mean, "std": std}
    return replace(
        result,
        encoded=replace(
            result.encoded, **{name: np.repeat(one[:, None], 3, 1).astype(np.float32) for name, one in columns.items()}
        ),
    )


def compared(
    result: BacktestResult, market: MarketData, bucket: BucketConfig, sizing: SizingConfig
) -> dict[tuple[str, bool], SizingRow]:
    rows = compare_sizings(result, FakePolicy(), market, bucket, RULES, sizing, seed=0, resamples=200)
    return {(row.strategy, row.has_thresholds): row for row in rows}


def test_fixed_lots_do_not_look_at_the_forecast(config: Config) -> None:
    sizing = config.sizing.model_copy(update={"strategy": "fixed", "target_volatility": 0.6, "max_uncertainty": 2.0})
    mean, std, sigma = np.array([0.1, -0.1, np.nan, 0.0]), np.array([0.01, 0.001, 0.01, 9.0]), np.full(4, 0.01)
    size, allowed = lot_sizes(mean, std, sigma, np.zeros(4), 4, 3, sizing)
    assert size.tolist() == pytest.approx([0.2, 0.2, 0.0, 0.2])
    assert allowed.tolist() == [True, True, False, False]


def test_every_strategy_stands_with_thresholds_and_without(
    config: Config, bucket: BucketConfig, market: MarketData, walked: BacktestResult
) -> None:
    rows = compared(walked, market, bucket, config.sizing)
    assert set(STRATEGIES) == {"confidence_adjusted", "uncertainty_adjusted", "full_probabilistic"}
    assert set(rows) == {(name, thresholds) for name in STRATEGIES for thresholds in (True, False)}


def test_the_same_sizes_give_the_same_walk_again(
    config: Config, bucket: BucketConfig, market: MarketData, walked: BacktestResult
) -> None:
    row = compared(walked, market, bucket, config.sizing)[config.sizing.strategy, True]
    assert row.sized.net_return == net_return(walked.equity_usdt, 100_000.0)
    assert row.sized.trades == len(walked.trades) > 50
    # Its forecasts are equally wide and the market equally volatile all the time, so its twin is itself.
    assert row.fixed.net_return == pytest.approx(row.sized.net_return, rel=1e-9)
    assert row.sharpe_difference == pytest.approx((0.0, 0.0), abs=1e-6)


def test_the_twins_lots_are_the_mean_of_those_allowed_to_the_strategy(
    config: Config, bucket: BucketConfig, market: MarketData, walked: BacktestResult
) -> None:
    rng = np.random.default_rng(0)
    std = BAR_SIGMA * np.sqrt(3) * rng.uniform(0.5, 4.0, len(walked.decisions))
    result = foreseen(walked, np.zeros(len(std)), std)
    rows = compared(result, market, bucket, config.sizing)
    buys = walked.actions == int(Action.BUY)
    doubt = std.astype(np.float32).astype(np.float64)[buys] / (BAR_SIGMA * np.sqrt(3))
    held = np.minimum(1.0, config.sizing.target_volatility / (BAR_SIGMA * np.sqrt(105_120) * np.maximum(1.0, doubt)))
    row, free = rows["uncertainty_adjusted", True], rows["uncertainty_adjusted", False]
    assert config.sizing.max_uncertainty == 3.0
    assert row.allowed_frac == pytest.approx((doubt <= 3.0).mean())
    assert row.lot_frac == pytest.approx(held[doubt <= 3.0].mean() / 4)
    assert free.allowed_frac == 1.0
    assert free.lot_frac == pytest.approx(held.mean() / 4)
    assert free.fixed.exposure_frac > row.fixed.exposure_frac


@pytest.mark.slow
def test_sizes_by_forecasts_that_know_earn_more_than_the_same_money_spread_evenly(
    config: Config, bucket: BucketConfig, market: MarketData, walked: BacktestResult
) -> None:
    later = np.minimum(walked.decisions + 100, len(market) - 1)  # about as long as it holds a lot
    ahead = np.log(market.mark[later] / market.mark[walked.decisions]) / 4
    std = np.full(len(ahead), BAR_SIGMA * np.sqrt(3))
    noise = np.random.default_rng(1).normal(0, BAR_SIGMA, len(ahead))
    for knows, forecast in ((True, ahead + noise), (False, noise)):
        row = compared(foreseen(walked, forecast, std), market, bucket, config.sizing)["full_probabilistic", True]
        assert (row.sharpe_difference.low > 0) == knows
        assert (row.sized.net_return > row.fixed.net_return) or not knows
        assert row.allowed_frac == 1.0


def test_without_a_purchase_there_is_nothing_to_size(config: Config, bucket: BucketConfig, market: MarketData) -> None:
    policy = FakePolicy(always=Action.HOLD)
    (result,) = backtest(policy, market, Span(200, 600), bucket, [RULES], config.sizing, 100_000.0)
    for row in compare_sizings(result, policy, market, bucket, RULES, config.sizing, seed=0, resamples=50):
        assert np.isnan(row.allowed_frac)
        assert (row.lot_frac, row.sized.net_return, row.fixed.net_return, row.sized.trades) == (0.0, 0.0, 0.0, 0)


def test_a_baseline_has_no_forecasts_to_size_by(
    config: Config, bucket: BucketConfig, market: MarketData, walked: BacktestResult
) -> None:
    with pytest.raises(ValueError, match="sizes rest on forecasts"):
        compared(replace(walked, encoded=None), market, bucket, config.sizing)
