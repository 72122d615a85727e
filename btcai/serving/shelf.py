"""The bundles in use: read from models/champion, proven before they are used, swapped whole while requests go on.

No registry is asked. A folder that is missing or broken, or a bundle made for other features, leaves the last good one
in use. A request takes a bundle once and keeps it to its end, so that a swap drops nothing.
"""

import json
import logging
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from btcai import paths
from btcai.errors import ArtifactError, BtcaiError, ConfigError
from btcai.features.scaling import Scaler
from btcai.features.table import WARMUP_BARS
from btcai.files import backup_of
from btcai.inference.bundle import GRAPHS, MANIFEST, PolicyBundle, load_bundle
from btcai.inference.decision import Seen, consider_seen
from btcai.reasoning.memory import Memory
from btcai.records.champions import STANDING, Edge, Standing, read_standing
from btcai.reflection import ADJUSTMENT, MEMORY, Learned, learned_for
from btcai.schema import BAR_NS, BUCKETS, Bars
from btcai.serving.deciding import explain
from btcai.serving.live import LONGEST_PATCH_BARS, Market

logger = logging.getLogger(__name__)

FILES = (*GRAPHS, MANIFEST, STANDING)
LEARNED_FILES = (f"{paths.LEARNED}/{MEMORY}", f"{paths.LEARNED}/{ADJUSTMENT}")
"""Each says of which version it is, so that they need no copy to be read beside the right one."""
SWAP_TRIES = 20
"""A copy that a swap has overtaken is made again, so often."""

