"""Warm starts: networks of an earlier run, kept by their content for later trainings to go on from.

A daily run need not learn again what the last one knew. What is kept is named by a hash of its bytes, and
`warm_start.name` of params.yaml says which is in use, so that a run is a function of its settings as ever.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from btcai.errors import ArtifactError
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.file_lock import locked
from btcai.files import remove, whole
from btcai.paths import WEIGHTS
from btcai.schema import BUCKETS

NONE = "none"
"""From scratch."""
RECORD = "start.json"
FORMAT = 3
"""Of start.json: another number is refused. 1 had no number, and did not say which features the networks read; networks
of 2 do not know the unit of their rewards."""
REMEDY = "start from scratch with: btcai warm-start --off"
LOCK = ".lock"
WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DataSeen:
    """What the networks of a start were fitted to or chosen on; in start.json beside them."""

    market: str
    data_version: str
    fitted_until_ts_ns: int
    """Close of the last bar of the training span."""
    chosen_from_ts_ns: int
    """Of the first bar of the validation span, and of its last one."""
    until_ts_ns: int


@contextmanager
def alone(starts: Path) -> Iterator[None]:
    """Who keeps a start names it before anybody looks for starts that nothing names."""
    message = f"another btcai has been changing {starts} for {WAIT_S:g} s; wait for it, then run this again"
    with locked(starts / LOCK, ArtifactError(message), WAIT_S):
        yield


def keep(trained: Path, seen: DataSeen, starts: Path) -> str:
    """Copy trained/BUCKET/model.safetensors into starts/NAME; returns the name. What is there whole stays."""
    for bucket in BUCKETS:
        if not (trained / bucket / WEIGHTS).is_file():
            raise ArtifactError(f"{trained / bucket / WEIGHTS} is missing; make it with: btcai run")
    record = {"format": FORMAT, "feature_names": list(FEATURE_NAMES), "warmup_bars": WARMUP_BARS, **asdict(seen)}
    name = _name(trained, record)
    if not _is_whole(starts / name):
        with whole(starts / name) as out:
            for bucket in BUCKETS:
                (out / bucket).mkdir()
                shutil.copyfile(trained / bucket / WEIGHTS, out / bucket / WEIGHTS)
            (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return name


def read(name: str, starts: Path) -> DataSeen:
    """What a start saw; ArtifactError where it is missing, not what was kept, or of networks that read other things."""
    folder = starts / name
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        seen = DataSeen(**{key: record[key] for key in DataSeen.__dataclass_fields__})
        number, inputs = record.get("format", 1), (record.get("feature_names"), record.get("warmup_bars"))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ArtifactError(f"{folder} must hold a start, was missing or damaged ({error}); {REMEDY}") from error
    if number != FORMAT:
        raise ArtifactError(f"a start must be of format {FORMAT}, {name} is of format {number}; {REMEDY}")
    if _name(folder, record) != name:
        raise ArtifactError(f"{folder} must hold what was kept, is damaged: its name is its content's; {REMEDY}")
    if inputs != (list(FEATURE_NAMES), WARMUP_BARS):
        raise ArtifactError(
            f"a start's networks must read this btcai's {len(FEATURE_NAMES)} features after {WARMUP_BARS} bars of "
            f"warm-up, those of {name} read others; {REMEDY}"
        )
    return seen


def opened(name: str, starts: Path, now: DataSeen) -> Path:
    """The folder of a start, NAME / BUCKET, that training with the spans of `now` may go on from.

    ArtifactError where it cannot be read, is of another market, was fitted to bars that are validated on now, or saw
    bars beyond those: they are what the result is to be judged on.
    """
    seen = read(name, starts)
    if seen.market != now.market:
        raise ArtifactError(f"a start of {now.market} was asked for, {name} is one of {seen.market}; {REMEDY}")
    if seen.fitted_until_ts_ns >= now.chosen_from_ts_ns:
        raise ArtifactError(
            f"a start must not have been fitted to the validation span, {name} was to its first "
            f"{_days(seen.fitted_until_ts_ns - now.chosen_from_ts_ns):.1f} days; {REMEDY}"
        )
    late = seen.until_ts_ns - now.until_ts_ns
    if late > 0:
        raise ArtifactError(
            f"a start must have seen no bar after the validation span, {name} saw {_days(late):.1f} days more, "
            f"which are to be judged on; {REMEDY}"
        )
    return starts / name


def unnamed(starts: Path, names: Collection[str]) -> list[Path]:
    """Starts, and what kills left of some, that none of the names is of."""
    found = sorted(starts.iterdir()) if starts.is_dir() else []
    return [path for path in found if path.is_dir() and path.name not in names]


def drop(paths: Collection[Path]) -> None:
    """Remove them, so that no half of one passes for it."""
    for path in paths:
        if path.name.startswith("."):
            shutil.rmtree(path)
        else:
            remove(path)


def _is_whole(folder: Path) -> bool:
    try:
        read(folder.name, folder.parent)
    except ArtifactError:
        return False
    return True


def _name(folder: Path, record: dict[str, Any]) -> str:
    """Of the weights in folder/BUCKET and what is said of them."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for bucket in BUCKETS:
        path = folder / bucket / WEIGHTS
        digest.update(path.read_bytes() if path.is_file() else b"")
    return f"{record['market']}-{digest.hexdigest()[:12]}"


def _days(nanoseconds: int) -> float:
    return nanoseconds / 86_400e9
