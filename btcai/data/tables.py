"""Any file that people keep bars in -> tables of named columns, told by its first bytes and not by its name."""

import csv
import gzip
import io
import json
import logging
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from btcai.data.cells import is_number
from btcai.data.frame import VALUE_COLUMNS
from btcai.errors import DataError

logger = logging.getLogger(__name__)

SHAPES = "parquet, feather, CSV or JSON (plain or gzipped) or a zip of CSV files"
CCXT = ("timestamp", *VALUE_COLUMNS)
BINANCE = (
    "open_time", *VALUE_COLUMNS,
    "close_time", "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
POSITIONAL = {len(names): names for names in (CCXT, BINANCE)}
"""Columns of a table that does not name them, by their number."""

MAX_UNPACKED_BYTES = 2**30
MAX_ROWS = 20_000_000
"""190 years of 5-minute bars, ten times what there is of Bitcoin: more is a mistake, or meant to fill the memory."""

BOM = b"\xef\xbb\xbf"
UNREADABLE = (
    OSError, EOFError, ValueError, RuntimeError,
    csv.Error, lzma.LZMAError, zlib.error, zipfile.BadZipFile, pa.ArrowException,
)  # fmt: skip
"""What broken bytes raise: RuntimeError is zipfile's for a password and json's for endless nesting."""


@dataclass(frozen=True, eq=False)
class Table:
    """One table as its file holds it: cells of text stay text, row i is data row i + 1."""

    name: str  # of the file, with the member's name where it is a zip
    columns: pa.Table


def read_tables(path: Path) -> list[Table]:
    """The tables of a file: one, or one for each CSV in a zip; DataError where it cannot be read as SHAPES."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "not a file" if path.exists() else "not there"
        raise DataError(f"{path} is {found}; give files of bars: {SHAPES}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; mend that, or give a copy of it") from error
    return tables_in(str(path), data)


def tables_in(name: str, data: bytes) -> list[Table]:
    """The tables in a file's bytes, as read_tables."""
    try:
        return list(_tables(name, data))
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{name} cannot be read: {reason}; if it was cut off, download it again; files of bars are {SHAPES}"
        ) from error


def _tables(name: str, data: bytes) -> Iterator[Table]:
    if data.startswith(b"PAR1"):
        found = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_size(name, found.metadata.num_rows, MAX_ROWS, "rows")
        yield Table(name, _sound(found.read()))
    elif data.startswith(b"FEA1"):  # a damaged one can crash its reader, which nothing here could catch
        raise DataError(f"{name} is feather of its first version, which is not read; write it as version 2 or parquet")
    elif data.startswith(b"ARROW1"):
        yield Table(name, _sound(pyarrow.feather.read_table(pa.BufferReader(data), memory_map=False)))
    elif data.startswith(b"\x1f\x8b"):
        yield from _tables(name, _unpacked(name, gzip.GzipFile(fileobj=io.BytesIO(data))))
    elif data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _unzipped(name, data)
    else:
        yield Table(name, _from_text(name, data.removeprefix(BOM)))


def _sound(columns: pa.Table) -> pa.Table:
    """The table; one of UNREADABLE where damage that its reader let pass would show later on."""
    columns.validate(full=True)
    _ = columns.column_names, [getattr(kind, "tz", None) for kind in columns.schema.types]  # decodes them
    return columns


def _unzipped(name: str, data: bytes) -> Iterator[Table]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [member for member in archive.infolist() if _is_csv(member.filename)]
        if not members:
            raise DataError(f"{name} is a zip without a CSV file; give the CSV or parquet file itself")
        for member in members:
            if member.flag_bits & 1:
                raise DataError(f"{name} is protected by a password; unpack it and give the files in it")
            with archive.open(member) as packed:
                yield from _tables(f"{name}/{member.filename}", _unpacked(name, packed))


def _unpacked(name: str, packed: IO[bytes] | gzip.GzipFile) -> bytes:
    """All of it, whatever size its header claims; DataError before it fills the memory."""
    data = packed.read(MAX_UNPACKED_BYTES + 1)
    _check_size(name, len(data), MAX_UNPACKED_BYTES, "bytes")
    return data


def _check_size(name: str, found: int, most: int, what: str) -> None:
    if found > most:
        raise DataError(f"{name} must unpack to at most {most:,} {what}, was more; give it in several files")


def _is_csv(member: str) -> bool:
    return member.lower().endswith(".csv") and not member.startswith("__MACOSX/")  # that holds icons and the like


