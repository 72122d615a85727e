"""What an update of PPO learns from: which stretches of the training span, what each counts, what came before."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from btcai.agent.exploration import Familiar
from btcai.agent.ppo import Experience, ValueScale
from btcai.agent.replay import Parts, draw, parts_of
from btcai.agent.task import Stretches, Task, sample_stretches, stretches_from
from btcai.agent.trajectories import Trajectories, TrajectoryMemory, looked_at_again, together
from btcai.config import PpoConfig
from btcai.models.actor_critic import ActorCritic
from btcai.models.heads import ActorCriticHead
from btcai.schema import Float32Array, FloatArray, IntArray
from btcai.training.play import Played


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Stretches to learn from; where they are prioritised: of which parts (S,), and what their rows count (S,)."""

    stretches: Stretches
    parts: Parts | None = None
    of: IntArray | None = None
    weight: FloatArray | None = None


def drawn_stretches(
    task: Task, config: PpoConfig, known: dict[str, list[float]] | None, update: int, rng: np.random.Generator
) -> Drawn:
    """Evenly, or as config.replay says by what is `known` of the parts of the training span."""
    if not config.replay.prioritised:
        stretches = sample_stretches(task, task.train, config.stretches, config.decisions, rng)
        return Drawn(stretches=stretches)
    parts = parts_of(task, task.train, config.decisions)
    if known is not None:
        parts = parts.with_facts(known)
    of, starts, weight = draw(parts, config.replay, update, config.stretches, rng)
    stretches = stretches_from(task, task.train, starts, config.decisions)
    return Drawn(stretches=stretches, parts=parts, of=of, weight=weight)


def counted(experience: Experience, drawn: Drawn, update: int) -> tuple[Experience, dict[str, list[float]] | None]:
    """With what rows count; and what is known of the parts from now on."""
    if drawn.parts is None or drawn.of is None or drawn.weight is None:
        return experience, None
    surprise = experience.advantage.abs().mean((1, 2)).double().numpy()
    known = drawn.parts.visited(drawn.of, surprise, update + 1).as_facts()
    return replace(experience, weight=torch.from_numpy(drawn.weight).float()), known


def trajectory_memory(model: ActorCritic, config: PpoConfig) -> dict[str, TrajectoryMemory]:
    """Room for trajectories, by the name that checkpoints have for it; empty where none are learned from again."""
    replay = config.replay
    if not replay.trajectories:
        return {}
    width = model.head.market.in_features
    memory = TrajectoryMemory(replay.max_age_updates, config.stretches, config.agents, config.decisions, width)
    return {"trajectories": memory}


def with_earlier(
    earlier: Mapping[str, TrajectoryMemory],
    played: Played,
    reward: FloatArray,
    experience: Experience,
    head: ActorCriticHead,
    config: PpoConfig,
    scale: ValueScale,
    discount: float,
    update: int,
    rng: np.random.Generator,
) -> tuple[tuple[Tensor, Float32Array], Experience]:
    """What the head read, of the market (S, K, Z) and of accounts (S, G, K, A), and experience; earlier ones behind.

    None before there are as many as are asked for: minibatches are of equal size. This update's are kept for later.
    """
    rollout, replay = played.rollout, config.replay
    seen = played.latent[:, :-1], rollout.observation[:, :, :-1]
    for memory in earlier.values():
        places, surprise = memory.draw(replay.trajectories, rng), experience.advantage.abs().mean((1, 2))
        if len(places) == replay.trajectories:
            kept = memory.at(places)
            imitate = replay.self_imitation
            old = looked_at_again(head, kept, scale, discount, config.gae_lambda, self_imitation=imitate)
            observation = np.concatenate([seen[1], kept.observation[:, :, :-1].numpy()])
            seen = torch.cat([seen[0], kept.latent[:, :-1]]), observation
            experience = together(experience, old)
        new = Trajectories(
            latent=played.latent,
            observation=torch.from_numpy(rollout.observation),
            action=torch.from_numpy(rollout.action),
            logp=torch.from_numpy(rollout.logp),
            reward=torch.from_numpy(reward),
            terminated=torch.from_numpy(rollout.terminated),
        )
        memory.keep(update, new, surprise)
    return seen, experience


def explored(
    experience: Experience, config: PpoConfig, latent: Tensor, new: Tensor, facts: Mapping[str, Any]
) -> tuple[Experience, dict[str, list[float]] | None]:
    """With what scales each row's entropy bonus; and what market is familiar from now on.

    latent (N, K, Z) of all rows, new (S, M, Z) of this update's.
    """
    if config.entropy_by == "gain":
        return replace(experience, explore=torch.full((len(latent),), facts["explore"])), None
    if config.entropy_by != "unfamiliarity":
        return experience, None
    known = Familiar.of(new) if facts["familiar"] is None else Familiar.from_facts(facts["familiar"])
    return replace(experience, explore=known.distance(latent)), known.with_more(new).as_facts()
