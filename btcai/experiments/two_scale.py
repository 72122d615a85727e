"""An arm on the yardstick's two-scale market, whose best policy is known: the score is the share of it."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from btcai.config import Config
from btcai.experiments.running import settings_key
from btcai.experiments.trials import Measured
from btcai.files import whole
from btcai.models.actor_critic import ActorCritic
from btcai.schema import BUCKETS, MarketData
from btcai.training.checkpoint import WEIGHTS, restore, save_model, set_up_torch
from btcai.training.yardstick import Budget, learn, mark, new_agent, training_data
from btcai.yardstick.two_scale import TwoScaleMarket


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


class TwoScale:
    """Trains a bucket after its teacher, which had the full budget as configured, and marks it.

    Every bucket trades the same process on its own clock, with the drifts hidden. Teachers are the same for all arms
    and kept in `folder`, by what they rest on.
    """

    name = "two_scale"

    def __init__(self, config: Config, size: Size, folder: Path) -> None:
        set_up_torch(config)
        self._config, self._size = config, size
        self.terms = asdict(size)
        self._folder = folder / settings_key([config], self.terms)
        self._data = lru_cache(maxsize=2)(self._training_data)

    def sees(self, one: Config, other: Config) -> bool:
        """Everything that differs shows."""
        return one != other

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        """Train and mark."""
        budget = self._size.budget(share)
        agent = self._learn(config, bucket, seed, budget, self._teacher(bucket, seed))
        found = mark(
            agent,
            self._market(bucket),
            bucket=config.buckets[bucket],
            seeds=range(seed * self._size.mark_paths, (seed + 1) * self._size.mark_paths),
            n_decisions=self._size.mark_decisions,
        )
        phases = (config.pretrain, budget.pretrain_updates), (config.ppo, budget.ppo_updates)
        return Measured(
            score=found.ratio_of_sums,
            decisions=sum(phase.stretches * phase.decisions * updates for phase, updates in phases),
            more={"mark_error": found.high - found.ratio_of_sums},
        )

    def _learn(
        self, config: Config, bucket: str, seed: int, budget: Budget, teacher: ActorCritic | None
    ) -> ActorCritic:
        return learn(
            self._market(bucket),
            seed=seed,
            budget=budget,
            bucket=config.buckets[bucket],
            model=config.model,
            pretrain_config=config.pretrain,
            ppo=config.ppo,
            data=self._data(bucket, seed),
            teacher=teacher,
            transfer=config.transfer,
        )

    def _teacher(self, bucket: str, seed: int) -> ActorCritic | None:
        """The bucket before it, which had a teacher of its own; None for the first."""
        place = BUCKETS.index(bucket)
        if place == 0:
            return None
        before = BUCKETS[place - 1]
        folder = self._folder / f"{before}-{seed}"
        if (folder / WEIGHTS).is_file():
            agent = new_agent(self._config.model, self._config.buckets[before].patch_bars, self._data(before, seed))
            return restore(agent, folder)
        agent = self._learn(self._config, before, seed, self._size.budget(1.0), self._teacher(before, seed))
        with whole(folder) as out:
            save_model(agent, out)
        return agent.eval()

    def _market(self, bucket: str) -> TwoScaleMarket:
        return TwoScaleMarket(shown=False, patch_bars=self._config.buckets[bucket].patch_bars)

    def _training_data(self, bucket: str, seed: int) -> MarketData:
        return training_data(self._market(bucket), self._size.budget(1.0), seed)
