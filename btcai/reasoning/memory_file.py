"""A memory as one .npz file: plain arrays, never a pickle, written as a whole or not at all."""

import io
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btcai.errors import ArtifactError
from btcai.files import write_bytes
from btcai.reasoning.memory import Memory

FORMAT = 1
"""Of the file: what its arrays mean; another number is refused."""
_REMEDY = "make it again with: btcai run"
_ROWS = ("close_ts_ns", "known_ts_ns", "outcome", "rise", "weight")
_INTEGERS = ("horizon_bars", "capacity", "forgot_ts_ns", "close_ts_ns", "known_ts_ns")
_KINDS = {"model_version": "U", **dict.fromkeys(_INTEGERS, "i")}  # of dtypes; all others are floats


def save_memory(memory: Memory, path: Path) -> None:
    """Write it; the same memory gives the same bytes."""
    buffer = io.BytesIO()
    arrays = {one.name: np.asarray(getattr(memory, one.name)) for one in fields(Memory)}
    np.savez(buffer, allow_pickle=False, format=np.asarray(FORMAT), **arrays)
    write_bytes(path, buffer.getvalue())


def load_memory(path: Path) -> Memory:
    """What save_memory wrote, bit for bit; ArtifactError where it is missing, damaged or of another format."""
    try:
        stored = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        arrays = dict(stored) if isinstance(stored, np.lib.npyio.NpzFile) else {}
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} not found; {_REMEDY}") from error
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {_REMEDY}") from error
    number = arrays.pop("format", None)
    if number is None or not np.array_equal(number, FORMAT):
        raise ArtifactError(f"{path} must hold a memory of format {FORMAT}, was of {number}; {_REMEDY}")
    if wrong := _misfit(arrays):
        raise ArtifactError(f"{path} must hold a memory, but {wrong}; {_REMEDY}")
    return Memory(**{one.name: _plain(arrays[one.name]) for one in fields(Memory)})


def _misfit(arrays: dict[str, NDArray[Any]]) -> str:
    """What is wrong with the arrays of a file, or nothing."""
    if odd := set(arrays) ^ {one.name for one in fields(Memory)}:
        return f"these are missing or too many: {', '.join(sorted(odd))}"
    for name, array in arrays.items():
        if array.dtype.kind != _KINDS.get(name, "f"):
            return f"{name} is of type {array.dtype}"
    n, z = len(arrays["close_ts_ns"]), len(arrays["centre"])
    shapes = dict.fromkeys(_ROWS, (n,)) | {"place": (n, z), "whitening": (z, z), "centre": (z,)}
    for name, array in arrays.items():
        if array.shape != shapes.get(name, ()):
            return f"{name} is of shape {array.shape}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{name} is not finite"
    return "its rows are not in order of time" if np.any(np.diff(arrays["known_ts_ns"]) < 0) else ""


def _plain(array: NDArray[Any]) -> Any:
    return array.item() if array.ndim == 0 else array
