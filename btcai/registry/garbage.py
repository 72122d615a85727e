"""Old runs and models out of MLflow and, with them, DVC's cache and warm starts: never what a champion is made from.

A run of the pipeline (one parent, one run and one version a bucket) goes whole or stays whole. What stays: every run
with a version that has an alias or is pinned, and the newest ones. DVC's cache keeps what the workspace, any branch,
tag or experiment, the commit of any run that stays and the data.dvc and dvc.lock that it kept in MLflow name. A warm
start stays where params.yaml names it: the workspace's, a branch's, a tag's, or one that a run which stays had.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from btcai.environment import child_environment
from btcai.errors import ArtifactError, ConfigError
from btcai.files import bytes_of
from btcai.records import lineage
from btcai.registry import place, recording, succession, tracking, warm_starts
from btcai.schema import BUCKETS
from btcai.training import starts

logger = logging.getLogger(__name__)

ALL, ACTIVE = 3, "active"
"""MLflow's ViewType.ALL and its name for what is not deleted."""
BATCH = 200
"""Runs of the pipeline that one `mlflow gc` is told of: an argument holds no more than 128 KiB."""
REMOVING = "Removing "
"""How `dvc gc --dry` begins the line of each file."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One run of the pipeline as MLflow has it."""

    input_hash: str
    parent: str | None
    """None where a killed attempt had not begun it, or somebody deleted it for good."""
    commit: str | None
    began_unix_ms: int
    finished: bool
    run_ids: tuple[str, ...]
    versions: tuple[tuple[str, int], ...]
    """Registered model and number."""
    model_ids: tuple[str, ...]
    needed: bool
    """One of its versions has an alias or is pinned."""
    bytes: int
    start: str
    """The warm start that it went on from, or starts.NONE."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would go and what stays."""

    drop: tuple[Recorded, ...]
    stay: tuple[Recorded, ...]
    cache: tuple[tuple[Path, int], ...]
    """Files of DVC's cache that would go, with their bytes."""
    starts: tuple[tuple[Path, int], ...] = ()
    """Warm starts that would go, with their bytes."""


@tracking.store_errors()
def collect(root: Path, keep: int, *, dry: bool) -> Plan:
    """Remove what is not needed, or with `dry` only say what; returns it.

    keep: the newest finished runs that stay beside the needed ones. ArtifactError, and nothing removed, where a needed
    version is not whole in the record, or where DVC cannot read what one of them names.
    """
    if keep < 1:
        raise ConfigError(
            f"--keep must be at least 1, was {keep}; the newest run is what the next one is judged beside"
        )
    if place.server() is not None:
        raise ConfigError(
            f"gc must have the project's own record before it, was given the server {place.shown()}: runs are removed "
            "there, by MLflow's pages and mlflow gc, and nothing was removed here"
        )
    client = tracking.read_client(root)
    with succession.alone(root), tempfile.TemporaryDirectory() as scratch:
        recorded = _recorded(client, root)
        stay = _staying(recorded, keep)
        _check_whole(client, stay)
        pins = list(_pins(client, root, stay, Path(scratch)))
        projects = list(_projects(root, pins, Path(scratch)))
        drop = tuple(one for one in recorded if one not in stay)
        named = {one.start for one in stay} | warm_starts.named([*pins, *warm_starts.committed(root)])
        cache = tuple(_dvc_gc(root, projects, Path(scratch), dry=True))
        if not dry:
            _drop(client, root, drop)
            list(_dvc_gc(root, projects, Path(scratch), dry=False))
        gone = warm_starts.collect(root, named, dry=dry)
    return Plan(drop=drop, stay=stay, cache=cache, starts=gone)


def _staying(recorded: Iterable[Recorded], keep: int) -> tuple[Recorded, ...]:
    """The newest by the number of their versions, which no clock that jumps makes older."""
    newest = sorted((one for one in recorded if one.finished), key=_age)[:keep]
    return tuple(one for one in recorded if one.needed or one in newest)


def _age(one: Recorded) -> tuple[int, int]:
    return -max((number for _, number in one.versions), default=0), -one.began_unix_ms


