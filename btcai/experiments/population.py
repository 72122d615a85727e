"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): settings that change while members train.

Members train side by side, in rounds of prediction and PPO as buckets do on their way to convergence: each round goes
on from the weights of the one before it, optimizers begin anew. After a round the worst members go on from the best
ones' weights, with settings near theirs. `on_ray` says who goes on from whom; here is what a round is, and its place.

A round is known by what it rests on: the round before it and its settings. So a search that was killed is made again
from its beginning, and what had ended is looked up; weights that were removed meanwhile are trained again.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock

from btcai.config import Config
from btcai.errors import ArtifactError, ConfigError
from btcai.experiments.running import Subject, settings_key
from btcai.experiments.tuning import SPACE as TUNED
from btcai.experiments.tuning import Range, present_value, seen_by
from btcai.files import whole
from btcai.params import changed
from btcai.training.health import TrainingError

logger = logging.getLogger(__name__)

AT_START = {"ppo.first_hold_logit", "transfer.alpha"}
"""What only the beginning of a training reads."""

SPACE: Mapping[str, Range] = {name: range_ for name, range_ in TUNED.items() if name not in AT_START} | {
    "ppo.entropy_coef": Range(0.0, 0.02),
}
"""Where settings are looked for while members train."""

QUARTILE = 0.25
"""Share of the members that go on from another, and share of those that others go on from."""
REDRAWN = 0.25
"""How often a setting is drawn anew from its range when a member leaves another's: the paper's resampling."""
STEP = 0.1
"""Else it moves by a normal draw of this share of its range; of a range of 1 to 20 a factor of 1.35 or one over it."""

Settings = Mapping[str, float]


