"""Whatever a file calls itself, its first bytes tell what it is, and each shape gives the same bars."""

import gzip
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.data.frame import VALUE_COLUMNS
from btcai.data.sources import read_bars, read_source
from btcai.errors import DataError

FIRST_MS = 1_735_688_700_000  # 2024-12-31T23:45:00Z, a quarter of an hour before Binance's archive went to microseconds
PRICES = ("93548.82", "93611.07", "93500.1", "93576.0", "27.00814")
CELLS = [[str(FIRST_MS + 300_000 * i), *PRICES] for i in range(6)]
EXPECTED = [93548.82, 93611.07, 93500.1, 93576.0, 27.00814]
NAMES = ("timestamp", *VALUE_COLUMNS)


def csv_text(rows: list[list[str]], *header: str) -> str:
    return "".join(",".join(row) + "\n" for row in [list(header), *rows] if row)


def archive_row(row: list[str]) -> list[str]:
    """A row as Binance's archive writes it: microseconds from 2025 on."""
    time = int(row[0]) * (1000 if int(row[0]) >= 1_735_689_600_000 else 1)
    return [str(time), *row[1:], str(time + 299_999), "2526500.1", "5120", "13.1", "1225000.2", "0"]


def zipped(**members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)
    return stream.getvalue()


def arrow_table() -> pa.Table:
    times = pa.array([int(row[0]) for row in CELLS]).cast(pa.timestamp("ms", tz="UTC"))
    return pa.table([times, *(pa.array([value] * 6) for value in EXPECTED)], names=["date", *VALUE_COLUMNS])


def feather(version: int) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        table = arrow_table() if version == 2 else arrow_table().drop(["date"]).append_column("date", stamps_v1())
        pyarrow.feather.write_feather(table, stream, version=version)
    return stream.getvalue()


def stamps_v1() -> pa.ChunkedArray:
    return arrow_table()["date"].cast(pa.timestamp("ns", tz="UTC"))


def parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def encoded(kind: pa.DataType, *, times: bool) -> pa.Table:
    """Every price in text of this kind, and the times where told."""
    columns = [pa.array([text] * 6).cast(kind) for text in PRICES]
    stamps = pa.array([row[0] for row in CELLS]).cast(kind) if times else arrow_table()["date"]
    return pa.table([stamps, *columns], names=["date", *VALUE_COLUMNS])


def in_zone(zone: str) -> pa.Table:
    return arrow_table().set_column(0, "date", arrow_table()["date"].cast(pa.timestamp("ms", tz=zone)))


def dictionary_of_numbers() -> pa.Table:
    table = arrow_table()
    return pa.table([column.combine_chunks().dictionary_encode() for column in table.columns], names=table.column_names)


