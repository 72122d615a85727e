"""A market that an interaction explains and no single input does: a direction decides how the signals add up.

return[t + 1] = drift[t] + sigma * noise, drift AR(1) with phi, as in a level whose drift is shown. But it is shown in
code, as two vectors: drift[t] = s * direction[t] . signals[t]. The direction is uniform on the unit sphere and drawn
anew at every decision; the signals are the drift along it and fresh standard normals across it. So the direction is
independent of the drift, and the signals of its sign (their length tells its size, which alone earns nothing): only the
product of both tells. Decoded, it is the drift, so the optimum is that of the level, shown.

Uncorrelated does not mean that linear rules earn nothing: a threshold makes them non-linear. With one signal and its
sign this would be an exclusive or, whose half "both are large" a plane cuts off: that earns 21 % of the optimum. A
weighted sum z of everything, in standard deviations, tells no more of the drift than (z^2 - 1) / (2 sqrt(n_signals))
standard deviations of it about, and what that is worth falls faster still, since costs have to be earned first. The
best linear rule found by search earns 3 % of the optimum with 4 signals and less than 1 % with the default 8. What past
returns alone say is worth less than a thousandth. A small network that can multiply finds nearly all of it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from btcai.schema import FloatArray
from btcai.yardstick.drift import DriftMarket, Level
from btcai.yardstick.dynamic_programming import Optimum
from btcai.yardstick.paths import Paths, shown_in_bars

LEVEL = Level(phi=0.5, s_bps=8, sigma_bps=40, cost_bps=5)
"""Too short a memory and too much noise for past returns to pay their costs."""


@dataclass(frozen=True, kw_only=True)
class InteractionMarket:
    """A level seen in code, signals `signal_1` .. and `direction_1` .., the latter times sqrt(n_signals)."""

    n_signals: int = 8
    level: Level = LEVEL
    patch_bars: int = 1

    @property
    def decoded(self) -> DriftMarket:
        """The same market for those who know the code."""
        return DriftMarket(level=self.level, shown=True, patch_bars=self.patch_bars)

    @property
    def cost_bps(self) -> float:
        return self.level.cost_bps

    @property
    def bar_sigma_bps(self) -> float:
        return self.decoded.bar_sigma_bps

    @property
    def expected_sd_bps(self) -> float:
        return self.decoded.expected_sd_bps

    @property
    def optimum(self) -> Optimum:
        """Over the drift, bps."""
        return self.decoded.optimum

    @property
    def optimum_bps(self) -> float:
        return self.decoded.optimum_bps

    def simulate(self, n_decisions: int, n_paths: int, seed: int) -> Paths:
        paths = self.decoded.simulate(n_decisions, n_paths, seed)
        (stream,) = np.random.SeedSequence(seed).spawn(1)
        direction, signals = _coded(paths.at_decisions("drift"), self.n_signals, np.random.default_rng(stream))
        direction *= math.sqrt(self.n_signals)
        series = zip((*self._names("signal"), *self._names("direction")), (*signals, *direction), strict=True)
        return replace(paths, signals={name: shown_in_bars(values, self.patch_bars) for name, values in series})

    def optimal_positions(self, paths: Paths) -> FloatArray:
        pairs = zip(self._names("signal"), self._names("direction"), strict=True)
        drift = np.zeros_like(paths.bar_returns)
        for signal, direction in pairs:
            drift += paths.signals[signal] * paths.signals[direction] / math.sqrt(self.n_signals)
        return self.decoded.optimal_positions(replace(paths, signals={"drift": drift}))

    def _names(self, what: str) -> list[str]:
        return [f"{what}_{i}" for i in range(1, self.n_signals + 1)]


def _coded(drift: FloatArray, n_signals: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """drift (N, T) of unit spread -> direction and signals (n_signals, N, T), direction . signals = drift."""
    direction, signals = rng.standard_normal((2, n_signals, *drift.shape))
    direction /= np.sqrt((direction**2).sum(0))
    signals += direction * (drift - (direction * signals).sum(0))
    return direction, signals
