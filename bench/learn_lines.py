"""Runs as lines: scores with their intervals over training seeds, and goals that time can break."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from bench.learn_budget import MOST_OVER
from bench.learn_jobs import SHUFFLED, goal_of
from bench.learn_runs import OURS, SAME_NETWORK, SB3, Job, Run, Runs
from bench.line import Fact, Goal, Line
from bench.stopwatch import IDLE_CORES
from btcai.training.health import collapse
from btcai.yardstick.scoring import Score, score

UNIT = "share of the optimum"
NO_SKILL = (Goal("value", "<=", 2.576),)
"""Standard errors, either way: 99 of 100 learners without skill are within."""

UNTIMED = "they time nothing, so the control says nothing of them; train longer, or see the line on collapse"
ONE_SEED = "one training seed has no interval; ask for more with --repeats"


@dataclass(frozen=True, kw_only=True)
class TimedLine(Line):
    """A line whose goals are missed where training took more time than allowed, whatever came of it."""

    seconds_used: float
    seconds_allowed: float

    @property
    def goal(self) -> str | None:
        return f"{super().goal} after {self.seconds_allowed:g} s"

    @property
    def met(self) -> bool | None:
        return super().met if self.seconds_used <= MOST_OVER * self.seconds_allowed else False


def interval(scores: list[float]) -> Score:
    """Mean over training seeds with its 95 % interval by Student's t."""
    return score(np.array(scores), np.ones(len(scores)))


def part_lines(part: str, asked: list[Job], runs: Runs, rival_s: float) -> Iterator[Line]:
    """Lines of a part whose runs are all there; rival_s: for how long stable-baselines3 was trained beside it."""
    found = [run for job in asked if (run := runs.of(job)) is not None]
    kinds = [list(group) for _, group in groupby(found, key=lambda run: (run.job.market, run.job.learner, _time(run)))]
    if part == "collapse":
        yield _collapse(found)
    elif part == "same_network":
        yield from _same_network(found)
    elif part in ("rivals", "curves"):
        yield from (_beside(kind) for kind in kinds)
    elif part == "long":
        for brief, long in zip(kinds[::2], kinds[1::2], strict=True):
            yield _scored(part, long, runs, rival_s)
            yield _decay(brief, long)
    else:
        for kind in kinds:
            yield _no_skill(kind) if kind[0].job.market == SHUFFLED else _scored(part, kind, runs, rival_s)


def _scored(part: str, kind: list[Run], runs: Runs, rival_s: float) -> Line:
    """The lower end of the interval against the goal, beside the rival's mean where it was measured."""
    job, found = kind[0].job, interval([run.outcome.score for run in kind])
    rival = [run.outcome.score for run in runs.like(job.market, SB3, rival_s)]
    return TimedLine(
        name=f"{job.market}: {job.learner}, {job.seconds:g} s",
        value=_known(found.low),
        unit=f"{UNIT}, lower end of 95 %",
        reference=f"{SB3}, {rival_s:g} s, mean" if rival else None,
        reference_value=float(np.mean(rival)) if rival else None,
        goals=(Goal("value", ">=", goal_of(part, job.market)),),
        note=ONE_SEED if len(kind) == 1 else None,
        more=_facts(kind, found),
        seconds_used=max(run.outcome.seconds_used for run in kind),
        seconds_allowed=job.seconds,
    )


def _decay(brief: list[Run], long: list[Run]) -> Line:
    """What four times the training changes, seed by seed: marked on the same paths, whose luck falls out."""
    before, after = ({run.job.seed: run.outcome.score for run in kind} for kind in (brief, long))
    found = interval([after[seed] - before[seed] for seed in after])
    job, earlier = long[0].job, brief[0].job.seconds
    note = f"below 0 a loss is shown; not shown is not ruled out: it may be {max(0.0, -found.low):.4f} on average"
    return Line(
        name=f"{job.market}: {job.learner}, {job.seconds:g} s less {earlier:g} s",
        value=_known(found.high),
        unit=f"{UNIT}, upper end of 95 % of the difference by seed",
        goals=(Goal("value", ">=", 0.0),),
        note=ONE_SEED if len(after) == 1 else note,
        more={
            "mean": found.ratio_of_sums,
            "low": _known(found.low),
            "high": _known(found.high),
            "mean_before": float(np.mean(list(before.values()))),
            "mean_after": float(np.mean(list(after.values()))),
            "seeds_worse": sum(after[seed] < before[seed] for seed in after),
            "seeds": len(after),
        },
    )


