"""Strategies with known daily returns, and the evidence of a report on them."""

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evaluation_fakes import make_market
from scipy.stats import norm

from btcai.agent.ppo import Losses
from btcai.config import Config, CostConfig
from btcai.evaluation import judge as judging
from btcai.evaluation.judge import Judgement, Results
from btcai.evaluation.reliability import Held, Reliability, expected_shares
from btcai.evaluation.result import BacktestResult, trades_table
from btcai.evaluation.robustness import HIGHER_COSTS, ONE_BAR_LATER
from btcai.evaluation.slices import slice_table
from btcai.evaluation.stress import StressRow
from btcai.evaluation.voices import Voices
from btcai.features.splits import Splits
from btcai.inference.bundle import Encoded
from btcai.params import load_config
from btcai.report.evidence import Evidence
from btcai.schema import BAR_NS, BARS_PER_DAY, BUCKETS, QUANTILE_LEVELS, Action, MarketData, SealedSpan, Span
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


def judge(
    results: Results, baselines: Results, folds: list[Span], severity: str = "pessimistic", **given: Any
) -> Judgement:
    """With few resamples: the verdicts below are not close."""
    shipped = settings().buckets
    return judging.judge(results, baselines, folds, seed=7, buckets=shipped, severity=severity, resamples=200, **given)


def everywhere(result: BacktestResult) -> dict[str, BacktestResult]:
    """The same whatever it costs."""
    return {name: result for name in (*SEVERITIES, HIGHER_COSTS, ONE_BAR_LATER)}


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


def settings() -> Config:
    """params.yaml as shipped."""
    return load_config(Path(__file__).resolve().parents[1] / "params.yaml")


def splits() -> Splits:
    """Whose test span and folds are the ones above."""
    sealed = SealedSpan(SPAN.stop + 100, SPAN.stop + 5000)
    return Splits(train=Span(0, 500), valid=Span(550, 900), test=SPAN, folds=tuple(FOLDS), sealed=sealed)


def market() -> MarketData:
    """Bars of all of these spans, a few of them missing, on the dates of `earned`'s results."""
    first = FIRST_CLOSE_BAR - SPAN.first
    return make_market(SPAN.stop + 5000, seed=3, first_close_bar=first, missing=(1500, 1501, 9000))


def trading(result: BacktestResult, data: MarketData, bucket: str, lots: int, seed: int) -> BacktestResult:
    """The same equity with decisions, forecasts and closed lots: half long, half short, one after the other."""
    rng, chosen = np.random.default_rng(seed), settings().buckets[bucket]
    decisions = np.arange(SPAN.first, SPAN.stop - chosen.patch_bars, chosen.patch_bars)
    actions = rng.choice([0, 0, 0, 0, 1, 2, 3], len(decisions)).astype(np.int64)
    edges = np.sort(rng.choice(np.arange(SPAN.first + 10, SPAN.stop - 10), 2 * lots, replace=False)).reshape(-1, 2)
    rows = []
    for entry, leave in edges.tolist():
        bought, sold = data.mark[entry] * 1.0002, data.mark[leave] * 0.9998
        rows.append([entry, leave, 0.1, bought, sold, 0.1 * bought * 1.001, 0.1 * sold * 0.999])
    trades = trades_table(np.array(rows), data.bars.close_ts_ns)
    trades["btc"] = np.where(np.arange(lots) % 2, -0.1, 0.1)
    held = np.zeros(len(SPAN))
    for entry, leave in edges.tolist():
        held[entry - SPAN.first : leave - SPAN.first] = 0.3
    encoded = forecasting(data, decisions, chosen.horizons_bars, seed)
    return replace(result, decisions=decisions, actions=actions, trades=trades, position_frac=held, encoded=encoded)


def forecasting(data: MarketData, decisions: np.ndarray, horizons: tuple[int, ...], seed: int) -> Encoded:
    """Normal forecasts with a little drift, as wide as the market is; now and then in more doubt than is allowed."""
    rng, n = np.random.default_rng(seed), len(decisions)
    unit = np.asarray(data.sigma)[decisions][:, None] * np.sqrt(horizons)
    doubt = np.where(rng.random(n) < 0.02, 3.5, rng.uniform(0.8, 1.4, n))[:, None]
    mean, std = 0.2 * rng.standard_normal((n, 1)) * unit, doubt * unit
    quantiles = mean[..., None] + std[..., None] * norm.ppf(QUANTILE_LEVELS)
    return Encoded(
        latent=np.zeros((n, 1), np.float32),
        gates=np.full((n, 3), 1 / 3, np.float32),
        mean=mean.astype(np.float32),
        std=std.astype(np.float32),
        quantiles=quantiles.astype(np.float32),
        unfamiliarity=rng.uniform(0.2, 1.2, n).astype(np.float32),
    )


