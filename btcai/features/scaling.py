"""Mean and spread of every feature, fitted inside the training span and carried with the model from then on."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from btcai.checksums import is_intact, with_checksum
from btcai.errors import ArtifactError, DataError
from btcai.schema import Float32Array, Span

CLIP = 5.0
"""A network reads clip((x - mean) / std, -CLIP, CLIP) * mask: one crash bar cannot drown the other features."""

STD_FLOOR = 1e-3
"""Features are of order 1; one that hardly moves in the span is not blown up into noise."""

_REMEDY = "make it again with: btcai stage features"


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaler:
    """mean (F,), std (F,) float32, std >= STD_FLOOR; the last column, the mask, has mean 0 and std 1."""

    mean: Float32Array
    std: Float32Array

    def to_json(self) -> str:
        """Strict JSON that reads back to the same bits and proves itself."""
        return json.dumps(with_checksum(self.columns()), indent=2, allow_nan=False) + "\n"

    def columns(self) -> dict[str, list[float]]:
        """mean and std by name, for a record that holds them among other things."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, text: str | bytes) -> "Scaler":
        """What to_json wrote; ArtifactError where it is anything else."""
        try:
            raw: Any = json.loads(text)
        except ValueError as error:
            raise ArtifactError(f"scaler.json is not valid JSON ({error}); {_REMEDY}") from error
        if not is_intact(raw):
            raise ArtifactError(f"scaler.json is damaged, or of an older btcai: not what is written today; {_REMEDY}")
        return cls.of(raw)

    @classmethod
    def of(cls, columns: Any) -> "Scaler":
        """What `columns` gave; ArtifactError where it is not a scaler."""
        try:
            mean, std = (np.asarray(columns[key], np.float32) for key in ("mean", "std"))
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"a scaler must hold the numbers mean and std ({error}); {_REMEDY}") from error
        if mean.ndim != 1 or mean.shape != std.shape:
            raise ArtifactError(f"a scaler's mean and std must be as long, were {mean.shape}, {std.shape}; {_REMEDY}")
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ArtifactError(f"a scaler's mean must be finite and std > 0, smallest std {std.min()}; {_REMEDY}")
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
