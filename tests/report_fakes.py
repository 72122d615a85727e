"""Strategies with known daily returns, and the evidence of a report on them."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from btcai.agent.ppo import Losses
from btcai.config import CostConfig
from btcai.evaluation import judge as judging
from btcai.evaluation.evidence import Evidence
from btcai.evaluation.judge import Judgement, Results
from btcai.evaluation.reliability import Held, Reliability, expected_shares
from btcai.evaluation.result import BacktestResult, trades_table
from btcai.schema import BAR_NS, BARS_PER_DAY, BUCKETS, QUANTILE_LEVELS, Span
from btcai.training.play import Validation


def _costs(taker_fee_bps: float, half_spread_bps: float, impact_coef: float, max_volume_share: float) -> CostConfig:
    return CostConfig(
        taker_fee_bps=taker_fee_bps,
        maker_fee_bps=taker_fee_bps,
        half_spread_bps=half_spread_bps,
        impact_coef=impact_coef,
        max_volume_share=max_volume_share,
        latency_bars=0,
    )


SEVERITIES = {
    "optimistic": _costs(4, 0.1, 0, 1),
    "base": _costs(7.5, 0.5, 0.5, 0.25),
    "pessimistic": _costs(10, 1, 1, 0.1),
}
DAYS = 120
SPAN = Span(1000, 1000 + DAYS * BARS_PER_DAY)
FOLDS = [Span(1000 + k * 30 * BARS_PER_DAY, 1000 + (k + 1) * 30 * BARS_PER_DAY) for k in range(4)]
FIRST_CLOSE_BAR = 19_700 * BARS_PER_DAY + 1


def earned(returns: np.ndarray, *, exposure: float = 1.0, trades: int = 0, note: str = "") -> BacktestResult:
    """A result with these daily returns, each made in even steps over its day."""
    n = len(returns) * BARS_PER_DAY
    steps = np.repeat(np.log1p(returns) / BARS_PER_DAY, BARS_PER_DAY)
    closes = (FIRST_CLOSE_BAR + np.arange(n, dtype=np.int64)) * BAR_NS
    closed = np.array([[k, k + 5, 0.1, 1e4, 1.01e4, 1000.0, 1010.0 - 15 * (k % 3)] for k in range(trades)])
    return BacktestResult(
        span=SPAN,
        start_equity_usdt=100_000.0,
        close_ts_ns=closes,
        equity_usdt=100_000.0 * np.exp(np.cumsum(steps)),
        position_frac=np.full(n, exposure),
        n_lots=np.ones(n, np.int64),
        decisions=np.empty(0, np.int64),
        actions=np.empty(0, np.int64),
        trades=trades_table(closed, closes),
        costs_usdt=1234.5 * (exposure > 0),
        traded_usdt=2e6 * exposure,
        note=note,
    )


def judge(results: Results, baselines: Results, folds: list[Span], severity: str = "pessimistic") -> Judgement:
    """With few resamples: the verdicts below are not close."""
    return judging.judge(results, baselines, folds, seed=7, severity=severity, resamples=60)


def everywhere(result: BacktestResult) -> dict[str, BacktestResult]:
    return {severity: result for severity in SEVERITIES}


def noise(seed: int, mean: float = 0.0) -> np.ndarray:
    return mean + np.random.default_rng(seed).normal(0.0, 0.02, DAYS)


def baselines() -> Results:
    flat = np.zeros(DAYS)
    return {
        "cash": everywhere(earned(flat, exposure=0.0)),
        "buy_and_hold": everywhere(earned(noise(1))),
        "volatility_targeted": everywhere(earned(0.6 * noise(1))),
        "momentum_90d": everywhere(earned(noise(2), note="in cash for the first 3 of 120 daily decisions")),
    }


def buckets_of(returns: Iterable[np.ndarray], **settings: float) -> Results:
    return {name: everywhere(earned(one, **settings)) for name, one in zip(BUCKETS, returns, strict=False)}  # type: ignore[arg-type]


def losing_buckets() -> Results:
    """Three that lose by noise and a long one that never trades."""
    noisy = buckets_of([noise(seed, mean=-0.001) for seed in (11, 12, 13)], trades=7)
    return {**noisy, "long": everywhere(earned(np.zeros(DAYS), exposure=0.0))}


def forecast_record(horizon_bars: int, apart: int) -> Reliability:
    """A horizon whose quantiles hold what they promise."""
    low, high = expected_shares(np.asarray(QUANTILE_LEVELS), apart)
    nan = float("nan")
    undefined = Held(observed=(nan,) * len(QUANTILE_LEVELS), coverage_frac=nan, pinball_ratio=nan)
    right = Held(observed=QUANTILE_LEVELS, coverage_frac=0.9, pinball_ratio=0.98) if apart else undefined
    return Reliability(
        horizon_bars=horizon_bars,
        outcomes=3 * apart,
        apart=apart,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        coverage_low=0.8,
        coverage_high=1.0,
        raw=undefined,
        static=right,
        adaptive=right,
        information_coefficient=0.05,
        information_noise=0.1,
        rise_temperature=1.6 if apart else nan,
        rise_temperature_low=1.1 if apart else nan,
        rise_temperature_high=float("inf") if apart else nan,
    )


def written(record: type[Any], **values: float) -> dict[str, float | str]:
    """A row of curves.csv as training writes a record of this kind: all of its fields, 0 unless named."""
    names = [field.name for field in fields(record)]
    assert values.keys() <= set(names)
    return dict.fromkeys(names, 0.0) | values


def curves_of(prediction: int, ppo: int, consolidation: int) -> pd.DataFrame:
    """Curves with so many updates of each phase; only the last update of a phase was validated."""
    update = written(Losses, auxiliary=1.5, entropy=1.0, kl=1e-3)
    validation = {f"valid_{name}": value for name, value in written(Validation, score=-0.01, net_profit=0.0).items()}
    rows: list[dict[str, float | str]] = [
        {"phase": "prediction", "forecast_loss": 2.0 - 0.1 * update} for update in range(prediction)
    ]
    if rows:
        rows[-1]["valid_forecast_loss"] = 1.5
    for phase, updates in (("PPO", ppo), ("consolidation 1", consolidation)):
        rows += [{"phase": phase, **update} for _ in range(updates)]
        if updates:
            rows[-1] |= validation
    return pd.DataFrame(rows, columns=None if rows else ["phase", "update"])


def evidence(judgement: Judgement, results: Results) -> Evidence:
    """Of these buckets beside baselines(); the pessimistic costs are judged."""
    return Evidence(
        judgement=judgement,
        results=results,
        baselines=baselines(),
        forecasts={"scalping": (forecast_record(3, 900), forecast_record(12, 12))},
        curves={"scalping": curves_of(5, 3, 2)},
        importance={"scalping": {f"feature_{k}": k / 45 for k in range(10)}, "long": {"mask": 0.25, "a<b": 0.75}},
        market="btc<usdt>",
        data_version="0123abcd",
        severities=SEVERITIES,
        splits_text="span  bars\ntest  34,560",
        sealed_text="2024-07-01 00:05 to 2024-12-31 23:55, 52,000 bars",
        start_equity_usdt=100_000.0,
    )
