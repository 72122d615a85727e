"""MarketData on disk: plain npy files that every later stage maps instead of reading, each with its checksum."""

import hashlib
import json
import logging
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btcai.errors import ArtifactError
from btcai.schema import Bars, MarketData

BAR_COLUMNS = ("open", "high", "low", "close", "volume", "mark", "sigma", "present", "funding")
"""Of bars.npy (T, 9) float64, stored column by column so that each maps as one contiguous array."""

FILES = ("features.npy", "bars.npy", "close_ts_ns.npy")

RESERVED = ("feature_names", "warmup_bars", "rows")
SHA256 = "sha256"
"""Keys of meta.json that save_market writes itself; the last one by file, the rest of meta.json under its own name."""

logger = logging.getLogger(__name__)


def save_market(data: MarketData, folder: Path, meta: dict[str, Any]) -> None:
    """Write features.npy, bars.npy, close_ts_ns.npy and meta.json (reserved keys and what `meta` holds).

    The same data and meta give the same bytes. meta.json goes first and comes last: a save cut short does not load.
    """
    own = (*RESERVED, SHA256)
    if taken := sorted(set(meta) & set(own)):
        raise ValueError(f"meta must not hold {', '.join(own)}, was given {', '.join(taken)}; rename them")
    said = {**meta, "feature_names": list(data.feature_names), "warmup_bars": data.warmup_bars, "rows": len(data)}
    of_meta = _meta_sha256(said)  # before anything is written, it refuses nan
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    np.save(folder / "features.npy", np.ascontiguousarray(data.features, np.float32))
    np.save(folder / "bars.npy", np.asfortranarray(np.stack([_column(data, name) for name in BAR_COLUMNS], axis=1)))
    np.save(folder / "close_ts_ns.npy", data.bars.close_ts_ns)
    digests = {name: _file_sha256(folder / name) for name in FILES} | {"meta.json": of_meta}
    (folder / "meta.json").write_text(_text({**said, SHA256: digests}), encoding="utf-8")


def load_market(folder: Path) -> MarketData:
    """What save_market wrote, memory-mapped and read-only; ArtifactError where it is missing, damaged or does not fit.

    Every byte is read once for its checksum: DVC looks at a file's time and size, which a disk that loses bits keeps.
    """
    meta = read_meta(folder)
    rows, names = meta["rows"], tuple(meta["feature_names"])
    features = _mapped(folder / "features.npy", (rows, len(names)), np.dtype(np.float32))
    table = _mapped(folder / "bars.npy", (rows, len(BAR_COLUMNS)), np.dtype(np.float64))
    close_ts_ns = _mapped(folder / "close_ts_ns.npy", (rows,), np.dtype(np.int64))
    _check_bytes(folder, meta.get(SHA256))
    column = {name: table[:, index] for index, name in enumerate(BAR_COLUMNS)}
    present = column["present"] != 0
    present.flags.writeable = False
    return MarketData(
        bars=Bars(
            close_ts_ns=close_ts_ns,
            open=column["open"],
            high=column["high"],
            low=column["low"],
            close=column["close"],
            volume=column["volume"],
            present=present,
        ),
        mark=column["mark"],
        sigma=column["sigma"],
        features=features,
        feature_names=names,
        warmup_bars=meta["warmup_bars"],
        funding=None if np.isnan(column["funding"]).all() else column["funding"],
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a saved market, with at least the reserved keys."""
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} not found; make it with: btcai run") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); make it again with: btcai stage features") from error
    if not isinstance(meta, dict) or not set(RESERVED) <= set(meta):
        raise ArtifactError(f"{path} must hold {', '.join(RESERVED)}; make it again with: btcai stage features")
    if SHA256 in meta and not _is_whole(meta):
        raise ArtifactError(f"{path} is damaged: not what was written; make it again with: btcai stage features")
    return meta


def _is_whole(meta: dict[str, Any]) -> bool:
    said = {key: value for key, value in meta.items() if key != SHA256}
    try:
        return bool(meta[SHA256]["meta.json"] == _meta_sha256(said))
    except (LookupError, TypeError, ValueError):  # damage that is JSON still
        return False


def _text(meta: dict[str, Any]) -> str:
    return json.dumps(meta, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _meta_sha256(said: dict[str, Any]) -> str:
    """Of what meta.json says beside its checksums."""
    return hashlib.sha256(_text(said).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_bytes(folder: Path, digests: dict[str, str] | None) -> None:
    """ArtifactError for a file that is not the one that was written."""
    if digests is None:
        logger.warning("%s has no checksums, of an older btcai; make it again with: btcai stage features", folder)
        return
    for name in FILES:
        if _file_sha256(folder / name) != digests.get(name):
            raise ArtifactError(
                f"{folder / name} is damaged: not the bytes that were written; make it again with: btcai stage features"
            )


def _column(data: MarketData, name: str) -> NDArray[np.float64]:
    if name == "funding":  # all nan: no rate was recorded
        return np.full(len(data), np.nan) if data.funding is None else np.asarray(data.funding, np.float64)
    holder = data if name in ("mark", "sigma") else data.bars
    return np.asarray(getattr(holder, name), np.float64)


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The npy file as a read-only array of exactly this shape and dtype."""
    try:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} not found; make it with: btcai run") from error
    except (ValueError, EOFError, OSError, SyntaxError, TypeError, OverflowError, tokenize.TokenError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); make it again with: btcai stage features") from error
    if array.shape != shape or array.dtype != dtype:
        raise ArtifactError(
            f"{path} must be {dtype} of shape {shape} as meta.json says, was {array.dtype} {array.shape};"
            " make it again with: btcai stage features"
        )
    return array