_SWAP_S = 0.01
_INVESTED = {"cash_usdt": 1.0, "lots": [{"btc": 1.0, "entry_price": 1.0}]}
"""So that what reads lots is compiled too."""
_PREFIX = "btcai-serve-"
_COPY = re.compile(rf"[^\s'\"]*{_PREFIX}\w+(?:/\w+)?")
"""Where a copy lies: another place each time, while the fault is the folder's."""

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Of each file its name, inode, time of change and size: a swap changes them, and reading them costs microseconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A bundle in use, its standing, and what its reasoning remembers and weighs."""

    bundle: PolicyBundle
    standing: Standing | None
    memory: Memory | None
    weights: Mapping[str, float] | None
    since_ns: int

    @property
    def edge(self) -> Edge:
        """A bundle that nobody judged has none."""
        return self.standing.edge if self.standing else "none"


class NotServedError(ArtifactError):
    """No bundle of a bucket is in use."""


class Shelf:
    """Of each bucket the bundle in use and, where a newer one was refused, why."""

    def __init__(
        self,
        root: Path,
        buckets: Sequence[str] = BUCKETS,
        told: Callable[[str, str], None] = lambda bucket, event: None,
    ) -> None:
        """Nothing is read before `refresh`. told(bucket, event): "swapped" or "refused", each time that happens."""
        if unknown := set(buckets) - set(BUCKETS) or not buckets:
            named = ", ".join(sorted(unknown)) if isinstance(unknown, set) else "none"
            raise ConfigError(f"buckets to serve must be among {', '.join(BUCKETS)}, was {named}; mend --bucket")
        self.root, self.buckets = root, tuple(buckets)
        self.refused: dict[str, str] = {}
        self._told = told
        self._placed: dict[str, Placed] = {}
        self._marks: dict[str, Fingerprint | None] = {}
        self._refreshing = threading.Lock()

    def placed(self, bucket: str) -> Placed:
        """The bundle in use; NotServedError says why there is none."""
        if (found := self._placed.get(bucket)) is not None:
            return found
        if bucket not in self.buckets:
            raise NotServedError(
                f"this server serves {', '.join(self.buckets)}, was asked for {bucket}; start it with --bucket {bucket}"
            )
        raise NotServedError(self.refused.get(bucket, f"no champion of {bucket} has been looked for yet; try again"))

    def in_use(self) -> dict[str, Placed]:
        """Of each bucket that has one, the bundle in use."""
        return dict(self._placed)

    def refresh(self) -> None:
        """Look at each bucket's folder and put what is new there into use, or say why not."""
        with self._refreshing:
            for bucket in self.buckets:
                self._refresh(bucket)

    def _refresh(self, bucket: str) -> None:
        folder = self._folder(bucket)
        mark = fingerprint(folder)
        if bucket in self._marks and self._marks[bucket] == mark:
            return
        try:
            self._use(bucket, self._open(bucket, folder))
        except ArtifactError as error:
            self._refuse(bucket, folder, error)
        except Exception as error:  # a full disk, no memory, what a graph's runtime raises: it may pass, so ask again
            self._marks.pop(bucket, None)
            self._refuse(bucket, folder, error)
            return
        self._marks[bucket] = mark

    def _folder(self, bucket: str) -> Path:
        """models/champion/BUCKET; where a kill between the two renames of a swap left none, the one it replaced."""
        folder = self.root / paths.CHAMPION / bucket
        waiting = backup_of(folder)
        return waiting if bucket not in self._placed and not folder.exists() and waiting.exists() else folder

    def _use(self, bucket: str, found: Placed) -> None:
        self.refused.pop(bucket, None)
        old = self._placed.get(bucket)
        if old is not None and (old.bundle.version, old.standing) == (found.bundle.version, found.standing):
            self._placed[bucket] = replace(old, memory=found.memory, weights=found.weights)
            return
        self._placed[bucket] = found
        logger.info("%s: %s is in use", bucket, _named(found))
        if old is not None:
            self._told(bucket, "swapped")

    def _refuse(self, bucket: str, folder: Path, error: Exception) -> None:
        """Once for each cause, however often it is met."""
        said = _COPY.sub(lambda _: str(folder), " ".join(str(error).split())) or type(error).__name__
        reason = said if str(folder) in said else f"{folder}: {said}"
        if self.refused.get(bucket) == reason:
            return
        kept = self._placed.get(bucket)
        what = f"{_named(kept)} stays in use" if kept else "nothing is in use"
        self.refused[bucket] = reason
        if not isinstance(error, (ArtifactError, OSError)):
            logger.debug("%s is refused", folder, exc_info=error)
        logger.warning("%s: refused, %s: %s", bucket, what, self.refused[bucket])
        self._told(bucket, "refused")

    def _open(self, bucket: str, folder: Path) -> Placed:
        """Copy, then judge and open the copy: what is used is what was judged, whatever happens to the folder."""
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as place:
            copy = Path(place) / bucket
            _copy_whole(folder, copy)
            bundle, standing = load_bundle(copy), read_standing(copy)
            check_fits(bundle, bucket, copy, standing)
        seen = prove(bundle)
        memory, weights = proven(seen, learned_for(bundle.version, folder))
        return Placed(bundle=bundle, standing=standing, memory=memory, weights=weights, since_ns=time.time_ns())


def fingerprint(folder: Path) -> Fingerprint | None:
    """What tells one content of a champion's folder from another; None where there is no manifest."""
    found = []
    for name in (*FILES, *LEARNED_FILES):
        try:
            state = (folder / name).stat()
        except OSError:
            continue
        found.append((name, state.st_ino, state.st_mtime_ns, state.st_size))
    return tuple(found) if any(name == MANIFEST for name, *_ in found) else None


def _copy_whole(folder: Path, copy: Path) -> None:
    """The folder's files as they were at one moment; ArtifactError where there are none."""
    for _ in range(SWAP_TRIES):
        before = fingerprint(folder)
        if before is not None:
            copy.mkdir(parents=True, exist_ok=True)
            try:
                for name in [name for name, *_ in before if name in FILES]:
                    shutil.copyfile(folder / name, copy / name)
            except FileNotFoundError:
                before = None
            if before is not None and fingerprint(folder) == before:
                return
            shutil.rmtree(copy)
        time.sleep(_SWAP_S)
    raise ArtifactError(f"no champion in {folder}; make one with: btcai run")


