"""Markets on disk: exact round trips, idempotent merges, and never half a write."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.data.frame import make_frame
from btcai.data.sources import read_bars
from btcai.data.store import (
    changed,
    content_sha256,
    list_markets,
    market_status,
    read_market,
    to_grid,
    write_market,
)
from btcai.errors import DataError, DiskError
from btcai.schema import BAR_NS, FloatArray
from btcai.simulator.bars import simulate_bars

BAR_MS = 300_000
FIRST_MS = 1_640_995_200_000  # 2022-01-01T00:00:00Z


def frame_of(*slots: int, values: FloatArray | None = None) -> pd.DataFrame:
    """Bars at these 5-minute slots after 2022-01-01; close = 100 + slot, volume = slot."""
    slot = np.array(slots, dtype=np.int64)
    default = np.column_stack([100.0 + slot, 102.0 + slot, 99.0 + slot, 100.0 + slot, 1.0 * slot])
    return make_frame(FIRST_MS + slot * BAR_MS, default if values is None else values)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def folder_times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_round_trip_over_a_month_border_is_exact(tmp_path: Path) -> None:
    bars = simulate_bars(12_000, 5)  # 41 days
    report = write_market(tmp_path, "sim", bars)
    pd.testing.assert_frame_equal(read_market(tmp_path, "sim"), bars)
    assert sorted(path.name for path in (tmp_path / "sim").iterdir()) == ["2022-01.parquet", "2022-02.parquet"]
    assert (report.rows_added, report.rows, report.gaps) == (12_000, 12_000, 0)
    assert (report.first, report.last) == ("2022-01-01T00:00:00Z", "2022-02-11T15:55:00Z")


def test_files_carry_no_pandas_metadata_and_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for root in (tmp_path / "a", tmp_path / "b"):
        write_market(root, "sim", frame_of(0, 1, 2))
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")
    schema = pq.ParquetFile(tmp_path / "a" / "sim" / "2022-01.parquet").schema_arrow
    assert not schema.metadata
    assert str(schema.field("open_time").type) == "timestamp[ms, tz=UTC]"


def test_importing_twice_changes_nothing(tmp_path: Path) -> None:
    first = write_market(tmp_path, "m", frame_of(0, 1, 2))
    before, times = folder_bytes(tmp_path), folder_times(tmp_path)
    again = write_market(tmp_path, "m", frame_of(1, 2))
    assert (again.rows_added, again.rows) == (0, 3)
    assert again.content_sha256 == first.content_sha256
    assert (folder_bytes(tmp_path), folder_times(tmp_path)) == (before, times)


def test_overlapping_import_adds_only_what_is_new(tmp_path: Path) -> None:
    write_market(tmp_path, "m", frame_of(0, 1, 2))
    report = write_market(tmp_path, "m", frame_of(2, 3, 6))
    assert (report.rows_added, report.rows, report.gaps, report.missing_bars) == (2, 5, 1, 2)
    pd.testing.assert_frame_equal(read_market(tmp_path, "m"), frame_of(0, 1, 2, 3, 6))


def test_disagreeing_overlap_is_refused_and_shows_both_bars(tmp_path: Path) -> None:
    write_market(tmp_path, "m", frame_of(0, 1, 2))
    before = folder_bytes(tmp_path)
    other = frame_of(2, 3)
    other.loc[0, "close"] = 101.5
    shown = r"2022-01-01T00:10:00Z: on disk \(.*close 102\.0.* and row 0 \(.*close 101\.5.*a market of their own"
    with pytest.raises(DataError, match=shown):
        write_market(tmp_path, "m", other)
    with (
        pytest.raises(DataError, match=r"on disk .* and line 7 \("),
        changed(tmp_path, "m", other, lambda row: f"line {row + 7}"),
    ):
        pytest.fail("nothing may be written")
    assert folder_bytes(tmp_path) == before


def test_bars_of_another_timeframe_that_come_one_at_a_time_are_refused(tmp_path: Path) -> None:
    write_market(tmp_path, "m", frame_of(0))
    write_market(tmp_path, "m", frame_of(12))  # one step of an hour may be a gap
    before = folder_bytes(tmp_path)
    with (
        pytest.raises(DataError, match=r"the market m with these bars, on disk: .*most are 1h apart"),
        changed(tmp_path, "m", frame_of(24), lambda row: f"line {row + 1}"),
    ):
        pytest.fail("nothing may be written")
    assert folder_bytes(tmp_path) == before


def test_a_stretch_of_another_timeframe_that_grows_import_by_import_is_refused(tmp_path: Path) -> None:
    write_market(tmp_path, "m", frame_of(*range(20)))
    for hour in range(11):  # eleven steps of an hour, the first from slot 19
        write_market(tmp_path, "m", frame_of(31 + 12 * hour))
    with pytest.raises(DataError, match=r"the market m with these bars, on disk: .*13 bars are 1h apart"):
        write_market(tmp_path, "m", frame_of(31 + 12 * 11))
    assert market_status(tmp_path, "m")["rows"] == 31


@pytest.mark.real
def test_real_bars_with_their_gaps_join_a_market_in_two_parts(tmp_path: Path, real_bars_path: Path) -> None:
    bars = read_bars(real_bars_path)
    middle = len(bars) // 2
    write_market(tmp_path, "m", bars.iloc[middle:])
    written = write_market(tmp_path, "m", bars.iloc[: middle + 100])
    assert (written.rows, written.content_sha256) == (len(bars), content_sha256(bars))
    assert written.gaps > 0


def test_duplicates_inside_an_import_are_written_once(tmp_path: Path) -> None:
    assert write_market(tmp_path, "m", frame_of(1, 0, 1, 1)).rows_added == 2


@pytest.mark.parametrize("error", [DataError("dvc failed"), KeyboardInterrupt()], ids=["failure", "interrupt"])
@pytest.mark.parametrize("held", [(0, 1), ()], ids=["old market", "new market"])
def test_change_is_undone_where_what_follows_it_fails(
    tmp_path: Path, held: tuple[int, ...], error: BaseException
) -> None:
    if held:
        write_market(tmp_path / "data", "m", frame_of(*held))
    before, times = folder_bytes(tmp_path), folder_times(tmp_path / "data")
    with pytest.raises(type(error)), changed(tmp_path / "data", "m", frame_of(2, 3)):  # noqa: PT012
        assert len(read_market(tmp_path / "data", "m")) == len(held) + 2  # what follows sees the new bars
        raise error
    assert folder_bytes(tmp_path) == before
    assert folder_times(tmp_path / "data") == times
    assert (tmp_path / "data").exists() == bool(held)


@settings(max_examples=15)  # each writes and syncs a market twice
@given(order=st.permutations(range(6)), cut=st.integers(min_value=1, max_value=5))
def test_hash_depends_on_neither_order_nor_partition(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cut: int
) -> None:
    slots = [0, 1, 5, 8_927, 8_928, 8_930]  # 8,928 is the first bar of February
    shuffled = frame_of(*(slots[i] for i in order))
    root = tmp_path_factory.mktemp("data")
    write_market(root, "m", shuffled.iloc[:cut])
    write_market(root, "m", shuffled.iloc[cut:])
    expected = content_sha256(frame_of(*slots))
    assert content_sha256(shuffled) == expected
    assert market_status(root, "m")["content_sha256"] == expected


def test_hash_sees_the_last_bit_of_any_value() -> None:
    bars = frame_of(0, 1)
    nudged = bars.copy()
    nudged.loc[1, "volume"] = np.nextafter(1.0, 2.0)
    assert content_sha256(bars) != content_sha256(nudged)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "interrupt"]
)
def test_crash_in_the_middle_of_a_write_leaves_the_old_market(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_market(tmp_path, "m", frame_of(0, 1, 8_928))
    before = folder_bytes(tmp_path)
    write, calls = pq.write_table, iter(range(9))

    def failing(*args: object, **options: object) -> None:
        if next(calls) == 1:
            raise error
        write(*args, **options)

    monkeypatch.setattr(pq, "write_table", failing)
    with pytest.raises((DiskError, KeyboardInterrupt)):
        write_market(tmp_path, "m", frame_of(2, 8_929))
    assert folder_bytes(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_failing_swap_puts_the_old_market_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_market(tmp_path, "m", frame_of(0, 1))
    before, rename = folder_bytes(tmp_path), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == ".m.new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DiskError, match="it is as it was"):
        write_market(tmp_path, "m", frame_of(2))
    assert folder_bytes(tmp_path) == before


def test_write_killed_between_its_two_renames_loses_nothing(tmp_path: Path) -> None:
    write_market(tmp_path, "m", frame_of(0, 1))
    (tmp_path / "m").rename(tmp_path / ".m.old")
    (tmp_path / ".m.new").mkdir()
    assert len(read_market(tmp_path, "m")) == 2
    assert write_market(tmp_path, "m", frame_of(2)).rows == 3
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("moment", ["before the swap", "after the swap"])
def test_a_kill_around_the_swap_leaves_one_whole_market(tmp_path: Path, moment: str) -> None:
    market, aside = tmp_path / "m", tmp_path / "aside" / "m"
    write_market(tmp_path, "m", frame_of(0, 1))
    write_market(tmp_path / "aside", "m", frame_of(0, 1, 5))
    if moment == "before the swap":
        aside.rename(tmp_path / ".m.new")
    else:
        market.rename(tmp_path / ".m.old")
        aside.rename(market)
    seen = read_market(tmp_path, "m")
    assert len(seen) == (2 if moment == "before the swap" else 3)
    assert write_market(tmp_path, "m", frame_of(2)).rows == len(seen) + 1
    assert not list(tmp_path.glob(".m.*"))


def test_broken_month_is_named(tmp_path: Path) -> None:
    write_market(tmp_path, "m", frame_of(0))
    (tmp_path / "m" / "2022-01.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match=r"2022-01\.parquet must be a month of bars"):
        read_market(tmp_path, "m")


def test_missing_market_names_the_commands_that_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"btcai simulate market.*btcai data import PATH"):
        read_market(tmp_path, "none")


@pytest.mark.parametrize("name", ["", "../up", "Upper", ".hidden", "a/b"])
def test_name_that_is_no_plain_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="a market's name"):
        write_market(tmp_path, name, frame_of(0))


def test_frame_that_is_not_raw_bars_is_refused(tmp_path: Path) -> None:
    for broken in (
        frame_of(0).drop(columns="low"),
        frame_of(0).astype({"low": "float32"}),
        frame_of(0).assign(open_time=pd.Timestamp("2022-01-01")),
        frame_of(),
    ):
        with pytest.raises(DataError):
            write_market(tmp_path, "m", broken)
    assert list_markets(tmp_path) == []


def test_status_counts_gaps_and_quiet_bars_and_is_plain_json(tmp_path: Path) -> None:
    write_market(tmp_path, "b", frame_of(0, 1, 4))
    write_market(tmp_path, "a", frame_of(0))
    status = market_status(tmp_path, "b")
    assert json.loads(json.dumps(status)) == status
    assert status | {"content_sha256": ""} == {
        "market": "b",
        "rows": 3,
        "first": "2022-01-01T00:00:00Z",
        "last": "2022-01-01T00:20:00Z",
        "gaps": 1,
        "missing_bars": 2,
        "zero_volume_bars": 1,
        "content_sha256": "",
    }
    assert list_markets(tmp_path) == ["a", "b"]
    assert list_markets(tmp_path / "none") == []


def test_grid_masks_the_missing_bar_and_stamps_the_close() -> None:
    bars = to_grid(frame_of(0, 2))
    assert bars.close_ts_ns.tolist() == [FIRST_MS * 1_000_000 + BAR_NS * (i + 1) for i in range(3)]
    assert bars.present.tolist() == [True, False, True]
    assert bars.volume.tolist() == [0.0, 0.0, 2.0]
    np.testing.assert_array_equal(bars.close, [100.0, np.nan, 102.0])


@given(slots=st.sets(st.integers(min_value=0, max_value=400), min_size=1))
def test_grid_keeps_every_bar_and_adds_none(slots: set[int]) -> None:
    frame = frame_of(*sorted(slots))
    bars = to_grid(frame)
    assert len(bars) == max(slots) - min(slots) + 1
    values = np.column_stack([bars.open, bars.high, bars.low, bars.close, bars.volume])
    kept = make_frame((bars.close_ts_ns[bars.present] - BAR_NS) // 1_000_000, values[bars.present])
    pd.testing.assert_frame_equal(kept, frame)
    assert np.isnan(values[~bars.present, :4]).all()
    assert (values[~bars.present, 4] == 0).all()


def test_grid_refuses_what_validation_would_fail() -> None:
    off_grid = make_frame(np.array([FIRST_MS, FIRST_MS + 1]), np.ones((2, 5)))
    with pytest.raises(DataError, match=r"5-minute grid, row 1 at 2022-01-01T00:00:00\.001Z"):
        to_grid(off_grid)
    with pytest.raises(DataError, match="stamps must increase, row 1"):
        to_grid(frame_of(3, 1))
    with pytest.raises(DataError, match="finite numbers, row 0"):
        to_grid(frame_of(0, values=np.full((1, 5), np.nan)))
