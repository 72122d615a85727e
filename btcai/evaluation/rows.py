"""Every figure of one strategy under one cost severity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from btcai.config import BucketConfig
from btcai.evaluation import metrics
from btcai.evaluation.goals import captured_frac
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.significance import minimum_track_record
from btcai.evaluation.statistics import Bootstrap
from btcai.schema import FloatArray, Span

_DAYS = metrics.DAYS_PER_YEAR


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
    needed_days: float
    """How long a record of this ratio must be to be above 0 at 95 %; nan for one that is not above it."""
    sortino: float
    calmar: float
    cagr_low: float
    cagr_high: float
    max_drawdown_frac: float
    max_drawdown_low: float
    max_drawdown_high: float
    drawdown_bars: int
    """From the peak before the deepest fall to recovery or the end."""
    underwater_bars: int
    """The longest wait for a new peak, which need not be for the deepest fall."""
    win_rate: float
    profit_factor: float
    expectancy_frac: float
    """Mean net return of closed lots."""
    holding_bars: float
    """Mean of closed lots."""
    trades: int
    exposure_frac: float
    turnover_per_year: float
    cost_frac: float
    costs_usdt: float
    gross_return: float
    break_even_bps: float
    """The cost a side that would have eaten the gross profit."""
    captured_frac: float
    """Of the bucket's own goal; nan for baselines."""
    fold_returns: tuple[float, ...]
    fold_sharpes: tuple[float, ...]
    walk_forward_score: float
    """Mean of the folds' Sharpe ratios; a fold without one (no trade, too few days) counts as 0, as cash would."""
    did_not_trade: bool
    note: str


def figures_of(
    result: BacktestResult,
    strategy: str,
    severity: str,
    bucket: BucketConfig | None,
    is_bucket: bool,
    folds: Sequence[Span],
    drawn: Bootstrap,
    place: int,
) -> Row:
    """The row of one strategy, whose returns are number `place` of what was bootstrapped; bucket: of a bucket."""
    returns = daily_returns(result)
    drawdown = metrics.max_drawdown(result.equity_usdt)
    growth = metrics.cagr(result.equity_usdt, result.start_equity_usdt, metrics.years(len(result.equity_usdt)))
    fold_returns, fold_sharpes = _fold_figures(result, folds)
    sharpe, cagr, deepest = (drawn.interval(metric, place) for metric in ("sharpe", "cagr", "max_drawdown_frac"))
    closed = result.trades["net_return"].to_numpy(np.float64)
    gross_usdt = float(result.equity_usdt[-1]) - result.start_equity_usdt + result.costs_usdt
    return Row(
        strategy=strategy,
        severity=severity,
        is_bucket=is_bucket,
        net_return=metrics.net_return(result.equity_usdt, result.start_equity_usdt),
        cagr=growth,
        sharpe=metrics.sharpe(returns, _DAYS),
        sharpe_low=sharpe.low,
        sharpe_high=sharpe.high,
        needed_days=needed if np.isfinite(needed := minimum_track_record(returns, _DAYS)) else float("nan"),
        sortino=metrics.sortino(returns, _DAYS),
        calmar=metrics.calmar(growth, drawdown.frac),
        cagr_low=cagr.low,
        cagr_high=cagr.high,
        max_drawdown_frac=drawdown.frac,
        max_drawdown_low=deepest.low,
        max_drawdown_high=deepest.high,
        drawdown_bars=drawdown.bars,
        underwater_bars=metrics.underwater_bars(result.equity_usdt),
        win_rate=metrics.win_rate(closed),
        profit_factor=metrics.profit_factor(result.trades["profit_usdt"].to_numpy(np.float64)),
        expectancy_frac=metrics.expectancy(closed),
        holding_bars=metrics.mean_holding_bars(
            *(result.trades[end].to_numpy(np.int64) for end in ("entry_ts_ns", "exit_ts_ns"))
        ),
        trades=len(result.trades),
        exposure_frac=metrics.exposure_frac(result.position_frac),
        turnover_per_year=metrics.turnover_per_year(result.traded_usdt, result.equity_usdt),
        cost_frac=metrics.cost_frac(result.costs_usdt, result.start_equity_usdt),
        costs_usdt=result.costs_usdt,
        gross_return=metrics.gross_return(result.equity_usdt, result.start_equity_usdt, result.costs_usdt),
        break_even_bps=metrics.break_even_cost_bps(gross_usdt, result.traded_usdt),
        captured_frac=captured_frac(strategy, bucket.goal_frac, result) if bucket else float("nan"),
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
