"""Controls: a market whose next return is given away, and one in which there is nothing to find."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from btcai.agent.task import clock_decisions, stretches_at
from btcai.config import BucketConfig
from btcai.models.actor_critic import ActorCritic
from btcai.schema import Action, FloatArray, Span
from btcai.training.play import play
from btcai.training.yardstick import yardstick_task
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.paths import MARKING, Paths, path_seed
from btcai.yardstick.trading import RETURN_SCALE, yardstick_data, yardstick_rules

LEVEL = LEVELS["medium"]
_CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class LeakedMarket:
    """Noise whose next return is shown, signal `leaked` in sigmas; expected returns are thus the realised ones."""

    sigma_bps: float = LEVEL.sigma_bps
    cost_bps: float = LEVEL.cost_bps
    patch_bars: int = 1

    @property
    def bar_sigma_bps(self) -> float:
        return self.sigma_bps

    @property
    def expected_sd_bps(self) -> float:
        return self.sigma_bps

    @property
    def optimum_bps(self) -> float:
        """Of 100,000 decisions."""
        paths = self.simulate(100_000, 1, 0)
        positions = self.optimal_positions(paths)
        turnover = np.abs(np.diff(positions, prepend=0.0)).mean()
        return float((positions * paths.expected).mean() * 1e4 - self.cost_bps * turnover)

    def simulate(self, n_decisions: int, n_paths: int, seed: int) -> Paths:
        noise = np.random.default_rng(seed).standard_normal((n_paths, n_decisions + 1))
        following = np.ascontiguousarray(noise[:, 1:])
        sigma = self.sigma_bps / 1e4
        return Paths(
            patch_bars=1, bar_returns=sigma * noise[:, :-1], expected=sigma * following, signals={"leaked": following}
        )

    def optimal_positions(self, paths: Paths) -> FloatArray:
        """The oracle: dynamic programming backwards over the returns to come, known to the last.

        worth[t], of being long from t on over being flat, = return[t + 1] + clip(worth[t + 1], -cost, cost): buy where
        it is above the cost, sell where it is below minus the cost, and hold between.
        """
        positions = np.empty_like(paths.expected)
        cost = self.cost_bps / 1e4
        for row, following in zip(positions, paths.expected.tolist(), strict=True):
            worth = [0.0] * len(following)
            later = 0.0
            for t in range(len(following) - 1, -1, -1):
                worth[t] = following[t] + later
                later = min(max(worth[t], -cost), cost)
            held = 0.0
            for t, value in enumerate(worth):
                held = 1.0 if value > cost else 0.0 if value < -cost else held
                row[t] = held
        return positions


@dataclass(frozen=True, kw_only=True)
class ShuffledMarket:
    """The level `medium` with its returns in random order, traded for nothing: what is found here is not there."""

    patch_bars: int = 1
    cost_bps: float = 0.0

    @property
    def bar_sigma_bps(self) -> float:
        return LEVEL.sigma_bps

    @property
    def expected_sd_bps(self) -> float:
        return math.hypot(LEVEL.sigma_bps, LEVEL.s_bps)

    @property
    def optimum_bps(self) -> float:
        """Nothing is to be found by those who see the past."""
        return 0.0

    def simulate(self, n_decisions: int, n_paths: int, seed: int) -> Paths:
        """expected is the next return itself, the last one zero: positions are paid what happened."""
        ordered = DriftMarket(level=LEVEL, shown=False).simulate(n_decisions, n_paths, seed).bar_returns
        returns = np.random.default_rng((seed, 2)).permuted(ordered, axis=1)
        following = np.concatenate([returns[:, 1:], np.zeros((n_paths, 1))], axis=1)
        return Paths(patch_bars=1, bar_returns=returns, expected=following, signals={})

    def optimal_positions(self, paths: Paths) -> FloatArray:
        return np.zeros_like(paths.expected)


def skill_z(
    agent: ActorCritic, market: ShuffledMarket | DriftMarket, bucket: BucketConfig, seeds: range, n_decisions: int
) -> float:
    """Timing skill in standard errors from none, on a path a seed; standard normal where nothing is to be found.

    The agent is made to trade: it is long wherever it would rather buy than on the median decision, so that staying
    out is no way to pass. Correlation of those positions with the next return, times the root of their number; nan of
    an agent that prefers the same everywhere, which times nothing and proves nothing.
    """
    timed: list[FloatArray] = []
    for seed in seeds:
        data, _ = yardstick_data(market, n_decisions, path_seed(seed, MARKING))
        rules = yardstick_rules(market.cost_bps, market.patch_bars)
        task = yardstick_task(data, rules, bucket, len(data))
        bars = clock_decisions(task, task.valid, market.patch_bars - 1)
        account = torch.from_numpy(play(agent, task, bars[:2]).observation[0, 0, :1])
        preference = []
        for first in range(0, len(bars), _CHUNK):
            stretch = stretches_at(task, Span(0, len(data)), bars[None, first : first + _CHUNK])
            preference.append(_preference(agent, torch.from_numpy(stretch.tokens), account))
        wanted = np.concatenate(preference)[:-1]
        held = (wanted > np.median(wanted)).astype(np.float64)
        following = np.diff(data.mark[bars]) / data.mark[bars[:-1]] / RETURN_SCALE
        timed.append((held - held.mean()) * following)
    profits = np.concatenate(timed)
    error = profits.std() / math.sqrt(len(profits))
    return float(profits.mean() / error) if error > 0 else math.nan


@torch.no_grad()
def _preference(agent: ActorCritic, tokens: torch.Tensor, account: torch.Tensor) -> FloatArray:
    """How much a flat account would rather buy than hold, (M,) logits."""
    latent = agent.latent(agent.encode(tokens))[0]
    logits, _ = agent.head(latent, account.expand(len(latent), -1))
    return np.asarray((logits[:, Action.BUY] - logits[:, Action.HOLD]).numpy(), np.float64)
