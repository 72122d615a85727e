"""Is the champion on disk the one on record, whole, and does it still decide as it did? And the way to mend it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btcai import paths
from btcai.errors import ArtifactError, BtcaiError
from btcai.inference.bundle import file_sha256, load_bundle
from btcai.records import champions, promotions
from btcai.records.champions import MODEL_CARD, STANDING, Standing
from btcai.registry import recording, self_check, succession, tracking
from btcai.registry.promotion import opened

MEND = "mend it with: btcai registry verify --mend"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at; said: what was seen, or the rule, the value and the remedy."""

    bucket: str
    what: str
    ok: bool
    said: str


@tracking.store_errors()
def verify(root: Path, bucket: str | None = None) -> list[Check]:
    """Look at one bucket's champion, or at every one's; nothing is changed. ArtifactError without a registry."""
    if bucket is not None:
        return _checks(opened(root, bucket), root, bucket)
    client = tracking.read_client(root)
    there = recording.registered_buckets(client)
    return [check for bucket in there for check in _checks(client, root, bucket)]


@tracking.store_errors()
def mend(root: Path, bucket: str) -> list[str]:
    """End an interrupted change, and bring the champion's files back from the record; says what was done."""
    client, said = opened(root, bucket), []
    with succession.alone(root):
        if ended := succession.mend(client, root, bucket):
            said.append(ended)
        champion = succession.champion(client, bucket)
        if champion is not None and not _is_right(client, champion, root):
            succession.install(client, root, champion, kind="restore", because="verify --mend", pin=None)
            said.append(f"{bucket}: the files of version {champion.version} are back from the record")
    return said


def _is_right(client: Any, champion: Standing, root: Path) -> bool:
    """True where the files on disk are the record's."""
    try:
        _same_files(client, champion, root)
    except ArtifactError:
        return False
    return champions.is_placed(champion, root / paths.CHAMPION / champion.bucket)


def _checks(client: Any, root: Path, bucket: str) -> list[Check]:
    champion = succession.champion(client, bucket)
    looks: dict[str, Callable[[], str]] = {"record": lambda: _settled(root, bucket)}
    if champion is None:
        looks["champion"] = lambda: _none(root, bucket)
    else:
        looks |= {
            "registry": lambda: _kept(client, champion),
            "on disk": lambda: _placed(champion, root),
            "files": lambda: _same_files(client, champion, root),
            "opens": lambda: _opens(root, bucket),
            "decides": lambda: _decides(client, champion, root),
        }
    return [_look(bucket, what, look) for what, look in looks.items()]


def _look(bucket: str, what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(bucket=bucket, what=what, ok=True, said=look())
    except (BtcaiError, OSError) as error:
        return Check(bucket=bucket, what=what, ok=False, said=str(error))


def _settled(root: Path, bucket: str) -> str:
    change = promotions.open_change(root / paths.PROMOTIONS, bucket)
    if change is not None:
        raise ArtifactError(
            f"every change must be ended, the {change.kind} to version {change.after.champion} was interrupted; {MEND}"
        )
    held = promotions.pins(root / paths.PROMOTIONS).get(bucket)
    return f"held by {held.who}: {held.because}" if held else "no change is open"


def _none(root: Path, bucket: str) -> str:
    """No champion anywhere is right; files that nothing has on record are not."""
    if (root / paths.CHAMPION / bucket).exists():
        raise ArtifactError(f"{paths.CHAMPION / bucket} must be on record, was not; make its record: btcai run")
    return "none yet"


def _kept(client: Any, champion: Standing) -> str:
    """The record can restore it."""
    name = recording.model_name(champion.bucket)
    if (stage := client.get_run(champion.run_id).info.lifecycle_stage) != "active":
        raise ArtifactError(
            f"{name} version {champion.version}'s run must be active, was {stage}; mend it with: mlflow runs restore "
            f"--run-id {champion.run_id}"
        )
    with succession.fetched(client, champion):
        return f"version {champion.version}, its bundle is kept and proven"


def _placed(champion: Standing, root: Path) -> str:
    folder = root / paths.CHAMPION / champion.bucket
    found = champions.read_standing(folder)
    if found != champion:
        here = f"version {found.version}" if found else "none"
        raise ArtifactError(f"{folder} must hold version {champion.version}, holds {here}; {MEND}")
    return f"version {champion.version}"


def _same_files(client: Any, champion: Standing, root: Path) -> str:
    folder = root / paths.CHAMPION / champion.bucket
    with succession.fetched(client, champion) as (kept, _):
        on_record, here = _digests(kept), _digests(folder) if folder.is_dir() else {}
    odd = sorted(name for name in on_record.keys() | here.keys() if on_record.get(name) != here.get(name))
    if odd:
        raise ArtifactError(f"{folder} must hold the record's files, different: {', '.join(odd)}; {MEND}")
    return f"{len(here)} files as on record"


def _digests(folder: Path) -> dict[str, str]:
    """Of the bundle and what was learned for it: a standing and a card are about it and no part of it."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in (STANDING, MODEL_CARD))
    return {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}


def _opens(root: Path, bucket: str) -> str:
    bundle = load_bundle(root / paths.CHAMPION / bucket)
    return (
        f"model {bundle.version}, {len(bundle.manifest.feature_names)} features, {bundle.manifest.warmup_bars} warm-up"
    )


def _decides(client: Any, champion: Standing, root: Path) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = recording.downloaded(client, champion, self_check.FOLDER, Path(scratch))
        except ArtifactError:
            return "no self-check on record: registered before there was one"
        return f"{self_check.repeat(root / paths.CHAMPION / champion.bucket, folder)} numbers as registered"
