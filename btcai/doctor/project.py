"""The project's folder: settings, pins, what may be written, what killed processes left."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from btcai import datasets, files, paths
from btcai.doctor.findings import Finding, error, ok, warning
from btcai.environment import child_environment
from btcai.errors import ArtifactError
from btcai.operation import dvc_locks, run_lock
from btcai.params import load_config
from btcai.records import lineage
from btcai.records.ledgers import lines_of, record_of
from btcai.records.promotions import open_change
from btcai.schema import BUCKETS

WRITTEN = ("data", "artifacts", "models", "reports", "journal", "logs", "mlflow", ".prefect", ".dvc")
DRAFTED = ("data", "artifacts", "artifacts/train", "models", "models/champion", "models/starts", "reports")
"""Folders in which others change as a whole (files.whole)."""


def settings(root: Path) -> Iterator[Finding]:
    """params.yaml keeps its rules."""
    config = load_config(root / paths.PARAMS)
    yield ok("settings", f"{paths.PARAMS}: profile {config.profile}, market {config.data.market}")


def checkout(root: Path) -> Iterator[Finding]:
    """A git checkout, without which DVC and lineage do not work."""
    commit = lineage.git(root, "rev-parse", "--short", "HEAD")
    if commit is None:
        yield error("git", "no checkout with a commit here, which DVC needs", "clone the project, or: git init")
        return
    said = lineage.git(root, "diff", "--name-only", "HEAD", "--", *lineage.KEPT) or ""
    if changed := said.splitlines():
        remedy = f"git commit {' '.join(changed)}"
        yield warning("git", f"at {commit}, not committed: {', '.join(changed)}", remedy)
    else:
        yield ok("git", f"at {commit}, pins and settings are committed")


def bars(root: Path) -> Iterator[Finding]:
    """data/ is what data.dvc names, and the market in use has bars."""
    market = load_config(root / paths.PARAMS).data.market
    if market not in datasets.markets(root):
        yield warning("bars", f"no bars of {market}", "btcai run simulates, dvc pull, or btcai data fetch")
    elif not datasets.is_pinned(root):
        yield warning(
            "bars", f"{paths.DATA}/ is not what {datasets.PIN} names", "dvc add data, or dvc checkout data.dvc"
        )
    else:
        yield ok("bars", f"{market}, as {datasets.PIN} names them")


def stages(root: Path) -> Iterator[Finding]:
    """What dvc.lock records is what the code, the settings and the bars of now make."""
    if not (root / "dvc.lock").is_file():
        yield warning("stages", "nothing was run yet: no dvc.lock", "btcai run")
        return
    stale = [name for name in _changed(root) if not name.endswith(".dvc")]
    if stale:
        yield warning("stages", f"out of date: {', '.join(stale)}", "btcai run")
    else:
        yield ok("stages", "up to date")


def warm_start(root: Path) -> Iterator[Finding]:
    """The networks that params.yaml goes on from are there, whole, and read what this btcai computes."""
    from btcai.training import starts  # with every feature's name

    name = load_config(root / paths.PARAMS).warm_start.name
    if name == starts.NONE:
        yield ok("warm start", "none: training starts from scratch")
        return
    try:
        starts.read(name, root / paths.STARTS)
    except ArtifactError as failure:
        said = str(failure).removesuffix(f"; {starts.REMEDY}")
        yield error("warm start", said, f"{starts.REMEDY}, or restore {paths.STARTS / name} from a backup")
    else:
        yield ok("warm start", f"{name}, whole")


def _changed(root: Path) -> list[str]:
    """What `dvc status` calls changed; ArtifactError where it cannot tell."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=root, env=child_environment(), text=True, capture_output=True, check=False)
    try:
        return sorted(json.loads(done.stdout))
    except ValueError as failure:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ArtifactError(f"dvc status failed: {said[-1].removeprefix('ERROR: ')}; mend that") from failure


def locks(root: Path) -> Iterator[Finding]:
    """DVC's own lock file, where a killed process left it so that the next one refuses to start."""
    reason = dvc_locks.stale(root)
    if reason is None:
        yield ok("DVC locks", "none is in the way")
    else:
        yield error("DVC locks", reason, f"btcai run, or: rm {dvc_locks.RWLOCK}", lambda: dvc_locks.freed(root))


