"""How each bucket learned, by the curves that training and consolidation left, and which features it came to read."""

from pathlib import Path

import pandas as pd

from btcai.errors import ArtifactError


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


def _read(folder: Path, stage: str, name: str = "curves.csv") -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise ArtifactError(f"{path} not found; make it with: btcai stage {stage}")
    return pd.read_csv(path)
