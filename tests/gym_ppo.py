"""Gymnasium tasks for the PPO core: a vectorised loop with a small network, and probe environments with known answers.

The loop drives the very gae and ppo_update that train on the market; only the network and the world are others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from btcai.agent.ppo import (
    Evaluate,
    Evaluation,
    Experience,
    Losses,
    ValueScale,
    Weights,
    autograd_gradient,
    gae,
    ppo_update,
    rescale_value_layer,
)
from btcai.agent.shards import shards
from btcai.config import PpoConfig, ReplayConfig
from btcai.schema import BoolArray, Float32Array, FloatArray, IntArray

PLAIN = PpoConfig(
    stretches=2048, decisions=128, agents=1,  # the market's, unread here but for the multiple of minibatches
    encoder_every=1, encoder_epochs=10, encoder_minibatches=8, head_epochs=0, head_minibatches=1,
    learning_rate=1e-3, warm_up_updates=0, gae_lambda=0.95, clip=0.2,
    value_coef=1.0,  # ours is of half the squared error, that of stable-baselines3 (.5) of the whole
    entropy_coef=0.01, prediction_coef=0.0, target_kl=1e9, grad_clip=0.5,
    encoder_rate_share=1.0, weight_decay=0.0, entropy_frac=0.0, entropy_by="time",  # unread here, and what follows
    first_hold_logit=0.0, temperature=1.0,
    surprise_control=0.0, cost_ramp_frac=0.0, average_decay=0.0, adaptive_rate=False,
    replay=ReplayConfig(
        prioritised=0.0, staleness=0.0, correction=1.0, trajectories=0, max_age_updates=1, self_imitation=False
    ),
)  # fmt: skip
"""The defaults of stable-baselines3, but for SB3_SETTINGS."""

SB3_SETTINGS: dict[str, Any] = {"n_steps": 256, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.01}
"""With 8 environments: rollouts of 2,048 steps in minibatches of 256, which learn in fewer seconds than of 64."""


class Mlp(nn.Module):
    """observation (..., D) -> logits (..., A), value (...,): two networks, as those of stable-baselines3 come."""

    def __init__(self, n_inputs: int, n_actions: int, width: int = 64) -> None:
        super().__init__()
        self.policy, self.value = (
            nn.Sequential(
                nn.Linear(n_inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, n)
            )
            for n in (n_actions, 1)
        )
        for network, last_gain in ((self.policy, 0.01), (self.value, 1.0)):
            layers = [layer for layer in network if isinstance(layer, nn.Linear)]
            for layer, gain in zip(layers, (2**0.5, 2**0.5, last_gain), strict=True):
                nn.init.orthogonal_(layer.weight, gain)
                nn.init.zeros_(layer.bias)
        self.value_layer = layers[-1]

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(observation), self.value(observation).squeeze(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """A trained network, the unit of its values, and (environment steps taken, return) of every episode it finished."""

    model: Mlp
    scale: ValueScale
    episodes: list[tuple[int, float]]

    def value(self, observation: list[float]) -> float:
        with torch.no_grad():
            return float(self.scale.restore(self.model(torch.tensor(observation))[1].numpy()))

    def probability(self, observation: list[float], action: int) -> float:
        with torch.no_grad():
            return float(self.model(torch.tensor(observation))[0].softmax(-1)[action])


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """A rollout of T steps in N environments; next_observation is an episode's own last where it ended there.

    observation, next_observation (T, N, D); the rest (T, N).
    """

    observation: Float32Array
    next_observation: Float32Array
    action: IntArray
    logp: Float32Array
    reward: FloatArray
    terminated: BoolArray
    truncated: BoolArray


def learn(
    make: Callable[[], gym.Env[Any, Any]],
    *,
    seed: int,
    total_steps: int,
    n_envs: int = 8,
    n_steps: int = 256,
    discount: float = 0.99,
    config: PpoConfig = PLAIN,
    value_rate: float | None = None,
    width: int = 64,
) -> Learned:
    """PPO for total_steps environment steps; value_rate: of the running value scale; None learns plain values."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    envs = SyncVectorEnv([make] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    model = Mlp(envs.single_observation_space.shape[0], envs.single_action_space.n, width)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, eps=1e-5)
    scale = ValueScale()
    walker = Walker(envs, seed)
    for _ in range(total_steps // (n_envs * n_steps)):
        steps = walker.walk(model, n_steps, rng)
        advantage, value_target = advantages(model, scale, steps, discount, config.gae_lambda)
        if value_rate is not None:
            old, scale = scale, scale.updated(value_target, value_rate)
            rescale_value_layer(model.value_layer, old, scale)
        observation, action = (torch.from_numpy(x).flatten(0, 1) for x in (steps.observation, steps.action))
        experience = Experience(
            action=action,
            logp=torch.from_numpy(steps.logp).flatten(),
            advantage=torch.from_numpy(advantage.astype(np.float32)).flatten(),
            value_target=torch.from_numpy(scale.normalise(value_target).astype(np.float32)).flatten(),
        )
        update(model, evaluator(model, observation), optimizer, experience, config, config.entropy_coef, rng)
    return Learned(model=model, scale=scale, episodes=walker.episodes)


def update(
    model: nn.Module,
    evaluate: Evaluate,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    config: PpoConfig,
    entropy_coef: float,
    rng: np.random.Generator,
) -> Losses:
    """ppo_update on one thread."""
    weights = Weights(clip=config.clip, value=config.value_coef, entropy=entropy_coef, auxiliary=config.prediction_coef)
    parameters, n_rows = list(model.parameters()), len(experience.action)
    with shards(1) as workers:
        return ppo_update(
            autograd_gradient(evaluate, parameters, experience, weights, workers), parameters, optimizer, n_rows,
            config.encoder_epochs, config.encoder_minibatches, config.target_kl, config.grad_clip, rng,
        )  # fmt: skip


def evaluator(model: nn.Module, observation: Tensor) -> Evaluate:
    def evaluate(index: Tensor) -> Evaluation:
        logits, value = model(observation[index])
        return Evaluation(logits=logits, value=value, auxiliary=torch.zeros(()))

    return evaluate


@torch.no_grad()
def advantages(
    model: Mlp, scale: ValueScale, steps: Steps, discount: float, lam: float
) -> tuple[FloatArray, FloatArray]:
    """(T, N) each, in the unit of rewards."""
    value, next_value = (
        scale.restore(model(torch.from_numpy(x))[1].numpy().astype(float))
        for x in (steps.observation, steps.next_observation)
    )
    advantage, value_target = gae(
        steps.reward.T, value.T, next_value.T, steps.terminated.T, steps.truncated.T, discount, lam
    )
    return advantage.T, value_target.T


class Walker:
    """N environments that go on from rollout to rollout."""

    def __init__(self, envs: SyncVectorEnv, seed: int) -> None:
        self.envs = envs
        self.episodes: list[tuple[int, float]] = []
        self._observation, _ = envs.reset(seed=seed)
        self._return = np.zeros(envs.num_envs)
        self._steps = 0

    @torch.no_grad()
    def walk(self, model: Mlp, n_steps: int, rng: np.random.Generator) -> Steps:
        rows = [self._step(model, rng) for _ in range(n_steps)]
        return Steps(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})

    def _step(self, model: Mlp, rng: np.random.Generator) -> dict[str, Any]:
        observation = self._observation.astype(np.float32)
        log_prob = model(torch.from_numpy(observation))[0].log_softmax(-1).numpy()
        action = (log_prob + rng.gumbel(size=log_prob.shape)).argmax(-1)
        self._observation, reward, terminated, truncated, info = self.envs.step(action)
        next_observation = self._observation.astype(np.float32)
        self._steps += len(action)
        self._return += reward
        for i in np.flatnonzero(terminated | truncated):
            next_observation[i] = info["final_obs"][i]
            self.episodes.append((self._steps, float(self._return[i])))
            self._return[i] = 0.0
        logp = log_prob[np.arange(len(action)), action]
        return {
            "observation": observation, "next_observation": next_observation, "action": action, "logp": logp,
            "reward": reward, "terminated": terminated, "truncated": truncated,
        }  # fmt: skip


class Probe(gym.Env[Float32Array, int]):
    """Two actions and one number seen, each of `seen` as likely as the next; reward(seen, action) at every step.

    The state stays what it is for `length` steps; then the episode terminates, or is truncated.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(
        self,
        seen: tuple[float, ...],
        reward: Callable[[float, int], float],
        length: int = 1,
        ends: str = "terminated",
    ) -> None:
        self.seen, self.reward, self.length, self.ends = seen, reward, length, ends

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Float32Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.now, self.steps = self.seen[self.np_random.integers(len(self.seen))], 0
        return np.array([self.now], np.float32), {}

    def step(self, action: int) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = self.steps == self.length
        reward = self.reward(self.now, int(action))
        terminated, truncated = over and self.ends == "terminated", over and self.ends == "truncated"
        return np.array([self.now], np.float32), reward, terminated, truncated, {}


class TwoSteps(Probe):
    """Sees 0, then 1; the second step pays and ends the episode."""

    def __init__(self, pays: float) -> None:
        super().__init__((0.0,), lambda seen, action: pays * seen, length=2)

    def step(self, action: int) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        self.now = 1.0
        return np.array([self.now], np.float32), *rest