def check_fits(bundle: PolicyBundle, bucket: str, folder: Path, standing: Standing | None) -> None:
    """ArtifactError where a bundle that is whole is not the bucket's, reads more than is kept, or scales otherwise than
    its manifest says. Hashes and features are load_bundle's to judge."""
    named = {bundle.bucket, *([standing.bucket] if standing else [])}
    if named != {bucket}:
        raise ArtifactError(
            f"the bundle in {folder} must be of {bucket}, was of {', '.join(sorted(named))}; remake it with: btcai run"
        )
    if standing is not None and standing.data_version != bundle.manifest.versions.data:
        raise ArtifactError(
            f"{STANDING} in {folder} must be of the bundle beside it, of bars {bundle.manifest.versions.data:.12}, "
            f"was of one of {standing.data_version:.12}; place the champion again with: btcai run"
        )
    if bundle.patch_bars > LONGEST_PATCH_BARS:
        raise ArtifactError(
            f"a served bucket's patch must be at most {LONGEST_PATCH_BARS} bars, {bucket}'s is {bundle.patch_bars}; "
            "remake it with: btcai run"
        )
    scaler = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("scaler")
    if scaler is not None and not holds_scaler((folder / GRAPHS[0]).read_bytes(), Scaler.of(scaler)):
        raise ArtifactError(
            f"the scaler inside {folder / GRAPHS[0]} must be the one that its manifest names, was another: features "
            "would be scaled otherwise than the network was trained for; remake it with: btcai run"
        )


def holds_scaler(encoder: bytes, scaler: Scaler) -> bool:
    """Whether the bytes of an encoder hold this scaler's mean and spread as constants, to the bit: ONNX keeps a tensor
    of float32 as one little-endian run."""
    return all(column.astype("<f4").tobytes() in encoder for column in (scaler.mean, scaler.std))


def prove(bundle: PolicyBundle) -> Seen:
    """One decision on a blank market, before the first real one waits for it: the graphs take this btcai's features and
    accounts, and what is compiled on first use is compiled. ArtifactError where the answer is no probability."""
    seen = Market(_blank_bars(bundle)).seen(bundle)
    probabilities, _ = consider_seen(seen).decision.probabilities, seen.lot  # so that sizing is compiled too
    if len(probabilities) != 4 or not np.isfinite(probabilities).all() or abs(sum(probabilities) - 1.0) > 1e-3:
        raise ArtifactError(
            f"{bundle.bucket} {bundle.version}: probabilities must be 4 numbers that sum to 1, were {probabilities}; "
            "remake it with: btcai run"
        )
    return seen


def proven(seen: Seen, learned: Learned) -> Learned:
    """What was learned, once a decision was explained with it; nothing where it does not fit this btcai's reasoning,
    which costs the explanations their memory and no decision."""
    try:
        explain(seen, _INVESTED, "", *learned)
    except BtcaiError as error:
        logger.warning("%s: explained without memory and with equal weights: %s", seen.bundle.bucket, error)
        return Learned()
    return learned


def _blank_bars(bundle: PolicyBundle) -> Bars:
    """Lookback and warm-up of flat bars at the unit price, after all that a memory may hold."""
    n = bundle.lookback_bars + WARMUP_BARS
    ones = np.ones(n)
    last = np.datetime64("2200-01-01", "ns").astype(np.int64) // (BAR_NS * bundle.patch_bars) * bundle.patch_bars
    return Bars(
        close_ts_ns=BAR_NS * (last + np.arange(1 - n, 1, dtype=np.int64)),
        open=ones,
        high=ones,
        low=ones,
        close=ones,
        volume=ones,
        present=np.ones(n, np.bool_),
    )


def _named(placed: Placed) -> str:
    standing = placed.standing
    return f"version {standing.version} ({placed.bundle.version})" if standing else placed.bundle.version
