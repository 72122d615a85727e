"""Steps a second of gym-trading-env, run by its own interpreter: python -m bench.references.gym_trading_env_speed FILE.

FILE is a .npz with `bars` (T, 5) open, high, low, close, volume and `features` (T, F). Imports nothing of btcai: that
environment holds only bench/peers.txt. Prints one JSON object: {name: {"per_second": ..., "idle": ..., ...}}.
"""

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pandas as pd

from bench.stopwatch import Run, Stopwatch

WINDOW = 144
SINGLE_STEPS = 10_000
VECTOR_STEPS = 1_000

MakeEnv = Callable[[], Any]


def main(file: str, repeats: int) -> None:
    found = np.load(file)
    frame = _frame(found["bars"], found["features"])
    columns = found["features"].shape[1] + 2  # it adds two of its own
    runs: dict[str, Run] = {}
    for windows, observed in ((None, f"{columns} columns"), (WINDOW, f"{WINDOW} x {columns}")):
        runs[f"single, {observed}"] = _single(_maker(frame, windows))
        for n in (8, 64):
            runs[f"SyncVectorEnv({n}), {observed}"] = _vector(_maker(frame, windows), n)
    stopwatch = Stopwatch(repeats)
    report = {}
    for name, run in runs.items():
        (timing,) = stopwatch.time(run)
        report[name] = {"per_second": timing.per_second, **timing.facts()}
    sys.stdout.write(json.dumps(report))


def _frame(bars: Any, features: Any) -> pd.DataFrame:
    index = pd.date_range("2022-01-01", periods=len(bars), freq="5min")
    frame = pd.DataFrame(bars, columns=["open", "high", "low", "close", "volume"], index=index)
    return frame.assign(**{f"feature_{i}": column for i, column in enumerate(features.T)})


def _maker(frame: pd.DataFrame, windows: int | None) -> MakeEnv:
    """Its fastest settings: one episode over all bars, nothing printed."""
    from gym_trading_env.environments import TradingEnv

    warnings.resetwarnings()  # it turns every warning into an error on import
    warnings.simplefilter("ignore")
    return lambda: TradingEnv(
        df=frame,
        positions=[-1, 0, 1],
        trading_fees=0.001,
        borrow_interest_rate=0.0,
        windows=windows,
        max_episode_duration="max",
        portfolio_initial_value=1000,
        verbose=0,
    )


def _single(make: MakeEnv) -> Run:
    env = make()
    env.reset(seed=1)
    actions = np.random.default_rng(0).integers(0, 3, SINGLE_STEPS).tolist()

    def run() -> float:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return SINGLE_STEPS

    return run


def _vector(make: MakeEnv, n: int) -> Run:
    envs = gymnasium.vector.SyncVectorEnv([make] * n)
    envs.reset(seed=1)
    actions = np.random.default_rng(0).integers(0, 3, (max(1, 8 * VECTOR_STEPS // n), n))

    def run() -> float:
        for row in actions:
            envs.step(row)
        return float(actions.size)

    return run


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
