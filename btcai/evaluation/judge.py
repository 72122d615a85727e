"""The verdict: every strategy's figures in rows, and per bucket whether an edge over every baseline is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from btcai.evaluation import metrics
from btcai.evaluation.result import BacktestResult, label
from btcai.evaluation.statistics import RESAMPLES, Interval, sharpe_difference_interval, sharpe_interval
from btcai.schema import FloatArray, Span

_DAYS = metrics.DAYS_PER_YEAR
POSITIVE_FOLDS = 0.6
"""Least share of walk-forward folds with a gain."""
FAMILY_ERROR = 0.05
"""Chance that any bucket without an edge passes; every bucket's intervals are as much wider. Trials before this run are
not counted."""
RECOMMENDED = "recommended: stay in cash or hold the volatility-targeted position"

Results = Mapping[str, Mapping[str, BacktestResult]]
"""strategy -> cost severity -> what it did on the test span."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy under one cost severity; shares are 0 .. 1, undefined figures nan."""

    strategy: str
    severity: str
    is_bucket: bool
    net_return: float
    cagr: float
    sharpe: float
    sharpe_low: float
    sharpe_high: float
    sortino: float
    calmar: float
    max_drawdown_frac: float
    drawdown_bars: int
    win_rate: float
    profit_factor: float
    trades: int
    exposure_frac: float
    turnover_per_year: float
    cost_frac: float
    costs_usdt: float
    fold_returns: tuple[float, ...]
    fold_sharpes: tuple[float, ...]
    walk_forward_score: float
    """Mean of the folds' Sharpe ratios; a fold without one (no trade, too few days) counts as 0, as cash would."""
    did_not_trade: bool
    note: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a bucket may leave paper, and why in one sentence with its numbers."""

    bucket: str
    edge: Literal["proven", "none"]
    text: str
    differences: tuple[tuple[str, float, float], ...]
    """(baseline, low, high): this bucket's Sharpe ratio minus the baseline's, same days; 1 - FAMILY_ERROR / buckets."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All rows, buckets first, and a verdict per bucket under `severity`."""

    severity: str
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]

    def judged_rows(self) -> tuple[Row, ...]:
        """The rows under the severity that is judged."""
        return tuple(row for row in self.rows if row.severity == self.severity)


def judge(
    results: Results,
    baselines: Results,
    folds: Sequence[Span],
    *,
    seed: int,
    severity: str = "pessimistic",
    resamples: int = RESAMPLES,
) -> Judgement:
    """Rows of every strategy and severity, and verdicts at `severity`; all results must cover the same span."""
    draws = {"seed": seed, "resamples": resamples}
    rows = [
        _row(result, name, cost, is_bucket, folds, sharpe_interval(daily_returns(result), _DAYS, **draws))
        for is_bucket, group in ((True, results), (False, baselines))
        for name, by in group.items()
        for cost, result in by.items()
    ]
    judged = {row.strategy: row for row in rows if row.severity == severity}
    rivals = {name: by[severity] for name, by in baselines.items()}
    worst = {name: min(row.net_return for row in rows if row.strategy == name) for name in results}
    level = 1 - FAMILY_ERROR / len(results)  # Bonferroni: each bucket is another chance to be lucky
    verdicts = [
        _verdict(judged[name], worst[name], _differences(by[severity], rivals, level=level, **draws), level)
        for name, by in results.items()
    ]
    return Judgement(severity=severity, rows=tuple(rows), verdicts=tuple(verdicts))


def _row(
    result: BacktestResult, strategy: str, severity: str, is_bucket: bool, folds: Sequence[Span], interval: Interval
) -> Row:
    returns = daily_returns(result)
    drawdown = metrics.max_drawdown(result.equity_usdt)
    growth = metrics.cagr(result.equity_usdt, result.start_equity_usdt, metrics.years(len(result.equity_usdt)))
    fold_returns, fold_sharpes = _fold_figures(result, folds)
    return Row(
        strategy=strategy,
        severity=severity,
        is_bucket=is_bucket,
        net_return=metrics.net_return(result.equity_usdt, result.start_equity_usdt),
        cagr=growth,
        sharpe=metrics.sharpe(returns, _DAYS),
        sharpe_low=interval.low,
        sharpe_high=interval.high,
        sortino=metrics.sortino(returns, _DAYS),
        calmar=metrics.calmar(growth, drawdown.frac),
        max_drawdown_frac=drawdown.frac,
        drawdown_bars=drawdown.bars,
        win_rate=metrics.win_rate(result.trades["net_return"].to_numpy(np.float64)),
        profit_factor=metrics.profit_factor(result.trades["profit_usdt"].to_numpy(np.float64)),
        trades=len(result.trades),
        exposure_frac=metrics.exposure_frac(result.position_frac),
        turnover_per_year=metrics.turnover_per_year(result.traded_usdt, result.equity_usdt),
        cost_frac=metrics.cost_frac(result.costs_usdt, result.start_equity_usdt),
        costs_usdt=result.costs_usdt,
        fold_returns=fold_returns,
        fold_sharpes=fold_sharpes,
        walk_forward_score=float(np.mean(np.nan_to_num(fold_sharpes, nan=0.0))) if folds else float("nan"),
        did_not_trade=result.traded_usdt == 0.0,
        note=result.note,
    )


