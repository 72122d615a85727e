"""A sealed span is opened on record, for a reason, and every look at the same time counts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from btcai.errors import ArtifactError, ConfigError
from btcai.records.openings import Opening, looks, opened
from btcai.schema import SealedSpan, Span

SEALED = SealedSpan(100, 200)
LOOK = Opening(
    market="btcusdt",
    data_version="d1",
    first_ts_ns=1_000,
    last_ts_ns=2_000,
    opened_unix_s=1_700_000_000,
    because="a new champion",
    models={"scalping": "abc"},
)


def test_a_look_is_on_record_before_the_span_is_given(tmp_path: Path) -> None:
    ledger = tmp_path / "journal" / "openings.jsonl"
    span, count = opened(SEALED, LOOK, ledger)
    assert (span, count) == (Span(100, 200), 1)
    assert looks(ledger) == [LOOK]


def test_looks_at_any_part_of_the_same_time_count_whatever_the_data_have_grown_to(tmp_path: Path) -> None:
    ledger = tmp_path / "openings.jsonl"
    opened(SEALED, LOOK, ledger)
    for changes, count in (
        ({"first_ts_ns": 2_001, "last_ts_ns": 3_000}, 1),  # the first bar after it
        ({"first_ts_ns": 2_000, "last_ts_ns": 2_500, "data_version": "d2"}, 3),  # one bar of each of the two
        ({"market": "ethusdt"}, 1),
        ({}, 3),
    ):
        assert opened(SEALED, replace(LOOK, **changes), ledger)[1] == count
    assert len(looks(ledger)) == 5


@pytest.mark.parametrize("because", ["", "  \n"])
def test_without_a_reason_it_stays_closed_and_nothing_is_written(tmp_path: Path, because: str) -> None:
    ledger = tmp_path / "openings.jsonl"
    with pytest.raises(ConfigError, match="btcai sealed open --because TEXT"):
        opened(SEALED, replace(LOOK, because=because), ledger)
    assert not ledger.exists()


@pytest.mark.parametrize("line", ["{", '{"market": "x"}', json.dumps({"market": 1, "more": 2})])
def test_a_damaged_ledger_opens_nothing(tmp_path: Path, line: str) -> None:
    ledger = tmp_path / "openings.jsonl"
    opened(SEALED, LOOK, ledger)
    with ledger.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    before = ledger.read_bytes()
    with pytest.raises(ArtifactError, match="line 2 must be an opening"):
        opened(SEALED, LOOK, ledger)
    assert ledger.read_bytes() == before


def test_a_sealed_span_is_no_span() -> None:
    assert not isinstance(SEALED, Span)
    assert len(SEALED) == 100
