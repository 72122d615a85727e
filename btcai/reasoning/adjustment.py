"""Components' weights after what they were measured to be worth: a record that is applied at the next border, or not.

Multiplicative weights (Arora, Hazan and Kale 2012, section 2): a weight times exp(step * gain), gain its worth over the
largest one's size, so at most exp(step) up or down. Only significant worth moves a weight; no weight falls below the
floor, from where it can come back. The attribution that it is made from has refused the sealed span.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from btcai.errors import ArtifactError
from btcai.features.splits import Splits
from btcai.reasoning.attribution import Attribution, Worth, refuse_sealed
from btcai.schema import FloatArray, Span

FORMAT = 1
"""Of the record: another number is refused."""
STEP = 0.5
FLOOR = 0.02


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """Weights before and after, in the order of worths, and all that they rest on."""

    before: tuple[float, ...]
    after: tuple[float, ...]
    worths: tuple[Worth, ...]
    span: Span
    decisions: int
    step: float
    floor: float
    made_from: tuple[tuple[str, str], ...]
    """(name, hash) of the data, model and code that the worths were measured with."""

    @property
    def weights(self) -> dict[str, float]:
        """Component -> weight after it."""
        return {worth.component: weight for worth, weight in zip(self.worths, self.after, strict=True)}

    @property
    def moved(self) -> tuple[str, ...]:
        """Components whose worth was significant."""
        return tuple(worth.component for worth in self.worths if worth.is_significant)


def adjust(
    attribution: Attribution,
    splits: Splits,
    made_from: Mapping[str, str],
    *,
    step: float = STEP,
    floor: float = FLOOR,
) -> Adjustment:
    """New weights from the worths; the old ones, to the bit, where none is significant. DataError for sealed bars.

    Their sum stays what it was; floor is a share of it.
    """
    refuse_sealed(attribution.span, splits)
    worths = attribution.components
    before = np.array([worth.weight for worth in worths])
    if not (np.all(before >= 0.0) and before.sum() > 0.0):
        raise ValueError(f"weights must be at least 0 and not all 0, were {before.tolist()}")
    if not 0.0 <= floor * len(before) <= 1.0:
        raise ValueError(f"the floor of {len(before)} weights must be 0 .. {1 / len(before):g}, was {floor}")
    gain = np.array([worth.value if worth.is_significant else 0.0 for worth in worths])
    after = before
    if np.any(gain):
        shares = np.maximum(before / before.sum(), floor)
        after = before.sum() * _floored(shares * np.exp(step * gain / np.abs(gain).max()), floor)
    return Adjustment(
        before=tuple(before.tolist()),
        after=tuple(after.tolist()),
        worths=worths,
        span=attribution.span,
        decisions=attribution.decisions,
        step=step,
        floor=floor,
        made_from=tuple(sorted(made_from.items())),
    )


def _floored(raw: FloatArray, floor: float) -> FloatArray:
    """Positive numbers (K,) scaled to sum to 1, those that would fall below the floor on it."""
    low = np.zeros(len(raw), np.bool_)
    for _ in range(len(raw)):
        scaled = np.where(low, floor, raw * (1.0 - floor * low.sum()) / raw[~low].sum())
        if not np.any(below := ~low & (scaled < floor)):
            break
        low |= below
    return np.asarray(scaled / scaled.sum())


def adjustment_json(adjustment: Adjustment) -> str:
    """One line of strict JSON that read_adjustment gives back; an unknown end of an interval is null."""
    return json.dumps(_nulled({"format": FORMAT, **asdict(adjustment)}), allow_nan=False, sort_keys=True) + "\n"


def read_adjustment(text: str) -> Adjustment:
    """What adjustment_json wrote; ArtifactError where it is damaged or of another format."""
    try:
        found = json.loads(text)
        if (number := found.pop("format", None)) != FORMAT:
            raise ValueError(f"its format is {number}, this btcai reads {FORMAT}")
        worths = tuple(_worth(fields) for fields in found.pop("worths"))
        pairs = tuple((name, digest) for name, digest in found.pop("made_from"))
        before, after, span = tuple(found.pop("before")), tuple(found.pop("after")), Span(**found.pop("span"))
        if not len(before) == len(after) == len(worths):
            raise ValueError(f"{len(worths)} components, {len(before)} weights before and {len(after)} after")
        return Adjustment(before=before, after=after, worths=worths, span=span, made_from=pairs, **found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"an adjustment of weights must be a line of JSON as it was logged, was not ({error}); "
            "remove it and measure again with: btcai run"
        ) from error


def _worth(fields: dict[str, Any]) -> Worth:
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in fields.items()}
    return Worth(**known)


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _nulled(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nulled(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
