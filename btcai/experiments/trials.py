"""Trainings that an ablation asks for, and those that were done: a line of JSON each, kept as soon as it ended."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from btcai.records.ledgers import append_line, lines_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, order=True)
class Trial:
    """One training: an arm of the comparison on one bucket of a subject, with a share of the full budget."""

    subject: str
    share: float
    seed: int
    bucket: str
    arm: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a training is worth.

    score: higher is better; decisions: decision times that it met, each once an update; more: what else is known.
    """

    score: float
    decisions: int
    more: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a trial. key: of settings, code and market that it rests on; seconds: of training and marking."""

    key: str
    seconds: float
    measured: Measured


class Kept:
    """The outcomes in one file, by trial and key; the latest counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[tuple[Trial, str], Outcome] = {}
        for number, line in enumerate(lines_of(path), start=1):
            try:
                entry = json.loads(line)
                outcome = Outcome(**entry["outcome"] | {"measured": Measured(**entry["outcome"]["measured"])})
                self._found[Trial(**entry["trial"]), outcome.key] = outcome
            except (ValueError, TypeError, LookupError):
                logger.warning("%s line %d cannot be read and is skipped: its training is made again", path, number)

    def get(self, trial: Trial, key: str) -> Outcome | None:
        """What is known of a trial under this key."""
        return self._found.get((trial, key))

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Append, on the disk before this returns."""
        append_line(self._path, json.dumps({"trial": asdict(trial), "outcome": asdict(outcome)}))
        self._found[trial, outcome.key] = outcome
