"""The learner on markets whose best policy is known: a mark out of 100, on paths it never trained on."""

from dataclasses import dataclass

import numpy as np
import torch

from btcai.agent.task import Task, clock_decisions
from btcai.config import BucketConfig, ModelConfig, PpoConfig, PretrainConfig
from btcai.market.kernel import bar_arrays
from btcai.market.known_answer import (
    LOT_FRAC,
    RETURN_SCALE,
    Level,
    Score,
    hidden_positions,
    known_answer_market,
    known_answer_rules,
    policy_value_bps,
    score,
    shown_positions,
)
from btcai.models.actor_critic import ActorCritic
from btcai.schema import BoolArray, FloatArray, MarketData, Span
from btcai.training.play import LOTS, play
from btcai.training.trainer import pretrain, train_ppo

HORIZONS_BARS = (3, 12, 36, 108)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much to train; the network and PPO are the ones of params.yaml."""

    train_bars: int = 300_000
    pretrain_updates: int = 60
    ppo_updates: int = 120


def known_answer_task(data: MarketData, level: Level, bucket: BucketConfig, valid_bars: int) -> Task:
    """One lot of half the start's equity on a known-answer market; the last valid_bars validate."""
    n = len(data)
    return Task(
        features=data.features,
        bars=bar_arrays(data),
        rules=known_answer_rules(level),
        bucket=bucket.model_copy(update={"patch_bars": 1, "max_lots": 1, "horizons_bars": HORIZONS_BARS}),
        train=Span(0, n - valid_bars),
        valid=Span(n - valid_bars, n),
        sizes=_one_lot,
        equity_usdt=100_000.0,
    )


def learn(
    level: Level,
    *,
    shown: bool,
    seed: int,
    budget: Budget,
    bucket: BucketConfig,
    model: ModelConfig,
    pretrain_config: PretrainConfig,
    ppo: PpoConfig,
) -> ActorCritic:
    """Train the full network on one path of the level: prediction first, then PPO."""
    data, _ = known_answer_market(level, budget.train_bars, seed, shown)
    task = known_answer_task(data, level, bucket, valid_bars=budget.train_bars // 10)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    agent = ActorCritic(model, 1, data.features.shape[1], len(HORIZONS_BARS))
    for _ in pretrain(agent, task, pretrain_config, budget.pretrain_updates, rng):
        pass
    for _ in train_ppo(agent, task, ppo, budget.ppo_updates, rng):
        pass
    return agent


def mark(agent: ActorCritic, level: Level, *, shown: bool, bucket: BucketConfig, seeds: range, n_bars: int) -> Score:
    """Expected reward of greedy play over the optimal policy's, on fresh paths of n_bars each."""
    earned, best = [], []
    for seed in seeds:
        data, drift = known_answer_market(level, n_bars, seed, shown)
        task = known_answer_task(data, level, bucket, valid_bars=n_bars)
        decisions = clock_decisions(task, task.valid, 0)
        positions = play(agent, task, decisions).observation[0, 0, 1:, LOTS].astype(np.float64)
        returns = (data.bars.close / data.bars.open - 1) / RETURN_SCALE
        optimal = shown_positions(drift[None], level) if shown else hidden_positions(returns[None], level)
        held = decisions[:-1]
        earned.append(policy_value_bps(positions, drift[held], level.cost_bps))
        best.append(policy_value_bps(optimal[0, held], drift[held], level.cost_bps))
    return score(np.array(earned), np.array(best))


def _one_lot(mean: FloatArray, std: FloatArray, sigma: FloatArray) -> tuple[FloatArray, BoolArray]:
    return np.full(len(mean), LOT_FRAC), np.ones(len(mean), dtype=np.bool_)
