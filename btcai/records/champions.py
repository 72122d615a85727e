"""Which bundle a bucket decides with: the promotion rule and models/champion/BUCKET, as files. No registry here."""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from btcai.checksums import CHECKSUM, is_intact, with_checksum
from btcai.errors import ArtifactError
from btcai.files import whole

logger = logging.getLogger(__name__)

STANDING = "standing.json"
MANIFEST = "manifest.json"
MODEL_CARD = "model_card.md"
"""What the version is, in words; beside a champion's files where its version has one."""

Edge = Literal["proven", "none"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is on record about one registered version; standing.json beside a champion's files."""

    bucket: str
    version: int
    data_version: str
    code_version: str
    judged_on: str
    """The terms of the score (versions.judged_on); only scores on equal terms compare."""
    score: float
    """Walk-forward score, net of costs; higher is better, nan is not valid."""
    edge: Edge
    """proven: may leave paper."""
    run_id: str


def promotion(
    candidate: Standing, champion: Standing | None, versions: Iterable[Standing]
) -> tuple[Standing | None, str]:
    """Who is champion now: the best valid one of `versions` on the candidate's terms, the earliest of equals.

    So the terms of an earlier time (its market, costs or spans) bring back the champion of that time. A candidate
    without a valid score, first on its terms, leaves the champion as it is. The sealed span has no part in it. Beside
    it, how the candidate stands among the versions; asked again, that is the same, whoever was champion meanwhile.
    """
    peers = [one for one in versions if one.judged_on == candidate.judged_on and math.isfinite(one.score)]
    best = max(peers, key=lambda one: (one.score, -one.version), default=None)
    if not math.isfinite(candidate.score):
        return best or champion, f"walk-forward score is {candidate.score}, not a number to compare"
    if best is not None and best.version != candidate.version:
        return best, f"score {candidate.score:.4f} does not beat version {best.version}'s {best.score:.4f}"
    place = "first" if len(peers) < 2 else f"best of {len(peers)}"
    return candidate, f"score {candidate.score:.4f} is the {place} on these terms"


def place_champion(bundle: Path, standing: Standing, folder: Path) -> None:
    """Make `folder` hold all of `bundle`, byte for byte, plus standing.json; readers meet the old or the new."""
    with whole(folder) as draft:
        shutil.copytree(bundle, draft, dirs_exist_ok=True)
        (draft / STANDING).write_text(json.dumps(with_checksum(asdict(standing)), indent=2) + "\n", encoding="utf-8")


def read_standing(folder: Path) -> Standing | None:
    """The standing of the champion in `folder`; None when there is none, ArtifactError when it cannot be read."""
    path = folder / STANDING
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not is_intact(found):
            raise ValueError("not what was written")
        return Standing(**{name: value for name, value in found.items() if name != CHECKSUM})
    except (ValueError, TypeError) as error:  # cut short, or written by another version of btcai
        raise ArtifactError(
            f"{path} must hold a champion's standing, was damaged or of an older format ({error}); "
            "restore it with: btcai run"
        ) from error


def is_whole(folder: Path) -> bool:
    """True when `folder` holds a standing, a manifest and every file that this names, undamaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return (
            is_intact(manifest)
            and read_standing(folder) is not None
            and all(
                hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
                for name, digest in manifest["sha256"].items()
            )
        )
    except (OSError, ValueError, LookupError, TypeError, ArtifactError) as error:
        logger.debug("%s is not whole: %s", folder, error)
        return False


def seen_of(folder: Path) -> dict[str, Any] | None:
    """What the bundle in `folder` was fitted to and chosen on (training.starts.DataSeen); None where not said."""
    found: dict[str, Any] | None = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("seen")
    return found


def is_placed(standing: Standing, folder: Path) -> bool:
    """True when `folder` holds this version, whole."""
    return is_whole(folder) and read_standing(folder) == standing
