"""Files as people have them become raw bars, or one clear line says why not."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from btcai.data.sources import Source, read_bars, read_source
from btcai.errors import DataError

HEADER = "timestamp,open,high,low,close,volume\n"
ROWS = (
    "2023-01-01T00:00:00Z,16520.28,16524.91,16500.24,16506.14,767.72112",
    "2023-01-01T00:05:00Z,16506.14,16514.99,16490.78,16495.24,558.92871",
    "2023-01-01T00:10:00Z,16496.01,16503.97,16487.74,16502.67,555.3314",
)
FIRST_S = 1_672_531_200  # 2023-01-01T00:00:00Z
NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def csv(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "bars.csv"
    path.write_text(header + "\n".join(rows) + "\n")
    return path


def read(*paths: Path, now_ms: int = NOW_MS) -> Source:
    return read_source(paths, "5m", now_ms)


def epoch_rows(times: list[str]) -> list[str]:
    return [f"{time},1,2,0.5,1.5,3" for time in times]


def test_csv_values_are_read_to_the_last_bit(tmp_path: Path) -> None:
    bars = read_bars(csv(tmp_path, *ROWS))
    assert list(bars.columns) == ["open_time", "open", "high", "low", "close", "volume"]
    assert str(bars["open_time"].dtype) == "datetime64[ms, UTC]"
    assert bars["open_time"].iloc[1] == pd.Timestamp("2023-01-01T00:05", tz="UTC")
    assert bars.iloc[0, 1:].tolist() == [16520.28, 16524.91, 16500.24, 16506.14, 767.72112]


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9], ids=["s", "ms", "us", "ns"])
def test_epoch_unit_is_told_by_magnitude(tmp_path: Path, unit: int) -> None:
    bars = read_bars(csv(tmp_path, *epoch_rows([str((FIRST_S + 300 * i) * unit) for i in range(3)])))
    assert bars["open_time"].tolist() == list(pd.date_range("2023-01-01", periods=3, freq="5min", tz="UTC"))


def test_archive_that_changes_from_ms_to_us_in_the_middle_is_read_row_by_row(tmp_path: Path) -> None:
    times = [str(FIRST_S * 10**3), str((FIRST_S + 300) * 10**6), str((FIRST_S + 600) * 10**6)]
    bars = read_bars(csv(tmp_path, *epoch_rows(times)))
    assert bars["open_time"].tolist() == list(pd.date_range("2023-01-01", periods=3, freq="5min", tz="UTC"))


@pytest.mark.parametrize("name", ["open_time", "date", "datetime", "Timestamp", "Open Time"])
def test_time_column_goes_by_several_names(tmp_path: Path, name: str) -> None:
    assert len(read_bars(csv(tmp_path, *ROWS, header=HEADER.replace("timestamp", name)))) == 3


def test_offset_of_a_time_zone_is_honoured_and_a_bare_time_is_utc(tmp_path: Path) -> None:
    zoned = [row.replace("T00", "T02").replace("Z", "+02:00") for row in ROWS]
    bare = [row.replace("T", " ").replace("Z", "") for row in ROWS]
    pd.testing.assert_frame_equal(read_bars(csv(tmp_path, *zoned)), read_bars(csv(tmp_path, *bare)))


@pytest.mark.parametrize("form", ["csv.gz", "parquet", "naive.parquet", "no.ending"])
def test_every_container_gives_the_same_bars(tmp_path: Path, form: str) -> None:
    plain = csv(tmp_path, *ROWS)
    bars, path = read_bars(plain), tmp_path / f"copy.{form}"
    if form == "csv.gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    elif form == "parquet":
        bars.rename(columns={"open_time": "timestamp"}).set_index("timestamp").to_parquet(path)
    elif form == "naive.parquet":
        bars.assign(open_time=bars["open_time"].dt.tz_localize(None)).to_parquet(path)
    else:
        path.write_bytes(plain.read_bytes())
    pd.testing.assert_frame_equal(read_bars(path), bars)


def test_rows_are_sorted_and_agreeing_duplicates_dropped_and_counted(tmp_path: Path) -> None:
    source = read(csv(tmp_path, ROWS[2], ROWS[0], ROWS[1], ROWS[0], ROWS[0]))
    assert (source.rows_read, source.duplicates_dropped, source.out_of_order) == (5, 2, 4)
    assert [source.place(bar).partition(" of ")[0] for bar in range(3)] == ["data row 2", "data row 3", "data row 1"]
    pd.testing.assert_frame_equal(source.bars, read_bars(csv(tmp_path, *ROWS)))


def test_disagreeing_duplicates_are_shown_side_by_side(tmp_path: Path) -> None:
    other = ROWS[1].replace("16495.24", "16495.25")
    with pytest.raises(DataError, match=r"1 pair.*2023-01-01T00:05:00Z.*close 16495.24,.*close 16495.25,"):
        read_bars(csv(tmp_path, *ROWS, other))


def test_disagreeing_bars_of_two_files_are_named_by_file_and_row(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text(HEADER + "\n".join(ROWS) + "\n")
    other.write_text(HEADER + ROWS[0] + "\n" + ROWS[2].replace("555.3314", "555.3") + "\n")
    with pytest.raises(
        DataError, match=r"row 3 of .*one\.csv \(.*555\.3314\) and data row 2 of .*other\.csv.*555\.3\)"
    ):
        read(one, other)


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    whole = read_bars(csv(tmp_path, *ROWS))
    paths = [tmp_path / f"{number}.csv" for number in range(2)]
    paths[0].write_text(HEADER + ROWS[2] + "\n")
    paths[1].write_text(HEADER + "\n".join(ROWS) + "\n")
    source = read(*paths)
    pd.testing.assert_frame_equal(source.bars, whole)
    assert (source.rows_read, source.duplicates_dropped, source.out_of_order) == (4, 1, 0)
    assert source.files == tuple(map(str, paths))


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (ROWS, HEADER.replace("volume", "size"), "missing: volume; found: timestamp, open, high, low, close, size"),
        (ROWS[1:], ROWS[0] + "\n", "first line looks like a bar, but '2023-01-01T00:00:00Z' .* 6 of numbers .* 12;"),
        (("1672531200000,10,11,9,10,",), "", "first line looks like a bar, but '' in it is no number"),
        (ROWS, "https://example.com/bars\n" + HEADER, "was 6 in data row 1; the first line, 'https.*bars', .*a title"),
        ((ROWS[0], ROWS[1].replace("558.92871", "1_000")), HEADER, "was '1_000' in data row 2; write it with"),
        (epoch_rows(["1_672_531_200", str(FIRST_S + 300)]), HEADER, "epoch numbers, was '1_672_531_200' in data row 1"),
        ((), HEADER, "holds no bars"),
        ((), "", "is empty"),
        ((ROWS[0], ROWS[1].replace("16514.99", "n.a.!")), HEADER, "high must hold numbers, was 'n.a.!' in data row 2"),
        ((ROWS[0], "soon,1,2,1,2,1"), HEADER, "ISO text or epoch numbers, was 'soon' in data row 2"),
        ((*epoch_rows([str(FIRST_S), str(FIRST_S + 300)]), "soon,1,2,1,2,1"), HEADER, "was 'soon' in data row 3"),
        (epoch_rows(["20230101"]), HEADER, "must not be before 2009-01-01, was '20230101' in data row 1"),
        ((ROWS[0], "2123-01-01T00:00:00Z,1,2,1,2,1"), HEADER, "from the future .* was 2123-01-01T.* in data row 2"),
        (epoch_rows([str(FIRST_S), f"{FIRST_S + 300}.5"]), HEADER, "a whole number, was '1672531500.5' in data row 2"),
        (epoch_rows([str(FIRST_S * 10**6 + 1)]), HEADER, "whole milliseconds"),
        (epoch_rows([str(FIRST_S + 60 * i) for i in range(4)]), HEADER, "row 2 of .*most are 1m apart"),
        ((ROWS[0], ROWS[1].replace("16495.24", "")), HEADER, "close must hold numbers, was empty in data row 2"),
        ((ROWS[0], ROWS[1].replace("16495.24", "NaN")), HEADER, "close must be a number, .*was nan in data row 2"),
        ((ROWS[0], ROWS[1].replace("16495.24", '"16,495.24"')), HEADER, "was '16,495.24' in data row 2; write it with"),
        ((ROWS[0], ROWS[1][:40]), HEADER, "every row must have 6 cells .* was 4 in data row 2"),
        ((ROWS[0], ROWS[1] + ",7"), HEADER, "every row must have 6 cells .* was 7 in data row 2"),
        (ROWS, HEADER.replace("volume", "Close"), "missing: volume"),
        ([row + ",1" for row in ROWS], HEADER.replace("volume", "volume,Close"), "one column close, was 2"),
        (epoch_rows([str(FIRST_S), "", str(FIRST_S + 600)]), HEADER, "epoch numbers, was empty in data row 2"),
        ((",".join("1234567"),), "", "must have 6 .* or Binance's 12, was 7"),
        (("<!doctype html><html>",), "", "is a web page"),
        (('{"code": -1121}',), "", "is JSON but no table of bars"),
        (("a\0b",), "", "is binary"),
    ],
)  # fmt: skip
def test_unusable_file_is_refused_in_one_line_with_the_reason(
    tmp_path: Path, rows: tuple[str, ...], header: str, message: str
) -> None:
    path = csv(tmp_path, *rows, header=header)
    before = path.read_bytes()
    with pytest.raises(DataError, match=message) as refused:
        read_bars(path)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"PAR1 and no more", gzip.compress(b"x" * 9000)[:20], b"\xff\xfe\x00\x01", b"\x89PNG\r\n\x1a\n\xf0\x9f\x92"],
)
def test_broken_or_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bars.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bars\.parquet (cannot be read|is binary)"):
        read_bars(path)


def test_missing_file_and_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        read_bars(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_bars(tmp_path)


def test_other_timeframes_are_not_supported_yet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"timeframe must be one of 5m .* was 1h"):
        read_bars(csv(tmp_path, *ROWS), timeframe="1h")


@pytest.mark.real
def test_dirty_download_sheds_its_duplicates(real_bars_path: Path) -> None:
    path = real_bars_path.with_name("dirty_btcusdt_5m_2023.csv.gz")
    if not path.is_file():
        pytest.skip(f"{path.name} is not beside the real bars")
    source = read(path)
    assert (source.rows_read, source.duplicates_dropped, len(source.bars)) == (122_000, 16_336, 105_664)
