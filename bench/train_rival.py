"""stable-baselines3 with our network on windows of the same length, run for its speed alone."""

import importlib.util
from collections.abc import Callable

import numpy as np

from bench.stopwatch import Run
from bench.train_runs import Subject
from btcai.config import Config

MISSING = "stable-baselines3 is not installed: the reference was not run; install it with: make setup"
NAME = "stable-baselines3, our network, same lookback"
_ROWS = 2**16
"""Of features, from the start of the training span: speed does not ask for more."""


def rival(subject: Subject, config: Config, steps: tuple[int, int]) -> Run | None:
    """One update of 64 accounts, each making steps[1] / patch decisions, steps[0] at least; None if not installed.

    Its buffer keeps every window, so a long one leaves room for few.
    """
    if importlib.util.find_spec("stable_baselines3") is None:
        return None
    from bench.references import sb3_network, sb3_rival
    from bench.references.sb3_market import PositionEnvs, windows

    task, patch = subject.task, subject.task.patch_bars
    rows = slice(task.train.first, min(task.train.first + _ROWS, task.train.stop))
    seen = windows(task.features[rows], patch)
    following = np.zeros(len(seen))  # it learns nothing, at the same cost
    envs = PositionEnvs(
        seen, following, cost_frac=1e-4, unit=1.0, n_accounts=sb3_rival.ACCOUNTS, rng=np.random.default_rng(0)
    )
    decisions = max(steps[0], steps[1] // patch)
    kwargs = sb3_network.policy_kwargs(config.model, patch, task.features.shape[1], len(task.bucket.horizons_bars))
    batch = sb3_rival.ACCOUNTS * decisions // sb3_rival.MINIBATCHES
    learner = sb3_rival.new_rival(envs, 0, kwargs, n_steps=decisions, batch_size=batch)
    return _updating(learner.learn, sb3_rival.ACCOUNTS * decisions)


def _updating(learn: Callable[[int], object], env_steps: int) -> Run:
    def run() -> float:
        learn(env_steps)
        return float(env_steps)

    return run