def squeezed(method: int, *, damaged: bool) -> bytes:
    """A zip of one CSV; damaged has one byte of the packed data turned over."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("bars.csv", csv_text(ARCHIVE))
    content = bytearray(stream.getvalue())
    content[80] ^= 0xFF if damaged else 0
    return bytes(content)


def as_decimals() -> pa.Table:
    columns = [pa.array([Decimal(text)] * 6) for text in PRICES]
    return pa.table([arrow_table()["date"], *columns], names=["date", *VALUE_COLUMNS])


NUMBERS = [[int(row[0]), *EXPECTED] for row in CELLS]
BINANCE_HEAD = (
    "open_time", *VALUE_COLUMNS, "close_time", "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume",
    "ignore",
)  # fmt: skip
ARCHIVE = [archive_row(row) for row in CELLS]
SHAPES: dict[str, Callable[[], bytes]] = {
    "csv": lambda: csv_text(CELLS, *NAMES).encode(),
    "csv with a byte order mark and blanks": lambda: (
        b"\xef\xbb\xbf" + csv_text(CELLS, *NAMES).replace(",", ", ").encode()
    ),
    "csv with semicolons and Windows line ends": lambda: (
        csv_text(CELLS, *NAMES).replace(",", ";").replace("\n", "\r\n").encode()
    ),
    "csv with the line ends of the old Macintosh": lambda: csv_text(CELLS, *NAMES).replace("\n", "\r").encode(),
    "csv of the old Macintosh without a header": lambda: csv_text(CELLS).replace("\n", "\r").encode(),
    "csv without a header, as ccxt": lambda: csv_text(CELLS).encode(),
    "csv without a header, as Binance's archive": lambda: csv_text(ARCHIVE).encode(),
    "csv with Binance's header": lambda: csv_text(ARCHIVE, *BINANCE_HEAD).encode(),
    "csv.gz": lambda: gzip.compress(csv_text(CELLS, *NAMES).encode()),
    "zip of one csv": lambda: zipped(bars__csv=csv_text(ARCHIVE)),
    "zip of two csv and a note": lambda: zipped(
        a__csv=csv_text(ARCHIVE[:4]), b__CSV=csv_text(ARCHIVE[3:], *BINANCE_HEAD), readme__txt="hello"
    ),
    "json lists, as ccxt and freqtrade": lambda: json.dumps(NUMBERS).encode(),
    "json lists of Binance's API, prices as text": lambda: json.dumps(
        [[int(row[0]), *row[1:6], int(row[6]), *row[7:]] for row in ARCHIVE]
    ).encode(),
    "json records": lambda: json.dumps([dict(zip(NAMES, row, strict=True)) for row in NUMBERS]).encode(),
    "json columns": lambda: json.dumps(dict(zip(NAMES, zip(*NUMBERS, strict=True), strict=True))).encode(),
    "jsongz, as freqtrade": lambda: gzip.compress(json.dumps(NUMBERS).encode()),
    "feather, as freqtrade": lambda: feather(2),
    "parquet": lambda: parquet(arrow_table()),
    "parquet of decimals": lambda: parquet(as_decimals()),
    "parquet of large text": lambda: parquet(encoded(pa.large_string(), times=True)),
    "parquet of text in a dictionary": lambda: parquet(encoded(pa.dictionary(pa.int32(), pa.string()), times=True)),
    "parquet of numbers in a dictionary": lambda: parquet(dictionary_of_numbers()),
    "parquet of text views": lambda: parquet(encoded(pa.string_view(), times=True)),
    "parquet of prices in text views": lambda: parquet(encoded(pa.string_view(), times=False)),
    "zip packed with LZMA": lambda: squeezed(zipfile.ZIP_LZMA, damaged=False),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_is_read_to_the_last_bit_under_any_name(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "download.bin"
    path.write_bytes(SHAPES[shape]())
    bars = read_bars(path)
    assert bars["open_time"].tolist() == list(pd.date_range("2024-12-31T23:45", periods=6, freq="5min", tz="UTC"))
    assert [row[1:] for row in bars.itertuples(index=False, name=None)] == [tuple(EXPECTED)] * 6


@given(value=st.floats(min_value=1e-9, max_value=1e9))
def test_any_decimal_is_read_to_the_nearest_double(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.mktemp("bars") / "bars.csv"
    path.write_text(f"{FIRST_MS},{value!r},{value!r},{value!r},{value!r},{value!r}\n")
    assert read_bars(path).iloc[0, 1:].tolist() == [value] * 5


def test_rows_of_a_zip_are_named_by_member(tmp_path: Path) -> None:
    path = tmp_path / "bars.zip"
    path.write_bytes(zipped(a__csv=csv_text(ARCHIVE), b__csv=csv_text([[*ARCHIVE[0][:5], "-1", *ARCHIVE[0][6:]]])))
    with pytest.raises(DataError, match=r"bars\.zip/b\.csv: volume must not be negative, was -1.0 in data row 1"):
        read_bars(path)


@pytest.mark.parametrize(
    "shape", ["parquet", "feather, as freqtrade", "csv.gz", "zip of one csv", "jsongz, as freqtrade"]
)
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_says_so(tmp_path: Path, shape: str, left: float) -> None:
    whole = SHAPES[shape]()
    path = tmp_path / "bars"
    path.write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(DataError, match=r"bars cannot be read: .*; if it was cut off, download it again"):
        read_bars(path)


def test_text_that_was_cut_off_in_its_last_row_is_refused_or_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bars.csv"
    text = csv_text(CELLS)
    path.write_text(text[:-12])  # inside close
    with pytest.raises(DataError, match="must have 6 cells as the first line has, was 5 in data row 6"):
        read_bars(path)
    path.write_text(text[:-3])  # inside volume: 27.008
    assert read_bars(path)["volume"].iloc[-1] == 27.008
    assert "its last line does not end" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (gzip.compress(b""), "is empty"),
        ("\u00a0\u00a0\n".encode(), "is empty"),
        (b"\x1c\x1d\n\x1f", "is empty"),
        (b"x" * 200_000, "cannot be read: field larger than field limit"),
        (squeezed(zipfile.ZIP_LZMA, damaged=True), "cannot be read"),
        (squeezed(zipfile.ZIP_BZIP2, damaged=True), "cannot be read"),
        (parquet(in_zone("Mars/Base")), "time must be in a known time zone, was 'Mars/Base'; write it in UTC"),
        (parquet(encoded(pa.string(), times=True)).replace(b"27.00814", b"27.00\xff14"), "cannot be read: .*UTF8"),
        (parquet(arrow_table()).replace(b"volume", b"volum\xff"), "cannot be read: 'utf-8' codec"),
        (feather(2).replace(b"UTC", b"\xaeTC"), "cannot be read: 'utf-8' codec"),
        (parquet(arrow_table()).replace(b"volume", b"vol\nme"), "missing: volume; found: .*close, vol me;"),
        (feather(1), "feather of its first version, which is not read; write it as version 2 or parquet"),
        (b"[]", "holds no bars"),
        (b"{}", "holds no bars"),
        (b"[[1, 2, 3]]", "must have 6 .* was 3"),
        (json.dumps([*NUMBERS, NUMBERS[0][:5]]).encode(), "6 cells as the first has, was 5 in data row 7"),
        (json.dumps([1, 2]).encode(), "is JSON but no table of bars, was '\\[1, 2\\]'"),
        (json.dumps([dict(zip(NAMES, NUMBERS[0], strict=True)), {}]).encode(), "numbers, was empty in data row 2"),
        (json.dumps([[*NUMBERS[0][:5], "much"], NUMBERS[1]]).encode(), "must hold numbers, was 'much' in data row 1"),
        (json.dumps([[*NUMBERS[0][:5], True]]).encode(), "volume must hold numbers, was bool"),
        (json.dumps([[*NUMBERS[0][:5], None]]).encode(), "volume must be a number, not empty.* was nan in data row 1"),
        (json.dumps([[*NUMBERS[0][:5], {"a": 1}]]).encode(), "volume must hold numbers, was struct"),
        (b"[" * 100_000, "cannot be read"),
        (zipped(readme__txt="hello"), "is a zip without a CSV file"),
        (zipped(), "is a zip without a CSV file"),
        ("timestamp,open\u00e9".encode("latin-1"), "is binary, or text that is not UTF-8"),
        (csv_text(CELLS, *NAMES).encode("utf-16"), "is binary, or text that is not UTF-8"),
        (b"\x28\xb5\x2f\xfd\x00", "is binary"),
        (b"  <!DOCTYPE html><html></html>", "is a web page"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_bars_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bars.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as refused:
        read_bars(path)
    assert "\n" not in str(refused.value)


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped(bars__csv=csv_text(ARCHIVE)))
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption in the directory
    path = tmp_path / "bars.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is protected by a password; unpack it"):
        read_bars(path)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(csv_text(CELLS))

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DataError, match=r"bars\.csv cannot be read: Permission denied"):
        read_source([path], "5m", FIRST_MS)