def voices(seed: int = 5, n: int = 900) -> Voices:
    """Three components over the test span, one of each kind of worth."""
    rng = np.random.default_rng(seed)
    slow = np.sin(np.arange(n)[:, None] / np.array([20.0, 60.0, 150.0]))
    return Voices(
        names=("regime", "support_resistance", "entry"),
        close_ts_ns=(FIRST_CLOSE_BAR + np.linspace(0, len(SPAN) - 1, n).astype(np.int64)) * BAR_NS,
        scores=np.clip(slow + 0.2 * rng.standard_normal((n, 3)), -1.0, 1.0),
        confidence=rng.uniform(0.3, 0.9, (n, 3)),
        worth=np.array([0.02, -0.01, 0.003]),
        worth_low=np.array([0.01, -0.02, -0.004]),
        worth_high=np.array([0.03, -0.002, 0.01]),
        worth_unit="Sharpe ratio a decision",
    )


def measures_of(n: int = 14, seed: int = 1, error: float = 1e-4) -> pd.DataFrame:
    """Measures of n features that agree: feature_0 matters most."""
    rng, strength = np.random.default_rng(seed), 0.8 ** np.arange(n)
    return pd.DataFrame(
        {
            "feature": [f"feature_{k}" for k in range(n)],
            "gates": strength / strength.sum(),
            "permutation": 0.01 * strength * rng.uniform(0.95, 1.05, n),
            "permutation_error": np.full(n, error),
            "integrated_gradients": 0.2 * strength,
            "twin": [f"feature_{(k + 1) % n}" for k in range(n)],
            "twin_correlation": np.full(n, 0.3),
        }
    )


def trained_of(handed_over: float | None = 1.8) -> dict[str, Any]:
    """metrics.json of a bucket, and what consolidation made of it."""
    return {
        "rounds": 2.0,
        "converged": 1.0,
        "pretrain_updates": 300.0,
        "ppo_updates": 80.0,
        "decision_times": 1_556_480.0,
        "env_steps": 2_611_200.0,
        "valid_forecast_loss_fresh": 2.0,
        "valid_forecast_loss_handed_over": handed_over,
        "valid_forecast_loss": 1.6,
        "rounds_kept": 1.0,
        "valid_score_before": -0.01,
        "valid_score_after": 0.02,
    }


def stressed() -> list[StressRow]:
    """Two scenarios; buckets are unsure in one of them, a baseline has no network."""
    nan = float("nan")
    rows = []
    for scenario, fall in (("calm", 0.0), ("flash_crash", 0.2)):
        for strategy in (*BUCKETS, "buy_and_hold"):
            knows = strategy != "buy_and_hold"
            rows.append(
                StressRow(
                    scenario=scenario,
                    strategy=strategy,
                    net_return=0.01 - fall,
                    max_drawdown_frac=0.05 + fall,
                    trades=3,
                    cost_frac=0.001,
                    refused_frac=2 * fall if knows else nan,
                    unfamiliar_frac=fall if knows else nan,
                    unfamiliarity=0.7 + 5 * fall if knows else nan,
                )
            )
    return rows


def ablation() -> pd.DataFrame:
    """scores.csv of one subject: what is configured and two arms, on two budgets."""
    rows = [
        ("two-scale", 0.125, "all", "from scratch", 5, 0.80, -0.19, -0.25, -0.12, "worse"),
        ("two-scale", 1.0, "all", "as configured", 5, 0.98, None, None, None, None),
        ("two-scale", 1.0, "all", "from scratch", 5, 0.86, -0.12, -0.16, -0.09, "worse"),
        ("two-scale", 1.0, "all", "kickstarted", 5, 0.982, 0.002, -0.004, 0.008, "not told apart"),
        ("two-scale", 1.0, "short", "kickstarted", 5, 0.984, 0.003, -0.002, 0.007, "not told apart"),
    ]
    names = ("subject", "share", "bucket", "arm", "seeds", "score", "gain", "gain_low", "gain_high", "verdict")
    return pd.DataFrame(rows, columns=list(names))


def full_evidence() -> Evidence:
    """Evidence with everything: two buckets trade, one forecasts and trades nothing, `long` does neither."""
    data, results = market(), dict(losing_buckets())
    for number, (bucket, lots) in enumerate((("scalping", 300), ("short", 12), ("medium", 1))):
        traded = trading(results[bucket]["base"], data, bucket, lots, seed=number)
        if bucket == "medium":
            held = np.full_like(traded.actions, Action.HOLD)
            traded = replace(traded, trades=traded.trades.iloc[:0], actions=held, position_frac=np.zeros(len(SPAN)))
        results[bucket] = everywhere(traded)
    shipped = settings()
    return replace(
        evidence(judge(results, baselines(), FOLDS), results),
        data=data,
        splits=splits(),
        buckets=shipped.buckets,
        sizing=shipped.sizing,
        measures={"scalping": measures_of(), "short": measures_of(seed=2), "medium": measures_of(error=1.0)},
        trained={"scalping": trained_of(None), "short": trained_of(), "medium": trained_of(1.95)},
        ablation=ablation(),
        stress=stressed(),
        slices={"short": slice_table(results["short"]["pessimistic"], data, splits().train)},
        reasoning={"scalping": voices()},
    )
