"""A start that is near to every bucket and every regime: a trunk from which few updates of prediction go far."""

import copy
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import nn

from btcai.agent.horizons import is_stormy
from btcai.agent.shards import SHARDS, Shards, shards
from btcai.agent.task import Stretches, Task, start_bars, stretches_from
from btcai.agent.transfer import blend_trunk, mean_trunk
from btcai.config import MetaConfig, PretrainConfig
from btcai.models.actor_critic import ActorCritic
from btcai.training.health import TrainingError, fault
from btcai.training.phase import make_optimizer, set_rates
from btcai.training.pretraining import part_loss

CANDIDATES = 4
"""Stretches drawn for one that is kept: the calmest of them, or the stormiest."""


def shared_start(
    models: Mapping[str, ActorCritic],
    tasks: Mapping[str, Task],
    config: PretrainConfig,
    meta: MetaConfig,
    rng: np.random.Generator,
) -> None:
    """Reptile (Nichol et al. 2018, arXiv 1803.02999) over buckets and regimes: all `models` end with one trunk.

    They begin with the first one's trunk: the mean of unrelated ones is near to none of them. In every round each
    bucket learns to predict for inner_updates in a calm and in a stormy market, from where the round began; the trunk,
    and each bucket's own stem and forecasts, then go `step` of the way to where that led on average. Only training
    spans are read.
    """
    first, *others = models.values()
    for model in others:
        model.trunk.load_state_dict(first.trunk.state_dict())
    with shards() as workers:
        for _ in range(meta.rounds):
            reached = {
                name: _both_regimes(model, tasks[name], config, meta, rng, workers) for name, model in models.items()
            }
            trunk = mean_trunk([student for students in reached.values() for student in students])
            for name, model in models.items():
                blend_trunk(model, trunk, meta.step)
                for part in ("stem", "forecast"):
                    _towards(getattr(model, part), [getattr(student, part) for student in reached[name]], meta.step)


def _both_regimes(
    model: ActorCritic,
    task: Task,
    config: PretrainConfig,
    meta: MetaConfig,
    rng: np.random.Generator,
    workers: Shards,
) -> list[ActorCritic]:
    """Where learning in a calm and in a stormy market leads from here."""
    students = []
    for stormy in (False, True):
        student = copy.deepcopy(model)
        optimizer, parameters = make_optimizer(student), list(student.parameters())
        set_rates(optimizer, config.learning_rate, config.weight_decay)
        for _ in range(meta.inner_updates):
            batch = regime_stretches(task, config, rng, stormy=stormy)
            halves = np.split(np.arange(config.stretches), SHARDS)
            loss = workers.gradients(
                parameters, [partial(part_loss, student, task, batch.part(rows)) for rows in halves]
            )
            norm = float(nn.utils.clip_grad_norm_(parameters, 1.0))
            optimizer.step()
            if reason := fault({"forecast": float(loss)}, norm, student):
                raise TrainingError(
                    f"a shared start must stay finite, but {reason}; lower pretrain.learning_rate in params.yaml, or "
                    "set meta.rounds: 0"
                )
        students.append(student)
    return students


def regime_stretches(task: Task, config: PretrainConfig, rng: np.random.Generator, *, stormy: bool) -> Stretches:
    """config.stretches of the training span, of CANDIDATES times as many those with most calm or stormy decisions."""
    first, last = start_bars(task, task.train, config.decisions)
    starts = rng.integers(first, last + 1, CANDIDATES * config.stretches)
    share = is_stormy(task, starts[:, None] + task.patch_bars * np.arange(config.decisions)).mean(1)
    order = np.argsort(share, kind="stable")
    kept = order[-config.stretches :] if stormy else order[: config.stretches]
    return stretches_from(task, task.train, starts[kept], config.decisions)


@torch.no_grad()
def _towards(part: nn.Module, reached: list[nn.Module], step: float) -> None:
    """part <- part + step * (mean of reached - part), parameters alone."""
    for weight, *others in zip(part.parameters(), *(other.parameters() for other in reached), strict=True):
        weight.lerp_(torch.stack(others).mean(0), step)
