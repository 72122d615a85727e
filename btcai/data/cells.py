"""Cells of one column, as a file writes them -> numbers, or opening times in UTC ms. Pure: arrays in, arrays out."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from btcai.data.frame import iso
from btcai.errors import DataError
from btcai.schema import BoolArray, FloatArray, IntArray

EARLIEST_MS = int(np.datetime64("2009-01-01", "ms").astype(np.int64))  # Bitcoin's first block is of 2009-01-03
MEND = "mend or remove the row"


def refuse(name: str, wrong: BoolArray, rule: str, shown: Callable[[int], str], remedy: str = MEND) -> None:
    """DataError with file, rule, value and number of the first row where `wrong` (T,) holds, if there is one."""
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{name}: {rule}, was {shown(row)} in data row {row + 1}; {remedy}")


def is_number(cell: str | None) -> bool:
    """True for what float() reads, nan and inf among them, but not for Python's own 1_000."""
    try:
        float(cell or "")
    except ValueError:
        return False
    return "_" not in (cell or "")


def numbers(name: str, title: str, column: pa.ChunkedArray) -> FloatArray:
    """One column (T,) -> float64 (T,), each decimal to the nearest double; an absent cell is nan."""
    column = _plain(column)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())  # Arrow rounds twice on the direct way
    if _is_text(column.type):
        return _parsed(name, title, pc.utf8_trim_whitespace(column))
    if not (_is_numeric(column.type) or pa.types.is_null(column.type)):
        raise DataError(f"{name}: {title} must hold numbers, was {column.type}; mend the file")
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def open_ms(name: str, title: str, column: pa.ChunkedArray) -> IntArray:
    """One time column (T,): stamps, ISO text (UTC unless it says otherwise) or epoch s, ms, us or ns -> UTC ms (T,)."""
    column = _plain(column)
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if _is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
    elif not (_is_numeric(column.type) or pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise DataError(f"{name}: {title} must hold times, was {column.type}; mend the file")

    def check(wrong: "BoolArray | pd.Series[bool]", rule: str) -> None:
        refuse(name, np.asarray(wrong), rule, lambda row: _cell(column[row].as_py()))

    try:
        cells = column.to_pandas(date_as_object=False)
    except KeyError as error:  # only pandas looks the time zone up
        raise DataError(
            f"{name}: {title} must be in a known time zone, was {column.type.tz!r}; write it in UTC"
        ) from error
    times, is_epoch = _times(cells)
    check(times.isna(), f"{title} must be ISO text or epoch numbers")
    if is_epoch:
        check((times.abs() >= 2**62) | (times != np.rint(times)), f"{title} must be a whole number")
        found, whole = epoch_ms(np.asarray(times, dtype=np.int64))
    else:
        exact = times.dt.tz_localize(None).to_numpy()
        found, whole = exact.astype("datetime64[ms]").astype(np.int64), exact == exact.astype("datetime64[ms]")
    check(~whole, f"{title} must be whole milliseconds")
    check(found < EARLIEST_MS, f"{title} must not be before {iso(EARLIEST_MS)[:10]}")
    return found


def _times(cells: "pd.Series[Any]") -> "tuple[pd.Series[Any], bool]":
    """UTC stamps and False, or epoch numbers and True where most cells are numbers; what cannot be read is blank."""
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        return pd.to_datetime(cells, utc=True), False
    epoch = pd.to_numeric(cells, errors="coerce")
    # one cell of text among numbers is the fault to name, not a reason to read all as text
    if epoch.notna().sum() * 2 >= len(cells):
        return epoch, True
    return pd.to_datetime(cells.astype(str), utc=True, format="ISO8601", errors="coerce"), False


def epoch_ms(epoch: IntArray) -> tuple[IntArray, BoolArray]:
    """Epoch numbers -> ms (T,) and which are whole ms, each by its size: Binance's archive went to us on 2025-01-01."""
    unit = np.digitize(np.abs(epoch), (10**11, 10**14, 10**17))  # s, ms, us, ns
    per_ms = np.array([1, 1, 1000, 1_000_000])[unit]
    return np.where(unit == 0, epoch * 1000, epoch // per_ms), epoch % per_ms == 0


def _parsed(name: str, title: str, column: pa.ChunkedArray) -> FloatArray:
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowInvalid:  # it names no row
        cells = column.to_pylist()
        wrong = np.array([not is_number(cell) for cell in cells])
        grouped = bool(wrong.any()) and re.fullmatch(
            r"[-+\d., '_]*\d[., '_][\d., '_]*", cells[int(wrong.argmax())] or ""
        )
        remedy = "write it with a decimal point and no thousands separators" if grouped else MEND
        refuse(name, wrong, f"{title} must hold numbers", lambda row: _cell(cells[row]), remedy)
        return np.array([float(cell) for cell in cells])


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same cells without an encoding that Arrow's functions do not know: no dictionary, and text as string."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind))


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _cell(cell: object) -> str:
    return "empty" if cell is None or cell == "" else f"{str(cell)!r:.60}"