def daily_returns(result: BacktestResult) -> FloatArray:
    """Simple returns (m,) per UTC day of the whole span."""
    return metrics.daily_returns(result.equity_usdt, result.close_ts_ns, result.start_equity_usdt)


def _fold_figures(result: BacktestResult, folds: Sequence[Span]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Net return and Sharpe ratio within each fold; a fold starts from the equity at the bar before it."""
    gains, ratios = [], []
    for fold in folds:
        first, stop = fold.first - result.span.first, fold.stop - result.span.first
        if not 0 <= first < stop <= len(result.equity_usdt):
            raise ValueError(f"folds must lie inside the tested span {result.span}, was {fold}; pass the splits' folds")
        start = result.equity_usdt[first - 1] if first else result.start_equity_usdt
        equity = result.equity_usdt[first:stop]
        gains.append(metrics.net_return(equity, float(start)))
        daily = metrics.daily_returns(equity, result.close_ts_ns[first:stop], float(start))
        ratios.append(metrics.sharpe(daily, _DAYS))
    return tuple(gains), tuple(ratios)


def _differences(
    result: BacktestResult, rivals: Mapping[str, BacktestResult], *, level: float, seed: int, resamples: int
) -> dict[str, Interval]:
    """Interval of the Sharpe ratio minus each rival's, by the rival's name."""
    returns = daily_returns(result)
    return {
        name: sharpe_difference_interval(
            returns, daily_returns(rival), _DAYS, seed=seed, resamples=resamples, level=level
        )
        for name, rival in rivals.items()
    }


def _verdict(row: Row, worst_return: float, intervals: Mapping[str, Interval], level: float) -> Verdict:
    """Proven only when all three hold: surely above every baseline, most folds up, a gain under the worst costs."""
    up = sum(gain > 0 for gain in row.fold_returns)
    beats_all = bool(intervals) and all(interval.low > 0 for interval in intervals.values())
    enough_folds = up >= POSITIVE_FOLDS * len(row.fold_returns) and up > 0
    proven = beats_all and enough_folds and worst_return > 0
    return Verdict(
        bucket=row.strategy,
        edge="proven" if proven else "none",
        text=_reason(row, worst_return, intervals, up, proven, level),
        differences=tuple((name, interval.low, interval.high) for name, interval in intervals.items()),
    )


def _reason(
    row: Row, worst_return: float, intervals: Mapping[str, Interval], up: int, proven: bool, level: float
) -> str:
    if row.did_not_trade:
        return f"no edge shown: {row.strategy} did not trade, so it earned what cash earns; {RECOMMENDED}"
    folds = f"{up} of {len(row.fold_returns)} folds up ({POSITIVE_FOLDS:.0%} needed)"
    result = f"net {row.net_return:+.1%} after {row.severity} costs, Sharpe {_ratio(row.sharpe)}, {folds}"
    if proven:
        closest = min(intervals, key=lambda name: intervals[name].low)
        return f"edge shown: {result}; Sharpe surely above every baseline's (closest: {_named(closest, intervals)})"
    unsure = [name for name, interval in intervals.items() if not interval.low > 0]
    rivals = ", ".join(_named(name, intervals) for name in unsure)
    against = f"; Sharpe not surely above the baselines' (difference, {100 * level:.4g} %: {rivals})" if unsure else ""
    harsher = f"; net {worst_return:+.1%} under the harshest costs" if worst_return <= 0 < row.net_return else ""
    return f"no edge shown: {result}{harsher}{against}; {RECOMMENDED}"


def _named(name: str, intervals: Mapping[str, Interval]) -> str:
    low, high = intervals[name]
    return f"{label(name)} {_ratio(low)} to {_ratio(high)}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "undefined"