def writable(root: Path) -> Iterator[Finding]:
    """Every folder that a run writes to, or the place where it would make it."""
    closed = [name for name in WRITTEN if not _may_write(root / name)]
    if closed:
        yield error("folders", f"may not be written: {', '.join(closed)}", f"chown -R $(id -un) {' '.join(closed)}")
    else:
        yield ok("folders", "may be written")


def _may_write(folder: Path) -> bool:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def leftovers(root: Path) -> Iterator[Finding]:
    """Drafts and backups of folders that change as a whole, and checkpoints of trainings that have not ended."""
    drafts = [
        path
        for name in DRAFTED
        for path in (root / name).glob(".*")
        if path.is_dir() and path.suffix in (".new", ".old") and len(path.suffixes) == 1
    ]
    checkpoints = [path for path in (root / paths.CHECKPOINTS).glob("*") if path.is_dir()]
    for path in drafts:
        folder = path.with_name(path.stem.removeprefix("."))
        place = path.relative_to(root)
        said = f"{place} is of a change that was killed, or that is going on"
        yield warning("leftovers", said, f"btcai run, or if nothing runs: rm -r {place}", _settled(folder, path))
    yield from _unended(root, checkpoints)
    if not drafts and not checkpoints:
        yield ok("leftovers", "none")


def _unended(root: Path, checkpoints: list[Path]) -> Iterator[Finding]:
    """Trainings that the next run goes on with, and those of `btcai run --force` alone: their stage is up to date."""
    changed = _changed(root) if checkpoints and (root / "dvc.lock").is_file() else None
    needed = [path for path in checkpoints if changed is None or _stage_of(path) in changed]
    if needed:
        names = ", ".join(sorted(path.name for path in needed))
        yield warning("leftovers", f"a training has not ended: {names}", "go on with it: btcai run")
    for path in sorted(set(checkpoints) - set(needed)):
        said = f"a training that was forced has not ended, its stage is up to date: {path.name}"
        remedy = f"go on with it: btcai run --force, or: rm -r {path.relative_to(root)}"
        yield warning("leftovers", said, remedy, partial(_drop, root, path))


def _stage_of(checkpoints: Path) -> str:
    """The stage of dvc.yaml whose training keeps its checkpoints there."""
    return f"train@{checkpoints.name}" if checkpoints.name in BUCKETS else checkpoints.name


def _drop(root: Path, checkpoints: Path) -> None:
    """Busy where a run is at work: they may be its."""
    with run_lock.alone(root, "btcai doctor --mend"):
        shutil.rmtree(checkpoints)


def _settled(folder: Path, backup: Path) -> Callable[[], object] | None:
    """Only what cannot be a running change's: a backup whose folder is gone."""
    if backup.suffix == ".old" and not folder.exists():
        return lambda: files.settle(folder)
    return None


def journals(root: Path) -> Iterator[Finding]:
    """Every line of every ledger is whole, and no change of champion is open."""
    odd = [found for path in sorted((root / "journal").glob("*.jsonl")) for found in _odd_lines(path)]
    yield from odd
    ledger = root / paths.PROMOTIONS
    opened = [bucket for bucket in BUCKETS if open_change(ledger, bucket)]
    for bucket in opened:
        yield error(
            "journal", f"a change of {bucket}'s champion was interrupted", f"btcai registry verify {bucket} --mend"
        )
    if not odd and not opened:
        yield ok("journal", "every line is whole")


def _odd_lines(path: Path) -> Iterator[Finding]:
    """Lines that a kill left without their end say nothing; of others a disk has taken what they said."""
    ledger = f"{path.parent.name}/{path.name}"
    for number, line in enumerate(lines_of(path), start=1):
        place = f"{ledger} line {number}"
        try:
            record_of(line, place)
        except ValueError:
            if line.endswith(b"}"):
                remedy = f"restore {ledger} from a backup; without one remove that line, and what it said is lost"
                yield error("journal", f"{place} is damaged: it is not what was written", remedy)
            else:
                yield warning(
                    "journal", f"{place} is torn: a process was killed there", f"remove that line of {ledger}"
                )
