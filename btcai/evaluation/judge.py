"""The verdict: every strategy's figures in rows, and per bucket whether an edge is proven, by the gate's checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from btcai.champions import Edge
from btcai.config import BucketConfig
from btcai.evaluation import gate, metrics
from btcai.evaluation.gate import Check
from btcai.evaluation.goals import captured_frac
from btcai.evaluation.overfitting import overfitting
from btcai.evaluation.power import Detectable, smallest_edge
from btcai.evaluation.result import BacktestResult, label
from btcai.evaluation.robustness import HIGHER_COSTS, ONE_BAR_LATER
from btcai.evaluation.significance import deflated_sharpe, luck_p_value
from btcai.evaluation.statistics import RESAMPLES, Bootstrap, bootstrapped
from btcai.evaluation.superiority import superiority
from btcai.schema import FloatArray, Span

_DAYS = metrics.DAYS_PER_YEAR
FAMILY_ERROR = 0.05
"""Chance that any bucket without an edge passes a comparison; every bucket's intervals are as much wider."""
VARIANTS = (HIGHER_COSTS, ONE_BAR_LATER)
RANDOM = "random_"
"""How baselines begin that trade at random times: shown, but luck is no rival to be surely better than."""
RECOMMENDED = "recommended: stay in cash or hold the volatility-targeted position"

Results = Mapping[str, Mapping[str, BacktestResult]]
"""strategy -> cost severity or variant of it -> what it did on the test span."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """Every configuration tried on this market before: the best of many looks good by luck.

    sharpes (N,): annual, nan where a trial had none.
    """

    sharpes: FloatArray = field(default_factory=lambda: np.empty(0))


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
    cagr_low: float
    cagr_high: float
    max_drawdown_frac: float
    max_drawdown_low: float
    max_drawdown_high: float
    drawdown_bars: int
    win_rate: float
    profit_factor: float
    expectancy_frac: float
    """Mean net return of closed lots."""
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


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a bucket may leave paper, and why in plain words with its numbers."""

    bucket: str
    edge: Edge
    text: str
    differences: tuple[tuple[str, float, float], ...]
    """(baseline, low, high): this bucket's Sharpe ratio minus the baseline's, same days; 1 - FAMILY_ERROR / buckets."""
    checks: tuple[Check, ...]
    smallest_edge: Detectable
    """What this span could have shown at all."""
    n_trials: int


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
    buckets: Mapping[str, BucketConfig],
    severity: str = "pessimistic",
    trials: Trials | None = None,
    beside: Results | None = None,
    resamples: int = RESAMPLES,
) -> Judgement:
    """Rows of every strategy and severity, and verdicts at `severity`; all results must cover the same span.

    trials: those before this run, whose own buckets are counted too. beside: has rows and nothing else.
    """
    everyone = {**results, **(beside or {}), **baselines}
    rows = []
    for cost in dict.fromkeys(cost for by in everyone.values() for cost in by):
        there = {name: by[cost] for name, by in everyone.items() if cost in by}
        drawn = _bootstrap(there, seed, resamples)
        rows += [
            _row(
                result, name, cost, buckets.get(name) if name in results else None, name in results, folds, drawn, place
            )
            for place, (name, result) in enumerate(there.items())
        ]
    rows.sort(key=lambda row: list(everyone).index(row.strategy))
    return Judgement(
        severity=severity,
        rows=tuple(rows),
        verdicts=_verdicts(results, baselines, rows, severity, trials or Trials(), seed, resamples),
    )


def _bootstrap(results: Mapping[str, BacktestResult], seed: int, resamples: int) -> Bootstrap:
    """Of all strategies on the same drawn days."""
    returns = np.stack([daily_returns(result) for result in results.values()], axis=1)
    return bootstrapped(returns, _DAYS, seed=seed, resamples=resamples)


def _row(
    result: BacktestResult,
    strategy: str,
    severity: str,
    bucket: BucketConfig | None,
    is_bucket: bool,
    folds: Sequence[Span],
    drawn: Bootstrap,
    place: int,
) -> Row:
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
        sortino=metrics.sortino(returns, _DAYS),
        calmar=metrics.calmar(growth, drawdown.frac),
        cagr_low=cagr.low,
        cagr_high=cagr.high,
        max_drawdown_frac=drawdown.frac,
        max_drawdown_low=deepest.low,
        max_drawdown_high=deepest.high,
        drawdown_bars=drawdown.bars,
        win_rate=metrics.win_rate(closed),
        profit_factor=metrics.profit_factor(result.trades["profit_usdt"].to_numpy(np.float64)),
        expectancy_frac=metrics.expectancy(closed),
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


