"""The verdict: every strategy's figures in rows, and per bucket whether an edge is proven, by the gate's checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from btcai.config import BucketConfig
from btcai.evaluation import gate, metrics
from btcai.evaluation.gate import Check
from btcai.evaluation.overfitting import overfitting
from btcai.evaluation.power import Detectable, smallest_edge
from btcai.evaluation.resampling import block_length
from btcai.evaluation.result import BacktestResult, label
from btcai.evaluation.robustness import HIGHER_COSTS, ONE_BAR_LATER
from btcai.evaluation.rows import Row, daily_returns, figures_of
from btcai.evaluation.significance import deflated_sharpe, luck_p_value
from btcai.evaluation.statistics import RESAMPLES, Bootstrap, Interval, bootstrapped, sharpe_difference_interval
from btcai.evaluation.superiority import superiority
from btcai.evaluation.twins import Ranks
from btcai.records.champions import Edge
from btcai.schema import FloatArray, Span

_DAYS = metrics.DAYS_PER_YEAR
FAMILY_ERROR = 0.05
"""Chance that any bucket without an edge is above a baseline; every bucket's intervals are as much wider."""
VARIANTS = (HIGHER_COSTS, ONE_BAR_LATER)
RANDOM = "random_"
"""How the twin in the middle of a bucket's random ones begins: shown, but its rank among all of them is what is
checked."""
CHAMPION = "champion_"
"""How what stands beside begins where it is a bucket's champion: shown with its difference. A candidate with the same
skill as a proven champion is proven without being better, so no check asks for it."""
RECOMMENDED = "recommended: stay in cash or hold the volatility-targeted position"

Results = Mapping[str, Mapping[str, BacktestResult]]
"""strategy -> cost severity or variant of it -> what it did on the test span."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """All that was judged on this span, or a part of it, before: the best of many looks good by luck.

    sharpes (N,): annual, nan where a trial had none.
    """

    sharpes: FloatArray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a bucket may leave paper, and why in plain words with its numbers."""

    bucket: str
    edge: Edge
    text: str
    differences: tuple[tuple[str, float, float], ...]
    """(baseline, low, high): this bucket's Sharpe ratio minus the baseline's, same days; each end is wrong with
    probability FAMILY_ERROR / buckets."""
    checks: tuple[Check, ...]
    smallest_edge: Detectable
    """What this span could have shown at all."""
    n_trials: int
    over_champion: Interval | None
    """As `differences`, over the champion of this bucket where another one stands beside."""
    ranks: Ranks | None
    """Among its random twins, where it has any."""
    loss_probability: float
    """That the best of it and the baselines on half of the days loses on the other half (overfitting)."""


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
    ranks: Mapping[str, Ranks] | None = None,
    resamples: int = RESAMPLES,
) -> Judgement:
    """Rows of every strategy and severity, and verdicts at `severity`; all results must cover the same span.

    trials: those before this run, whose own buckets are counted too. beside: has rows, and where it is CHAMPION of a
    bucket the difference from it. ranks: of buckets among their random twins.
    """
    beside, ranks = beside or {}, ranks or {}
    everyone = {**results, **beside, **baselines}
    rows = []
    for cost in dict.fromkeys(cost for by in everyone.values() for cost in by):
        there = {name: by[cost] for name, by in everyone.items() if cost in by}
        drawn = _bootstrap(there, [name for name in there if name not in beside], seed, resamples)
        rows += [
            figures_of(
                result, name, cost, buckets.get(name) if name in results else None, name in results, folds, drawn, place
            )
            for place, (name, result) in enumerate(there.items())
        ]
    rows.sort(key=lambda row: list(everyone).index(row.strategy))
    return Judgement(
        severity=severity,
        rows=tuple(rows),
        verdicts=_verdicts(results, baselines, beside, ranks, rows, severity, trials or Trials(), seed, resamples),
    )


