"""Markets as vectorised environments for stable-baselines3: windows of features and the position, 0 or 1 as action."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.lib.stride_tricks import sliding_window_view
from stable_baselines3.common.vec_env import VecEnv

from btcai.schema import TOKENS, Float32Array, FloatArray, IntArray


def windows(features: Float32Array, patch_bars: int) -> Float32Array:
    """features (T, F) -> a view (D, 144 * patch_bars * F): what each decision from the 144th patch on sees, flat."""
    n_features = features.shape[1]
    flat = np.ascontiguousarray(features).reshape(-1)
    return sliding_window_view(flat, TOKENS * patch_bars * n_features)[:: patch_bars * n_features]


class PositionEnvs(VecEnv):
    """n accounts at places of their own on one path.

    Observation: a row of `seen` (D, W), then the position. Action a: the position until the next decision. Reward:
    (a * following - cost_frac * |a - position|) / unit, following (D,) the return until then. An account that comes to
    the path's end is truncated there and starts anew, flat, at a place of chance.
    """

    def __init__(
        self,
        seen: Float32Array,
        following: FloatArray,
        *,
        cost_frac: float,
        unit: float,
        n_accounts: int,
        rng: np.random.Generator,
    ) -> None:
        self._seen, self._following, self._rng = seen, following, rng
        self._cost, self._unit = cost_frac, unit
        self._place: IntArray = np.zeros(n_accounts, np.int64)
        self._position: FloatArray = np.zeros(n_accounts)
        self._action: FloatArray = np.zeros(n_accounts)
        observed = spaces.Box(-np.inf, np.inf, (seen.shape[1] + 1,), np.float32)
        super().__init__(n_accounts, observed, spaces.Discrete(2))

    def reset(self) -> Float32Array:
        self._place = self._rng.integers(0, len(self._seen) - 1, self.num_envs)
        self._position = np.zeros(self.num_envs)
        return self._observation()

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        self._action = actions.astype(np.float64)

    def step_wait(self) -> tuple[Float32Array, Float32Array, np.ndarray[Any, Any], list[dict[str, Any]]]:
        earned = self._action * self._following[self._place] - self._cost * np.abs(self._action - self._position)
        self._position, self._place = self._action, self._place + 1
        ended = self._place == len(self._seen) - 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        observation = self._observation()
        if ended.any():
            for i in np.flatnonzero(ended):
                infos[i] = {"TimeLimit.truncated": True, "terminal_observation": observation[i].copy()}
            self._place = np.where(ended, self._rng.integers(0, len(self._seen) - 1, self.num_envs), self._place)
            self._position = np.where(ended, 0.0, self._position)
            observation = self._observation()
        return observation, (earned / self._unit).astype(np.float32), ended, infos

    def _observation(self) -> Float32Array:
        observation = np.empty((self.num_envs, self._seen.shape[1] + 1), np.float32)
        observation[:, :-1] = self._seen[self._place]
        observation[:, -1] = self._position
        return observation

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * len(self._named(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        return [None] * len(self._named(indices))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * len(self._named(indices))

    def _named(self, indices: Any) -> Sequence[int]:
        return range(self.num_envs) if indices is None else np.atleast_1d(indices).tolist()
