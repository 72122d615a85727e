"""Small tasks with a known right behaviour, for tests of the learner."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from btcai.agent.shards import shards
from btcai.agent.task import Stretches, Task
from btcai.config import Config, ModelConfig
from btcai.models.actor_critic import ActorCritic
from btcai.params import load_config
from btcai.schema import FloatArray
from btcai.training.play import Played, collect
from btcai.training.yardstick import yardstick_task
from btcai.yardstick.drift import LEVELS
from btcai.yardstick.trading import RETURN_SCALE, market_from_returns, yardstick_rules

SMALL = ModelConfig(width=16, attention_heads=2, hidden=16, latent=16)
LEVEL = LEVELS["easy"]


def settings() -> Config:
    """params.yaml as shipped."""
    return load_config(Path(__file__).resolve().parents[1] / "params.yaml")


def task_from_returns(
    returns: FloatArray, signals: dict[str, FloatArray], cost_bps: float = 5.0, valid_bars: int = 500
) -> Task:
    """A market with these simple returns (T,); features are the bar's return in sigmas, the signals, and the mask."""
    sigma = LEVEL.sigma_bps / 1e4
    columns = {"return_sigmas": returns / sigma, **signals, "mask": np.ones(len(returns))}
    features = np.stack(list(columns.values()), 1).astype(np.float32)
    data = market_from_returns(RETURN_SCALE * returns, features, tuple(columns), RETURN_SCALE * sigma)
    task = yardstick_task(data, yardstick_rules(cost_bps), settings().buckets["scalping"], valid_bars)
    return replace(task, bucket=task.bucket.model_copy(update={"horizons_bars": (3, 12, 36)}))


def small_task(n_bars: int, seed: int = 0) -> Task:
    """Pure noise with one noise feature beside the return."""
    rng = np.random.default_rng(seed)
    returns = rng.standard_normal(n_bars) * LEVEL.sigma_bps / 1e4
    return task_from_returns(returns, {"noise": rng.standard_normal(n_bars)})


def fresh_model(task: Task, config: ModelConfig = SMALL) -> ActorCritic:
    """A network of the task's shape that has learned nothing."""
    return ActorCritic(config, task.patch_bars, task.features.shape[1], len(task.bucket.horizons_bars))


def played(model: ActorCritic, task: Task, stretches: Stretches, agents: int, rng: np.random.Generator) -> Played:
    """What accounts do along the stretches, sampled on one thread."""
    with shards(1) as workers:
        return collect(model, task, stretches, agents, rng, workers, rescale=True)
