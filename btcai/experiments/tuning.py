"""`btcai tune`: settings searched with Optuna, every trial kept, one that was broken off gone on with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from btcai.config import Config
from btcai.errors import ConfigError
from btcai.experiments.running import Cell, Movable, Subject, settings_key, spread_cells
from btcai.experiments.spread import Runner
from btcai.params import changed

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial


@dataclass(frozen=True)
class Range:
    """Where a setting is looked for."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the lower end to 1 at the upper one; in the logarithm where the range is so."""
        ends = np.array([self.low, self.high, value])
        low, high, told = np.log(ends) if self.log else ends
        return float((told - low) / (high - low))

    def at(self, place: float) -> float:
        """The value at a place from 0 to 1."""
        ends = np.array([self.low, self.high])
        low, high = np.log(ends) if self.log else ends
        told = low + place * (high - low)
        return float(np.exp(told) if self.log else told)


SPACE: Mapping[str, Range] = {
    "pretrain.learning_rate": Range(1e-3, 2e-2, log=True),
    "pretrain.weight_decay": Range(0.5, 20.0, log=True),
    "pretrain.decay_rise_frac": Range(0.0, 1.0),
    "ppo.learning_rate": Range(4e-3, 8e-2, log=True),
    "ppo.weight_decay": Range(0.02, 2.0, log=True),
    "ppo.gae_lambda": Range(0.8, 1.0),
    "ppo.clip": Range(0.1, 0.5),
    "ppo.target_kl": Range(0.005, 0.2, log=True),
    "ppo.value_coef": Range(0.1, 2.0, log=True),
    "ppo.first_hold_logit": Range(0.0, 4.0),
    "ppo.average_decay": Range(0.0, 0.99),
    "transfer.alpha": Range(0.0, 1.0),
}
"""By their names in params.yaml."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched: these settings, each trial marked on all buckets and seeds with a share of the full budget."""

    settings: tuple[str, ...]
    buckets: tuple[str, ...]
    seeds: int
    share: float

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.settings) - set(SPACE)):
            raise ConfigError(f"a setting to tune must be one of {', '.join(SPACE)}, was {', '.join(unknown)}")


def seen_by(subject: Subject, config: Config, space: Mapping[str, Range] = SPACE) -> tuple[str, ...]:
    """The settings of a space that the subject's score can show."""

    def shows(name: str) -> bool:
        range_ = space[name]
        moved = range_.low if present_value(config, name, space) != range_.low else range_.high
        return subject.sees(config, changed(config, {name: moved}))

    return tuple(filter(shows, space))


def open_study(config: Config, subject: Subject, search: Search, folder: Path) -> "Study":
    """The study of just this search, kept in `folder`.

    ConfigError where the subject's score cannot show what a setting does.
    """
    import optuna
    from optuna.storages import JournalStorage

    from btcai.experiments.journal import Journal

    if unseen := sorted(set(search.settings) - set(seen_by(subject, config))):
        raise ConfigError(
            f"{', '.join(unseen)} does not show on {subject.name}: leave it out of --settings, or use --on two_scale"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    terms = [subject.name, subject.terms, search.buckets, search.seeds, search.share, sorted(search.settings)]
    return optuna.create_study(
        storage=JournalStorage(Journal(folder / "studies.log")),
        study_name=settings_key([config], terms),
        direction="maximize",
        load_if_exists=True,
    )


def tune(
    config: Config, subject: Movable, search: Search, study: "Study", trials: int, run: Runner | None = None
) -> Iterator["FrozenTrial"]:
    """Go on until the study has so many trials, the settings as they are among them; each is kept before it is yielded.

    A trial is the mean score over buckets and seeds, which are trained elsewhere where there is a `run`; trials follow
    one another, for each is chosen by those before it. What a kill left unfinished is tried again.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    for stale in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
        if set(stale.params) == set(search.settings) and not is_present(stale):  # that one is asked for below
            study.enqueue_trial(stale.params)
    present = {name: present_value(config, name) for name in search.settings}
    if not any(map(is_present, study.get_trials(states=(TrialState.COMPLETE, TrialState.WAITING)))):
        study.enqueue_trial(present, user_attrs={PRESENT: True})
    while (n := len(ended(study))) < trials:
        study.sampler = TPESampler(seed=config.seed + n)  # the same on going on
        trial = study.ask()
        settings = changed(config, suggested(trial, search))
        cells = [
            Cell(config=settings, bucket=bucket, seed=seed, share=search.share)
            for bucket in search.buckets
            for seed in range(search.seeds)
        ]
        yield study.tell(trial, float(np.mean(_scores(subject, cells, run))))


def _scores(subject: Movable, cells: list[Cell], run: Runner | None) -> list[float]:
    """In the order of the cells."""
    if run is None:
        return [subject.run(cell.config, cell.bucket, cell.seed, cell.share).score for cell in cells]
    found = {number: measured.score for number, measured, _ in spread_cells(subject, cells, run)}
    return [found[number] for number in range(len(cells))]


PRESENT = "as configured"
"""Mark of the trial of the settings as they are."""


def ended(study: "Study") -> list["FrozenTrial"]:
    """Trials that came to an end."""
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE,))


def is_present(trial: "FrozenTrial") -> bool:
    """Whether it is of the settings as they are."""
    return bool(trial.user_attrs.get(PRESENT))


def suggested(trial: "Trial", search: Search) -> dict[str, float]:
    """A trial's settings."""
    return {
        name: trial.suggest_float(name, SPACE[name].low, SPACE[name].high, log=SPACE[name].log)
        for name in search.settings
    }


def present_value(config: Config, name: str, space: Mapping[str, Range] = SPACE) -> float:
    """As configured, within its range: a setting that is off may lie outside."""
    section, _, key = name.partition(".")
    return float(np.clip(getattr(getattr(config, section), key), space[name].low, space[name].high))