def _no_skill(kind: list[Run]) -> Line:
    """Independent paths a seed: the sum of z over the root of their number is standard normal without skill.

    Nothing is decided where a seed has no z: it prefers the same everywhere, and would pass whatever leaks.
    """
    scores = [run.outcome.score for run in kind]
    z = [score for score in scores if not math.isnan(score)]
    constant = len(scores) - len(z)
    return Line(
        name=f"{SHUFFLED}: {OURS}, {kind[0].job.seconds:g} s, timing skill when made to trade",
        value=None if constant else abs(sum(z)) / math.sqrt(len(z)),
        unit="standard errors, two-sided",
        goals=NO_SKILL,
        note=f"{constant} of {len(scores)} seeds prefer the same everywhere: {UNTIMED}" if constant else None,
        more={
            "z_mean": float(np.mean(z)) if z else None,
            "z_most": max(z, key=abs, default=None),
            "seeds": len(scores),
        },
    )


def _beside(kind: list[Run]) -> Line:
    """No goal: what rivals reach, and ours at other budgets."""
    job, found = kind[0].job, interval([run.outcome.score for run in kind])
    on_the_way = {f"mean_{k + 1}": float(np.mean(at)) for k, at in enumerate(_columns(kind))}
    return Line(
        name=f"{job.market}: {job.learner}{f', {job.seconds:g} s' if job.seconds else ''}",
        value=found.ratio_of_sums,
        unit=f"{UNIT}, mean",
        more=_facts(kind, found) | on_the_way,
    )


def _columns(kind: list[Run]) -> list[list[float]]:
    """Scores of all seeds at each of the marks on the way, the last apart."""
    return [[score for _, score in at] for at in zip(*(run.outcome.curve[:-1] for run in kind), strict=False)]


def _same_network(found: list[Run]) -> Iterator[Line]:
    """Wall clock of stable-baselines3 to the score of our whole training, and to the best that it reached itself."""
    ours = [run for run in found if run.job.learner == OURS]
    theirs = next(run for run in found if run.job.learner == SAME_NETWORK)
    whole = max(ours, key=_time)
    got = [seconds for seconds, reached in theirs.outcome.curve if reached >= whole.outcome.score]
    used = got[0] if got else theirs.outcome.seconds_used
    before = max((seconds for seconds, _ in theirs.outcome.curve if seconds < used), default=0.0)
    at_most = f"at most: it got there after the mark at {before:.0f} s"
    at_least = f"at least: it had {theirs.outcome.score:.3f} when it was stopped"
    yield _clocks(
        f"{theirs.job.market}: {SAME_NETWORK}, seconds to our score", used, whole, at_most if got else at_least
    )
    best_s, best = max(theirs.outcome.curve, key=lambda mark: mark[1])
    sooner = [run for run in ours if run.outcome.score >= best]
    if sooner and not got:
        note = "at least: ours is the shortest run that was made and had as much"
        yield _clocks(
            f"{theirs.job.market}: {SAME_NETWORK}, seconds to its own best", best_s, min(sooner, key=_time), note, best
        )


def _clocks(name: str, theirs_s: float, ours: Run, note: str | None, share: float | None = None) -> Line:
    return Line(
        name=name,
        value=theirs_s,
        unit="s",
        reference=OURS,
        reference_value=ours.outcome.seconds_used,
        note=note,
        more={"score": ours.outcome.score if share is None else share, "our_score": ours.outcome.score},
    )


def _collapse(found: list[Run]) -> Line:
    """How many of the seeds ended flat, always long, or with one action."""
    kinds = [collapse(run.outcome.more) for run in found]
    named = {name.replace(" ", "_"): kinds.count(name) for name in ("flat", "always long", "one action")}
    in_market = [run.outcome.more["long_frac"] for run in found]
    job, shares = found[0].job, interval([run.outcome.score for run in found])
    extremes = {"long_frac_least": min(in_market), "long_frac_most": max(in_market)}
    scores: dict[str, Fact] = {"score_least": min(run.outcome.score for run in found)}
    return Line(
        name=f"{job.market}: {job.learner}, {job.seconds:g} s, seeds that collapsed",
        value=float(len(found) - kinds.count(None)),
        unit=f"of {len(found)}",
        goals=(Goal("value", "<=", 0.0),),
        more=named | extremes | scores | _facts(found, shares),
    )


def _facts(kind: list[Run], found: Score) -> dict[str, Fact]:
    errors = [run.outcome.mark_error for run in kind if run.outcome.mark_error is not None]
    others = float(np.median([run.others_cores for run in kind]))
    last = kind[-1].outcome
    return {
        "mean": found.ratio_of_sums,
        "low": _known(found.low),
        "high": _known(found.high),
        "seeds": len(kind),
        "mark_error": float(np.mean(errors)) if errors else None,
        "seconds_used": max(run.outcome.seconds_used for run in kind),
        "pretrain_updates": last.pretrain_updates,
        "ppo_updates": last.ppo_updates,
        "others_cores": others,
        "idle": others <= IDLE_CORES,
    }


def _time(run: Run) -> float:
    return run.job.seconds


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
