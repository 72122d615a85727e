"""Who decides for a bucket changes as one: on record first, then the files, then MLflow's aliases; mended after a kill.

The folder models/champion/BUCKET is what decides, and it changes in one step (files.whole). A kill before that step
leaves the old champion everywhere; a kill after it leaves the new one on disk, and the next command sets the aliases
by the record (`mend`). MLflow's clients are handed in: nothing here imports it.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from btcai import files, paths
from btcai.errors import ArtifactError
from btcai.file_lock import locked
from btcai.inference.bundle import PolicyBundle, file_sha256, load_bundle
from btcai.records import champions, promotions
from btcai.records.champions import MANIFEST, MODEL_CARD, Standing
from btcai.records.promotions import Change, Kind, Seats
from btcai.registry import recording

logger = logging.getLogger(__name__)

LOCK = Path("journal/.registry.lock")
WAIT_S = 60.0
PINNED = "pinned"
"""Tag of a registered model: the version that was made champion by hand."""


@contextmanager
def alone(root: Path, wait_s: float = WAIT_S) -> Iterator[None]:
    """ArtifactError where another process goes on changing the registry; a killed one holds nothing."""
    message = f"another btcai has been changing the registry for {wait_s:g} s; wait for it, then run this again"
    with locked(root / LOCK, ArtifactError(message), wait_s):
        yield


def seats(client: Any, bucket: str) -> Seats:
    """What the registry says of a bucket now. A pin of a version that was deleted holds nothing."""
    model = client.get_registered_model(recording.model_name(bucket))
    numbers = {alias: int(number) for alias, number in model.aliases.items()}
    pinned = int(model.tags[PINNED]) if PINNED in model.tags else None
    if pinned is not None and pinned not in {one.version for one in recording.standings(client, bucket)}:
        logger.warning("%s: version %d was pinned and is no more; the rule decides again", bucket, pinned)
        pinned = None
    return Seats(champion=numbers.get("champion"), previous=numbers.get("previous"), pinned=pinned)


def champion(client: Any, bucket: str) -> Standing | None:
    """The version that the registry calls champion."""
    number = seats(client, bucket).champion
    return None if number is None else version(client, bucket, number)


def version(client: Any, bucket: str, number: int) -> Standing:
    """A registered version; ArtifactError where there is none of this number."""
    found = {one.version: one for one in recording.standings(client, bucket)}
    if number not in found:
        there = ", ".join(map(str, sorted(found))) or "none"
        raise ArtifactError(
            f"{bucket} must have the version, was {number}, registered are: {there}; see btcai registry list"
        )
    return found[number]


def rule(client: Any, bucket: str, candidate: Standing, before: Standing | None) -> tuple[Standing | None, str]:
    """champions.promotion among the versions whose bundles still open here; one that does not is named in the log."""
    versions = recording.standings(client, bucket)
    while True:
        champion, reason = champions.promotion(candidate, before, versions)
        if champion is None or champion not in versions:
            return champion, reason
        try:
            with fetched(client, champion):
                return champion, reason
        except ArtifactError as error:
            logger.warning("%s version %d cannot be champion: %s", bucket, champion.version, error)
            versions.remove(champion)
            before = None if before == champion else before


@contextmanager
def fetched(client: Any, standing: Standing) -> Iterator[tuple[Path, PolicyBundle]]:
    """A version's bundle from its run, proven to be the one on record, with its card and what was learned for it;
    gone when the block ends."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = recording.downloaded(client, standing, "bundle", Path(scratch))
        bundle = prove(client, standing, folder)
        for name in (MODEL_CARD, paths.LEARNED):
            try:
                shutil.move(recording.downloaded(client, standing, name, Path(scratch)), folder)
            except ArtifactError:  # versions of before it was kept
                logger.debug("%s version %d has no %s", standing.bucket, standing.version, name)
        yield folder, bundle