def _verdicts(
    results: Results,
    baselines: Results,
    rows: Sequence[Row],
    severity: str,
    trials: Trials,
    seed: int,
    resamples: int,
) -> tuple[Verdict, ...]:
    """Each bucket through the gate, beside all baselines and every trial so far."""
    ours = {name: by[severity] for name, by in results.items()}
    rivals = {name: by[severity] for name, by in baselines.items() if not name.startswith(RANDOM)}
    judged = {row.strategy: row for row in rows if row.severity == severity}
    net = {(row.strategy, row.severity): row.net_return for row in rows}
    candidates = np.stack([daily_returns(result) for result in ours.values()], axis=1)
    tried = np.concatenate([trials.sharpes, [judged[name].sharpe for name in ours]])
    against = {label(name): daily_returns(result) for name, result in rivals.items()}
    p_values = [superiority(candidates, one, seed=seed, resamples=resamples) for one in against.values()]
    largest = (
        np.max([found.candidate_p_values for found in p_values], axis=0) if p_values else np.full(len(ours), np.nan)
    )
    drawn, level = _bootstrap({**ours, **rivals}, seed, resamples), 1 - FAMILY_ERROR / len(results)  # Bonferroni
    found = []
    for place, name in enumerate(ours):
        apart = {rival: drawn.difference("sharpe", place, len(ours) + k, level=level) for k, rival in enumerate(rivals)}
        row = judged[name]
        outcome = gate.decide(
            gate.Figures(
                deflated_sharpe=deflated_sharpe(candidates[:, place], _DAYS, trial_sharpes=tried),
                overfitting=overfitting(np.column_stack([candidates[:, place], *against.values()])).probability,
                p_value=float(largest[place]),
                luck_p_value=luck_p_value(candidates[:, place], _DAYS, trial_sharpes=trials.sharpes),
                difference_lows={label(rival): interval.low for rival, interval in apart.items()},
                up_folds_frac=float(np.mean([gain > 0 for gain in row.fold_returns])) if row.fold_returns else np.nan,
                net_at_higher_costs=net.get((name, HIGHER_COSTS), float("nan")),
                net_with_delay=net.get((name, ONE_BAR_LATER), float("nan")),
                net_at_harshest_costs=min(net[name, cost] for cost in results[name] if cost not in VARIANTS),
            )
        )
        least = smallest_edge(candidates[:, place], against, _DAYS, level=level, n_trials=len(tried))
        found.append(
            Verdict(
                bucket=name,
                edge=outcome.edge,
                text=_reason(row, outcome, least, len(tried)),
                differences=tuple((rival, interval.low, interval.high) for rival, interval in apart.items()),
                checks=outcome.checks,
                smallest_edge=least,
                n_trials=len(tried),
            )
        )
    return tuple(found)


def _reason(row: Row, outcome: gate.Outcome, least: Detectable, n_trials: int) -> str:
    able = (
        f"beside these baselines this span could show a Sharpe ratio of {_ratio(least.sharpe)} or more"
        if np.isfinite(least.sharpe)
        else "this span is too short to show any"
    )
    if row.did_not_trade:
        return f"no edge shown: {row.strategy} did not trade, so it earned what cash earns; {able}; {RECOMMENDED}"
    up = sum(gain > 0 for gain in row.fold_returns)
    folds = f"{up} of {len(row.fold_returns)} folds up"
    result = f"net {row.net_return:+.1%} after {row.severity} costs, Sharpe {_ratio(row.sharpe)}, {folds}"
    if outcome.edge == "proven":
        return f"edge shown: {result}; all {len(outcome.checks)} checks passed, {n_trials} trials counted; {able}"
    failed = [check for check in outcome.checks if not check.passed]
    named = ", ".join(f"{check.name} {_ratio(check.value)} (needs {_needs(check)})" for check in failed[:4])
    more = f" and {len(failed) - 4} more" if len(failed) > 4 else ""
    return (
        f"no edge shown: {result}; {len(failed)} of {len(outcome.checks)} checks failed, {n_trials} trials counted: "
        f"{named}{more}; {able}; {RECOMMENDED}"
    )


def _needs(check: Check) -> str:
    return f"{check.side} {check.threshold:g}"


def _ratio(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "undefined"