class Staged(Subject, Protocol):
    """A market to train on in rounds."""

    def train_round(
        self, config: Config, bucket: str, seed: int, share: float, number: int, before: Path | None, out: Path
    ) -> float:
        """Train round `number` of a bucket, from 1, with a share of the full budget -> its score, higher is better.

        It goes on from the network in `before`, begins after the bucket's teacher where that is None, and leaves its
        own in `out`.
        """

    def held_out(self, config: Config, bucket: str, seed: int, trained: Path) -> float | None:
        """The score of a round's network where no score was taken yet; None where the subject has no such market."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """How many members train, for how long, and what may change: each round has `share` of the full budget for every
    bucket and seed, which a member trains all of."""

    members: int
    generations: int
    settings: tuple[str, ...]
    buckets: tuple[str, ...]
    seeds: int
    share: float

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ConfigError(f"a population must have at least 2 members, was {self.members}; 8 are usual")
        if unknown := sorted(set(self.settings) - set(SPACE)):
            raise ConfigError(
                f"a setting of a population must be one of {', '.join(SPACE)}, was {', '.join(unknown)}; "
                "search what is read at the start alone without --population"
            )


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round that ended. before: the one that it went on from; number: from 1; score: mean of `scores`, by bucket and
    seed, None where training blew up; seconds: of training and marking."""

    id: str
    before: str | None
    number: int
    settings: dict[str, float]
    score: float | None
    scores: dict[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """A member's round: members from 0, the first one begins with the settings as they are."""

    member: int
    round: Round


class Rounds:
    """The rounds of one search, a folder each: round.json, and the weights while they are needed."""

    def __init__(self, folder: Path, config: Config, subject: Staged, population: Population) -> None:
        self.folder = folder
        self._config, self._subject, self._population = config, subject, population

    def after(self, before: str | None, settings: Settings) -> Round:
        """The round that goes on from `before` with these settings; trained only where it is not known."""
        key = _named(self.folder.name if before is None else before, settings)
        with self._locked(key):
            return self.known(key) or self._make(key, before, settings)

    def known(self, key: str) -> Round | None:
        """The round of this id, if it ended."""
        path = self.folder / key / "round.json"
        return Round(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def all(self) -> list[Round]:
        """Every round that ended, the first ones first."""
        found = (self.known(path.parent.name) for path in sorted(self.folder.glob("[!.]*/round.json")))
        return sorted((one for one in found if one is not None), key=lambda one: one.number)

    def lineage(self, last: Round) -> list[Round]:
        """The rounds whose weights led to this one's, from the first."""
        line = [last]
        while (before := line[0].before) is not None:
            line.insert(0, self._known(before))
        return line

    def held_out(self, found: Round) -> float | None:
        """The mean score of its networks where none was taken yet; None where that cannot be told."""
        if found.score is None:
            return None
        folder, config = self._weights(found.id), changed(self._config, found.settings)
        scores = [
            self._subject.held_out(config, bucket, seed, folder / _cell(bucket, seed)) for bucket, seed in self._cells()
        ]
        told = [score for score in scores if score is not None]
        return float(np.mean(told)) if len(told) == len(scores) else None

    def forget(self, number: int) -> None:
        """Remove the weights of rounds before this number: no member goes on from them any more."""
        for one in self.all():
            if one.number < number:
                for bucket, seed in self._cells():
                    shutil.rmtree(self.folder / one.id / _cell(bucket, seed), ignore_errors=True)

    def _make(self, key: str, before: str | None, settings: Settings) -> Round:
        start = time.perf_counter()
        previous = None if before is None else self._known(before)
        number = 1 if previous is None else previous.number + 1
        with whole(self.folder / key) as out:
            scores: dict[str, float] = {}
            try:
                if previous is None or previous.score is not None:  # else there is nothing to go on from
                    scores = self._train(settings, number, self._weights(previous.id) if previous else None, out)
            except TrainingError as error:
                logger.warning("round %d with %s has no score: %s", number, dict(settings), error)
            score = float(np.mean(list(scores.values()))) if scores else float("nan")
            made = Round(
                id=key,
                before=before,
                number=number,
                settings=dict(settings),
                score=score if np.isfinite(score) else None,
                scores=scores,
                seconds=time.perf_counter() - start,
            )
            (out / "round.json").write_text(json.dumps(asdict(made), indent=1) + "\n", encoding="utf-8")
        return made

    def _train(self, settings: Settings, number: int, before: Path | None, out: Path) -> dict[str, float]:
        config, share = changed(self._config, dict(settings)), self._population.share
        scores = {}
        for bucket, seed in self._cells():
            cell = _cell(bucket, seed)
            scores[cell] = self._subject.train_round(
                config, bucket, seed, share, number, before and before / cell, out / cell
            )
        return scores

    def _weights(self, key: str) -> Path:
        """The folder of a round, whose weights are trained again where they were removed."""
        folder = self.folder / key
        with self._locked(key):
            if not all((folder / _cell(bucket, seed)).is_dir() for bucket, seed in self._cells()):
                found = self._known(key)
                logger.info("round %d (%s) is trained again: its weights were removed", found.number, key)
                self._make(key, found.before, found.settings)
        return folder

    def _known(self, key: str) -> Round:
        found = self.known(key)
        if found is None:
            raise ArtifactError(
                f"round {key} must be in {self.folder}, was removed; remove that folder, then run it again"
            )
        return found

    def _locked(self, key: str) -> FileLock:
        """Two members may ask for one and the same round."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{key}.lock")

    def _cells(self) -> list[tuple[str, int]]:
        return [(bucket, seed) for bucket in self._population.buckets for seed in range(self._population.seeds)]


def open_rounds(config: Config, subject: Staged, population: Population, folder: Path) -> Rounds:
    """Of just this search; ConfigError where the subject's score cannot show what a setting does."""
    if unseen := sorted(set(population.settings) - set(seen_by(subject, config, SPACE))):
        raise ConfigError(
            f"{', '.join(unseen)} does not show on {subject.name}: leave it out of --settings, or use --on two_scale"
        )
    terms = asdict(population)
    del terms["generations"]  # more of them go on with what is there
    key = settings_key([config], [subject.name, subject.terms, terms])
    return Rounds(folder / key, config, subject, population)


def first_settings(config: Config, population: Population) -> list[dict[str, float]]:
    """What each member begins with: the first the settings as they are, the others some near them."""
    rng = np.random.default_rng([config.seed, population.members])
    present = present_settings(config, population)
    return [present, *(explored(present, rng) for _ in range(1, population.members))]


def present_settings(config: Config, population: Population) -> dict[str, float]:
    """As configured, within their ranges."""
    return {name: present_value(config, name, SPACE) for name in sorted(population.settings)}


def explored(settings: Settings, rng: np.random.Generator) -> dict[str, float]:
    """Settings near these: each a step away, or drawn anew from its whole range, to four digits."""
    found = {}
    for name, value in sorted(settings.items()):
        range_ = SPACE[name]
        stepped = range_.place(value) + STEP * rng.standard_normal()
        place, redrawn = rng.random(2)
        told = range_.at(place if redrawn < REDRAWN else float(np.clip(stepped, 0.0, 1.0)))
        found[name] = float(f"{told:.4g}")
    return found


def _named(before: str, settings: Settings) -> str:
    """before: the round before, or the search that a first round belongs to."""
    text = json.dumps([before, dict(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cell(bucket: str, seed: int) -> str:
    return f"{bucket}-{seed}"
