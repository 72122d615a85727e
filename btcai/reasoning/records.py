"""The reasoning chain as frozen records, and as strict JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from btcai.schema import FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """What one family of evidence says at each of D decision times.

    score (D,) -1 .. 1, bullish above 0; confidence (D,) 0 .. 1, in that score; 0 and 0 where the bar is missing or too
    little lies before it. facts: name -> (D,), the numbers of its sentence, nan where there is none.
    """

    name: str
    score: FloatArray
    confidence: FloatArray
    facts: Mapping[str, FloatArray]


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """Situations like this one that were met before, and what followed them."""

    n: int
    mean_outcome: float
    """Mean of their outcomes: log returns over the bucket's shortest horizon."""
    hit_rate: float
    """Share of the outcomes above 0."""
    confidence: float
    """0 .. 1: how far n and their likeness bear the mean."""
    nearest: tuple[tuple[int, float, float], ...]
    """(close_ts_ns, distance, outcome) of the most alike, nearest first."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One link of the chain."""

    name: str
    score: float | None
    """-1 .. 1, bullish above 0; None where a step weighs nothing up (sizing, risk)."""
    confidence: float | None
    sentence: str
    facts: Mapping[str, float]
    """The numbers of the sentence and those behind it; nan where there is none."""


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """One decision and every step that leads to it, in order."""

    bucket: str
    close_ts_ns: int
    action: str
    """Name of the schema.Action."""
    size_frac: float
    """Of equity, for the lot that the action opens."""
    conviction: float
    """-1 .. 1: what the components say together; reported, it decides nothing."""
    account: str
    """Which account was told of or assumed."""
    model_version: str
    data_version: str
    steps: tuple[Step, ...]
    recalled: Recalled | None = None

    def step(self, name: str) -> Step:
        """The step of that name; KeyError without one."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"a step must be one of {', '.join(step.name for step in self.steps)}, was {name}")


def reasoning_record(reasoning: Reasoning) -> dict[str, Any]:
    """What strict JSON holds of it: names, texts and finite numbers; an undefined number is None."""
    fields = {name: getattr(reasoning, name) for name in Reasoning.__dataclass_fields__}
    steps = [{name: getattr(step, name) for name in Step.__dataclass_fields__} for step in reasoning.steps]
    recalled = reasoning.recalled
    told = None if recalled is None else {name: getattr(recalled, name) for name in Recalled.__dataclass_fields__}
    record: dict[str, Any] = _finite(fields | {"steps": steps, "recalled": told})
    return record


def reasoning_json(reasoning: Reasoning) -> str:
    """One line of strict JSON."""
    return json.dumps(reasoning_record(reasoning), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
