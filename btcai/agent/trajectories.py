"""Trajectories of earlier updates, learned from again (PTR-PPO, Liang et al. 2021, arXiv 2112.03798).

While PPO leaves the encoder alone, what the head read of the market then is what it would read now, so a trajectory is
kept as that. Those with the largest advantages are drawn; they were made by older policies, so their advantages and
values are off-policy (V-trace with importance weights cut at 1, Espeholt et al. 2018, arXiv 1802.01561, section 4.1).
Their ratios start at 1: stale log-probabilities never meet the plain clipped loss.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from btcai.agent.ppo import LEAST_STD, Experience, ValueScale, spread
from btcai.models.heads import ActorCriticHead
from btcai.schema import ACCOUNT_FEATURES, IntArray

NEVER = -1
"""Update of a place that holds nothing yet."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectories:
    """S stretches, G accounts, K transitions each: latent (S, K + 1, Z) of the market, observation (S, G, K + 1, A) of
    the accounts; action, logp (when it was taken), reward, terminated (S, G, K)."""

    latent: Tensor
    observation: Tensor
    action: Tensor
    logp: Tensor
    reward: Tensor
    terminated: Tensor


class TrajectoryMemory(nn.Module):
    """The stretches of the latest `updates` updates; a module, so that a checkpoint holds it."""

    latent: Tensor
    observation: Tensor
    action: Tensor
    logp: Tensor
    reward: Tensor
    terminated: Tensor
    priority: Tensor
    made: Tensor

    def __init__(self, updates: int, stretches: int, agents: int, decisions: int, latent: int) -> None:
        super().__init__()
        self.updates, self.stretches = updates, stretches
        places, steps = updates * stretches, (agents, decisions - 1)
        shapes = {
            "latent": torch.zeros(places, decisions, latent),
            "observation": torch.zeros(places, agents, decisions, len(ACCOUNT_FEATURES)),
            "action": torch.zeros(places, *steps, dtype=torch.int64),
            "logp": torch.zeros(places, *steps),
            "reward": torch.zeros(places, *steps, dtype=torch.float64),
            "terminated": torch.zeros(places, *steps, dtype=torch.bool),
            "priority": torch.zeros(places, dtype=torch.float64),
            "made": torch.full((places,), NEVER),
        }
        for name, tensor in shapes.items():
            self.register_buffer(name, tensor)

    @torch.no_grad()
    def keep(self, update: int, new: Trajectories, priority: Tensor) -> None:
        """Take the stretches of an update in place of the oldest; priority (S,): mean size of their advantages."""
        first = update % self.updates * self.stretches
        places = slice(first, first + self.stretches)
        for name, tensor in vars(new).items():
            getattr(self, name)[places] = tensor
        self.priority[places], self.made[places] = priority.double(), update

    def draw(self, n: int, rng: np.random.Generator) -> IntArray:
        """Places (n,) in proportion to priority, none twice; fewer where fewer have any."""
        priority = torch.where(self.made == NEVER, 0.0, self.priority).numpy()
        n = min(n, int((priority > 0).sum()))
        return rng.choice(len(priority), n, replace=False, p=priority / priority.sum()) if n else np.zeros(0, np.int64)

    def at(self, places: IntArray) -> Trajectories:
        """What is kept there."""
        index = torch.from_numpy(places)
        return Trajectories(**{name: getattr(self, name)[index] for name in Trajectories.__dataclass_fields__})


@torch.no_grad()
def looked_at_again(
    head: ActorCriticHead,
    kept: Trajectories,
    scale: ValueScale,
    discount: float,
    lam: float,
    *,
    self_imitation: bool,
) -> Experience:
    """What today's head learns from old trajectories, (S, G, K): its log-probabilities, V-trace advantages and values.

    self_imitation: only what went better than it expects counts (Oh et al. 2018, arXiv 1806.05635, eq. 2).
    """
    projected = head.market(kept.latent).unsqueeze(1)
    logits, said = head.act(projected, kept.observation)
    logp = logits[:, :, :-1].log_softmax(-1).gather(-1, kept.action.unsqueeze(-1)).squeeze(-1)
    value = torch.from_numpy(scale.restore(said.double().numpy()))
    rho = (logp - kept.logp).exp().clamp(max=1.0).double()
    target = v_trace(kept.reward, value, kept.terminated, rho, discount, lam)
    following = lam * torch.cat([target[..., 1:], value[..., -1:]], -1) + (1 - lam) * value[..., 1:]  # as gae has it
    going_on = discount * (~kept.terminated).double()
    advantage = rho * (kept.reward + going_on * following - value[..., :-1])
    if self_imitation:
        advantage, target = advantage.clamp(min=0.0), torch.maximum(target, value[..., :-1])
    return Experience(
        action=kept.action,
        logp=logp,
        advantage=advantage.float(),
        value_target=torch.from_numpy(scale.normalise(target.numpy())).float(),
    )


def v_trace(reward: Tensor, value: Tensor, terminated: Tensor, rho: Tensor, discount: float, lam: float) -> Tensor:
    """Value targets (..., K) by eq. 1 of arXiv 1802.01561, both weights cut at 1, traces times lam.

    reward, terminated, rho (..., K); value (..., K + 1), the last one bootstraps. With rho 1 these are gae's targets.
    """
    going_on = discount * (~terminated).double()
    delta = rho * (reward + going_on * value[..., 1:] - value[..., :-1])
    target = value[..., :-1].clone()
    trace = torch.zeros_like(delta[..., 0])
    for k in reversed(range(delta.shape[-1])):
        trace = delta[..., k] + going_on[..., k] * lam * rho[..., k] * trace
        target[..., k] += trace
    return target


def together(new: Experience, old: Experience) -> Experience:
    """The rows of both, advantages normalised: of the new by their mean and spread, of the old by their spread alone.

    What counts nothing of the old, because today's policy would hardly do it or because it went no better than
    expected, must go on counting nothing. Old rows count as drawn evenly.
    """
    everything = torch.arange(len(new.action))
    mean, std = spread(new, everything)
    weight = None if new.weight is None else torch.cat([new.weight, torch.ones(len(old.action))])
    return Experience(
        action=torch.cat([new.action, old.action]),
        logp=torch.cat([new.logp, old.logp]),
        advantage=torch.cat([(new.advantage - mean) / std, old.advantage / (old.advantage.std() + LEAST_STD)]),
        value_target=torch.cat([new.value_target, old.value_target]),
        weight=weight,
        normalised=True,
    )
