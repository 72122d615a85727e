"""The project in this folder, for commands that write what a run reads or writes: one of them at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def project_root() -> Path:
    """The project's folder, which this is; ConfigError elsewhere. For commands that read no settings."""
    from btcai.params import require_project

    root = Path.cwd()
    require_project(root)
    return root


@contextmanager
def writing(what: str, *, pauses: bool = False, part: Path | None = None) -> Iterator[Path]:
    """The project's folder, held meanwhile (run_lock.alone); ConfigError where params.yaml is missing or broken.

    part: for what lasts for days and writes to this folder alone, which no run reads: only that is held.
    """
    from btcai import paths
    from btcai.operation import run_lock
    from btcai.params import load_config

    root = Path.cwd()
    load_config(root / paths.PARAMS)
    with run_lock.alone(root, what, pauses=pauses, part=part):
        yield root


@contextmanager
def features_unchanged(root: Path) -> Iterator[None]:
    """ArtifactError where a run made artifacts/features anew within the block: what it read may be half of each."""
    from btcai import paths
    from btcai.errors import ArtifactError

    before = _identity(root / paths.FEATURES)
    yield
    if _identity(root / paths.FEATURES) != before:
        raise ArtifactError(f"{paths.FEATURES} must stay as it is while it is read, a run made it anew; run this again")


def _identity(folder: Path) -> object:
    """Equal while nobody makes a folder of features anew, the same bars with other splits too; None without one."""
    meta = folder / "meta.json"
    try:
        return [(at.st_ino, at.st_mtime_ns) for at in (folder.stat(), meta.stat())], meta.read_bytes()
    except FileNotFoundError:
        return None
