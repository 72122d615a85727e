"""An arm on a market of the yardstick, whose best policy is known: the score is the share of it."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from btcai.agent.transfer import at_full_cost
from btcai.config import Config
from btcai.experiments.running import settings_key
from btcai.experiments.trials import Measured
from btcai.files import whole
from btcai.machine import GB
from btcai.models.actor_critic import ActorCritic
from btcai.paths import WEIGHTS
from btcai.schema import BUCKETS, MarketData
from btcai.training.checkpoint import restore, save_model, set_up_torch
from btcai.training.yardstick import Budget, learn, mark, new_agent, start_near_all, training_data
from btcai.yardstick.drift import LEVELS, DriftMarket, Level
from btcai.yardstick.interaction import InteractionMarket
from btcai.yardstick.paths import YardstickMarket
from btcai.yardstick.scoring import Score
from btcai.yardstick.two_scale import TwoScaleMarket

HELD_OUT = 10_000
"""Seeds from here on are of paths that nothing was chosen on."""


def _hidden(level: Level, patch_bars: int) -> YardstickMarket:
    return DriftMarket(level=level, shown=False, patch_bars=patch_bars)


@dataclass(frozen=True, kw_only=True)
class Size:
    """The full budget, what is trained on, and what is marked on: paths and decisions of each."""

    pretrain_updates: int = 800
    ppo_updates: int = 240
    train_decisions: int = 200_000
    mark_paths: int = 8
    mark_decisions: int = 50_000

    def budget(self, share: float) -> Budget:
        """A share of the updates, one at least."""
        return Budget(
            train_decisions=self.train_decisions,
            pretrain_updates=max(1, round(share * self.pretrain_updates)),
            ppo_updates=max(1, round(share * self.ppo_updates)),
        )


MARKETS: Mapping[str, Callable[[int], YardstickMarket]] = {
    "two_scale": lambda patch_bars: TwoScaleMarket(shown=False, patch_bars=patch_bars),
    **{name: partial(_hidden, level) for name, level in LEVELS.items()},
    "interaction": lambda patch_bars: InteractionMarket(patch_bars=patch_bars),
}
"""By name, for a bucket's patch; drifts are hidden. What a choice of the learner is worth, the hardest of them show."""


