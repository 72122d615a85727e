"""An empty project under git and DVC, and the tools run in it."""

import subprocess
import sys
from pathlib import Path

from btcai.environment import child_environment
from btcai.records import lineage


def run(root: Path, *command: str) -> str:
    """A tool in the project, whose own words are the failure's."""
    environment = child_environment() | {"DVC_SITE_CACHE_DIR": str(root.parent / "site")}
    done = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(root: Path, *arguments: str) -> str:
    return run(root, sys.executable, "-m", "dvc", *arguments)


def git(root: Path, *arguments: str) -> str:
    own = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
    return run(root, "git", *own, *arguments)


def checkout(root: Path) -> None:
    """An empty git and DVC project that keeps what the pipeline makes out of git."""
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    dvc(root, "init", "--quiet")
    (root / ".gitignore").write_text("/mlflow/\n/models/\n/artifacts/\n/reports/\n/journal/\n", encoding="utf-8")


def bars(root: Path, text: str) -> str:
    """data/ holds this, and DVC its copy; returns the md5 of data.dvc's folder."""
    (root / "data" / "simulated").mkdir(parents=True, exist_ok=True)
    (root / "data" / "simulated" / "2024-01.parquet").write_text(text, encoding="utf-8")
    dvc(root, "add", "--quiet", "data")
    return str(lineage.tags(root)["data_dvc_md5"])


def committed(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "state")


def cached(root: Path) -> set[str]:
    """The hashes in DVC's cache."""
    files = (root / ".dvc" / "cache" / "files" / "md5").rglob("*")
    return {file.parent.name + file.name for file in files if file.is_file()}
