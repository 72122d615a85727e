"""Bars from a file as people have it, parquet or CSV, plain or gzipped -> raw bars. Reads only; changes nothing."""

import gzip
import logging
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from btcai.data.frame import BAR_MS, VALUE_COLUMNS, make_frame, parts, sort_unique
from btcai.errors import DataError
from btcai.schema import BoolArray, FloatArray, IntArray

logger = logging.getLogger(__name__)

TIMEFRAMES = {"5m": BAR_MS}
TIME_COLUMNS = ("timestamp", "open_time", "date", "datetime")
"""Accepted names of the opening time, the preferred first, in any case, with spaces for underscores."""

EARLIEST_MS = int(np.datetime64("2009-01-01", "ms").astype(np.int64))  # Bitcoin's first block is of 2009-01-03
HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What a file held: bars sorted and without repetition, and how many rows that took."""

    bars: pd.DataFrame
    rows_read: int
    duplicates_dropped: int


def read_bars(path: Path, timeframe: str = "5m") -> pd.DataFrame:
    """The file's bars as a raw frame with RAW_COLUMNS, oldest first, repeated bars once; DataError where it cannot."""
    return read_source(path, timeframe).bars


def read_source(path: Path, timeframe: str = "5m") -> Source:
    """As read_bars, with the number of rows read and of repeated bars dropped."""
    if timeframe not in TIMEFRAMES:
        raise DataError(
            f"timeframe must be one of {', '.join(TIMEFRAMES)} (others are not supported yet), was {timeframe}"
        )
    table = _read_table(path)
    if table.empty:
        raise DataError(f"{path} holds no bars; give a file with a header line and at least one row")
    names = _columns(path, [str(name) for name in table.columns])
    open_ms = _open_ms(path, table[names[0]])
    values = np.column_stack([_numbers(path, table[name]) for name in names[1:]])
    bars, dropped = sort_unique(make_frame(open_ms, values), f"remove the wrong row from {path}")
    _check_spacing(path, parts(bars)[0], timeframe)
    logger.info("%s: %d rows, %d repeated bars dropped", path, len(table), dropped)
    return Source(bars=bars, rows_read=len(table), duplicates_dropped=dropped)