class KnownAnswer:
    """Trains a bucket after its teacher, which had the full budget as configured, and marks it.

    Every bucket trades the same process on its own clock. Teachers are the same for all arms and kept in `folder`, by
    what they rest on.
    """

    seen_ts_ns = None

    def __init__(self, config: Config, size: Size, folder: Path, name: str = "two_scale") -> None:
        set_up_torch(config)
        self.name, self._config, self._size = name, config, size
        self.terms = {**asdict(size), "market": name}
        self.folder = folder / settings_key([config], self.terms)
        self._data = lru_cache(maxsize=2)(self._training_data)

    def __getstate__(self) -> dict[str, Any]:
        """Without the markets, which are made again."""
        return {name: value for name, value in self.__dict__.items() if name != "_data"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        set_up_torch(self._config)
        self._data = lru_cache(maxsize=2)(self._training_data)

    def kept_in(self, folder: Path) -> Self:
        """As running.Movable has it."""
        other = copy.copy(self)
        other.folder = folder
        return other

    def teach(self, bucket: str, seed: int) -> None:
        """As running.Movable has it."""
        self._teacher(bucket, seed)

    def memory_bytes(self, bucket: str) -> float:
        """2.44 GB were measured for `long`, .6 GB for `scalping`; its teacher's data are beside its own for a while."""
        return 0.6 * GB + 400.0 * self._size.train_decisions * self._config.buckets[bucket].patch_bars

    def sees(self, one: Config, other: Config) -> bool:
        """Everything that differs shows."""
        return one != other

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        """Train and mark."""
        budget = self._size.budget(share)
        agent = self._learn(config, bucket, seed, budget, self._teacher(bucket, seed))
        found = self._mark(agent, config, bucket, seed)
        predicted = budget.pretrain_updates
        if bucket == BUCKETS[0]:
            predicted += 2 * len(BUCKETS) * config.meta.rounds * config.meta.inner_updates
        phases = (config.pretrain, predicted), (config.ppo, budget.ppo_updates)
        return Measured(
            score=found.ratio_of_sums,
            decisions=sum(phase.stretches * phase.decisions * updates for phase, updates in phases),
            more={"mark_error": found.high - found.ratio_of_sums},
        )

    def train_round(
        self, config: Config, bucket: str, seed: int, share: float, number: int, before: Path | None, out: Path
    ) -> float:
        """As population.Staged has it; always on the path of the seed, each round at stretches of its own."""
        budget = self._size.budget(share)
        if before is None:
            agent = self._learn(config, bucket, seed, budget, self._teacher(bucket, seed))
        else:
            start = self._restored(bucket, seed, before).train()
            config = config.model_copy(update={"ppo": at_full_cost(config.ppo)})
            agent = self._learn(config, bucket, seed, budget, None, start, number)
        save_model(agent, out)
        return self._mark(agent, config, bucket, seed).ratio_of_sums

    def held_out(self, config: Config, bucket: str, seed: int, trained: Path) -> float:
        """On as many other paths."""
        return self._mark(self._restored(bucket, seed, trained), config, bucket, HELD_OUT + seed).ratio_of_sums

    def _mark(self, agent: ActorCritic, config: Config, bucket: str, seed: int) -> Score:
        """On the paths of this seed."""
        return mark(
            agent,
            self._market(bucket),
            bucket=config.buckets[bucket],
            seeds=range(seed * self._size.mark_paths, (seed + 1) * self._size.mark_paths),
            n_decisions=self._size.mark_decisions,
        )

    def _restored(self, bucket: str, seed: int, folder: Path) -> ActorCritic:
        agent = new_agent(self._config.model, self._config.buckets[bucket].patch_bars, self._data(bucket, seed))
        return restore(agent, folder)

    def _learn(
        self,
        config: Config,
        bucket: str,
        seed: int,
        budget: Budget,
        teacher: ActorCritic | None,
        start: ActorCritic | None = None,
        number: int = 1,
    ) -> ActorCritic:
        if teacher is None and start is None and config.meta.rounds:
            start = self._near_all(config, seed)[bucket]
        return learn(
            self._market(bucket),
            seed=seed if number == 1 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
            budget=budget,
            bucket=config.buckets[bucket],
            model=config.model,
            pretrain_config=config.pretrain,
            ppo=config.ppo,
            data=self._data(bucket, seed),
            teacher=teacher,
            transfer=config.transfer,
            start=start,
        )

    def _near_all(self, config: Config, seed: int) -> dict[str, ActorCritic]:
        """A shared start: agents of all buckets from which each learns fast."""
        return start_near_all(
            {name: self._market(name) for name in BUCKETS},
            {name: self._training_data(name, seed) for name in BUCKETS},
            seed=seed,
            buckets=config.buckets,
            model=config.model,
            pretrain_config=config.pretrain,
            meta=config.meta,
        )

    def _teacher(self, bucket: str, seed: int) -> ActorCritic | None:
        """The bucket before it, which had a teacher of its own; None for the first."""
        place = BUCKETS.index(bucket)
        if place == 0:
            return None
        before = BUCKETS[place - 1]
        folder = self.folder / f"{before}-{seed}"
        if (folder / WEIGHTS).is_file():
            return self._restored(before, seed, folder)
        agent = self._learn(self._config, before, seed, self._size.budget(1.0), self._teacher(before, seed))
        with whole(folder) as out:
            save_model(agent, out)
        return agent.eval()

    def _market(self, bucket: str) -> YardstickMarket:
        return MARKETS[self.name](self._config.buckets[bucket].patch_bars)

    def _training_data(self, bucket: str, seed: int) -> MarketData:
        return training_data(self._market(bucket), self._size.budget(1.0), seed)