def prove(client: Any, standing: Standing, folder: Path) -> PolicyBundle:
    """The bundle in `folder`, opened: whole, for this btcai's features and warm-up, the one that was registered.

    ArtifactError where it is not, which names the version: the folder is gone by the time it is read.
    """
    try:
        bundle = load_bundle(folder)
    except ArtifactError as error:
        reason = str(error).rpartition("; ")[0].replace(f"{folder}/", "").replace(str(folder), "its bundle")
        raise type(error)(
            f"{standing.bucket} version {standing.version} does not open here: {reason}; choose another version, see: "
            "btcai registry list"
        ) from error
    tags = client.get_model_version(recording.model_name(standing.bucket), str(standing.version)).tags
    found = {"bucket": bundle.bucket, "model_version": bundle.version, "manifest_sha256": _manifest(folder)}
    for name, on_record in {"bucket": standing.bucket, **tags}.items():
        if name in found and found[name] != on_record:
            raise ArtifactError(
                f"{standing.bucket} version {standing.version} must have the {name} on record, {on_record[:12]}, its "
                f"bundle has {found[name][:12]}; make another version with: btcai run"
            )
    return bundle


def install(client: Any, root: Path, champion: Standing, *, kind: Kind, because: str, pin: bool | None) -> Change:
    """Make a version champion: journal, files, aliases; returns the change. The caller holds `alone` and has mended.

    pin: hold it against the rule, or not; None leaves that as it is. ArtifactError, and nothing changed, where its
    bundle cannot be proven.
    """
    before = seats(client, champion.bucket)
    with fetched(client, champion) as (folder, bundle):
        change = Change(
            kind=kind,
            bucket=champion.bucket,
            before=before,
            after=_after(before, champion.version, pin),
            because=because,
            model_version=bundle.version,
            manifest_sha256=_manifest(folder),
        )
        promotions.begin(root / paths.PROMOTIONS, change)
        champions.place_champion(folder, champion, root / paths.CHAMPION / champion.bucket)
    _seat(client, champion.bucket, change.after)
    promotions.end(root / paths.PROMOTIONS, change, "done")
    return change


def _after(before: Seats, version: int, pin: bool | None) -> Seats:
    previous = before.previous if version == before.champion else before.champion
    pinned = before.pinned if pin is None else version if pin else None
    return Seats(champion=version, previous=previous, pinned=pinned)


def mend(client: Any, root: Path, bucket: str) -> str | None:
    """End what a killed process left open, by what is on disk; says what was done, None where nothing was open."""
    folder = root / paths.CHAMPION / bucket
    if folder.parent.is_dir():
        files.settle(folder)
    change = promotions.open_change(root / paths.PROMOTIONS, bucket)
    if change is None:
        return None
    is_new = champions.is_whole(folder) and _version_on(folder) == change.after.champion
    _seat(client, bucket, change.after if is_new else change.before)
    outcome = "done, after an interruption" if is_new else "undone, after an interruption"
    promotions.end(root / paths.PROMOTIONS, change, outcome)
    said = f"{change.kind} of {bucket} to version {change.after.champion} by {change.who} is {outcome}"
    logger.warning("%s", said)
    return said


def _version_on(folder: Path) -> int | None:
    standing = champions.read_standing(folder)
    return standing.version if standing else None


def _seat(client: Any, bucket: str, wanted: Seats) -> None:
    """Set the aliases and the pin; each is one transaction of MLflow's, done again without harm."""
    name = recording.model_name(bucket)
    now = client.get_registered_model(name)
    for alias in ("previous", "champion"):
        number, has = getattr(wanted, alias), now.aliases.get(alias)
        if number is None and has is not None:
            client.delete_registered_model_alias(name, alias)
        elif number is not None and (has is None or int(has) != number):
            client.set_registered_model_alias(name, alias, str(number))
    if wanted.pinned is not None:
        client.set_registered_model_tag(name, PINNED, str(wanted.pinned))
    elif PINNED in now.tags:
        client.delete_registered_model_tag(name, PINNED)


def _manifest(folder: Path) -> str:
    return file_sha256(folder / MANIFEST)
