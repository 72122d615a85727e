"""Files that several processes write at once: turns by size and time, archives, torn lines, kills."""

import gzip
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.logs.files import SharedFile, Turn, archives, tidy, turn_before
from btcai.logs.settings import LogSettings, Rotation

DAY_S = 86_400
SMALL = LogSettings(max_mb=0.001)
"""A thousand bytes."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "btcai.log"


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("btcai", logging.INFO, "f", 1, text, (), None)


def write(file: SharedFile, *texts: str) -> None:
    """Emit, and wait for what compresses archives."""
    for text in texts:
        file.handle(record(text))
    for thread in threading.enumerate():
        if thread.name == "btcai-archives":
            thread.join()


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def lines_of(path: Path) -> Iterator[str]:
    """Of the archives, oldest first, and of the live file."""
    for file in [*archives(path), path]:
        yield from text_of(file).splitlines()


@pytest.fixture
def small(path: Path) -> Iterator[SharedFile]:
    file = SharedFile(path, SMALL)
    yield file
    file.close()


def test_a_full_file_becomes_an_archive_and_loses_nothing(small: SharedFile, path: Path) -> None:
    texts = [f"{number:03d} {'x' * 95}" for number in range(25)]  # 100 bytes a line: 10 fill a file
    write(small, *texts)
    assert list(lines_of(path)) == texts
    assert [len(text_of(file).splitlines()) for file in [*archives(path), path]] == [10, 10, 5]
    assert {file.suffix for file in archives(path)} == {".gz"}


def test_a_line_longer_than_a_file_has_one_of_its_own(small: SharedFile, path: Path) -> None:
    write(small, "short", "y" * 5000, "short again")
    assert [len(text_of(file)) for file in [*archives(path), path]] == [6, 5001, 12]


def test_an_archive_is_named_after_its_last_line(path: Path) -> None:
    file = SharedFile(path, SMALL)
    write(file, "x" * 990)
    os.utime(path, (0, 1_764_439_287.25))
    write(file, "y" * 100)
    file.close()
    assert [file.name for file in archives(path)] == ["btcai-20251129T180127.250000Z.log.gz"]
    assert archives(path)[0].stat().st_mtime == 1_764_439_287.25


def test_two_turns_within_a_microsecond_have_two_names(path: Path) -> None:
    file = SharedFile(path, SMALL)
    for letter in "abc":
        write(file, letter * 990)
        os.utime(path, (0, 1_764_439_287.25))
    write(file, "d" * 990)
    file.close()
    assert [text_of(file)[0] for file in archives(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_older_archives_are_deleted(path: Path, keep: int) -> None:
    file = SharedFile(path, LogSettings(max_mb=0.001, keep=keep))
    for letter in "abcdef":
        write(file, letter * 990)
    file.close()
    assert [text_of(file)[0] for file in archives(path)] == list("abcde")[5 - keep :]


def test_archives_may_stay_uncompressed(path: Path) -> None:
    file = SharedFile(path, LogSettings(max_mb=0.001, compress=False))
    write(file, "a" * 990, "b" * 990)
    file.close()
    assert [file.suffix for file in archives(path)] == [".log"]


def test_files_of_other_names_are_nobodys_archives(path: Path) -> None:
    for name in ("btcai-x.jsonl", "btcai-old.txt", "btcai.log.bak", ".btcai-1.log.new"):
        path.with_name(name).touch()
    tidy(path, LogSettings(keep=0))
    assert len(list(path.parent.iterdir())) == 4


@pytest.mark.parametrize(
    ("rotation", "moment", "turn"),
    [
        ("daily", "2025-11-30T23:59:59.999", "2025-11-30"),
        ("weekly", "2025-11-30T23:59:59.999", "2025-11-24"),  # a Sunday
        ("weekly", "2025-12-01T00:00:00", "2025-12-01"),
        ("weekly", "2026-01-01T12:00:00", "2025-12-29"),
        ("monthly", "2025-11-30T23:59:59.999", "2025-11-01"),
        ("monthly", "2024-02-29T00:00:00", "2024-02-01"),
    ],
)
def test_turns_of_days_weeks_and_months(rotation: Rotation, moment: str, turn: str) -> None:
    found = turn_before(rotation, datetime.fromisoformat(moment).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(turn).replace(tzinfo=UTC)


@settings(max_examples=30)
@given(
    rotation=st.sampled_from(["daily", "weekly", "monthly"]),
    moments=st.lists(st.integers(0, 4 * 10**9), min_size=1, max_size=30),
)
def test_a_remembered_turn_is_the_one_that_is_worked_out(rotation: Rotation, moments: list[int]) -> None:
    """Whatever the order in which a clock that jumps shows times."""
    turn = Turn(rotation)
    for moment in moments:
        assert turn.latest(moment) == turn_before(rotation, datetime.fromtimestamp(moment, UTC)).timestamp()


@pytest.mark.parametrize(("rotation", "days"), [("daily", 1), ("weekly", 7), ("monthly", 31)])
def test_a_file_of_an_earlier_day_week_or_month_is_archived_even_after_a_pause(
    path: Path, rotation: Rotation, days: int
) -> None:
    first = SharedFile(path, LogSettings(rotate=rotation, max_mb=0))
    write(first, "old")
    os.utime(path, (0, time.time() - days * DAY_S))
    first.close()
    second = SharedFile(path, LogSettings(rotate=rotation, max_mb=0))
    write(second, "new", "newer")
    second.close()
    assert [text_of(file) for file in [*archives(path), path]] == ["old\n", "new\nnewer\n"]


def test_by_size_alone_an_old_file_goes_on(small: SharedFile, path: Path) -> None:
    write(small, "old")
    os.utime(path, (0, 0))
    write(small, "new")
    assert (archives(path), list(lines_of(path))) == ([], ["old", "new"])


def test_after_a_clock_was_put_back_new_archives_are_still_the_last_to_be_deleted(path: Path) -> None:
    file = SharedFile(path, LogSettings(max_mb=0.001, keep=2))
    for letter, moment in (("a", 1_900_000_000), ("b", 1_900_000_060), ("c", 1_764_439_287), ("d", 1_764_439_290)):
        write(file, letter * 990)
        os.utime(path, (0, moment))  # the clock was wrong by years, then set
    write(file, "e" * 990)
    file.close()
    assert [text_of(file)[0] for file in archives(path)] == ["c", "d"]


def test_a_clock_put_back_turns_nothing(path: Path) -> None:
    file = SharedFile(path, LogSettings(rotate="daily"))
    write(file, "one")
    os.utime(path, (0, time.time() + 3 * DAY_S))
    write(file, "two")
    file.close()
    assert (archives(path), list(lines_of(path))) == ([], ["one", "two"])


def test_another_who_turned_the_file_is_followed(path: Path) -> None:
    """As two processes: each has the file open, one archives it."""
    one, other = SharedFile(path, LogSettings()), SharedFile(path, SMALL)
    write(other, "x" * 998)
    write(other, "turned")
    write(one, "follows")
    one.close()
    other.close()
    assert text_of(path) == "turned\nfollows\n"


def test_a_line_that_a_killed_process_left_half_is_cut_off(path: Path, small: SharedFile) -> None:
    write(small, "whole")
    with path.open("ab") as stream:
        stream.write(b"half a li")
    write(small, "next")
    assert list(lines_of(path)) == ["whole", "next"]


def test_half_a_line_alone_longer_than_what_is_read_at_once_is_cut_off(path: Path) -> None:
    path.write_bytes(b"z" * 200_000)
    file = SharedFile(path, LogSettings())
    write(file, "first")
    file.close()
    assert text_of(path) == "first\n"


def test_a_deleted_file_and_folder_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "btcai.log"
    file = SharedFile(path, LogSettings())
    write(file, "lost")
    path.unlink()
    path.parent.rmdir()
    write(file, "kept")
    file.close()
    assert list(lines_of(path)) == ["kept"]


def test_a_closed_file_opens_again_for_another_line(small: SharedFile, path: Path) -> None:
    write(small, "one")
    small.close()
    write(small, "two")
    assert list(lines_of(path)) == ["one", "two"]


def test_a_file_that_cannot_be_renamed_goes_on(
    small: SharedFile, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    write(small, "x" * 990)
    monkeypatch.setattr(os, "rename", refused)
    write(small, "y" * 990, "z" * 990)
    assert len(list(lines_of(path))) == 3
    assert capsys.readouterr().err.count("cannot be archived, so it grows: [Errno 13] Permission denied") == 1


def test_compression_that_was_cut_short_is_done_at_the_next_turn(path: Path, small: SharedFile) -> None:
    """As after a kill between the draft and the end: the archive is there, with half a draft beside it."""
    left = path.with_name("btcai-20250101T000000.000000Z.log")
    left.write_text("old\n", encoding="utf-8")
    left.with_name(f".{left.name}.new").write_bytes(b"\x1f\x8b half")
    write(small, "x" * 990, "y" * 990)
    assert [file.suffix for file in archives(path)] == [".gz", ".gz"]
    assert text_of(archives(path)[0]) == "old\n"
    assert sorted(file.name for file in path.parent.iterdir() if file.name.startswith(".")) == []


def test_a_line_that_a_kill_tore_is_in_no_archive_though_the_next_one_makes_it_one(
    small: SharedFile, path: Path
) -> None:
    write(small, "a" * 300, "b" * 300)
    with path.open("ab") as file:
        file.write(b"torn " * 20)
    write(small, "c" * 500)
    (archive,) = archives(path)
    assert text_of(archive).splitlines() == ["a" * 300, "b" * 300]
    assert text_of(path).splitlines() == ["c" * 500]


def test_a_line_that_a_kill_tore_is_not_counted_as_size(small: SharedFile, path: Path) -> None:
    write(small, "a" * 300)
    with path.open("ab") as file:
        file.write(b"torn " * 200)
    write(small, "b" * 300)
    assert archives(path) == []
    assert text_of(path).splitlines() == ["a" * 300, "b" * 300]


def test_text_that_is_no_unicode_is_written_escaped(small: SharedFile, path: Path) -> None:
    write(small, "file \udcff")
    assert list(lines_of(path)) == ["file \\udcff"]


WRITER = """
import logging, pathlib, sys
from btcai.logs import handlers
from btcai.logs.settings import LogSettings
folder, name, count, width = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
handlers.setup("INFO", folder, LogSettings(max_mb=float(sys.argv[5]), keep=10_000))
for number in range(count):
    logging.getLogger("btcai").info("%s %d %s", name, number, "x" * width)
    (folder / name).touch()
