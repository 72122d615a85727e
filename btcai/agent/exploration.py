"""How much an update explores: the entropy bonus by time, by what training gains, or by how unfamiliar the market is.

By time it falls to zero whatever happens (schedules.entropy_at). The other two scale what that leaves.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from btcai.schema import FloatArray

LEAST = 1 / 8
"""Of the bonus, after gains in a row."""

MOST = 3.0
"""Times the bonus, where a stretch is least familiar."""

FAR = 9.0
"""Squared standard deviations: a single latent that hardly ever moves must not make everything unfamiliar."""

RATE = 0.1
"""Weight of an update's stretches in what counts as familiar."""


def after_gain(factor: float, *, gained: bool) -> float:
    """By gain: the next factor of the bonus, half where the latest look at the validation span gained, else twice."""
    return max(LEAST, factor / 2) if gained else min(1.0, 2 * factor)


@dataclass(frozen=True, kw_only=True, eq=False)
class Familiar:
    """Mean and variance of what a head reads, (Z,) each: the market that it knows."""

    mean: FloatArray
    variance: FloatArray

    def as_facts(self) -> dict[str, list[float]]:
        """JSON values for a checkpoint."""
        return {"mean": self.mean.tolist(), "variance": self.variance.tolist()}

    @classmethod
    def from_facts(cls, facts: dict[str, list[float]]) -> "Familiar":
        """What as_facts gave."""
        return cls(mean=np.array(facts["mean"]), variance=np.array(facts["variance"]))

    @classmethod
    def of(cls, latent: Tensor) -> "Familiar":
        """Of latents (S, K, Z)."""
        rows = latent.flatten(0, 1).double()
        return cls(mean=rows.mean(0).numpy(), variance=rows.var(0, correction=0).numpy())

    def with_more(self, latent: Tensor) -> "Familiar":
        """After an update on these latents, exponentially averaged."""
        new = Familiar.of(latent)
        step = new.mean - self.mean
        variance = (1 - RATE) * (self.variance + RATE * step**2) + RATE * new.variance
        return Familiar(mean=self.mean + RATE * step, variance=variance)

    def distance(self, latent: Tensor) -> Tensor:
        """Mean squared distance of stretches (S, K, Z) in standard deviations, (S,): near 1 on average, 0 .. MOST."""
        mean, variance = torch.from_numpy(self.mean), torch.from_numpy(self.variance).clamp(min=1e-12)
        square = ((latent.double() - mean).square() / variance).clamp(max=FAR)
        return square.mean((1, 2)).clamp(max=MOST).float()