def _recorded(client: Any, root: Path) -> list[Recorded]:
    """All runs of the pipeline, deleted ones too; runs without an input hash are somebody else's and are left alone."""
    experiment = client.get_experiment_by_name(place.OWN)
    if experiment is None or experiment.lifecycle_stage != ACTIVE:
        raise ArtifactError(
            f"the experiment {place.OWN} must be active, was deleted: all would go with it; restore it on "
            "MLflow's page, or with: mlflow experiments restore"
        )
    groups: dict[str, list[Any]] = {}
    search = partial(client.search_runs, [experiment.experiment_id], run_view_type=ALL)
    for run in _pages(search):
        if input_hash := run.data.tags.get("input_hash"):
            groups.setdefault(input_hash, []).append(run)
    versions = [version for bucket in BUCKETS for version in _versions(client, bucket)]
    return [_group(root, name, runs, versions) for name, runs in groups.items()]


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    page = None
    while True:
        found = search(page_token=page)
        yield from found
        page = found.token
        if not page:
            return


def _versions(client: Any, bucket: str) -> list[tuple[Any, bool]]:
    """A bucket's versions, and whether each has an alias or is pinned."""
    found = recording.every_version(client, bucket)
    if not found:
        return []
    aliases = client.get_registered_model(recording.model_name(bucket)).aliases.values()
    held = {int(number) for number in aliases} | {succession.seats(client, bucket).pinned}
    return [(version, int(version.version) in held) for version in found]


def _group(root: Path, input_hash: str, runs: list[Any], versions: list[tuple[Any, bool]]) -> Recorded:
    mine = [(version, held) for version, held in versions if version.tags.get("input_hash") == input_hash]
    parent = next((run for run in runs if run.data.tags.get("role") == "parent"), None)
    model_ids = tuple(model.model_id for run in runs for model in (run.outputs.model_outputs if run.outputs else ()))
    return Recorded(
        input_hash=input_hash,
        parent=parent.info.run_id if parent else None,
        commit=runs[0].data.tags.get("git_commit"),
        began_unix_ms=min(run.info.start_time for run in runs),
        finished=parent is not None and parent.info.status == "FINISHED" and parent.info.lifecycle_stage == ACTIVE,
        run_ids=tuple(run.info.run_id for run in runs),
        versions=tuple((version.name, int(version.version)) for version, _ in mine),
        model_ids=model_ids,
        needed=any(held for _, held in mine),
        start=parent.data.params.get("warm_start.name", starts.NONE) if parent else starts.NONE,
        bytes=sum(
            bytes_of(folder) for folder in [_folder(root, run) for run in runs] + _model_folders(root, model_ids)
        ),
    )


def _folder(root: Path, run: Any) -> Path:
    """Where a run's files are; ArtifactError where that is not in this project, as in a copy of one."""
    folder, here = Path(unquote(urlsplit(run.info.artifact_uri).path)), (root / place.ARTIFACTS).resolve()
    if not folder.is_relative_to(here):
        raise ArtifactError(
            f"the record's files must be in {here}, were in {folder}: this project was copied or moved, and what would "
            "go is not its own; nothing was removed. Collect in the project that made them"
        )
    return folder


def _model_folders(root: Path, model_ids: Iterable[str]) -> list[Path]:
    return [root / place.ARTIFACTS / "models" / model_id for model_id in model_ids]


def _active_models(client: Any) -> set[str]:
    experiment = client.get_experiment_by_name(place.OWN)
    return {model.model_id for model in _pages(partial(client.search_logged_models, [experiment.experiment_id]))}


def _check_whole(client: Any, stay: Iterable[Recorded]) -> None:
    """ArtifactError where a needed version lacks anything: what restores it might be about to go."""
    buckets = {recording.model_name(bucket): bucket for bucket in BUCKETS}
    models = _active_models(client)
    for one in stay:
        for name, number in one.versions if one.needed else ():
            version = succession.version(client, buckets[name], number)
            with succession.fetched(client, version):
                logger.debug("%s version %d is whole", name, number)
            active = client.get_run(version.run_id).info.lifecycle_stage == ACTIVE
            if not active or not models >= set(one.model_ids):
                raise ArtifactError(
                    f"{name} version {number} must have its run and its model, one was deleted; nothing was removed. "
                    f"Restore it with: mlflow runs restore --run-id {version.run_id}"
                )


