"""What the trainings of an ablation say: one row an arm and bucket, held against what is configured, seed by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from btcai.experiments.arms import ARMS, BASE, SCRATCH
from btcai.experiments.statistics import (
    LEVEL,
    Estimate,
    bootstrapped,
    chance_of,
    interquartile_mean,
    steps_ratio,
)
from btcai.experiments.trials import Outcome, Trial
from btcai.reasoning.lessons import holm
from btcai.schema import BUCKETS, FloatArray

ALL = "all"
"""In the place of a bucket: all that the arm can differ in."""

LEAST_SEEDS = 5
"""For a verdict: with fewer an interval over seeds says nothing."""

Verdict = Literal["better", "worse", "not told apart", "too few seeds"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Of an arm: its score, and what it gains over what is configured, both interquartile means over seeds."""

    subject: str
    share: float
    bucket: str
    arm: str
    seeds: int
    score: Estimate
    gain: Estimate | None
    """None for what is configured itself."""
    chance: float | None
    """How likely seeds alone make such a gain or loss, two-sided (paired t-test of the means over buckets), after Holm
    for all arms that are held against the same: the bootstrap of a few seeds is narrower than it should be."""

    @property
    def verdict(self) -> Verdict | None:
        if self.gain is None or self.chance is None:
            return None
        if self.seeds < LEAST_SEEDS:
            return "too few seeds"
        if self.chance >= 1 - LEVEL:
            return "not told apart"
        return "better" if self.gain.value > 0 else "worse"


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How many steps an arm needs to the score that training from scratch reaches with a share of the budget, over
    those that it had from scratch."""

    subject: str
    bucket: str
    arm: str
    share: float
    target: float
    seeds: int
    ratio: Estimate


Found = Mapping[Trial, Outcome]
Pair = tuple[FloatArray, FloatArray]
"""Scores of what is configured and of an arm, (seeds,) each."""


def rows(found: Found, seed: int) -> list[Row]:
    """Of every arm, bucket and share; seeds that lack the arm or what it is held against do not count."""
    made = []
    for subject, share in _kinds(found):
        pairs: dict[str, dict[str, Pair]] = {}  # by arm and bucket
        for bucket in BUCKETS:
            scores = _by_arm(found, subject, share, bucket)
            for arm in scores:
                if (pair := _paired(scores[BASE], scores[arm])) is not None:
                    pairs.setdefault(arm, {})[bucket] = pair
                    made.append(_row(subject, share, bucket, arm, [pair], seed))
        for arm, by_bucket in pairs.items():
            whole = [bucket for bucket in pairs[BASE] if not (ARMS[arm].hand_over and bucket == BUCKETS[0])]
            if len(whole) > 1 and list(by_bucket) == whole:
                made.append(_row(subject, share, ALL, arm, list(by_bucket.values()), seed))
    return _corrected(made)


def _corrected(found: list[Row]) -> list[Row]:
    """With `chance` after Holm (1979), over the arms of one subject, share and bucket."""
    families: dict[tuple[str, float, str], list[int]] = {}
    for place, row in enumerate(found):
        if row.chance is not None:
            families.setdefault((row.subject, row.share, row.bucket), []).append(place)
    for places in families.values():
        chances = holm(np.array([found[place].chance for place in places]))
        for place, chance in zip(places, chances, strict=True):
            found[place] = replace(found[place], chance=float(chance))
    return found


def steps(found: Found, seed: int) -> list[Steps]:
    """Of every arm that has the same seeds and shares as training from scratch, two shares at least."""
    made = []
    for subject in sorted({trial.subject for trial in found}):
        for bucket in BUCKETS:
            curves = _curves(found, subject, bucket)
            if SCRATCH not in curves:
                continue
            shares, seeds, base = curves.pop(SCRATCH)
            for arm, (its_shares, its_seeds, scores) in curves.items():
                if len(shares) < 2 or (its_shares, its_seeds) != (shares, seeds):
                    continue
                for at, share in enumerate(shares):
                    ratio = steps_ratio(np.array(shares), base, scores, at, seed)
                    target = float(interquartile_mean(base[at]))
                    made.append(
                        Steps(
                            subject=subject, bucket=bucket, arm=arm, share=share, target=target, seeds=len(seeds),
                            ratio=ratio,
                        )
                    )  # fmt: skip
    return made


def _row(subject: str, share: float, bucket: str, arm: str, pairs: Sequence[Pair], seed: int) -> Row:
    """pairs: a pair a bucket."""
    seeds = min(len(own) for _, own in pairs)
    base, own = (np.stack([pair[side][:seeds] for pair in pairs]) for side in (0, 1))
    return Row(
        subject=subject,
        share=share,
        bucket=bucket,
        arm=arm,
        seeds=seeds,
        score=bootstrapped(own, seed),
        gain=None if arm == BASE else bootstrapped(own - base, seed),
        chance=None if arm == BASE else chance_of((own - base).mean(0)),
    )


def _kinds(found: Found) -> list[tuple[str, float]]:
    return sorted({(trial.subject, trial.share) for trial in found})


def _by_arm(found: Found, subject: str, share: float, bucket: str) -> dict[str, dict[int, float]]:
    """arm -> seed -> score; what is configured first."""
    scores: dict[str, dict[int, float]] = {BASE: {}}
    for trial, outcome in sorted(found.items()):
        if (trial.subject, trial.share, trial.bucket) == (subject, share, bucket):
            scores.setdefault(trial.arm, {})[trial.seed] = outcome.measured.score
    return scores


def _paired(base: Mapping[int, float], own: Mapping[int, float]) -> Pair | None:
    """Of the seeds that both have, in order; None where there is none."""
    seeds = sorted(base.keys() & own.keys())
    return (np.array([base[s] for s in seeds]), np.array([own[s] for s in seeds])) if seeds else None


def _curves(
    found: Found, subject: str, bucket: str
) -> dict[str, tuple[tuple[float, ...], tuple[int, ...], FloatArray]]:
    """arm -> shares, the seeds that have all of them, and their scores (shares, seeds)."""
    scores: dict[str, dict[float, dict[int, float]]] = {}
    for trial, outcome in sorted(found.items()):
        if (trial.subject, trial.bucket) == (subject, bucket):
            scores.setdefault(trial.arm, {}).setdefault(trial.share, {})[trial.seed] = outcome.measured.score
    curves = {}
    for arm, by_share in scores.items():
        shares = tuple(sorted(by_share))
        seeds = tuple(sorted(set.intersection(*(set(by_share[share]) for share in shares))))
        if seeds:
            curves[arm] = shares, seeds, np.array([[by_share[share][s] for s in seeds] for share in shares])
    return curves
