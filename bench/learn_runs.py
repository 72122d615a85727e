"""Trainings that are asked for, and those that were done: a line of JSON each, kept as soon as it is finished."""

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

logger = logging.getLogger("btcai.bench")

OURS = "ours"
NO_PREDICTION = "ours without the prediction loss"
SB3 = "stable-baselines3 PPO"
SAME_NETWORK = "stable-baselines3 PPO with our network"
LINEAR = "linear regression, two thresholds"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: a learner on a market by name, for so many seconds (0: as long as it takes)."""

    part: str
    market: str
    learner: str
    seed: int
    seconds: float

    @property
    def identity(self) -> tuple[str, str, int, float]:
        """Parts that ask for the same training share it."""
        return self.market, self.learner, self.seed, self.seconds


@dataclass(frozen=True, kw_only=True)
class Marking:
    """Paths and decisions of each; every training seed is marked on paths of its own."""

    paths: int = 16
    decisions: int = 100_000

    def seeds(self, seed: int) -> range:
        return range(seed * self.paths, (seed + 1) * self.paths)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a training.

    score: share of the optimum (of a control without skill: standard errors from none; nan, kept as null, where they
    cannot be told); mark_error: half the 95 %
    interval over the paths that it was marked on; seconds_used: of training alone; curve: (seconds, score) along the
    run, for those that have one; more: what else is known, such as how the agent behaves.
    """

    score: float
    mark_error: float | None
    seconds_used: float
    pretrain_updates: int = 0
    ppo_updates: int = 0
    curve: tuple[tuple[float, float], ...] = ()
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished job: key says with which settings and code; others_cores: kept busy by others meanwhile."""

    job: Job
    key: str
    others_cores: float
    outcome: Outcome

    def as_json(self) -> str:
        """One line of strict JSON."""
        rest = {"key": self.key, "others_cores": self.others_cores}
        score = {"score": None if math.isnan(self.outcome.score) else self.outcome.score}
        return json.dumps(asdict(self.job) | rest | asdict(self.outcome) | score, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Run":
        """What as_json wrote; ValueError, KeyError or TypeError where it is something else."""
        raw: dict[str, Any] = json.loads(line)
        raw["score"] = math.nan if raw["score"] is None else raw["score"]
        raw["curve"] = tuple((seconds, score) for seconds, score in raw["curve"])
        job, outcome = ({name.name: raw[name.name] for name in fields(record)} for record in (Job, Outcome))
        return cls(job=Job(**job), key=raw["key"], others_cores=raw["others_cores"], outcome=Outcome(**outcome))


class Runs:
    """The runs kept in a file, of which only those with the present keys count (learner -> key)."""

    def __init__(self, path: Path, keys: Mapping[str, str]) -> None:
        self._path, self._keys = path, keys
        self._found: dict[tuple[str, str, int, float], Run] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
            try:
                self._keep(Run.from_json(line))
            except (ValueError, KeyError, TypeError):  # a line that a kill cut short
                logger.warning("%s line %d is no run and does not count: %.60s", path, number, line)

    def of(self, job: Job) -> Run | None:
        """The run that this job asks for, whatever part it was made for."""
        return self._found.get(job.identity)

    def like(self, market: str, learner: str, seconds: float) -> list[Run]:
        """All seeds of one kind, in order."""
        found = [run for run in self._found.values() if _kind(run.job) == (market, learner, seconds)]
        return sorted(found, key=lambda run: run.job.seed)

    def budgets(self, market: str, learner: str) -> list[float]:
        """Seconds of the runs there are, shortest first."""
        return sorted({run.job.seconds for run in self._found.values() if _kind(run.job)[:2] == (market, learner)})

    def add(self, job: Job, outcome: Outcome, others_cores: float) -> Run:
        """Append the run to the file, on the disk before this returns."""
        run = Run(job=job, key=self._keys[job.learner], others_cores=round(others_cores, 3), outcome=outcome)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        cut = self._path.is_file() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{chr(10) if cut else ''}{run.as_json()}\n")
            file.flush()
            os.fsync(file.fileno())
        self._keep(run)
        return run

    def _keep(self, run: Run) -> None:
        if run.key == self._keys.get(run.job.learner):
            self._found[run.job.identity] = run


def _kind(job: Job) -> tuple[str, str, float]:
    return job.market, job.learner, job.seconds
