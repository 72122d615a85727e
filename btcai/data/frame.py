"""What a frame of raw bars is: its columns, its order, its duplicates, its gaps and its hash."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from btcai.errors import DataError
from btcai.schema import BAR_SECONDS, RAW_COLUMNS, FloatArray, IntArray

BAR_MS = BAR_SECONDS * 1000
VALUE_COLUMNS = RAW_COLUMNS[1:]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Bars that the market does not hold: open stamps of the first and the last missing one, UTC."""

    first_missing: str
    last_missing: str
    bars: int


def iso(open_ms: int) -> str:
    """Milliseconds since 1970 -> 2022-01-01T00:00:00Z (with the fraction where there is one)."""
    stamp = str(np.datetime64(int(open_ms), "ms"))
    return f"{stamp.removesuffix('.000')}Z"


def make_frame(open_ms: IntArray, values: FloatArray) -> pd.DataFrame:
    """Open stamps (T,) in UTC ms and values (T, 5) -> a frame with RAW_COLUMNS."""
    times = pd.DatetimeIndex(open_ms.astype("datetime64[ms]"), tz="UTC")
    columns = {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(VALUE_COLUMNS)}
    return pd.DataFrame({RAW_COLUMNS[0]: times, **columns})


def parts(frame: pd.DataFrame) -> tuple[IntArray, FloatArray]:
    """A raw frame -> open stamps (T,) int64 UTC ms and values (T, 5) float64; DataError when it is not a raw frame."""
    if list(frame.columns) != list(RAW_COLUMNS):
        found = ", ".join(map(str, frame.columns)) or "none"
        raise DataError(
            f"bars must have the columns {', '.join(RAW_COLUMNS)}, found {found}; read files with read_bars"
        )
    times = frame[RAW_COLUMNS[0]]
    if not isinstance(times.dtype, pd.DatetimeTZDtype) or times.isna().any():
        raise DataError(f"open_time must be UTC stamps without blanks, was {times.dtype}; read files with read_bars")
    wrong = [name for name in VALUE_COLUMNS if frame[name].dtype != np.float64]
    if wrong:
        raise DataError(f"{wrong[0]} must be float64, was {frame[wrong[0]].dtype}; read files with read_bars")
    open_ms = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[ms]").astype(np.int64)
    return open_ms, frame[list(VALUE_COLUMNS)].to_numpy(dtype=np.float64)


def sort_unique(frame: pd.DataFrame, place: Callable[[int], str], remedy: str) -> tuple[pd.DataFrame, IntArray]:
    """Oldest first, repeated bars once -> (frame, which rows it kept); DataError where two bars of one time disagree.

    place(i) says where row i comes from.
    """
    open_ms, values = parts(frame)
    order = np.argsort(open_ms, kind="stable")
    open_ms, values = open_ms[order], values[order]
    again = np.flatnonzero(open_ms[1:] == open_ms[:-1]) + 1
    first, second = values[again - 1], values[again]
    differs = ~((first == second) | (np.isnan(first) & np.isnan(second))).all(axis=1)
    if differs.any():
        at = int(again[differs.argmax()])
        one, other = (f"{place(int(order[row]))} {describe_bar(values[row])}" for row in (at - 1, at))
        raise DataError(
            f"two bars of one time must agree, {int(differs.sum())} pair(s) do not; the first at {iso(open_ms[at])}: "
            f"{one} and {other}; {remedy}"
        )
    keep = np.ones(len(open_ms), dtype=bool)
    keep[again] = False
    return make_frame(open_ms[keep], values[keep]), order[keep]


def describe_bar(values: FloatArray) -> str:
    """Values (5,) of one bar in brackets, each with its name."""
    return "(" + ", ".join(f"{name} {value}" for name, value in zip(VALUE_COLUMNS, values.tolist(), strict=True)) + ")"


def find_gaps(open_ms: IntArray) -> tuple[Gap, ...]:
    """Open stamps (T,) in UTC ms, in any order -> the ledger of missing bars, oldest first."""
    stamps = np.unique(open_ms)
    missing = np.diff(stamps) // BAR_MS - 1
    return tuple(
        Gap(
            first_missing=iso(stamps[i] + BAR_MS),
            last_missing=iso(stamps[i] + int(missing[i]) * BAR_MS),
            bars=int(missing[i]),
        )
        for i in np.flatnonzero(missing > 0)
    )


def content_sha256(frame: pd.DataFrame) -> str:
    """The bars' identity: hash of their values in order of time, whatever the order of rows, files or codec.

    Little-endian int64 open stamps (ms), then each value column as little-endian float64.
    """
    open_ms, values = parts(frame)
    order = np.argsort(open_ms, kind="stable")
    digest = hashlib.sha256(open_ms[order].astype("<i8").tobytes())
    for column in values[order].T:
        digest.update(column.astype("<f8").tobytes())
    return digest.hexdigest()
