"""Who decides for a bucket, changed by hand: each command on record with its reason, whole or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btcai import paths
from btcai.errors import ArtifactError
from btcai.records.champions import Standing
from btcai.records.promotions import Change, Entry, entries, open_change, reasoned
from btcai.registry import recording, succession, tracking
from btcai.schema import BUCKETS


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command changed, and the versions on both sides of it."""

    change: Change
    champion: Standing
    before: Standing | None


@tracking.store_errors()
def promote(root: Path, bucket: str, number: int, because: str) -> Done:
    """Make a registered version champion and pin it, so that no run's promotion rule puts another in its place.

    The champion itself is pinned and nothing else. ArtifactError, and nothing changed, where there is no such version
    or its bundle cannot be proven: hashes on record, this btcai's features and warm-up.
    """
    why, client = reasoned(because), opened(root, bucket)
    with succession.alone(root):
        before = _mended(client, root, bucket)
        chosen = succession.version(client, bucket, number)
        change = succession.install(client, root, chosen, kind="promote", because=why, pin=True)
    return Done(change=change, champion=chosen, before=before)


@tracking.store_errors()
def rollback(root: Path, bucket: str, because: str) -> Done:
    """Make the previous champion champion again; once more, and all is as it was.

    It is pinned unless the promotion rule would choose it itself, or the next run would undo the rollback. One that was
    interrupted once its files were in place is ended, for another would undo it.
    """
    why, client = reasoned(because), opened(root, bucket)
    with succession.alone(root):
        interrupted = open_change(root / paths.PROMOTIONS, bucket)
        before = _mended(client, root, bucket)
        if interrupted and interrupted.kind == "rollback" and before and before.version == interrupted.after.champion:
            return Done(change=interrupted, champion=before, before=None)
        number = succession.seats(client, bucket).previous
        if number is None:
            raise ArtifactError(
                f"{bucket} has no previous champion to roll back to; choose a version: btcai registry promote {bucket} "
                "VERSION --because TEXT"
            )
        chosen = succession.version(client, bucket, number)
        pin = _by_rule(client, bucket, before) != chosen
        change = succession.install(client, root, chosen, kind="rollback", because=why, pin=pin)
    return Done(change=change, champion=chosen, before=before)


@tracking.store_errors()
def unpin(root: Path, bucket: str, because: str) -> Done:
    """Give a bucket back to the promotion rule, whose choice is champion at once."""
    why, client = reasoned(because), opened(root, bucket)
    with succession.alone(root):
        before = _mended(client, root, bucket)
        if succession.seats(client, bucket).pinned is None or before is None:
            raise ArtifactError(f"{bucket} must be held by hand to be released, was not; see btcai registry list")
        chosen = _by_rule(client, bucket, before) or before
        change = succession.install(client, root, chosen, kind="unpin", because=why, pin=False)
    return Done(change=change, champion=chosen, before=before)


def history(root: Path, bucket: str | None = None) -> list[Entry]:
    """Every change of champion that is on record, oldest first."""
    return [entry for entry in entries(root / paths.PROMOTIONS) if bucket in (None, entry.change.bucket)]


def opened(root: Path, bucket: str) -> Any:
    """A client of the registry; ArtifactError where the bucket is unknown or nothing of it is registered."""
    if bucket not in BUCKETS:
        raise ArtifactError(f"a bucket must be one of {', '.join(BUCKETS)}, was {bucket}; mend the argument")
    client = tracking.read_client(root)
    if bucket not in recording.registered_buckets(client):
        raise ArtifactError(f"nothing of {bucket} is registered; make a version with: btcai run")
    return client


def _mended(client: Any, root: Path, bucket: str) -> Standing | None:
    """The champion, once an interrupted change is ended."""
    succession.mend(client, root, bucket)
    return succession.champion(client, bucket)


def _by_rule(client: Any, bucket: str, before: Standing | None) -> Standing | None:
    """What the promotion rule would choose now, asked for the newest run's version."""
    aliases = client.get_registered_model(recording.model_name(bucket)).aliases
    if "challenger" not in aliases:
        return before
    candidate = succession.version(client, bucket, int(aliases["challenger"]))
    return succession.rule(client, bucket, candidate, before)[0]
