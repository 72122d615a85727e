"""MarketData on disk: plain npy files that every later stage maps instead of reading."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btcai.errors import ArtifactError
from btcai.schema import Bars, MarketData

BAR_COLUMNS = ("open", "high", "low", "close", "volume", "mark", "sigma", "present", "funding")
"""Of bars.npy (T, 9) float64, stored column by column so that each maps as one contiguous array."""

RESERVED = ("feature_names", "warmup_bars", "rows")
"""Keys of meta.json that save_market writes itself."""


def save_market(data: MarketData, folder: Path, meta: dict[str, Any]) -> None:
    """Write features.npy, bars.npy, close_ts_ns.npy and meta.json (reserved keys and what `meta` holds).

    The same data and meta give the same bytes. meta.json goes first and comes last: a save cut short does not load.
    """
    if taken := sorted(set(meta) & set(RESERVED)):
        raise ValueError(f"meta must not hold {', '.join(RESERVED)}, was given {', '.join(taken)}; rename them")
    own = {"feature_names": list(data.feature_names), "warmup_bars": data.warmup_bars, "rows": len(data)}
    text = json.dumps({**meta, **own}, indent=2, sort_keys=True, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    np.save(folder / "features.npy", np.ascontiguousarray(data.features, np.float32))
    np.save(folder / "bars.npy", np.asfortranarray(np.stack([_column(data, name) for name in BAR_COLUMNS], axis=1)))
    np.save(folder / "close_ts_ns.npy", data.bars.close_ts_ns)
    (folder / "meta.json").write_text(text, encoding="utf-8")


def load_market(folder: Path) -> MarketData:
    """What save_market wrote, memory-mapped and read-only; ArtifactError where it is missing or does not fit."""
    meta = read_meta(folder)
    rows, names = meta["rows"], tuple(meta["feature_names"])
    features = _mapped(folder / "features.npy", (rows, len(names)), np.dtype(np.float32))
    table = _mapped(folder / "bars.npy", (rows, len(BAR_COLUMNS)), np.dtype(np.float64))
    close_ts_ns = _mapped(folder / "close_ts_ns.npy", (rows,), np.dtype(np.int64))
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
        raise ArtifactError(f"{path} not found; make it with: btcai stage features") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); make it again with: btcai stage features") from error
    if not isinstance(meta, dict) or not set(RESERVED) <= set(meta):
        raise ArtifactError(f"{path} must hold {', '.join(RESERVED)}; make it again with: btcai stage features")
    return meta


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
        raise ArtifactError(f"{path} not found; make it with: btcai stage features") from error
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); make it again with: btcai stage features") from error
    if array.shape != shape or array.dtype != dtype:
        raise ArtifactError(
            f"{path} must be {dtype} of shape {shape} as meta.json says, was {array.dtype} {array.shape};"
            " make it again with: btcai stage features"
        )
    return array
