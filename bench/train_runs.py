"""Whole trainings, prediction and PPO with everything they include, counted and timed."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from bench.learn_budget import PRETRAIN_SHARE, Pace, Updates, measure_pace
from btcai.agent.task import Task
from btcai.config import Config
from btcai.features.scaling import fit_scaler
from btcai.features.splits import make_splits
from btcai.models.actor_critic import ActorCritic
from btcai.schema import BUCKETS, MarketData
from btcai.training.calibrating import calibrate
from btcai.training.checkpoint import new_model
from btcai.training.progressive import make_task, set_scaler
from btcai.training.trainer import Row, pretrain, train_ppo
from btcai.training.yardstick import yardstick_task
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.paths import TRAINING, path_seed
from btcai.yardstick.trading import HORIZONS_PATCHES, yardstick_data, yardstick_rules


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is trained: a task, how its network is made, and whether forecasts are calibrated before PPO."""

    name: str
    task: Task
    new_model: Callable[[], ActorCritic]
    calibrated: bool


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of one training.

    distinct: decision times met, each counted once an update; met: those of PPO among them; passes: times that the
    encoder ran forward and backward over one; env_steps: one account over one bar; account_decisions: one account at
    one decision time; encoder_seconds: of prediction, and of PPO where it trains the encoder too.
    """

    distinct: float
    passes: float
    env_steps: float
    account_decisions: float
    met: float
    seconds: float
    ppo_seconds: float
    encoder_seconds: float
    encoder_epochs: float
    head_epochs: float


def yardstick_subject(config: Config, train_decisions: int) -> Subject:
    """Scalping on the level `medium`, the drift hidden: the task that the scores are earned on."""
    market = DriftMarket(level=LEVELS["medium"], shown=False)
    data, _ = yardstick_data(market, train_decisions, path_seed(0, TRAINING))
    task = yardstick_task(data, yardstick_rules(market.cost_bps), config.buckets["scalping"], len(data) // 10)

    def model() -> ActorCritic:
        torch.manual_seed(0)
        return ActorCritic(config.model, 1, data.features.shape[1], len(HORIZONS_PATCHES))

    return Subject(name="scalping, yardstick", task=task, new_model=model, calibrated=False)


def feature_subjects(config: Config, data: MarketData, buckets: tuple[str, ...] = BUCKETS) -> dict[str, Subject]:
    """Buckets on all features of a market, as the stage `train` trains them."""
    splits = make_splits(len(data), config.splits, config.purge_bars, data.warmup_bars)
    scaler = fit_scaler(data.features, splits.train)

    def subject(bucket: str) -> Subject:
        def model() -> ActorCritic:
            torch.manual_seed(0)
            made = new_model(config, bucket)
            set_scaler(made, scaler)
            return made

        task = make_task(data, splits, bucket, config)
        return Subject(name=f"{bucket}, {data.features.shape[1]} features", task=task, new_model=model, calibrated=True)

    return {bucket: subject(bucket) for bucket in buckets}


def train(subject: Subject, config: Config, updates: Updates) -> Counts:
    """One training from fresh weights."""
    model, rng = subject.new_model(), np.random.default_rng(0)
    start = time.perf_counter()
    with model.encoder_on(config.device):
        for _ in pretrain(model, subject.task, config.pretrain, updates.pretrain, rng):
            pass
        if subject.calibrated:
            calibrate(model, subject.task)
        middle = time.perf_counter()
        rows = list(train_ppo(model, subject.task, config.ppo, updates.ppo, rng))
    end = time.perf_counter()
    encoder, head = (statistics.fmean(epochs(row)[k] for row in rows) for k in (0, 1))
    predicted = updates.pretrain * config.pretrain.stretches * config.pretrain.decisions
    met = updates.ppo * config.ppo.stretches * config.ppo.decisions
    decided = account_decisions(config) * updates.ppo
    return Counts(
        distinct=predicted + met,
        passes=predicted + encoder * met,
        env_steps=decided * subject.task.patch_bars,
        account_decisions=decided,
        met=met,
        seconds=end - start,
        ppo_seconds=end - middle,
        encoder_seconds=(end if encoder else middle) - start,
        encoder_epochs=encoder,
        head_epochs=head,
    )


def epochs(row: Row) -> tuple[float, float]:
    """Epochs of an update of PPO that trained the encoder, and those that trained the head, alone or with it."""
    return row["encoder_epochs"], row["encoder_epochs"] + row["head_epochs"]


def account_decisions(config: Config) -> int:
    """Of one update of PPO; the last decision time of a stretch only bootstraps."""
    return config.ppo.stretches * config.ppo.agents * (config.ppo.decisions - 1)


class Trainings:
    """Runs for a stopwatch: the first finds out how many updates fill the seconds, the others are whole trainings."""

    def __init__(self, subject: Subject, config: Config, seconds: float, pilots: tuple[int, int]) -> None:
        self._subject, self._config, self._seconds, self._pilots = subject, config, seconds, pilots
        self._updates: Updates | None = None
        self.done: list[Counts] = []
        self.parameters = subject.new_model().n_parameters()

    def run(self) -> float:
        """Decision times met."""
        if self._updates is None:
            pace: Pace = measure_pace(lambda few: train(self._subject, self._config, few).seconds, *self._pilots)
            self._updates = pace.updates(self._seconds, PRETRAIN_SHARE)
            return 0.0
        self.done.append(train(self._subject, self._config, self._updates))
        return self.done[-1].distinct

    def median(self, count: Callable[[Counts], float]) -> float:
        """Over the whole trainings."""
        return statistics.median(map(count, self.done))
