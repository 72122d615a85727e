"""Lines of the ledgers: whole, of a format that is known, or nobody takes them for what they are not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from btcai import champions, openings, promotions
from btcai.doctor import project
from btcai.errors import ArtifactError
from btcai.ledgers import append_line, record_of

TESTED = champions.JudgedSpan(market="m", first_ts_ns=100, last_ts_ns=200, data_version="d1")


def test_a_line_without_a_format_is_of_the_first_and_one_that_says_so_too() -> None:
    assert record_of('{"a": 1}', "x line 1") == record_of('{"a": 1, "format": 1}', "x line 1") == {"a": 1}


@pytest.mark.parametrize("line", ["", "{", "[1]", "3", "null"])
def test_what_is_no_record_is_a_torn_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"must be an object|Expecting"):
        record_of(line, "x line 1")


READERS: dict[str, Callable[[Path], object]] = {
    "who is pinned": promotions.pins,
    "an open change": lambda ledger: promotions.open_change(ledger, "short"),
    "looks at the sealed span": openings.looks,
    "what was tried": lambda ledger: champions.trial_sharpes(ledger, TESTED, {"config": None}),
    "whether it was tried": lambda ledger: champions.append_trial(ledger, {"input_hash": "b"}),
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
