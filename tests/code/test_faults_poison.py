"""Files that were made to do harm, or that another program ruined: refused in one line, nothing written anywhere."""

import gzip
import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_fakes import frame
from faults import contents

from btcai.data import tables
from btcai.data.sources import read_bars
from btcai.errors import DataError

HEAD = "open_time,open,high,low,close,volume\n"
ROW = "2022-01-01T00:00:00Z,1,2,1,2,1\n"


def bars(rows: int = 50) -> pd.DataFrame:
    return frame().head(rows).reset_index(drop=True)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("close", ["x"] * 50, "close must hold numbers, was 'x' in data row 1"),
        ("close", [None] * 50, "close must be a number, not empty or infinite, was nan in data row 1"),
        ("high", [np.inf] * 50, "high must be a number, not empty or infinite, was inf in data row 1"),
        ("low", [-np.inf] * 50, "low must be a number, not empty or infinite, was -inf in data row 1"),
        ("volume", [True] * 50, "volume must hold numbers, was bool"),
        ("volume", [[1.0]] * 50, "volume must hold numbers, was list<element: double>"),
        ("open_time", [1.5] * 50, "time must be a whole number, was '1.5' in data row 1"),
        ("open_time", [b"\xff"] * 50, "time must hold times, was binary"),
    ],
)
def test_columns_of_the_wrong_kind_are_named(tmp_path: Path, column: str, values: list[object], words: str) -> None:
    path = tmp_path / "bars.parquet"
    whole = bars().assign(open_time=bars()["open_time"].dt.tz_convert(None))
    table = pa.table({name: pa.array(values if name == column else whole[name].to_numpy()) for name in whole})
    pq.write_table(table, path)
    with pytest.raises(DataError) as found:
        read_bars(path)
    assert words in str(found.value)
    assert str(path) in str(found.value)


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def gzipped(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1))
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """A limit that a test can afford to pass."""
    monkeypatch.setattr(tables, "MAX_UNPACKED_BYTES", 2**20)
    monkeypatch.setattr(tables, "MAX_ROWS", 1000)
    return 2**20


@pytest.mark.parametrize("kind", ["zip", "gzip", "gzip in gzip", "gzip in zip"])
def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path, small: int, kind: str) -> None:
    bomb = bytes(64 * small)
    path = tmp_path / "bars"
    if kind == "zip":
        zipped(path, ("bars.csv", bomb))
    elif kind == "gzip":
        gzipped(path, bomb)
    elif kind == "gzip in gzip":
        gzipped(path, gzip.compress(bomb, 9))
    else:
        zipped(path, ("bars.csv", gzip.compress(bomb, 9)))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"must unpack to at most 1,048,576 bytes, was more; give it in several files"):
        read_bars(path)
    assert tracemalloc.get_traced_memory()[1] < 16 * small
    tracemalloc.stop()


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path, small: int) -> None:
    path = zipped(tmp_path / "bars.zip", ("bars.csv", bytes(64 * small)))
    data = path.read_bytes()
    path.write_bytes(data.replace((64 * small).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"cannot be read|must unpack"):
        read_bars(path)


@pytest.mark.usefixtures("small")
def test_parquet_of_too_many_rows_is_refused_by_what_it_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    pq.write_table(pa.table({"open": np.zeros(5_000_000)}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="must unpack to at most 1,000 rows, was more"):
        read_bars(path)


def test_names_in_a_zip_that_lead_elsewhere_write_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    text = bars().to_csv(index=False).encode()
    path = zipped(folder / "bars.zip", ("../../outside.csv", text), ("/etc/btcai.csv", text))
    before = contents(tmp_path)
    assert len(read_bars(path)) == 50  # read where it is; a name is only told
    assert contents(tmp_path) == before
    assert not Path("/etc/btcai.csv").exists()


def test_links_are_followed_to_files_and_nowhere_else(tmp_path: Path) -> None:
    real, link, loop = tmp_path / "bars.csv", tmp_path / "link.csv", tmp_path / "loop.csv"
    bars().to_csv(real, index=False)
    link.symlink_to(real)
    loop.symlink_to(loop)
    assert len(read_bars(link)) == 50
    with pytest.raises(DataError, match="is not there"):
        read_bars(loop)
    with pytest.raises(DataError, match="is not a file"):
        read_bars(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is not a file"):
        read_bars(tmp_path / "pipe")


def test_one_poisoned_row_in_a_good_file_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    for cell, words in (("inf", "not empty or infinite, was inf"), ("1e400", "was inf"), ("=1+1", "was '=1+1'")):
        text = io.StringIO()
        bars().to_csv(text, index=False)
        lines = text.getvalue().splitlines()
        lines[7] = ",".join([*lines[7].split(",")[:-1], cell])
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with pytest.raises(DataError) as found:
            read_bars(path)
        assert words in str(found.value)
        assert "in data row 7" in str(found.value)