def _drop(client: Any, root: Path, drop: tuple[Recorded, ...]) -> None:
    """Versions first, none may outlive its run; then the runs, then their files. Killed, the next call goes on."""
    active, folders = _active_models(client), []
    for one in drop:
        for name, number in one.versions:
            client.delete_model_version(name, str(number))
        for model_id in active.intersection(one.model_ids):
            client.delete_logged_model(model_id)
        for run_id in one.run_ids:
            run = client.get_run(run_id)
            folders.append(_folder(root, run).parent)
            if run.info.lifecycle_stage == ACTIVE:
                client.delete_run(run_id)
        folders += _model_folders(root, one.model_ids)
    uri = place.uri(root)
    for batch in (drop[first : first + BATCH] for first in range(0, len(drop), BATCH)):
        runs, models = (
            ",".join(chain(*ids)) for ids in zip(*((one.run_ids, one.model_ids) for one in batch), strict=True)
        )
        chosen = ["--run-ids", runs, "--logged-model-ids", models]
        _run(root, ["mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri, *chosen])
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)  # empty by now


def _pins(client: Any, root: Path, stay: Iterable[Recorded], scratch: Path) -> Iterator[dict[str, str]]:
    """The files of lineage.KEPT that each run which stays was made from, as it was and as committed."""
    for one in stay:
        yield from (_kept_pins(client, one, scratch), _committed_pins(root, one))


def _projects(root: Path, pins: Iterable[dict[str, str]], scratch: Path) -> Iterator[Path]:
    """A small DVC project for every set of pins.

    They share this project's cache, so `dvc gc --projects` keeps what they name, though no branch here does.
    """
    if not (root / ".dvc").is_dir():
        return
    cache, seen = _run(root, ["dvc", "cache", "dir"]).strip(), set()
    for one in pins:
        known = tuple(sorted(one.items()))
        if one.keys() & {"dvc.lock", "data.dvc"} and known not in seen:
            seen.add(known)
            yield _project(scratch / f"project-{len(seen)}", one, cache)


def _kept_pins(client: Any, one: Recorded, scratch: Path) -> dict[str, str]:
    """The files of lineage.KEPT that the run kept."""
    if one.parent is None or not client.list_artifacts(one.parent, "lineage"):
        return {}
    folder = scratch / one.parent
    folder.mkdir()
    kept = Path(client.download_artifacts(one.parent, "lineage", str(folder)))
    return {name: (kept / name).read_text(encoding="utf-8") for name in lineage.KEPT if (kept / name).is_file()}


def _committed_pins(root: Path, one: Recorded) -> dict[str, str]:
    if one.commit is None:
        return {}
    found = {name: lineage.git(root, "show", f"{one.commit}:./{name}") for name in lineage.KEPT}
    return {name: text for name, text in found.items() if text is not None}


def _project(folder: Path, pins: Mapping[str, str], cache: str) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    config = f"[core]\n    analytics = false\n    check_update = false\n[cache]\n    dir = {cache}\n"
    (folder / ".dvc" / "config").write_text(config, encoding="utf-8")
    for name, text in pins.items():
        (folder / name).write_text(text, encoding="utf-8")
    own = ["-c", "user.name=btcai", "-c", "user.email=btcai@localhost", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "--quiet"], ["add", "--force", "."], [*own, "commit", "--quiet", "-m", "pins"]):
        if lineage.git(folder, *arguments) is None:
            raise ArtifactError(
                f"git {arguments[-1]} failed in {folder}, nothing was removed; see btcai --log-level DEBUG"
            )
    return folder


def _dvc_gc(root: Path, projects: Iterable[Path], scratch: Path, *, dry: bool) -> Iterator[tuple[Path, int]]:
    """Run it; yields the files that it would remove with their bytes, where it is dry."""
    if not (root / ".dvc").is_dir():
        return
    command = ["dvc", "gc", "--workspace", "--all-branches", "--all-tags", "--all-experiments", "--force"]
    command += ["--dry"] if dry else []
    command += ["--projects", *map(str, projects)] if projects else []
    for line in _run(root, command, DVC_SITE_CACHE_DIR=str(scratch / "site")).splitlines():
        if line.startswith(REMOVING):
            path = Path(line.removeprefix(REMOVING))
            yield path, path.stat().st_size


def _run(root: Path, arguments: list[str], **environment: str) -> str:
    """What a tool of this environment says on stdout; ArtifactError with its reason where it fails."""
    command = [sys.executable, "-m", *arguments]
    env = {**child_environment(), **environment}
    done = subprocess.run(command, cwd=root, env=env, text=True, capture_output=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ArtifactError(f"{' '.join(arguments[:2])} failed: {said[-1]}; mend that, then run it again")
    return done.stdout
