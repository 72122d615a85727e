"""The model registry read back: what each bucket has registered, and a champion traced to all that it was made from."""

import hashlib
import string
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from btcai import paths
from btcai.config import Config
from btcai.errors import ArtifactError, DataError
from btcai.params import flat
from btcai.records import lineage
from btcai.records.champions import MODEL_CARD, STANDING
from btcai.records.versions import code_version
from btcai.registry import tracking
from btcai.registry.recording import (
    every_version,
    model_name,
    of_bucket,
    params_sha256,
    registered_buckets,
    standings,
)
from btcai.schema import BUCKETS

CHAMPION = "champion"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered version."""

    bucket: str
    model: str
    version: int
    registered: datetime
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """What a bucket has registered: the versions with an alias, and how many there are in all."""

    bucket: str
    aliased: Mapping[str, Entry]
    versions: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A champion as it is on record, and what this checkout holds of the same."""

    entry: Entry
    experiment_id: str
    parent_run_id: str
    params: Mapping[str, str]
    """Every setting but those of the other buckets."""
    files: Mapping[str, str]
    """Its bundle's files in the record, by name, with their sha256."""
    tags_here: Mapping[str, str]
    """The same names as the entry's tags, of what is here; what is not here is left out."""
    params_here: Mapping[str, str]
    files_here: Mapping[str, str]
    """Of models/champion/BUCKET."""


@tracking.store_errors()
def shelves(root: Path) -> list[Shelf]:
    """Every bucket that has a registered model; ArtifactError where nothing was ever registered."""
    client = tracking.read_client(root)
    return [_shelf(client, bucket) for bucket in registered_buckets(client)]


MADE_FROM = (
    *("data_version", "market_dvc_md5", "data_dvc_md5", "code_version", "git_commit", "params_sha256", "judged_on"),
    *("input_hash", "dvc_lock_sha256", "requirements_lock_sha256", "model_version", "manifest_sha256"),
)
"""Tags of a version that are hashes."""
LEAST_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Use:
    """A version that something was used for, and as what."""

    entry: Entry
    used_as: tuple[str, ...]


@tracking.store_errors()
def using(root: Path, what: str) -> list[Use]:
    """The versions that were made from `what`, every bucket's newest first.

    what: a hash or its first six digits or more (of data, code, commit, settings, locks, model), the name of a
    market, or a setting as NAME=VALUE. ArtifactError where it is none of these.
    """
    client = tracking.read_client(root)
    used_as = _asked_for(client, what)
    uses = []
    for shelf in shelves(root):
        aliases = client.get_registered_model(model_name(shelf.bucket)).aliases
        for version in every_version(client, shelf.bucket):
            if found := used_as(version):
                uses.append(Use(entry=_entry(shelf.bucket, version, aliases), used_as=found))
    return uses


def _asked_for(client: Any, what: str) -> Callable[[Any], tuple[str, ...]]:
    """How a version is asked whether it was made from `what`."""
    name, equals, value = what.partition("=")
    if equals:
        return lambda version: (name,) if client.get_run(version.run_id).data.params.get(name) == value else ()
    if len(what) < LEAST_DIGITS and all(digit in string.hexdigits for digit in what):
        raise ArtifactError(f"a hash must have its first {LEAST_DIGITS} digits or more, was {what!r}; give more of it")
    return lambda version: tuple(
        tag
        for tag, on_record in version.tags.items()
        if (tag in MADE_FROM and on_record.startswith(what)) or (tag == "data_market" and on_record == what)
    )


@tracking.store_errors()
def trace(root: Path, bucket: str, config: Config) -> Trace:
    """A bucket's champion beside what is here; ArtifactError where the bucket is unknown or has none."""
    if bucket not in BUCKETS:
        raise ArtifactError(f"a bucket must be one of {', '.join(BUCKETS)}, was {bucket}; mend the argument")
    found = {shelf.bucket: shelf for shelf in shelves(root)}
    if bucket not in found or CHAMPION not in found[bucket].aliased:
        versions = found[bucket].versions if bucket in found else 0
        raise ArtifactError(f"no champion for {bucket} among its {versions} registered versions; make one: btcai run")
    client, entry = tracking.read_client(root), found[bucket].aliased[CHAMPION]
    run = client.get_run(entry.run_id)
    parent_run_id = run.data.tags["mlflow.parentRunId"]
    with tempfile.TemporaryDirectory() as scratch:
        files = _files(Path(client.download_artifacts(entry.run_id, "bundle", scratch)))
    return Trace(
        entry=entry,
        experiment_id=run.info.experiment_id,
        parent_run_id=parent_run_id,
        params=of_bucket(client.get_run(parent_run_id).data.params, bucket),
        files=files,
        tags_here=_tags_here(root, entry.tags.get("data_market"))
        | {"params_sha256": params_sha256(of_bucket(flat(config), bucket))},
        params_here=of_bucket(flat(config), bucket),
        files_here=_files(root / paths.CHAMPION / bucket),
    )


def _shelf(client: Any, bucket: str) -> Shelf:
    name = model_name(bucket)
    aliases = client.get_registered_model(name).aliases
    versions = standings(client, bucket)
    numbers = {int(number) for number in aliases.values()}
    entries = {number: _entry(bucket, client.get_model_version(name, str(number)), aliases) for number in numbers}
    return Shelf(
        bucket=bucket,
        aliased={alias: entries[int(number)] for alias, number in aliases.items()},
        versions=len(versions),
    )


def _entry(bucket: str, version: Any, aliases: Mapping[str, str]) -> Entry:
    return Entry(
        bucket=bucket,
        model=version.name,
        version=int(version.version),
        registered=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        aliases=tuple(sorted(alias for alias, number in aliases.items() if int(number) == int(version.version))),
        tags=version.tags,
        run_id=version.run_id,
    )


def _files(folder: Path) -> dict[str, str]:
    """sha256 of a bundle's files by name; a champion's standing and card are about the bundle and no part of it."""
    if not folder.is_dir():
        return {}
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name not in (STANDING, MODEL_CARD))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _tags_here(root: Path, market: str | None) -> dict[str, str]:
    return {**lineage.tags(root), "code_version": code_version(), **(_market_tags(root, market) if market else {})}


def _market_tags(root: Path, market: str) -> dict[str, str]:
    """The market's bars as they are in data/ now; nothing where they are not there."""
    from btcai.data.store import content_sha256, read_market

    try:
        content = content_sha256(read_market(root / paths.DATA, market))
    except DataError:
        return {}
    return {"data_version": content, "market_dvc_md5": lineage.folder_md5(root / paths.DATA / market)}
