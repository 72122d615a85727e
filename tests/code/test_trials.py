"""What was tried before counts: on these bars, each bucket, the present configuration not twice."""

import json
import math
from pathlib import Path

import pytest

from btcai.records.trials import JudgedSpan, append_trial, trial_sharpes

PRESENT = {"config": {"seed": "8"}, "code_version": "c1"}
TESTED = JudgedSpan(market="m", first_ts_ns=100, last_ts_ns=200, data_version="d1")


def ledger(folder: Path) -> Path:
    path = folder / "trials.jsonl"
    lines: list[dict[str, object]] = [
        {"input_hash": "1", "data_version": "d1", "sharpes": {"short": 1.5, "long": None}},
        {"input_hash": "2", "data_version": "d2", "sharpes": {"short": 9.0}},  # other bars
        {"input_hash": "3", "data_version": "d1", "sharpes": {"short": 0.7}, **PRESENT},  # what is judged now
        {"input_hash": "4", "tried": {"arm": "x"}, "terms": {"data_version": "d1"}},  # an ablation on these bars
        {"input_hash": "6", "data_version": "d1", "sharpes": {"short": 3.0}, "tested_ts_ns": [10, 99]},  # before it
        {"input_hash": "5", "data_version": "d1", "sharpes": {"short": 0.2}, **PRESENT, "code_version": "c0"},
    ]  # fmt: skip
    for line in lines:
        assert append_trial(path, line)
    return path


def test_every_bucket_of_every_other_configuration_on_these_bars_counts(tmp_path: Path) -> None:
    found = trial_sharpes(ledger(tmp_path), TESTED, PRESENT)
    assert [value for value in found if math.isfinite(value)] == [1.5, 0.2]
    assert len(found) == 4  # one that did not trade, and one that was compared by another score


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ({"market": "m", "tested_ts_ns": [40, 99]}, False),
        ({"market": "m", "tested_ts_ns": [40, 100]}, True),
        ({"market": "m", "tested_ts_ns": [200, 260]}, True),
        ({"market": "m", "tested_ts_ns": [201, 260]}, False),
        ({"market": "other", "tested_ts_ns": [100, 200]}, False),
        ({"market": "m"}, True),  # an ablation, which does not say when
        ({"market": "m", "tested_ts_ns": [101, 201], **PRESENT}, True),  # today's settings, on yesterday's bars
    ],
)
def test_looks_at_a_part_of_the_span_count_whatever_bars_there_were_that_day(
    tmp_path: Path, line: dict[str, object], counts: bool
) -> None:
    path = tmp_path / "trials.jsonl"
    append_trial(path, {"input_hash": "1", "data_version": "d0", "sharpes": {"short": 1.5}, **line})
    assert trial_sharpes(path, TESTED, PRESENT) == ([1.5] if counts else [])


def test_a_torn_line_counts_as_a_trial_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = ledger(tmp_path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"input_hash": "7"})[:-3])
    assert len(trial_sharpes(path, TESTED, PRESENT)) == 5
    assert "line 7 is torn" in caplog.text


def test_without_a_ledger_there_were_none(tmp_path: Path) -> None:
    assert trial_sharpes(tmp_path / "none.jsonl", TESTED, PRESENT) == []
