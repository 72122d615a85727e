"""Markets and a decision that the tests of reasoning share."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from feature_bars import walk

from btcai.config import BucketConfig, Config
from btcai.evaluation.backtest import decision_bars
from btcai.features.pipeline import build_market
from btcai.market.account import new_accounts
from btcai.market.rules import Rules, make_rules
from btcai.params import load_config
from btcai.reasoning.chain import Case
from btcai.schema import Action, Bars, Decision, Forecast, IntArray, MarketData, Span

EQUITY_USDT = 100_000.0
QUANTILES = (-0.02, -0.015, -0.006, 0.001, 0.007, 0.016, 0.021)


@cache
def config() -> Config:
    """params.yaml as shipped."""
    return load_config(Path(__file__).resolve().parents[1] / "params.yaml")


def bucket_of(name: str) -> tuple[BucketConfig, Rules]:
    bucket = config().buckets[name]
    return bucket, make_rules(bucket, config().market, config().risk)


def needed_bars(data: MarketData, bucket: BucketConfig) -> int:
    return bucket.lookback_bars + data.warmup_bars


def decisions_of(data: MarketData, bucket: BucketConfig, first: int = 0) -> IntArray:
    """Every decision time from bar `first` on."""
    return decision_bars(data.bars.close_ts_ns, Span(first, len(data) + bucket.patch_bars), bucket.patch_bars)


@cache
def market(n_bars: int = 4_000, seed: int = 5, missing: float = 0.02) -> MarketData:
    return build_market(walk(n_bars, seed, missing))


def straight(n_bars: int, per_bar: float, noise: float = 0.0, seed: int = 0) -> Bars:
    """A market that gains per_bar in every bar but for noise (both log returns); wicks are a fifth of the move."""
    rng = np.random.default_rng(seed)
    close = 30_000.0 * np.exp(np.cumsum(per_bar + noise * rng.standard_normal(n_bars)))
    open_ = np.concatenate(([30_000.0], close[:-1]))
    reach = 0.2 * np.abs(close - open_)
    bars = walk(n_bars, seed)
    prices = {
        "open": open_,
        "close": close,
        "high": np.maximum(open_, close) + reach,
        "low": np.minimum(open_, close) - reach,
    }
    return replace(bars, **prices, volume=np.full(n_bars, 50.0), present=np.ones(n_bars, np.bool_))


def upside_down(bars: Bars) -> Bars:
    """The same moves the other way: prices p become P / p."""
    square = float(bars.close[bars.present][0]) ** 2
    turned = {
        "open": square / bars.open,
        "close": square / bars.close,
        "high": square / bars.low,
        "low": square / bars.high,
    }
    return replace(bars, **turned)


def case(bucket_name: str = "scalping", data: MarketData | None = None, **changes: object) -> Case:
    """A BUY in cash, at the market's last bar; `changes` are fields of Decision."""
    bucket, rules = bucket_of(bucket_name)
    data = market() if data is None else data
    decision = Decision(
        bucket=bucket_name,
        close_ts_ns=int(data.bars.close_ts_ns[-1]),
        action=Action.BUY,
        size_frac=0.0125,
        probabilities=(0.25, 0.5, 0.125, 0.125),
        value=0.5,
        forecasts=tuple(
            Forecast(horizon_bars=bars, mean=0.001, std=0.01, quantiles=QUANTILES) for bars in bucket.horizons_bars
        ),
        unfamiliarity=0.5,
        model_version="abcdef012345",
        data_version="0123456789abcdef",
    )
    account, lots = new_accounts(1, rules.max_lots, EQUITY_USDT)
    return Case(
        decision=replace(decision, **changes),  # type: ignore[arg-type]
        data=data,
        bucket=bucket,
        rules=rules,
        sizing=config().sizing,
        account=account[0],
        lots=lots[0],
        told="flat",
    )
