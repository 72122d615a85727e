"""Which stretches of the training span an update of PPO learns from, and what each of them counts."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from btcai.agent.ppo import Experience
from btcai.agent.replay import Parts, draw, parts_of
from btcai.agent.task import Stretches, Task, sample_stretches, stretches_from
from btcai.config import PpoConfig
from btcai.schema import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Stretches to learn from; where they are prioritised: of which parts (S,), and what their rows count (S,)."""

    stretches: Stretches
    parts: Parts | None = None
    of: IntArray | None = None
    weight: FloatArray | None = None


def drawn_stretches(
    task: Task, config: PpoConfig, known: dict[str, list[float]] | None, update: int, rng: np.random.Generator
) -> Drawn:
    """Evenly, or as config.replay says by what is `known` of the parts of the training span."""
    if not config.replay.prioritised:
        stretches = sample_stretches(task, task.train, config.stretches, config.decisions, rng)
        return Drawn(stretches=stretches)
    parts = parts_of(task, task.train, config.decisions)
    if known is not None:
        parts = parts.with_facts(known)
    of, starts, weight = draw(parts, config.replay, update, config.stretches, rng)
    stretches = stretches_from(task, task.train, starts, config.decisions)
    return Drawn(stretches=stretches, parts=parts, of=of, weight=weight)


def counted(experience: Experience, drawn: Drawn, update: int) -> tuple[Experience, dict[str, list[float]] | None]:
    """With what rows count; and what is known of the parts from now on."""
    if drawn.parts is None or drawn.of is None or drawn.weight is None:
        return experience, None
    surprise = experience.advantage.abs().mean((1, 2)).double().numpy()
    known = drawn.parts.visited(drawn.of, surprise, update + 1).as_facts()
    return replace(experience, weight=torch.from_numpy(drawn.weight).float()), known
