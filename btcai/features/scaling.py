"""Mean and spread of every feature, fitted inside the training span and carried with the model from then on."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from btcai.errors import ArtifactError, DataError
from btcai.schema import Float32Array, Span

CLIP = 5.0
"""A network reads clip((x - mean) / std, -CLIP, CLIP) * mask: one crash bar cannot drown the other features."""

STD_FLOOR = 1e-3
"""Features are of order 1; one that hardly moves in the span is not blown up into noise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaler:
    """mean (F,), std (F,) float32, std >= STD_FLOOR; the last column, the mask, has mean 0 and std 1."""

    mean: Float32Array
    std: Float32Array

    def to_json(self) -> str:
        """Strict JSON that reads back to the same bits."""
        return json.dumps({"mean": self.mean.tolist(), "std": self.std.tolist()}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Scaler":
        """What to_json wrote; ArtifactError where it is not a scaler."""
        remedy = "make it again with: btcai stage features"
        try:
            raw: Any = json.loads(text)
            mean, std = (np.asarray(raw[key], np.float32) for key in ("mean", "std"))
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"scaler.json must hold the numbers mean and std ({error}); {remedy}") from error
        if mean.ndim != 1 or mean.shape != std.shape:
            raise ArtifactError(f"scaler.json: mean and std must be as long, were {mean.shape}, {std.shape}; {remedy}")
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ArtifactError(f"scaler.json: mean must be finite and std > 0, smallest std {std.min()}; {remedy}")
        return cls(mean=mean, std=std)


def fit_scaler(features: Float32Array, span: Span) -> Scaler:
    """features (T, F), mask last -> population mean and std of the span's present rows, summed in float64."""
    rows = features[span.first : span.stop]
    known = rows[rows[:, -1] == 1].astype(np.float64)
    if not len(known):
        raise DataError(f"a scaler needs present bars in {span}, was none; fetch more bars with: btcai data")
    mean = known.mean(axis=0)
    std = np.maximum(np.sqrt(((known - mean) ** 2).mean(axis=0)), STD_FLOOR)
    mean[-1], std[-1] = 0.0, 1.0
    return Scaler(mean=mean.astype(np.float32), std=std.astype(np.float32))
