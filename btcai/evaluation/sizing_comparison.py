"""What the size of lots is worth: the same decisions of one backtest, walked again with lots sized otherwise.

Each strategy stands beside a twin that decides alike and opens lots of one fixed size, of the same mean over the
decisions that buy where a lot is allowed: the same money, spread evenly. What is between the two is what sizing by the
forecast earned, after costs. Walked once more without the thresholds of doubt, it shows what these keep out.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

import numpy as np

from btcai.config import BucketConfig, SizingConfig, SizingStrategy
from btcai.evaluation import metrics
from btcai.evaluation.backtest import backtest
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.rows import daily_returns
from btcai.evaluation.statistics import RESAMPLES, Interval, sharpe_difference_interval
from btcai.inference.bundle import Encoded, Policy
from btcai.inference.decision import sizes
from btcai.market.rules import Rules
from btcai.schema import TOKENS, Action, Float32Array, IntArray, MarketData

STRATEGIES: tuple[SizingStrategy, ...] = tuple(name for name in get_args(SizingStrategy) if name != "fixed")
FIXED = "fixed"


@dataclass(frozen=True, kw_only=True)
class Sized:
    """Figures of one walk; undefined ones nan."""

    net_return: float
    max_drawdown_frac: float
    sharpe: float
    exposure_frac: float
    trades: int


@dataclass(frozen=True, kw_only=True)
class SizingRow:
    """A strategy, with the thresholds of doubt or without, beside its twin of fixed size."""

    strategy: str
    has_thresholds: bool
    allowed_frac: float
    """Share of the decisions to buy at which a lot was allowed; nan without such decisions."""
    lot_frac: float
    """Mean share of equity of the lots allowed: the fixed size of the twin."""
    sized: Sized
    fixed: Sized
    sharpe_difference: Interval
    """Of sized less fixed: 95 %, both resampled on the same days."""


def compare_sizings(
    result: BacktestResult,
    policy: Policy,
    data: MarketData,
    bucket: BucketConfig,
    rules: Rules,
    sizing: SizingConfig,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[SizingRow, ...]:
    """Rows of STRATEGIES with the thresholds of `sizing`, then without; ValueError for a result without forecasts.

    A decision that an account of another size cannot carry out (no lot, no cash, a halt) is a hold, as in the market.
    """
    draws = seed, resamples
    if result.encoded is None:
        raise ValueError("sizes rest on forecasts: compare them on a bucket's backtest, was a baseline's result")
    replayed = _Replayed(policy=policy, encoded=result.encoded, actions=result.actions)
    free = sizing.model_copy(update={"max_uncertainty": np.inf, "max_unfamiliarity": np.inf})
    rows = []
    for limits, strategy in product((sizing, free), STRATEGIES):
        own = limits.model_copy(update={"strategy": strategy})
        rows.append(_row(result, replayed, data, bucket, rules, own, limits is sizing, draws))
    return tuple(rows)


def _row(
    result: BacktestResult,
    replayed: "_Replayed",
    data: MarketData,
    bucket: BucketConfig,
    rules: Rules,
    sizing: SizingConfig,
    has_thresholds: bool,
    draws: tuple[int, int],
) -> SizingRow:
    """One strategy and its twin; draws: seed and number of resamples."""
    allowed_frac, lot_frac = _lots(result, replayed, data, bucket, sizing)
    fixed = sizing.model_copy(update={"strategy": FIXED, "target_volatility": lot_frac * bucket.max_lots})
    walks = [
        backtest(replayed.from_start(), data, result.span, bucket, [rules], one, result.start_equity_usdt)[0]
        for one in (sizing, fixed)
    ]
    own, even = (daily_returns(walk) for walk in walks)
    seed, resamples = draws
    return SizingRow(
        strategy=sizing.strategy,
        has_thresholds=has_thresholds,
        allowed_frac=allowed_frac,
        lot_frac=lot_frac,
        sized=_figures(walks[0]),
        fixed=_figures(walks[1]),
        sharpe_difference=sharpe_difference_interval(own, even, metrics.DAYS_PER_YEAR, seed=seed, resamples=resamples),
    )


@dataclass(kw_only=True)
class _Replayed:
    """A policy that says again what it said: its latent is the action it took, one-hot."""

    policy: Policy
    encoded: Encoded
    actions: IntArray
    at: int = 0

    @property
    def bucket(self) -> str:
        return self.policy.bucket

    @property
    def patch_bars(self) -> int:
        return self.policy.patch_bars

    @property
    def lookback_bars(self) -> int:
        return self.policy.lookback_bars

    @property
    def horizons_bars(self) -> tuple[int, ...]:
        return self.policy.horizons_bars

    def from_start(self) -> "_Replayed":
        return replace(self, at=0)

    def encode(self, features: Float32Array) -> Encoded:
        """The next ((rows / patch_bars) - 143) decisions, in the order in which a backtest encodes them."""
        rows = slice(self.at, self.at + len(features) // self.patch_bars - TOKENS + 1)
        self.at = rows.stop
        parts = {name: getattr(self.encoded, name)[rows] for name in Encoded.__dataclass_fields__}
        return Encoded(**parts | {"latent": np.eye(len(Action), dtype=np.float32)[self.actions[rows]]})

    def probabilities(self, latent: Float32Array, account: Float32Array) -> Float32Array:
        return latent


def _lots(
    result: BacktestResult, replayed: _Replayed, data: MarketData, bucket: BucketConfig, sizing: SizingConfig
) -> tuple[float, float]:
    """Over the decisions to buy: how often a lot is allowed, and the mean size of those that are."""
    sigma = np.asarray(data.sigma)[result.decisions]
    size_frac, allowed = sizes(replayed, bucket, sizing, replayed.encoded, sigma)
    buys = result.actions == int(Action.BUY)
    if not buys.any():
        return float("nan"), 0.0
    opened = size_frac[buys & allowed]
    return float(allowed[buys].mean()), float(opened.mean()) if len(opened) else 0.0


def _figures(walk: BacktestResult) -> Sized:
    return Sized(
        net_return=metrics.net_return(walk.equity_usdt, walk.start_equity_usdt),
        max_drawdown_frac=metrics.max_drawdown(walk.equity_usdt).frac,
        sharpe=metrics.sharpe(daily_returns(walk), metrics.DAYS_PER_YEAR),
        exposure_frac=metrics.exposure_frac(walk.position_frac),
        trades=len(walk.trades),
    )
