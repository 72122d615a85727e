"""Episodes of whole trainings on a Gymnasium task, ours and those of stable-baselines3: for processes of their own."""

from functools import partial
from typing import Any

import gymnasium as gym
import torch
from gym_ppo import SB3_SETTINGS, learn

STEPS = 40_960

Episodes = list[tuple[int, float]]
"""(environment steps taken, return) of every episode that ended."""


def ours(task: str, seed: int) -> Episodes:
    torch.set_num_threads(1)
    return learn(partial(gym.make, task), seed=seed, total_steps=STEPS, value_rate=0.1).episodes


def theirs(task: str, seed: int) -> Episodes:
    """With the same settings."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    episodes: Episodes = []

    def note(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        ended = [info["episode"]["r"] for info in variables["infos"] if "episode" in info]
        episodes.extend((variables["self"].num_timesteps, float(total)) for total in ended)
        return True

    learner = PPO("MlpPolicy", make_vec_env(task, n_envs=8, seed=seed), seed=seed, device="cpu", **SB3_SETTINGS)
    learner.learn(STEPS, callback=note)
    return episodes
