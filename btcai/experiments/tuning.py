"""`btcai tune`: settings searched with Optuna, every trial kept, one that was broken off gone on with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from btcai.config import Config
from btcai.errors import ConfigError
from btcai.experiments.running import Subject, settings_key
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


def open_study(config: Config, subject: Subject, search: Search, folder: Path) -> "Study":
    """The study of just this search, kept in `folder`; the settings as they are go first."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    terms = [subject.name, subject.terms, search.buckets, search.seeds, search.share, sorted(search.settings)]
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "studies.log"))),
        study_name=settings_key([config], terms),
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        load_if_exists=True,
    )
    if not study.trials:
        study.enqueue_trial({name: _current(config, name) for name in search.settings})
    return study


def tune(config: Config, subject: Subject, search: Search, study: "Study", trials: int) -> Iterator["FrozenTrial"]:
    """Go on until the study has so many trials that came to an end; each is kept before it is yielded.

    A trial is the mean score over buckets and seeds, bucket after bucket: one that lags behind the median of the others
    is given up (Optuna's MedianPruner). What a kill left running is tried again.
    """
    import optuna

    states = optuna.trial.TrialState

    def objective(trial: "Trial") -> float:
        settings = changed(config, suggested(trial, search))
        scores: list[float] = []
        for number, bucket in enumerate(search.buckets):
            scores += [subject.run(settings, bucket, seed, search.share).score for seed in range(search.seeds)]
            trial.report(float(np.mean(scores)), number)
            if number + 1 < len(search.buckets) and trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(scores))

    for stale in study.get_trials(states=(states.RUNNING,)):
        study.enqueue_trial(stale.params)
        study.tell(stale.number, state=states.FAIL)
    while (n := len(ended(study))) < trials:
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + n)  # the same on going on
        study.optimize(objective, n_trials=1)
        yield study.trials[-1]


def ended(study: "Study") -> list["FrozenTrial"]:
    """Trials that are done or were given up."""
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def suggested(trial: "Trial", search: Search) -> dict[str, float]:
    """A trial's settings."""
    return {
        name: trial.suggest_float(name, SPACE[name].low, SPACE[name].high, log=SPACE[name].log)
        for name in search.settings
    }


def _current(config: Config, name: str) -> float:
    """As configured, within its range: a setting that is off may lie outside."""
    section, _, key = name.partition(".")
    return float(np.clip(getattr(getattr(config, section), key), SPACE[name].low, SPACE[name].high))
