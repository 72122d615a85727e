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
    until_ts_ns: int
    """Close of the last bar of the validation span."""


def keep(trained: Path, seen: Seen, starts: Path) -> str:
    """Copy trained/BUCKET/model.safetensors into starts/NAME; returns the name. What is there already stays."""
    digest = hashlib.sha256()
    for bucket in BUCKETS:
        if not (trained / bucket / WEIGHTS).is_file():
            raise ArtifactError(f"{trained / bucket / WEIGHTS} is missing; make it with: btcai run")
        digest.update((trained / bucket / WEIGHTS).read_bytes())
    name = f"{seen.market}-{digest.hexdigest()[:12]}"
    if not (starts / name).is_dir():
        with whole(starts / name) as out:
            for bucket in BUCKETS:
                (out / bucket).mkdir()
                shutil.copyfile(trained / bucket / WEIGHTS, out / bucket / WEIGHTS)
            (out / RECORD).write_text(json.dumps(asdict(seen), indent=1) + "\n", encoding="utf-8")
    return name


def opened(name: str, starts: Path, now: Seen) -> Path:
    """The folder of a start, NAME / BUCKET, that training with the spans of `now` may go on from.

    ArtifactError where it is missing, of another market, or saw bars beyond the validation span that is used now: they
    are what the result is to be judged on.
    """
    folder, remedy = starts / name, "start from scratch with: btcai warm-start --off"
    try:
        seen = Seen(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{folder} must hold a start, was missing or damaged ({error}); {remedy}") from error
    if seen.market != now.market:
        raise ArtifactError(f"a start of {now.market} was asked for, {name} is one of {seen.market}; {remedy}")
    if seen.until_ts_ns > now.until_ts_ns:
        late_days = (seen.until_ts_ns - now.until_ts_ns) / 86_400e9
        raise ArtifactError(
            f"a start must have seen no bar after the validation span, {name} saw {late_days:.1f} days more, which are "
            f"to be judged on; {remedy}"
        )
    return folder
