"""stable-baselines3's PPO by the clock: trained for so many seconds, marked on the way with the clock stopped."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from bench.references.sb3_market import PositionEnvs
from btcai.schema import Float32Array, FloatArray

ACCOUNTS, STEPS, MINIBATCHES = 64, 256, 8
SETTINGS: dict[str, Any] = {
    "batch_size": ACCOUNTS * STEPS // MINIBATCHES,
    "n_epochs": 4,
    "gamma": 0.97,
    "learning_rate": 5e-4,
    "ent_coef": 0.003,
}
"""Of the rival that an earlier study tuned on these markets, 64 accounts and 256 steps an update."""

BRIEF: dict[str, Any] = {"n_steps": 32, "batch_size": ACCOUNTS * 32 // MINIBATCHES}
"""With our network it makes a hundredth of the steps a second, so it updates after fewer of them: that learns more."""

_ENDLESS = 10**12
_ROWS_AT_ONCE = 16_384

Curve = list[tuple[float, float]]


def new_rival(envs: PositionEnvs, seed: int, policy_kwargs: dict[str, Any] | None = None, **settings: Any) -> PPO:
    """PPO with an MLP of stable-baselines3's own size, unless policy_kwargs say otherwise; writes no logs."""
    given = {"n_steps": STEPS} | SETTINGS | settings
    rival = PPO("MlpPolicy", envs, seed=seed, device="cpu", policy_kwargs=policy_kwargs, **given)
    rival.set_logger(Logger(None, []))  # else it makes a folder for them
    return rival


def train(rival: PPO, marks_s: Sequence[float], mark: Callable[[PPO], float]) -> tuple[Curve, int]:
    """Train until the last of marks_s (seconds of training).

    Returns (seconds, score) at the first update that ended after each of them, and the env steps made.
    """
    clock = _Clock(marks_s, mark)
    rival.learn(_ENDLESS, callback=clock)
    return clock.curve, int(rival.num_timesteps)


class _Clock(BaseCallback):
    """Stands still while it marks."""

    def __init__(self, marks_s: Sequence[float], mark: Callable[[PPO], float]) -> None:
        super().__init__()
        self.curve: Curve = []
        self._due, self._mark = list(marks_s), mark
        self._over = False
        self._start = 0.0

    def _on_training_start(self) -> None:
        self._start = time.perf_counter()

    def _on_rollout_start(self) -> None:
        """After every update, and before the first."""
        now = time.perf_counter()
        used = now - self._start
        if used < self._due[0]:
            return
        assert isinstance(self.model, PPO)
        self.curve.append((used, self._mark(self.model)))
        self._due = [due for due in self._due if due > used]
        self._over = not self._due
        self._start += time.perf_counter() - now

    def _on_step(self) -> bool:
        return not self._over


@torch.no_grad()
def positions_along(rival: PPO, seen: Float32Array) -> FloatArray:
    """Greedy positions (D,) along windows (D, W) from flat: what it does at either position, then a walk."""
    following = np.empty((len(seen), 2), np.int64)
    for first in range(0, len(seen), _ROWS_AT_ONCE):
        rows = seen[first : first + _ROWS_AT_ONCE]
        observation = np.empty((len(rows), seen.shape[1] + 1), np.float32)
        observation[:, :-1] = rows
        for held in (0, 1):
            observation[:, -1] = held
            chosen = rival.policy.predict(observation, deterministic=True)[0]
            following[first : first + len(rows), held] = chosen
    positions, held = [], 0
    for from_flat, from_long in following.tolist():
        held = from_long if held else from_flat
        positions.append(held)
    return np.array(positions, np.float64)
