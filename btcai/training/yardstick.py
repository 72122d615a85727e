"""The learner on markets whose best policy is known: a mark out of 100, on paths it never trained on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from btcai.agent.shards import shards
from btcai.agent.task import Task, clock_decisions
from btcai.agent.transfer import at_full_cost, gives_policy, hand_over
from btcai.config import BucketConfig, MetaConfig, ModelConfig, PpoConfig, PretrainConfig, TransferConfig
from btcai.market.bars import bar_arrays
from btcai.market.rules import Rules
from btcai.models.actor_critic import ActorCritic
from btcai.schema import BoolArray, FloatArray, MarketData, Span
from btcai.training.meta import shared_start
from btcai.training.play import LOTS, play
from btcai.training.trainer import pretrain, train_ppo
from btcai.yardstick.paths import MARKING, TRAINING, YardstickMarket, path_seed
from btcai.yardstick.scoring import Score, policy_value_bps, score
from btcai.yardstick.trading import HORIZONS_PATCHES, LOT_FRAC, yardstick_data, yardstick_rules


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much to train; the network and PPO are the ones of params.yaml."""

    train_decisions: int = 300_000
    pretrain_updates: int = 60
    ppo_updates: int = 120


def yardstick_task(data: MarketData, rules: Rules, bucket: BucketConfig, valid_bars: int) -> Task:
    """One lot of half the start's equity on a market of the yardstick; the last valid_bars validate."""
    n, patch = len(data), rules.patch_bars
    horizons = tuple(patches * patch for patches in HORIZONS_PATCHES)
    return Task(
        features=data.features,
        bars=bar_arrays(data),
        rules=rules,
        bucket=bucket.model_copy(update={"patch_bars": patch, "max_lots": 1, "horizons_bars": horizons}),
        train=Span(0, n - valid_bars),
        valid=Span(n - valid_bars, n),
        sizes=_one_lot,
        equity_usdt=100_000.0,
    )


def learn(
    market: YardstickMarket,
    *,
    seed: int,
    budget: Budget,
    bucket: BucketConfig,
    model: ModelConfig,
    pretrain_config: PretrainConfig,
    ppo: PpoConfig,
    data: MarketData | None = None,
    teacher: ActorCritic | None = None,
    transfer: TransferConfig | None = None,
    start: ActorCritic | None = None,
) -> ActorCritic:
    """Train the full network on one path of the market: prediction first, then PPO.

    data: what training_data gives, where it is at hand. start: what to train; without, a fresh network. Where there is
    a teacher, an agent of the same market on another clock, `transfer` says what is handed over first.
    """
    if data is None:
        data = training_data(market, budget, seed)
    task = yardstick_task(data, yardstick_rules(market.cost_bps, market.patch_bars), bucket, len(data) // 10)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    agent = new_agent(model, market.patch_bars, data) if start is None else start
    kickstart = None
    if teacher is not None and transfer is not None:
        bars = _target_bars(teacher.stem.patch_bars), _target_bars(market.patch_bars)
        kickstart = hand_over(teacher, agent, transfer, *bars)
        ppo = at_full_cost(ppo) if gives_policy(teacher, transfer) else ppo
    for _ in pretrain(agent, task, pretrain_config, budget.pretrain_updates, rng):
        pass
    for _ in train_ppo(agent, task, ppo, budget.ppo_updates, rng, kickstart=kickstart):
        pass
    return agent


def start_near_all(
    markets: Mapping[str, YardstickMarket],
    data: Mapping[str, MarketData],
    *,
    seed: int,
    buckets: Mapping[str, BucketConfig],
    model: ModelConfig,
    pretrain_config: PretrainConfig,
    meta: MetaConfig,
) -> dict[str, ActorCritic]:
    """Untrained agents of all buckets with a trunk from which each learns fast (meta.shared_start)."""
    torch.manual_seed(seed)
    agents, tasks = {}, {}
    for name, market in markets.items():
        rules = yardstick_rules(market.cost_bps, market.patch_bars)
        tasks[name] = yardstick_task(data[name], rules, buckets[name], len(data[name]) // 10)
        agents[name] = new_agent(model, market.patch_bars, data[name])
    shared_start(agents, tasks, pretrain_config, meta, np.random.default_rng(seed))
    return agents


def new_agent(model: ModelConfig, patch_bars: int, data: MarketData) -> ActorCritic:
    """A fresh network for these features (torch's global generator decides the weights)."""
    return ActorCritic(model, patch_bars, data.features.shape[1], len(HORIZONS_PATCHES))


def training_data(market: YardstickMarket, budget: Budget, seed: int) -> MarketData:
    """The path that a seed learns on."""
    return yardstick_data(market, budget.train_decisions, path_seed(seed, TRAINING))[0]


def mark(
    agent: ActorCritic,
    market: YardstickMarket,
    *,
    bucket: BucketConfig,
    seeds: range = range(16),
    n_decisions: int = 100_000,
) -> Score:
    """Expected reward of greedy play over the optimal policy's, at the phase of the decision clock, a path a seed.

    No path is one of `learn`'s, whatever the seeds.
    """

    def one(seed: int) -> tuple[FloatArray, FloatArray]:
        data, paths = yardstick_data(market, n_decisions, path_seed(seed, MARKING))
        task = yardstick_task(data, yardstick_rules(market.cost_bps, market.patch_bars), bucket, len(data))
        bars = clock_decisions(task, task.valid, market.patch_bars - 1)  # a path begins with a whole patch
        positions = play(agent, task, bars).observation[0, 0, 1:, LOTS].astype(np.float64)
        held = bars[:-1] // market.patch_bars
        expected = paths.expected[0, held]
        best = policy_value_bps(market.optimal_positions(paths)[0, held], expected, market.cost_bps)
        return policy_value_bps(positions, expected, market.cost_bps), best

    with shards() as workers:
        earned, best = zip(*workers.map(one, seeds), strict=True)
    return score(np.array(earned), np.array(best))


def _target_bars(patch_bars: int) -> tuple[int, ...]:
    """Over which is predicted, (1 + H,): as BucketConfig.target_bars of yardstick_task's bucket."""
    return patch_bars, *(patches * patch_bars for patches in HORIZONS_PATCHES)


def _one_lot(
    mean: FloatArray, std: FloatArray, sigma: FloatArray, unfamiliarity: FloatArray
) -> tuple[FloatArray, BoolArray]:
    return np.full(len(mean), LOT_FRAC), np.ones(len(mean), dtype=np.bool_)
