"""Making what is missing of an ablation: which trainings are left, one after the other, each kept when it is done."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, Self

from btcai.config import Config
from btcai.experiments.arms import ARMS, BASE, arm_config
from btcai.experiments.spread import Piece, Runner
from btcai.experiments.trials import Kept, Measured, Outcome, Trial
from btcai.records.versions import MODEL_CODE, code_sha256
from btcai.schema import BUCKETS

CODE = (*MODEL_CODE, "experiments", "yardstick")
"""Files and packages of btcai that shape a score."""

LIBRARIES = ("numba", "numpy", "torch")
"""So do these."""

IN_KEY = {
    "threads", "device", "market", "risk", "sizing", "buckets", "model", "pretrain", "augment", "ppo", "meta",
    "transfer",
}  # fmt: skip
"""Sections of params.yaml that do."""


class Subject(Protocol):
    """A market to try settings on."""

    @property
    def name(self) -> str:
        """As `btcai ablate --on` has it."""

    @property
    def terms(self) -> object:
        """JSON-able: on what market, how much."""

    @property
    def seen_ts_ns(self) -> tuple[int, int] | None:
        """Closes of the first and the last bar of the market in use that it is handed; None of another market."""

    def memory_bytes(self, bucket: str) -> float:
        """What a training of the bucket takes at most."""

    def sees(self, one: Config, other: Config) -> bool:
        """Whether its score can differ between two settings."""

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        """Train a bucket with these settings and a share of the full budget, and mark it."""


class Movable(Subject, Protocol):
    """A subject that can be pickled, and works elsewhere."""

    @property
    def folder(self) -> Path:
        """Where its teachers are kept."""

    def kept_in(self, folder: Path) -> Self:
        """The same, with its teachers in another folder."""

    def teach(self, bucket: str, seed: int) -> None:
        """Train what a bucket's teachers are, where they are not kept yet."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What Subject.run is asked."""

    config: Config
    bucket: str
    seed: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a comparison is to hold: every arm on every bucket, for so many seeds and each of these budgets."""

    arms: tuple[str, ...]
    buckets: tuple[str, ...] = BUCKETS
    seeds: int = 5
    shares: tuple[float, ...] = (0.25,)

    def trials(self, config: Config, subject: Subject) -> Iterator[Trial]:
        """Short budgets first, seed by seed, so that whatever is there can be compared.

        What changes nothing is left out: an arm that the subject does not see, and one of the hand-over in the first
        bucket.
        """
        arms = [BASE, *(arm for arm in self.arms if subject.sees(config, arm_config(config, arm)))]
        for share in sorted(self.shares):
            for seed in range(self.seeds):
                for bucket in (bucket for bucket in BUCKETS if bucket in self.buckets):
                    for arm in arms:
                        if bucket != BUCKETS[0] or not ARMS[arm].hand_over:
                            yield Trial(subject=subject.name, share=share, seed=seed, bucket=bucket, arm=arm)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The trainings asked for and the keys that their outcomes must have, in the order in which they will be made."""

    keys: dict[Trial, str]
    kept: Kept

    @property
    def done(self) -> dict[Trial, Outcome]:
        """What is known already."""
        found = ((trial, self.kept.get(trial, key)) for trial, key in self.keys.items())
        return {trial: outcome for trial, outcome in found if outcome is not None}

    @property
    def left(self) -> list[Trial]:
        """What is not."""
        done = self.done
        return [trial for trial in self.keys if trial not in done]

    @property
    def seconds_left(self) -> float | None:
        """By what the others took for their share of the budget; None where there are none."""
        done = self.done
        shares = sum(trial.share for trial in done)
        if not shares:
            return None
        return sum(outcome.seconds for outcome in done.values()) / shares * sum(trial.share for trial in self.left)


def plan(config: Config, subject: Subject, asked: Asked, kept: Kept) -> Plan:
    """What is asked for, beside what is known of it."""
    keys = {arm: trial_key(config, subject, arm) for arm in (BASE, *asked.arms)}
    return Plan(keys={trial: keys[trial.arm] for trial in asked.trials(config, subject)}, kept=kept)


def make(config: Config, plan: Plan, subject: Subject) -> Iterator[Trial]:
    """Make what is left; each is on the disk before it is yielded."""
    for trial in plan.left:
        measured, seconds = _marked(subject, _cell(config, trial))
        plan.kept.add(trial, Outcome(key=plan.keys[trial], seconds=seconds, measured=measured))
        yield trial


def make_spread(config: Config, plan: Plan, subject: Movable, run: Runner) -> Iterator[Trial]:
    """The same, in the order in which trainings end elsewhere."""
    left = plan.left
    for number, measured, seconds in spread_cells(subject, [_cell(config, trial) for trial in left], run):
        plan.kept.add(left[number], Outcome(key=plan.keys[left[number]], seconds=seconds, measured=measured))
        yield left[number]


def spread_cells(subject: Movable, cells: Sequence[Cell], run: Runner) -> Iterator[tuple[int, Measured, float]]:
    """The number of each cell, what it is worth and the seconds that took, as they end; teachers first, each once."""
    last = {cell.seed: "" for cell in cells}
    for cell in cells:
        last[cell.seed] = max(last[cell.seed], cell.bucket, key=lambda name: BUCKETS.index(name) if name else -1)
    taught = [(bucket, seed) for seed, bucket in last.items() if bucket != BUCKETS[0]]

    def piece(work: Callable[[Any, Path], Any], bucket: str) -> Piece:
        return Piece(work=work, folder=subject.folder, memory_bytes=subject.memory_bytes(bucket))

    for _ in run(subject, [piece(partial(_teach, *one), one[0]) for one in taught]):
        pass
    for number, (measured, seconds) in run(subject, [piece(partial(_mark, cell), cell.bucket) for cell in cells]):
        yield number, measured, seconds


def _cell(config: Config, trial: Trial) -> Cell:
    return Cell(config=arm_config(config, trial.arm), bucket=trial.bucket, seed=trial.seed, share=trial.share)


def _teach(bucket: str, seed: int, subject: Movable, folder: Path) -> None:
    subject.kept_in(folder).teach(bucket, seed)


def _mark(cell: Cell, subject: Movable, folder: Path) -> tuple[Measured, float]:
    return _marked(subject.kept_in(folder), cell)


def _marked(subject: Subject, cell: Cell) -> tuple[Measured, float]:
    """What a training is worth, and its seconds."""
    start = time.perf_counter()
    measured = subject.run(cell.config, cell.bucket, cell.seed, cell.share)
    return measured, time.perf_counter() - start


def trial_key(config: Config, subject: Subject, arm: str) -> str:
    """Twelve hex digits of what an arm's outcomes rest on; teachers are as configured, so that is part of it."""
    return settings_key([config, arm_config(config, arm)], subject.terms)


def settings_key(configs: list[Config], terms: object) -> str:
    """Of settings, the code behind them, and JSON-able terms."""
    settings = [config.model_dump(mode="json", include=IN_KEY) for config in configs]
    libraries = {name: version(name) for name in LIBRARIES}
    text = json.dumps([settings, terms, libraries, _code()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _code() -> str:
    """As this process began with it: what is made must be found again, whatever is edited meanwhile."""
    return code_sha256(CODE)