"""


def start(folder: Path, name: str, count: int, width: int, max_mb: float) -> "subprocess.Popen[bytes]":
    arguments = [str(folder), name, str(count), str(width), str(max_mb)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stderr=subprocess.DEVNULL)


def found(folder: Path) -> tuple[Counter[str], Counter[str]]:
    """Lines by writer: of the JSON files, each parsed, and of the text files."""
    read = Counter[str]()
    for line in lines_of(folder / "btcai.jsonl"):
        name, number, padding = json.loads(line)["message"].split(" ")
        read[f"{name} {number}"] += 1
        assert set(padding) == {"x"}
    text = Counter(" ".join(line.partition("]: ")[2].split(" ")[:2]) for line in lines_of(folder / "btcai.log"))
    return read, text


@pytest.mark.slow
def test_processes_that_share_rotating_files_lose_and_tear_no_line(tmp_path: Path) -> None:
    """4 x 1,500 lines of about 300 bytes, a turn every 300 lines or so."""
    running = [start(tmp_path, name, 1500, 100, 0.09) for name in "abcd"]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0, 0]
    expected = Counter(f"{name} {number}" for name in "abcd" for number in range(1500))
    read, text = found(tmp_path)
    assert read == expected
    assert text == expected
    assert len(archives(tmp_path / "btcai.jsonl")) >= 10
    assert all(file.suffix == ".gz" for file in archives(tmp_path / "btcai.log"))


@pytest.mark.slow
def test_a_process_killed_in_the_middle_takes_no_line_of_another(tmp_path: Path) -> None:
    """Lines of 60 kB, where a kill may fall into a write; the victims' lines are a beginning of theirs, whole."""
    running = [start(tmp_path, name, 250, 60_000, 2.0) for name in "ab"]
    for number in range(5):
        victim = start(tmp_path, f"victim{number}", 10**6, 60_000, 2.0)
        while not (tmp_path / f"victim{number}").exists():
            assert victim.poll() is None
            time.sleep(0.01)
        time.sleep(0.1 * number)
        victim.kill()
        victim.wait(timeout=10)
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    write(file := SharedFile(tmp_path / "btcai.jsonl", LogSettings()), '{"message": "end 0 x"}')
    file.close()
    write(file := SharedFile(tmp_path / "btcai.log", LogSettings()), "]: end 0 x")
    file.close()
    read, text = found(tmp_path)
    assert max(read.values()) == max(text.values()) == 1
    for lines in (read, text):
        by_name: dict[str, list[int]] = {}
        for line in lines:
            by_name.setdefault(line.split(" ")[0], []).append(int(line.split(" ")[1]))
        assert [len(by_name[name]) for name in ("a", "b", "end")] == [250, 250, 1]
        for name, numbers in by_name.items():
            assert sorted(numbers) == list(range(len(numbers))), name
        assert {f"victim{number}" for number in range(5)} < by_name.keys()
