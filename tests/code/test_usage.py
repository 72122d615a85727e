"""Usage of the machine: rows while the work runs, one at its end, and nothing where nothing was written."""

import time
from pathlib import Path

import psutil
import pytest

from btcai.usage import COLUMNS, elapsed_s, read, sampled


def test_short_work_leaves_one_row_with_its_duration(tmp_path: Path) -> None:
    path = tmp_path / "system.csv"
    began_s, clock_s = time.time(), time.monotonic()
    with sampled(path):
        time.sleep(0.15)
    took_s = time.monotonic() - clock_s
    (row,) = read(path)
    assert tuple(row) == COLUMNS
    assert 0.1 <= row["elapsed_s"] <= took_s + 0.1
    assert began_s - 0.1 <= row["unix_s"] <= time.time() + 0.1
    assert 0 < row["system_memory_usage_percentage"] <= 100
    assert row["process_memory_megabytes"] == pytest.approx(psutil.Process().memory_info().rss / 1e6, rel=0.2)
    assert elapsed_s(path) == row["elapsed_s"]


def test_long_work_is_sampled_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "system.csv"
    with sampled(path, every_s=0.1):
        deadline = time.monotonic() + 10
        while len(read(path)) < 3 and time.monotonic() < deadline:
            sum(range(10_000))
    rows = read(path)
    assert len(rows) >= 4  # the last one at the end
    assert [row["elapsed_s"] for row in rows] == sorted(row["elapsed_s"] for row in rows)
    assert max(row["process_cpu_percentage"] for row in rows) > 0  # this loop never waits


def test_work_that_fails_keeps_its_error_and_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "system.csv"
    with pytest.raises(ValueError, match="of its own"), sampled(path):
        raise ValueError("of its own")
    assert len(read(path)) == 1


def test_a_file_that_is_missing_or_cut_short_holds_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "system.csv"
    assert read(path) == []
    assert elapsed_s(path) is None
    row = "1700000000.0,5.0,50.0,4000.0,50.0,99.0,800.0"
    path.write_text(f"{','.join(COLUMNS)}\n{row}\n17000000", encoding="utf-8")
    assert elapsed_s(path) == 5.0
    path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    assert elapsed_s(path) is None
