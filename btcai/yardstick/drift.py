"""One hidden or shown AR(1) drift, at four levels: what a linear filter can find, and less of it from level to level.

return[t + 1] = drift[t] + sigma * noise; drift is AR(1) with coefficient phi and stationary standard deviation s. Where
the drift is hidden its best estimate is a Kalman filter's, itself AR(1) with phi and of a smaller spread.

A bucket with patches of P bars gets the same market a patch: the drift moves once a patch, at the close that the
absolute decision clock names, and the optimum a decision is the same for all four. At another phase than the clock's
(training samples them all) a patch is paid by two drifts and straddles them in what it sees: the mean of two
neighbours, which for phi near one is a market of nearly the same drift. Scores are taken at the clock's phase, where
what a shown drift says and what it pays are the same for all four, draw by draw.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from btcai.schema import FloatArray
from btcai.yardstick.dynamic_programming import Optimum, best_policy, normal_density, transition
from btcai.yardstick.kalman import SteadyFilter, steady_filter
from btcai.yardstick.loops import autoregression, filtered, hysteresis
from btcai.yardstick.paths import Paths, drift_in_patches, shown_in_bars

_GRID_POINTS, _GRID_SDS = 1001, 6.0


@dataclass(frozen=True, kw_only=True)
class Level:
    """phi of the drift, s and sigma: standard deviations of drift and noise, all a decision; cost a side."""

    phi: float
    s_bps: float
    sigma_bps: float
    cost_bps: float


LEVELS = {
    "easy": Level(phi=0.98, s_bps=15, sigma_bps=30, cost_bps=5),
    "medium": Level(phi=0.99, s_bps=8, sigma_bps=30, cost_bps=5),
    "hard": Level(phi=0.995, s_bps=5, sigma_bps=30, cost_bps=5),
    "very_hard": Level(phi=0.995, s_bps=3, sigma_bps=30, cost_bps=5),
}


@dataclass(frozen=True, kw_only=True)
class DriftMarket:
    """A level for one viewer and one bucket's patch; signal where shown: `drift`, in units of s."""

    level: Level
    shown: bool
    patch_bars: int = 1

    @property
    def cost_bps(self) -> float:
        return self.level.cost_bps

    @property
    def bar_sigma_bps(self) -> float:
        return self.level.sigma_bps / math.sqrt(self.patch_bars)

    @property
    def expected_sd_bps(self) -> float:
        return self.level.s_bps

    @property
    def optimum(self) -> Optimum:
        """Over the drift seen or its estimate, bps."""
        return _optimum(self.level, self.shown)

    @property
    def optimum_bps(self) -> float:
        return self.optimum.value_bps

    def simulate(self, n_decisions: int, n_paths: int, seed: int) -> Paths:
        level, rng = self.level, np.random.default_rng(seed)
        drift = autoregression(rng.standard_normal((n_paths, n_decisions + 1)), level.phi)
        earlier, current = drift[:, :-1] * (level.s_bps / 1e4), drift[:, 1:]
        return Paths(
            patch_bars=self.patch_bars,
            bar_returns=drift_in_patches(earlier, level.sigma_bps / 1e4, self.patch_bars, rng),
            expected=current * (level.s_bps / 1e4),
            signals={"drift": shown_in_bars(current, self.patch_bars)} if self.shown else {},
        )

    def optimal_positions(self, paths: Paths) -> FloatArray:
        seen_bps = paths.at_decisions("drift") * self.level.s_bps if self.shown else 1e4 * self.estimate(paths)
        (grid,) = self.optimum.axes
        # Q rises with the drift, so its level lines are thresholds of the drift
        buy, sell = np.interp((self.cost_bps, -self.cost_bps), self.optimum.worth_bps, grid)
        return hysteresis(seen_bps, float(buy), float(sell))

    def estimate(self, paths: Paths) -> FloatArray:
        """The drift (N, T) as returns alone give it: within a patch it is constant, so their sum says it all."""
        level = self.level
        return np.asarray(filtered(paths.returns, np.array([level.phi]), _filter(level).gain)[0])


@cache
def _filter(level: Level) -> SteadyFilter:
    return steady_filter(np.array([level.phi]), np.array([level.s_bps]), level.sigma_bps)


@cache
def _optimum(level: Level, shown: bool) -> Optimum:
    hidden_variance = 0.0 if shown else float(_filter(level).error_covariance[0, 0])
    sd = math.sqrt(level.s_bps**2 - hidden_variance)
    drift = np.linspace(-_GRID_SDS * sd, _GRID_SDS * sd, _GRID_POINTS)
    move = transition(drift, level.phi, sd * math.sqrt(1 - level.phi**2))
    return best_policy(drift, lambda advantage: move @ advantage, normal_density(drift, sd), (drift,), level.cost_bps)
