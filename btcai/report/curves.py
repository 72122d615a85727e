"""How each bucket learned and what it came to read, by the files that training, consolidation and ablation left."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from btcai.errors import ArtifactError

MEASURES = ("gates", "permutation", "integrated_gradients")
"""Of how much a feature matters; importance.csv holds the first of them as `importance`."""


def read_curves(trained: Path, consolidated: Path) -> pd.DataFrame:
    """curves.csv of both folders, a row per update: `phase` without the bucket's name, then what was measured.

    Empty where nothing was trained. ArtifactError when a file is missing.
    """
    parts = [_read(trained, f"train@{trained.name}"), _read(consolidated, "consolidate")]
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    phases = rows["phase"].astype(str).str.removeprefix(f"{trained.name}: ")
    return rows.assign(phase=phases)


def read_importance(consolidated: Path) -> dict[str, float]:
    """importance.csv of the model that is judged: feature -> its share of the selection. ArtifactError when missing."""
    rows = _read(consolidated, "consolidate", "importance.csv")
    return dict(zip(rows["feature"].tolist(), rows["importance"].tolist(), strict=True))


def read_measures(consolidated: Path) -> pd.DataFrame:
    """The same file with all that was measured: feature, MEASURES, permutation_error, twin, twin_correlation.

    Without rows where only the gates were measured. ArtifactError when missing.
    """
    rows = _read(consolidated, "consolidate", "importance.csv").rename(columns={"importance": "gates"})
    return rows if set(MEASURES) <= set(rows.columns) else rows.iloc[:0]


def read_trained(trained: Path, consolidated: Path) -> dict[str, Any]:
    """metrics.json of training, and what consolidation kept: rounds_kept, valid_score_before, valid_score_after.

    ArtifactError when a file is missing.
    """
    found, after = _metrics(trained, f"train@{trained.name}"), _metrics(consolidated, "consolidate")
    kept = {name: after.get(name) for name in ("rounds_kept", "valid_score_before")}
    return {**found, **kept, "valid_score_after": after.get("valid_score")}


def read_ablation(folder: Path) -> pd.DataFrame:
    """scores.csv of every subject that was compared (folder/SUBJECT), one below the other; empty where none was."""
    parts = [pd.read_csv(path) for path in sorted(folder.glob("*/scores.csv"))]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _read(folder: Path, stage: str, name: str = "curves.csv") -> pd.DataFrame:
    return pd.read_csv(_existing(folder / name, stage))


def _metrics(folder: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_existing(folder / "metrics.json", stage).read_text(encoding="utf-8"))
    return found


def _existing(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise ArtifactError(f"{path} not found; make it with: btcai stage {stage}")
    return path
