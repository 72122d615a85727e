"""Our learner in the bench: trained by `learn` for so many seconds, marked, and looked at for collapse."""

import logging
import time

import numpy as np

from bench.learn_budget import AIM, LEAST_USED, MOST_OVER, PRETRAIN_SHARE, Pace, Updates, measure_pace
from bench.learn_controls import ShuffledMarket, skill_z
from bench.learn_runs import OURS, Job, Marking, Outcome, Runs
from btcai.agent.task import clock_decisions
from btcai.config import BucketConfig, Config
from btcai.models.actor_critic import ActorCritic
from btcai.training.health import behaviour
from btcai.training.play import LOTS, play
from btcai.training.yardstick import Budget, learn, mark, training_data, yardstick_task
from btcai.yardstick.paths import MARKING, YardstickMarket, path_seed
from btcai.yardstick.trading import yardstick_data, yardstick_rules

logger = logging.getLogger("btcai.bench")

TRIES = 3
"""At a training that takes more or less than its seconds: other work on the machine comes and goes."""

PPO_ALONE = {
    "encoder_every": 1,
    "prediction_coef": 0.0,
    "learning_rate": 0.0015,
    "encoder_rate_share": 1.0,
    "surprise_control": 0.0,
}
"""Changes of the settings without the prediction loss: nothing has taught the encoder before, and without a forecast
every return would count as a surprise and be taken out of the rewards."""


class OurLearner:
    """Plans, trains and marks; the pace of each kind of market is measured once, where no run of its kind is kept."""

    def __init__(
        self, config: Config, marking: Marking, train_decisions: int, pilots: tuple[int, int], runs: Runs
    ) -> None:
        self._config, self._marking, self._runs = config, marking, runs
        self._train_decisions, self._pilots = train_decisions, pilots
        self._paces: dict[tuple[int, int, bool], Pace] = {}
        self._warm: set[tuple[int, int, bool]] = set()

    def run(self, job: Job, market: YardstickMarket) -> Outcome:
        """Train for the job's seconds and mark; out of its time, again with other updates, TRIES times in all."""
        bucket = self._bucket(market)
        updates = self._planned(job, market)
        agent, seconds = self._timed(job, market, updates)
        for _ in range(TRIES - 1):
            if LEAST_USED * job.seconds <= seconds <= MOST_OVER * job.seconds:
                break
            logger.info(
                "%s took %.1f s of %.0f s: again, with as many updates as fit", job.market, seconds, job.seconds
            )
            updates = updates.scaled(AIM * job.seconds / seconds)
            agent, seconds = self._timed(job, market, updates)
        score, error, more = self._marked(agent, market, bucket, job.seed)
        return Outcome(
            score=score,
            mark_error=error,
            seconds_used=seconds,
            pretrain_updates=updates.pretrain,
            ppo_updates=updates.ppo,
            more=more,
        )

    def _marked(
        self, agent: ActorCritic, market: YardstickMarket, bucket: BucketConfig, seed: int
    ) -> tuple[float, float | None, dict[str, float]]:
        seeds, decisions = self._marking.seeds(seed), self._marking.decisions
        more = behaved(agent, market, bucket, seeds[0], decisions)
        if isinstance(market, ShuffledMarket):
            return skill_z(agent, market, bucket, seeds, decisions), None, more
        found = mark(agent, market, bucket=bucket, seeds=seeds, n_decisions=decisions)
        error = found.high - found.ratio_of_sums
        return found.ratio_of_sums, error if np.isfinite(error) else None, more

    def _planned(self, job: Job, market: YardstickMarket) -> Updates:
        """As the latest run of the kind; without one, what the measured pace allows."""
        done = self._runs.like(job.market, job.learner, job.seconds)
        if done:
            self._warm_up(job, market)
            last = done[-1].outcome
            return Updates(pretrain=last.pretrain_updates, ppo=last.ppo_updates)
        kind = _kind(job, market)
        if kind not in self._paces:
            self._paces[kind] = measure_pace(lambda updates: self._timed(job, market, updates)[1], *self._pilots)
            self._warm.add(kind)
            logger.info("%s: %s", job.market, self._paces[kind])
        return self._paces[kind].updates(job.seconds, PRETRAIN_SHARE if job.learner == OURS else 0.0)

    def _warm_up(self, job: Job, market: YardstickMarket) -> None:
        """Compile and fill caches, uncounted."""
        if (kind := _kind(job, market)) not in self._warm:
            self._timed(job, market, Updates(pretrain=1, ppo=1))
            self._warm.add(kind)

    def _timed(self, job: Job, market: YardstickMarket, updates: Updates) -> tuple[ActorCritic, float]:
        """The trained agent, and seconds without those that it takes to simulate its market."""
        budget = Budget(
            train_decisions=self._train_decisions, pretrain_updates=updates.pretrain, ppo_updates=updates.ppo
        )
        data = training_data(market, budget, job.seed)
        start = time.perf_counter()
        agent = learn(
            market,
            seed=job.seed,
            budget=budget,
            bucket=self._bucket(market),
            model=self._config.model,
            pretrain_config=self._config.pretrain,
            ppo=self._config.ppo.model_copy(update={} if job.learner == OURS else PPO_ALONE),
            data=data,
        )
        return agent, time.perf_counter() - start

    def _bucket(self, market: YardstickMarket) -> BucketConfig:
        """The bucket that decides as often as the market does."""
        return next(bucket for bucket in self._config.buckets.values() if bucket.patch_bars == market.patch_bars)


def behaved(
    agent: ActorCritic, market: YardstickMarket, bucket: BucketConfig, seed: int, n_decisions: int
) -> dict[str, float]:
    """health.behaviour of greedy play on one path."""
    data, _ = yardstick_data(market, n_decisions, path_seed(seed, MARKING))
    rules = yardstick_rules(market.cost_bps, market.patch_bars)
    task = yardstick_task(data, rules, bucket, len(data))
    played = play(agent, task, clock_decisions(task, task.valid, market.patch_bars - 1))
    return behaviour(played.action, played.observation[:, :, :-1, LOTS])


def _kind(job: Job, market: YardstickMarket) -> tuple[int, int, bool]:
    """Trainings alike in this take as long: the patch, the number of features, with or without prediction."""
    return market.patch_bars, len(market.simulate(2, 1, 0).signals), job.learner == OURS
