"""Which bundle a bucket decides with: the promotion rule and models/champion/BUCKET, as files. No registry here."""

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

STANDING = "standing.json"

Edge = Literal["proven", "none"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is on record about one registered version; standing.json beside a champion's files."""

    bucket: str
    version: int
    data_version: str
    code_version: str
    score: float
    """Walk-forward score, net of costs; higher is better, nan is not valid."""
    edge: Edge
    """proven: may leave paper."""
    run_id: str


def promotion(candidate: Standing, champion: Standing | None) -> tuple[bool, str]:
    """Whether the candidate replaces the champion, and why. The sealed span has no part in it."""
    if champion is not None and champion.version == candidate.version:
        return False, f"version {candidate.version} is the champion already"
    if not math.isfinite(candidate.score):
        return False, f"walk-forward score is {candidate.score}, not a number to compare"
    if champion is None:
        return True, "first valid version"
    if champion.data_version != candidate.data_version:
        return True, f"data changed since champion version {champion.version}: their scores do not compare"
    if candidate.score > champion.score:
        return True, f"score {candidate.score:.4f} beats version {champion.version}'s {champion.score:.4f}"
    return False, f"score {candidate.score:.4f} does not beat version {champion.version}'s {champion.score:.4f}"


def place_champion(bundle: Path, standing: Standing, folder: Path) -> None:
    """Make `folder` hold the bundle's very bytes plus standing.json; readers meet the old or the new, never a mixture.

    A folder cannot be renamed over a full one, so the old one steps aside first: a reader between the two renames
    finds no bundle and is told how to make one.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(bundle, fresh)
    (fresh / STANDING).write_text(json.dumps(asdict(standing), indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_standing(folder: Path) -> Standing | None:
    """The standing of the champion in `folder`; None when there is none."""
    path = folder / STANDING
    return Standing(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def is_placed(standing: Standing, folder: Path) -> bool:
    """True when `folder` holds this version with every file its manifest names, undamaged."""
    if read_standing(folder) != standing or not (folder / "manifest.json").is_file():
        return False
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return all(
        (folder / name).is_file() and hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        for name, digest in manifest["sha256"].items()
    )


def append_trial(path: Path, trial: dict[str, object]) -> bool:
    """Append one line to the ledger of configurations ever tried; False when its input_hash is there already."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if any(json.loads(line)["input_hash"] == trial["input_hash"] for line in lines):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(trial, sort_keys=True) + "\n")
    return True
