"""Warm starts: networks of an earlier run, kept by their content for later trainings to go on from.

A daily run need not learn again what the last one knew. What is kept is named by a hash of its bytes, and
`warm_start.name` of params.yaml says which is in use, so that a run is a function of its settings as ever.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from btcai.errors import ArtifactError
from btcai.files import whole
from btcai.schema import BUCKETS
from btcai.training.checkpoint import WEIGHTS

NONE = "none"
"""From scratch."""
RECORD = "start.json"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the networks of a start were fitted to or chosen on; start.json beside them."""

    market: str
    data_version: str
    fitted_until_ts_ns: int
    """Close of the last bar of the training span."""
    chosen_from_ts_ns: int
    """Of the first bar of the validation span, and of its last one."""
    until_ts_ns: int


def keep(trained: Path, seen: Seen, starts: Path) -> str:
    """Copy trained/BUCKET/model.safetensors into starts/NAME; returns the name. What is there already stays."""
    for bucket in BUCKETS:
        if not (trained / bucket / WEIGHTS).is_file():
            raise ArtifactError(f"{trained / bucket / WEIGHTS} is missing; make it with: btcai run")
    name = _name(trained, seen)
    if not (starts / name).is_dir():
        with whole(starts / name) as out:
            for bucket in BUCKETS:
                (out / bucket).mkdir()
                shutil.copyfile(trained / bucket / WEIGHTS, out / bucket / WEIGHTS)
            (out / RECORD).write_text(json.dumps(asdict(seen), indent=1) + "\n", encoding="utf-8")
    return name


def opened(name: str, starts: Path, now: Seen) -> Path:
    """The folder of a start, NAME / BUCKET, that training with the spans of `now` may go on from.

    ArtifactError where it is missing or not what was kept, of another market, was fitted to bars that are validated on
    now, or saw bars beyond those: they are what the result is to be judged on.
    """
    folder, remedy = starts / name, "start from scratch with: btcai warm-start --off"
    try:
        seen = Seen(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{folder} must hold a start, was missing or damaged ({error}); {remedy}") from error
    if _name(folder, seen) != name:
        raise ArtifactError(f"{folder} must hold what was kept, is damaged: its name is its content's; {remedy}")
    if seen.market != now.market:
        raise ArtifactError(f"a start of {now.market} was asked for, {name} is one of {seen.market}; {remedy}")
    if seen.fitted_until_ts_ns >= now.chosen_from_ts_ns:
        raise ArtifactError(
            f"a start must not have been fitted to the validation span, {name} was to its first "
            f"{_days(seen.fitted_until_ts_ns - now.chosen_from_ts_ns):.1f} days; {remedy}"
        )
    late = seen.until_ts_ns - now.until_ts_ns
    if late > 0:
        raise ArtifactError(
            f"a start must have seen no bar after the validation span, {name} saw {_days(late):.1f} days more, "
            f"which are to be judged on; {remedy}"
        )
    return folder


def _name(folder: Path, seen: Seen) -> str:
    """Of the weights in folder/BUCKET and what they saw."""
    digest = hashlib.sha256(json.dumps(asdict(seen), sort_keys=True).encode())
    for bucket in BUCKETS:
        path = folder / bucket / WEIGHTS
        digest.update(path.read_bytes() if path.is_file() else b"")
    return f"{seen.market}-{digest.hexdigest()[:12]}"


def _days(nanoseconds: int) -> float:
    return nanoseconds / 86_400e9