def _read_table(path: Path) -> pd.DataFrame:
    """The file as it is, told by its first bytes and not by its name."""
    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; give a parquet or CSV file of bars")
    try:
        head = _head(path)
        if not head.strip():
            raise DataError(f"{path} is empty; give a file with a header line and at least one row")
        if head.startswith(b"PAR1"):
            table: pd.DataFrame = pq.read_table(path).to_pandas(ignore_metadata=True)
            return table
        zipped = head.startswith(b"\x1f\x8b")
        if zipped:
            with gzip.open(path) as stream:
                head = stream.read(HEAD_BYTES)
        _check_text(path, head)
        # as text first: float() reads every decimal to the nearest double, which the parser does not promise
        kind: Literal["gzip"] | None = "gzip" if zipped else None
        return pd.read_csv(
            path, compression=kind, encoding="utf-8-sig", dtype=str, skipinitialspace=True, index_col=False
        )
    except (OSError, EOFError, zlib.error, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read: {reason}; give a whole parquet or CSV file of bars") from error


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def _check_text(path: Path, head: bytes) -> None:
    if head.lstrip().startswith((b"<", b"{")):
        kind = "a web page" if head.lstrip().startswith(b"<") else "JSON"
        raise DataError(f"{path} is {kind}, not bars; download the parquet or CSV file itself")
    # a multi-byte character may be cut at the end of the head; anything else that is not UTF-8 is not text
    if b"\0" in head or "\ufffd" in head[: HEAD_BYTES - 4].decode("utf-8", errors="replace").rstrip("\ufffd"):
        raise DataError(f"{path} is binary, neither parquet nor CSV text; give a parquet or CSV file of bars")


def _columns(path: Path, found: list[str]) -> tuple[str, ...]:
    """The file's names of time, open, high, low, close, volume."""
    known = {name.strip().lower().replace(" ", "_"): name for name in reversed(found)}
    time = next((known[name] for name in TIME_COLUMNS if name in known), None)
    missing = [name for name in VALUE_COLUMNS if name not in known]
    if time is None:
        missing.insert(0, f"a time ({', '.join(TIME_COLUMNS)})")
    if time is None or missing:
        raise DataError(
            f"{path} must have a header line with a time, {', '.join(VALUE_COLUMNS)}; missing: {', '.join(missing)}; "
            f"found: {', '.join(found)[:200]}; name the columns in the first line"
        )
    return (time, *(known[name] for name in VALUE_COLUMNS))


def _numbers(path: Path, column: "pd.Series[float]") -> FloatArray:
    """One value column (T,) float64, exactly as written; an empty cell is nan, which validation names."""
    if pd.api.types.is_bool_dtype(column.dtype):
        raise DataError(f"{path}: {column.name} must hold numbers, was true/false; mend the file")
    try:
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    except (ValueError, TypeError):
        bad = (pd.to_numeric(column, errors="coerce").isna() & column.notna()).to_numpy()
        row = int(bad.argmax())
        raise DataError(
            f"{path}: {column.name} must hold numbers, was {str(column.iloc[row])!r:.60} in data row {row + 1}; "
            "mend the file"
        ) from None


def _open_ms(path: Path, column: "pd.Series[float]") -> IntArray:
    """One time column -> UTC ms (T,): stamps, ISO text (UTC unless it says otherwise) or epoch s, ms, us, ns."""
    numbers = pd.Series(np.nan, index=column.index)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        stamps = pd.to_datetime(column, utc=True)
    else:
        numbers = pd.to_numeric(column, errors="coerce")
        stamps = pd.to_datetime(column.astype(str), utc=True, format="ISO8601", errors="coerce")
    # one cell of text among numbers is the fault to name, not a reason to read all as text
    epoch = bool(numbers.notna().sum() * 2 > len(column))
    _refuse(path, column, (numbers if epoch else stamps).isna(), "time must be ISO text or epoch numbers")
    open_ms = _epoch_ms(path, numbers) if epoch else _whole_ms(path, stamps)
    unclosed_ms = int(datetime.now(UTC).timestamp() * 1000) - BAR_MS
    _refuse(path, column, open_ms < EARLIEST_MS, "time must not be before 2009")
    _refuse(path, column, open_ms > unclosed_ms, "time must be of a bar that has closed, not in the future")
    return open_ms


def _refuse(path: Path, column: "pd.Series[float]", wrong: "BoolArray | pd.Series[bool]", rule: str) -> None:
    """DataError that names the first row where the rule is broken."""
    if not wrong.any():
        return
    row = int(np.argmax(wrong))
    raise DataError(f"{path}: {rule}, was {str(column.iloc[row])!r:.60} in data row {row + 1}; mend or remove the row")


def _whole_ms(path: Path, stamps: "pd.Series[pd.Timestamp]") -> IntArray:
    """UTC stamps -> ms (T,)."""
    return _exact(path, stamps.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64), 1000)


def _epoch_ms(path: Path, numbers: "pd.Series[float]") -> IntArray:
    """Epoch numbers -> ms (T,), each by its own size: Binance's archive went from ms to us on 2025-01-01."""
    _refuse(
        path, numbers, (numbers.abs() >= 2**62) | (numbers != np.rint(numbers)), "epoch time must be a whole number"
    )
    epoch: IntArray = np.asarray(numbers, dtype=np.int64)
    unit = np.digitize(np.abs(epoch), (10**11, 10**14, 10**17))  # s, ms, us, ns
    out = epoch.copy()
    out[unit == 0] *= 1000
    for index, per_ms in ((2, 1000), (3, 1_000_000)):
        out[unit == index] = _exact(path, epoch[unit == index], per_ms)
    return out


def _exact(path: Path, numbers: IntArray, unit: int) -> IntArray:
    broken = numbers[numbers % unit != 0]
    if len(broken):
        raise DataError(f"{path}: times must be whole milliseconds, was {broken[0]} of {unit} in one; mend the times")
    return numbers // unit


def _check_spacing(path: Path, open_ms: IntArray, timeframe: str) -> None:
    """The most frequent distance of neighbours must be the timeframe's; gaps and stray stamps are validation's."""
    if len(open_ms) < 2:
        return
    steps, counts = np.unique(np.diff(open_ms), return_counts=True)
    usual = int(steps[counts.argmax()])
    if usual != TIMEFRAMES[timeframe]:
        raise DataError(
            f"{path}: {timeframe} bars must be {TIMEFRAMES[timeframe] / 1000:g} s apart, most are {usual / 1000:g} s; "
            f"give a file of {timeframe} bars"
        )
