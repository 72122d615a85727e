"""A market that only an interaction explains: a regime decides which way an observed signal points.

return[t + 1] = s * regime[t] * signal[t] + sigma * noise. The signal is AR(1) with phi; the regime, 1 or -1, changes
sign with a fixed probability a decision; both are shown. Neither of them nor any of their pasts is correlated with the
next return: E[regime * signal * signal'] = E[regime] E[signal * signal'] = 0, and likewise for the regime. Past returns
are, a little, since the product is autocorrelated; the default noise makes that worth less than the costs, so a linear
rule on everything that is shown has nothing to earn (`best_linear_bps`).
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from btcai.schema import FloatArray
from btcai.yardstick.drift import DriftMarket, Level
from btcai.yardstick.dynamic_programming import Optimum, best_policy, normal_density, transition
from btcai.yardstick.loops import autoregression, hysteresis
from btcai.yardstick.paths import Paths, drift_in_patches, shown_in_bars

_GRID_POINTS, _GRID_SDS = 501, 6.0


@dataclass(frozen=True, kw_only=True)
class InteractionMarket:
    """All a decision: phi of the signal, probability that the regime switches, s, sigma; signals `signal`, `regime`."""

    patch_bars: int = 1
    phi: float = 0.95
    switch_probability: float = 0.25
    s_bps: float = 10.0
    sigma_bps: float = 60.0
    cost_bps: float = 5.0

    @property
    def bar_sigma_bps(self) -> float:
        return self.sigma_bps / math.sqrt(self.patch_bars)

    @property
    def expected_sd_bps(self) -> float:
        return self.s_bps

    @property
    def optimum(self) -> Optimum:
        """Worth (2, n): regime -1 and 1, by the signal."""
        return _optimum(self)

    @property
    def optimum_bps(self) -> float:
        return self.optimum.value_bps

    @property
    def best_linear_bps(self) -> float:
        """What the best linear forecast of the next return would earn if the product were Gaussian with the same
        autocovariance: that of a hidden AR(1) drift with coefficient phi * (1 - 2 switch_probability)."""
        phi = self.phi * (1 - 2 * self.switch_probability)
        level = Level(phi=phi, s_bps=self.s_bps, sigma_bps=self.sigma_bps, cost_bps=self.cost_bps)
        return DriftMarket(level=level, shown=False).optimum_bps

    def simulate(self, n_decisions: int, n_paths: int, seed: int) -> Paths:
        rng, shape = np.random.default_rng(seed), (n_paths, n_decisions + 1)
        signal = autoregression(rng.standard_normal(shape), self.phi)
        turns: FloatArray = np.ones(shape)
        turns[rng.random(shape) < self.switch_probability] = -1.0
        turns[:, 0] = rng.choice([-1.0, 1.0], n_paths)
        regime: FloatArray = np.multiply.accumulate(turns, axis=1)
        drift = self.s_bps / 1e4 * regime * signal
        shown = {"signal": signal[:, 1:], "regime": regime[:, 1:]}
        return Paths(
            patch_bars=self.patch_bars,
            bar_returns=drift_in_patches(drift[:, :-1], self.sigma_bps / 1e4, self.patch_bars, rng),
            expected=drift[:, 1:],
            signals={name: shown_in_bars(values, self.patch_bars) for name, values in shown.items()},
        )

    def optimal_positions(self, paths: Paths) -> FloatArray:
        signal, regime = paths.at_decisions("signal"), paths.at_decisions("regime")
        (grid,) = self.optimum.axes
        adverse, favourable = (np.interp(signal, grid, worth) for worth in self.optimum.worth_bps)
        return hysteresis(np.where(regime > 0, favourable, adverse), self.cost_bps, -self.cost_bps)


@cache
def _optimum(market: InteractionMarket) -> Optimum:
    signal = np.linspace(-_GRID_SDS, _GRID_SDS, _GRID_POINTS)
    move = transition(signal, market.phi, math.sqrt(1 - market.phi**2))
    stay, leave = 1 - market.switch_probability, market.switch_probability
    regime = np.array([[stay, leave], [leave, stay]])
    expected = market.s_bps * np.array([[-1.0], [1.0]]) * signal

    def expect(advantage: FloatArray) -> FloatArray:
        return np.asarray(regime @ advantage @ move.T)

    density = np.broadcast_to(normal_density(signal, 1.0), expected.shape)
    return best_policy(expected, expect, density, (signal,), market.cost_bps)
