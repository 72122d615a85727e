"""Simulated paths, and what all markets of the yardstick have in common."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from btcai.schema import FloatArray

TRAINING, MARKING = 0, 1
"""Uses of a seed."""


def path_seed(seed: int, use: int) -> int:
    """Of a path to train on or to mark on: a stream of its own for each use of a seed."""
    stream = np.random.SeedSequence(seed).spawn(use + 1)[use]
    return int(stream.generate_state(1, np.uint64)[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Paths:
    """N paths of T decisions, each at the close of the last of its patch_bars bars (so B = T * patch_bars).

    bar_returns (N, B): simple returns, as fractions; expected (N, T): expected return from decision t to t + 1;
    signals: name -> (N, B), of unit spread, what is shown beside the returns, known when the bar closes.
    """

    patch_bars: int
    bar_returns: FloatArray
    expected: FloatArray
    signals: Mapping[str, FloatArray]

    @property
    def returns(self) -> FloatArray:
        """(N, T): sum of the bars' returns from decision t - 1 to t."""
        n, bars = self.bar_returns.shape
        return np.asarray(self.bar_returns.reshape(n, bars // self.patch_bars, self.patch_bars).sum(-1))

    def at_decisions(self, name: str) -> FloatArray:
        """A signal (N, T) as decisions see it."""
        return self.signals[name][:, self.patch_bars - 1 :: self.patch_bars]


class YardstickMarket(Protocol):
    """A market with a known answer, as one viewer sees it: `optimal_positions` reads nothing that is hidden."""

    @property
    def cost_bps(self) -> float:
        """Of a side."""

    @property
    def patch_bars(self) -> int:
        """From one decision to the next."""

    @property
    def bar_sigma_bps(self) -> float:
        """Standard deviation of a bar's noise."""

    @property
    def expected_sd_bps(self) -> float:
        """Standard deviation of Paths.expected, which is normal with mean zero in every market."""

    @property
    def optimum_bps(self) -> float:
        """Best average reward a decision of those who see what this viewer sees."""

    def simulate(self, n_decisions: int, n_paths: int, seed: int) -> Paths:
        """The same seed gives the same paths."""

    def optimal_positions(self, paths: Paths) -> FloatArray:
        """Best positions (N, T), 0 or 1, from flat."""


def drift_in_patches(drift: FloatArray, sigma: float, patch_bars: int, rng: np.random.Generator) -> FloatArray:
    """drift (N, T) of whole patches, sigma of a whole patch -> bar returns (N, T * patch_bars).

    A bar gets drift / patch_bars and noise of sigma / sqrt(patch_bars): its patch adds up to drift + sigma * noise.
    """
    n, patches = drift.shape
    noise = rng.standard_normal((n, patches * patch_bars))
    noise *= sigma / math.sqrt(patch_bars)
    noise.reshape(n, patches, patch_bars)[...] += drift[..., None] / patch_bars
    return noise


def shown_in_bars(signal: FloatArray, patch_bars: int) -> FloatArray:
    """signal (N, T) that decisions bring to light -> (N, T * patch_bars): the last one seen; zero before the first."""
    bars = np.repeat(signal, patch_bars, axis=1)
    late = patch_bars - 1
    return np.concatenate([np.zeros((len(signal), late)), bars[:, : bars.shape[1] - late]], axis=1)