def _from_text(name: str, data: bytes) -> pa.Table:
    start = data[:4096].lstrip()
    if start.startswith(b"<"):
        raise DataError(f"{name} is a web page, not bars; download the file itself")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DataError(f"{name} is binary, or text that is not UTF-8; give {SHAPES}")
    if not text.strip():
        raise DataError(f"{name} is empty; give a file with at least one bar")
    if start.startswith((b"[", b"{")):
        return _from_json(name, text)
    if not data.endswith((b"\n", b"\r")):
        logger.warning("%s: its last line does not end; if the file was cut off, its last value is wrong", name)
    return _from_csv(name, text, data)


def _from_csv(name: str, text: str, data: bytes) -> pa.Table:
    """Every cell as text: what is not a number is then shown as it was written."""
    first = next(line for line in io.StringIO(text, newline=None) if line.strip())
    delimiter = max(",;\t", key=first.count)
    cells = next(csv.reader([first], delimiter=delimiter))
    headless = _is_headless(name, cells)
    names = _positional(name, len(cells)) if headless else cells
    ragged: list[pyarrow.csv.InvalidRow] = []

    def remember(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False,  # else rows have no numbers
            column_names=[str(number) for number in range(len(names))],  # a name given twice is still two columns
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=remember),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={str(number): pa.string() for number in range(len(names))}
        ),
    )
    if ragged:
        row = ragged[0].number - (0 if headless else 1)
        titled = len(names) < len(CCXT)
        remedy = (
            f"the first line, {first.strip()[:60]!r}, names too few columns: is it a title? remove it"
            if titled
            else "mend the row, or download the file again if it was cut off"
        )
        raise DataError(
            f"{name}: every row must have {len(names)} cells as the first line has, was {ragged[0].actual_columns} in "
            f"data row {row}; {remedy}"
        )
    return table.slice(0 if headless else 1).rename_columns(list(names))


def _is_headless(name: str, cells: list[str]) -> bool:
    """True where the first line is numbers alone; DataError where it is neither that nor names of columns."""
    found = sum(map(is_number, cells))
    if len(cells) // 2 < found < len(cells):
        odd = next(cell for cell in cells if not is_number(cell))
        raise DataError(
            f"{name}: its first line looks like a bar, but {odd[:60]!r} in it is no number; columns without names must "
            f"be {len(CCXT)} of numbers (time since 1970, {', '.join(VALUE_COLUMNS)}) or Binance's {len(BINANCE)}; "
            "mend the row, or name the columns in the first line"
        )
    return found == len(cells)


def _from_json(name: str, text: str) -> pa.Table:
    found = json.loads(text)
    if not found:
        return pa.table({})
    if isinstance(found, dict) and all(isinstance(column, list) for column in found.values()):
        columns = found
    elif isinstance(found, list) and all(isinstance(row, dict) for row in found):
        columns = {key: [row.get(key) for row in found] for key in found[0]}
    elif isinstance(found, list) and all(isinstance(row, list) for row in found):
        columns = _unnamed(name, found)
    else:
        raise DataError(
            f"{name} is JSON but no table of bars, was {text.strip()[:60]!r}; give a list of "
            "[ms, open, high, low, close, volume], a list of records, or one list for each column"
        )
    return pa.table([_array(column) for column in columns.values()], names=list(columns))


def _unnamed(name: str, rows: list[list[Any]]) -> dict[str, list[Any]]:
    names = _positional(name, len(rows[0]))
    wrong = next((number for number, row in enumerate(rows) if len(row) != len(names)), None)
    if wrong is not None:
        raise DataError(
            f"{name}: every row must have {len(names)} cells as the first has, was {len(rows[wrong])} in data row "
            f"{wrong + 1}; mend the row"
        )
    return {title: list(column) for title, column in zip(names, zip(*rows, strict=True), strict=True)}


def _array(cells: list[Any]) -> pa.Array:
    try:
        return pa.array(cells)
    except (ValueError, TypeError, OverflowError):  # mixed types: as text, where the odd cell can be named
        return pa.array([None if cell is None else str(cell) for cell in cells])


def _positional(name: str, count: int) -> tuple[str, ...]:
    if count not in POSITIONAL:
        raise DataError(
            f"{name} does not name its columns, so it must have {len(CCXT)} (time, {', '.join(VALUE_COLUMNS)}) or "
            f"Binance's {len(BINANCE)}, was {count}; name the columns in the first line"
        )
    return POSITIONAL[count]