def _bootstrap(results: Mapping[str, BacktestResult], asked: Sequence[str], seed: int, resamples: int) -> Bootstrap:
    """Of all strategies on the same drawn days, in blocks as `asked` ones ask for: no figure hangs on who is beside."""
    of = {name: daily_returns(result) for name, result in results.items()}
    block = block_length(np.stack([of[name] for name in asked or of], axis=1)) if _enough(of) else None
    returns = np.stack(list(of.values()), axis=1)
    return bootstrapped(returns, _DAYS, seed=seed, resamples=resamples, block_days=block)


def _enough(returns: Mapping[str, FloatArray]) -> bool:
    return min(map(len, returns.values())) >= metrics.MIN_PERIODS


def _verdicts(
    results: Results,
    baselines: Results,
    beside: Results,
    ranks: Mapping[str, Ranks],
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
    largest = _largest_p_values(candidates, list(against.values()), seed, resamples)
    drawn, error = _bootstrap({**ours, **rivals}, [], seed, resamples), FAMILY_ERROR / len(results)  # Bonferroni
    level = 1 - 2 * error  # the lower end alone decides
    found = []
    for place, name in enumerate(ours):
        row, returns, champion = judged[name], candidates[:, place], beside.get(f"{CHAMPION}{name}")
        lucky = np.append(trials.sharpes, row.sharpe) if len(trials.sharpes) else trials.sharpes
        apart = {rival: drawn.difference("sharpe", place, len(ours) + k, level=level) for k, rival in enumerate(rivals)}
        fit = overfitting(np.column_stack([returns, *against.values()]))
        outcome = gate.decide(
            gate.Figures(
                deflated_sharpe=deflated_sharpe(returns, _DAYS, trial_sharpes=tried),
                overfitting=fit.probability,
                p_value=float(largest[place]),
                luck_p_value=luck_p_value(returns, _DAYS, trial_sharpes=lucky),
                difference_lows={label(rival): interval.low for rival, interval in apart.items()},
                random_chance=ranks[name].chance if name in ranks else None,
                up_folds_frac=float(np.mean([gain > 0 for gain in row.fold_returns])) if row.fold_returns else np.nan,
                net_at_higher_costs=net.get((name, HIGHER_COSTS), float("nan")),
                net_with_delay=net.get((name, ONE_BAR_LATER), float("nan")),
                net_at_harshest_costs=min(net[name, cost] for cost in results[name] if cost not in VARIANTS),
            )
        )
        least = smallest_edge(returns, against, _DAYS, error=error, trial_sharpes=lucky)
        found.append(
            Verdict(
                bucket=name,
                edge=outcome.edge,
                text=_reason(row, outcome, least, len(tried)),
                differences=tuple((rival, interval.low, interval.high) for rival, interval in apart.items()),
                checks=outcome.checks,
                smallest_edge=least,
                n_trials=len(tried),
                over_champion=_over(returns, champion[severity], level, seed, resamples) if champion else None,
                ranks=ranks.get(name),
                loss_probability=fit.loss_probability,
            )
        )
    return tuple(found)


def _largest_p_values(candidates: FloatArray, baselines: Sequence[FloatArray], seed: int, resamples: int) -> FloatArray:
    """StepM's (k,) over the baselines (m,) of candidates (m, k); nan without any."""
    found = [superiority(candidates, one, seed=seed, resamples=resamples).candidate_p_values for one in baselines]
    largest: FloatArray = np.max(found, axis=0) if found else np.full(candidates.shape[1], np.nan)
    return largest


def _over(returns: FloatArray, champion: BacktestResult, level: float, seed: int, resamples: int) -> Interval:
    """Of the difference from a champion, on days drawn for the two alone: no other figure hangs on who is champion."""
    theirs = daily_returns(champion)
    return sharpe_difference_interval(returns, theirs, _DAYS, seed=seed, resamples=resamples, level=level)


def _reason(row: Row, outcome: gate.Outcome, least: Detectable, n_trials: int) -> str:
    able = (
        f"a span this short could only have distinguished a Sharpe ratio of {_ratio(least.sharpe)} or more from these "
        "baselines"
        if np.isfinite(least.sharpe)
        else "this span is too short to distinguish any Sharpe ratio from these baselines"
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
