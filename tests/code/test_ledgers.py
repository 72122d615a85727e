"""Lines of the ledgers: whole, of a format that is known, or nobody takes them for what they are not."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from btcai.doctor import project
from btcai.errors import ArtifactError, DiskError
from btcai.records import openings, promotions, trials
from btcai.records.ledgers import append_line, line_of, lines_of, record_of
from btcai.records.trials import JudgedSpan, append_trial, trial_sharpes

TESTED = JudgedSpan(market="m", first_ts_ns=100, last_ts_ns=200, data_version="d1")


def test_a_line_without_a_format_is_of_the_first_and_one_that_says_so_too() -> None:
    assert record_of('{"a": 1}', "x line 1") == record_of('{"a": 1, "format": 1}', "x line 1") == {"a": 1}


def test_a_line_with_a_flipped_bit_is_refused_or_says_what_it_said() -> None:
    record = {"version": 12, "score": 0.5, "who": "Zoë"}
    whole, same = line_of(record).encode(), 0
    assert record_of(whole, "x line 1") == record
    for place in range(len(whole)):
        for bit in range(8):
            line = bytes([*whole[:place], whole[place] ^ 1 << bit, *whole[place + 1 :]])
            try:
                found = record_of(line, "x line 1")
            except ValueError:
                continue
            same += 1
            assert {name: found[name] for name in record} == record
    assert 0 < same < 8 * len("content_sha256") + 8  # bits of the hash's own name, and a letter of an escape


@pytest.mark.parametrize("line", ["", "{", "[1]", "3", "null"])
def test_what_is_no_record_is_a_torn_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"must be an object|Expecting"):
        record_of(line, "x line 1")


READERS: dict[str, Callable[[Path], object]] = {
    "who is pinned": promotions.pins,
    "an open change": lambda ledger: promotions.open_change(ledger, "short"),
    "looks at the sealed span": openings.looks,
    "what was tried": lambda ledger: trial_sharpes(ledger, TESTED, {"config": None}),
    "whether it was tried": lambda ledger: append_trial(ledger, {"input_hash": "b"}),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_line_of_a_later_btcai_is_neither_skipped_nor_guessed_at(
    tmp_path: Path, reader: Callable[[Path], object]
) -> None:
    """Skipped, a pin would be forgotten and a look would not count."""
    (tmp_path / "journal").mkdir()
    ledger = tmp_path / "journal" / "ledger.jsonl"
    append_line(ledger, json.dumps({"input_hash": "a", "event": "outcome", "id": "x", "outcome": "done", "format": 2}))
    before = ledger.read_bytes()
    with pytest.raises(ArtifactError, match=r"ledger.jsonl line 1 must be of format 1, is of format 2"):
        reader(ledger)
    with pytest.raises(ArtifactError, match="line 1 must be of format 1, is of format 2"):
        list(project.journals(tmp_path))
    assert ledger.read_bytes() == before


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_flipped_bit_that_leaves_no_text_ends_no_command_in_a_traceback(
    tmp_path: Path, reader: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    ledger = tmp_path / "journal" / "ledger.jsonl"
    append_line(ledger, line_of({"input_hash": "a", "event": "outcome", "id": "x", "outcome": "done"}))
    before = bytearray(ledger.read_bytes())
    before[5] |= 0x80
    ledger.write_bytes(before)
    with pytest.raises(UnicodeDecodeError):
        before.decode()
    if reader is openings.looks:  # how often a sealed span was looked at must be known
        with pytest.raises(ArtifactError, match="line 1 must be an opening of a sealed span, was damaged"):
            reader(ledger)
    else:
        reader(ledger)
        assert f"{ledger} line 1 is torn or damaged" in caplog.text
    assert lines_of(ledger)[0] == bytes(before).rstrip()
    (found,) = project.journals(tmp_path)
    assert (found.status, found.said) == ("error", "journal/ledger.jsonl line 1 is damaged: it is not what was written")
    assert found.remedy.startswith("restore journal/ledger.jsonl from a backup")


def test_a_line_that_the_disk_refuses_takes_no_other_process_line_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken back is ours alone. Two opens of a file are two holders to flock, of one process too."""
    ledger, write = tmp_path / "ledger.jsonl", os.write
    append_line(ledger, '"before"')
    other = Thread(target=append_line, args=(ledger, '"other"'))

    def fill_up(handle: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        write(handle, data[:3])
        other.start()
        other.join(0.2)  # time enough for a line, where it does not have to wait
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(DiskError, match="it is as it was"):
        append_line(ledger, '"ours"')
    other.join()
    assert ledger.read_text(encoding="utf-8") == '"before"\n"other"\n'


def test_a_trial_that_two_processes_record_at_once_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, tried, said = tmp_path / "trials.jsonl", trials._tried, []

    def record() -> None:
        said.append(append_trial(ledger, {"input_hash": "a"}))

    other = Thread(target=record)

    def read_slowly(path: Path, lines: list[bytes]) -> set[object]:
        monkeypatch.setattr(trials, "_tried", tried)
        other.start()
        other.join(0.2)
        return tried(path, lines)

    monkeypatch.setattr(trials, "_tried", read_slowly)
    record()
    other.join()
    assert sorted(said) == [False, True]
    assert len(ledger.read_text(encoding="utf-8").splitlines()) == 1


def test_the_first_line_of_a_ledger_is_on_the_disk_with_the_ledgers_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), real(handle)))
    ledger = tmp_path / "ledger.jsonl"
    for _ in range(2):
        append_line(ledger, '"line"')
    line, folder = ledger.stat().st_ino, tmp_path.stat().st_ino
    assert synced == [line, folder, line]
