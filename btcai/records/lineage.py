"""What this checkout holds that a result can be traced by: the commit, the locks, DVC's hashes, the libraries."""

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from btcai import paths

logger = logging.getLogger(__name__)

LOCK = "requirements.lock"
KEPT = (str(paths.PARAMS), "dvc.yaml", "dvc.lock", "data.dvc", LOCK)
"""Files that the record keeps whole: with them a champion can be rebuilt though none of them was committed."""
LIBRARIES = ("torch", "numpy", "numba", "pandas", "onnxruntime", "mlflow")


def tags(root: Path) -> dict[str, str]:
    """What is true of the checkout at `root`, by the names it has in the record; what cannot be told is left out."""
    return {
        **_git_tags(root),
        **_lock_tags(root),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "libraries": ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _installed(name))),
    }


def _git_tags(root: Path) -> dict[str, str]:
    """git_commit, and git_dirty: whether a tracked file differs from it that the record does not keep."""
    commit = git(root, "rev-parse", "HEAD")
    changed = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{name}" for name in KEPT))
    if commit is None or changed is None:
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(changed)).lower()}


def git(root: Path, *arguments: str) -> str | None:
    """What git says; None without git, outside a checkout and before its first commit."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, text=True, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        logger.debug("git %s: %s", arguments[0], error)
        return None
    return done.stdout.strip()


def _lock_tags(root: Path) -> dict[str, str]:
    found = {
        "requirements_lock_sha256": _sha256(root / LOCK),
        "dvc_lock_sha256": _sha256(root / "dvc.lock"),
        "data_dvc_md5": _output_md5(_yaml(root / "data.dvc"), str(paths.DATA)),
    }
    return {name: value for name, value in found.items() if value is not None}


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def market_md5(root: Path, market: str) -> str | None:
    """DVC's hash of the market folder that artifacts/features were made from ("....dir").

    None where dvc.lock does not hold it, or tells of other features than those that are there.
    """
    stages = _yaml(root / "dvc.lock").get("stages") or {}
    made = stages.get("features") or {}
    features = root / paths.FEATURES
    if not features.is_dir() or _output_md5(made, paths.FEATURES.as_posix()) != folder_md5(features):
        return None
    return _md5_of(made.get("deps") or [], (paths.DATA / market).as_posix())


def folder_md5(folder: Path) -> str:
    """A folder's hash as DVC 3 names it: of the sorted list of its files' paths and md5 sums, "....dir"."""
    files = sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file())
    listed = []
    for place, file in files:
        with file.open("rb") as stream:
            listed.append({"md5": hashlib.file_digest(stream, "md5").hexdigest(), "relpath": place})
    return f"{hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()}.dir"


def _output_md5(stage: Mapping[str, Any], path: str) -> str | None:
    return _md5_of(stage.get("outs") or [], path)


def _md5_of(entries: list[dict[str, Any]], path: str) -> str | None:
    return next((entry.get("md5") for entry in entries if entry.get("path") == path), None)


def _yaml(path: Path) -> dict[str, Any]:
    """One of DVC's files; empty where it is missing or cannot be read (DVC says so itself when it runs)."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        logger.debug("%s: %s", path, error)
        return {}
    return found if isinstance(found, dict) else {}
