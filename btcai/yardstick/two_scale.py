"""Two drifts at once, a fast and a slow one: what short buckets live on, and what long ones do.

return[t + 1] = fast[t] + slow[t] + sigma * noise, bar by bar whatever the bucket: all four trade the same bars, each at
its own patch, so knowledge can be handed from one to the next. Hidden, both are estimated from the bars by one Kalman
filter. The state of the dynamic programme is the pair of drifts, or of their estimates, at a decision.

The defaults make both matter. The fast drift halves in 14 bars: scalping's 144 bars of lookback hold all of it, and
three quarters of it are gone at the end of long's patch of 28. The slow one halves in 346: long's 4032 bars hold all of
it, scalping's do not. Alone, the hidden fast drift would be worth 73 % of the optimum to scalping and 57 % to long, the
slow one 60 and 78 %.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from btcai.schema import FloatArray
from btcai.yardstick.dynamic_programming import Optimum, best_policy, transition
from btcai.yardstick.kalman import SteadyFilter, steady_filter
from btcai.yardstick.loops import autoregression, bilinear, filtered, hysteresis
from btcai.yardstick.paths import Paths, drift_in_patches

_FAST_POINTS, _SLOW_POINTS, _GRID_SDS = 121, 401, 5.0


@dataclass(frozen=True, kw_only=True)
class TwoScaleMarket:
    """Coefficients and standard deviations a bar, cost a side; signals where shown: `fast` and `slow`, in their sd."""

    shown: bool
    patch_bars: int = 1
    fast_phi: float = 0.95
    fast_bps: float = 8.0
    slow_phi: float = 0.998
    slow_bps: float = 4.0
    bar_sigma_bps: float = 30.0
    cost_bps: float = 5.0

    @property
    def phi(self) -> FloatArray:
        """(2,): fast, slow."""
        return np.array([self.fast_phi, self.slow_phi])

    @property
    def spread_bps(self) -> FloatArray:
        """(2,): fast, slow."""
        return np.array([self.fast_bps, self.slow_bps])

    @property
    def payoff(self) -> FloatArray:
        """(2,): expected sum of a drift's next patch_bars bars, per unit of it now."""
        return np.asarray((1 - self.phi**self.patch_bars) / (1 - self.phi))

    @property
    def expected_sd_bps(self) -> float:
        return float(np.hypot(*(self.payoff * self.spread_bps)))

    @property
    def optimum(self) -> Optimum:
        """Over the coordinates of `_coordinates`, bps."""
        return _optimum(self)

    @property
    def optimum_bps(self) -> float:
        return self.optimum.value_bps

    def simulate(self, n_decisions: int, n_paths: int, seed: int) -> Paths:
        rng, bars = np.random.default_rng(seed), n_decisions * self.patch_bars
        fast, slow = (autoregression(rng.standard_normal((n_paths, bars + 1)), float(phi)) for phi in self.phi)
        drift = (self.fast_bps * fast[:, :-1] + self.slow_bps * slow[:, :-1]) / 1e4
        shown = {"fast": fast[:, 1:], "slow": slow[:, 1:]}
        at = slice(self.patch_bars - 1, None, self.patch_bars)
        pay = self.payoff * self.spread_bps / 1e4
        return Paths(
            patch_bars=self.patch_bars,
            bar_returns=drift_in_patches(drift, self.bar_sigma_bps / 1e4, 1, rng),
            expected=pay[0] * shown["fast"][:, at] + pay[1] * shown["slow"][:, at],
            signals=shown if self.shown else {},
        )

    def optimal_positions(self, paths: Paths) -> FloatArray:
        fast, slow = self._seen_bps(paths)
        ratio, _ = _coordinates(self)
        places = [
            (seen - axis[0]) / (axis[1] - axis[0])
            for seen, axis in zip((fast, slow - ratio * fast), self.optimum.axes, strict=True)
        ]
        worth = bilinear(self.optimum.worth_bps, *places)
        return hysteresis(worth, self.cost_bps, -self.cost_bps)

    def _seen_bps(self, paths: Paths) -> FloatArray:
        if self.shown:
            return np.stack([paths.at_decisions("fast") * self.fast_bps, paths.at_decisions("slow") * self.slow_bps])
        estimates = filtered(paths.bar_returns, self.phi, _filter(self).gain)
        return 1e4 * estimates[:, :, self.patch_bars - 1 :: self.patch_bars]


@cache
def _filter(market: TwoScaleMarket) -> SteadyFilter:
    return steady_filter(market.phi, market.spread_bps, market.bar_sigma_bps)


def _steps(market: TwoScaleMarket) -> tuple[FloatArray, FloatArray]:
    """Covariances (2, 2) of what a patch adds to the seen pair, and of the pair itself."""
    decay = np.multiply.outer(market.phi, market.phi)
    if market.shown:
        bar = np.diag(market.spread_bps**2 * (1 - market.phi**2))
    else:
        bar = _filter(market).innovation_covariance
    stationary = bar / (1 - decay)
    return stationary * (1 - decay**market.patch_bars), stationary


def _coordinates(market: TwoScaleMarket) -> tuple[float, float]:
    """ratio and sd such that fast and slow - ratio * fast take independent steps, the latter's of this sd.

    The estimates share their surprises: bar by bar they move along one line (sd zero), over a patch nearly so.
    """
    step, _ = _steps(market)
    ratio = step[0, 1] / step[0, 0]
    return float(ratio), math.sqrt(max(step[1, 1] - ratio * step[0, 1], 0.0))


@cache
def _optimum(market: TwoScaleMarket) -> Optimum:
    """Grid over a = fast and b = slow - ratio * fast; the next b is phi_slow b + ratio (phi_slow - phi_fast) a + step.

    So D's expectation is taken along b's step, then along a's, then read where b drifts to from each a.
    """
    phi = market.phi**market.patch_bars
    step, stationary = _steps(market)
    ratio, rest_sd = _coordinates(market)
    to_ab = np.array([[1.0, 0.0], [-ratio, 1.0]])
    covariance = to_ab @ stationary @ to_ab.T
    points = (_FAST_POINTS, _SLOW_POINTS)
    a, b = (
        sd * np.linspace(-_GRID_SDS, _GRID_SDS, n) for sd, n in zip(np.sqrt(np.diag(covariance)), points, strict=True)
    )
    expected = market.payoff[0] * a[:, None] + market.payoff[1] * (b + ratio * a[:, None])
    along_a = transition(a, phi[0], math.sqrt(step[0, 0]))
    along_b = transition(b, 1.0, rest_sd)
    drifted = phi[1] * b + ratio * (phi[1] - phi[0]) * a[:, None]
    place = np.clip((drifted - b[0]) / (b[1] - b[0]), 0.0, len(b) - 1.0)
    left = np.minimum(place.astype(np.int64), len(b) - 2)
    right_share = place - left

    def expect(advantage: FloatArray) -> FloatArray:
        stepped = along_a @ (advantage @ along_b.T)
        lower, upper = (np.take_along_axis(stepped, left + k, axis=1) for k in (0, 1))
        return np.asarray(lower + right_share * (upper - lower))

    precision = np.linalg.inv(covariance)
    quadratic = precision[0, 0] * a[:, None] ** 2 + 2 * precision[0, 1] * a[:, None] * b + precision[1, 1] * b**2
    return best_policy(expected, expect, np.exp(-0.5 * quadratic), (a, b), market.cost_bps)
