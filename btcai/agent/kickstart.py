"""Kickstarting: a student is drawn towards what its teacher, on another clock, would do in its place.

Schmitt et al. 2018, arXiv 1803.03835, section 3.1: the cross-entropy from the teacher's policy to the student's is
added to the loss, with a weight that falls to zero, so that the student is free to become better.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from btcai.agent.task import Stretches, Task
from btcai.models.actor_critic import ActorCritic
from btcai.models.trunk import BANDED
from btcai.schema import TOKENS, Action, Float32Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Kickstart:
    """A teacher that decides more often than its student, so that its lookback is the shorter one.

    weight: of the divergence beside the policy's loss, at first; frac: share of the updates in which it falls to zero.
    """

    teacher: ActorCritic
    weight: float
    frac: float

    def weight_at(self, update: int, updates: int) -> float:
        """The weight at an update, counted from 0."""
        return self.weight * max(0.0, 1 - update / (self.frac * updates))


@torch.no_grad()
def teacher_probabilities(teacher: ActorCritic, task: Task, stretches: Stretches, observation: Float32Array) -> Tensor:
    """What the teacher would do where the student's accounts are: (S, G, K, A) probabilities.

    observation (S, G, K, ACCOUNT_FEATURES) of the student's accounts at the first K decisions of the stretches. The
    teacher reads its own lookback on its own clock, which starts with the stretch's first decision; between two of its
    decisions the last one counts. Its threshold for trading greedily is left out: the student explores. ValueError
    where its patch is longer than the student's, for the bars before a stretch would not suffice.
    """
    patch, own = teacher.stem.patch_bars, task.patch_bars
    if patch > own:
        raise ValueError(f"a teacher must decide at least as often as its student, was every {patch} bars and {own}")
    count = observation.shape[2]
    latest = np.arange(count) * own // patch  # the teacher's decision that is the last at each of the student's
    decisions = int(latest[-1]) + 1
    room = stretches.bars.shape[1] * own // patch  # that the stretch has bars for
    if (banded := -(-decisions // BANDED) * BANDED) <= room:
        decisions = banded  # a whole number of bands is read faster
    rows = stretches.bars[:, :1] + np.arange(1 - TOKENS * patch, (decisions - 1) * patch + 1)
    tokens = task.features[rows].reshape(len(rows), decisions + TOKENS - 1, patch, -1)
    latent = teacher.latent(teacher.read(tokens, banded=decisions % BANDED == 0).cpu())[:, latest]
    logits, _ = teacher.head.act(teacher.head.market(latent).unsqueeze(1), torch.from_numpy(observation))
    logits[..., Action.HOLD] -= teacher.hold_bias
    return logits.softmax(-1)
