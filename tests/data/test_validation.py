"""The verdict on raw bars names the rule, the row and the value, and nothing else."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from btcai.data.data_docs import write_data_docs
from btcai.data.page import render_html
from btcai.data.sources import read_bars
from btcai.data.validation import RuleResult, ValidationReport, examine, failure_message, validate
from btcai.errors import DataError
from btcai.simulator.bars import simulate_bars

GRID = "open_time is on the 5-minute grid"
ORDER = "open_time is unique and strictly increasing"
JUMP = "jump, |log(close / median of the 3 closes before)|, < 0.5"


@pytest.fixture
def bars() -> pd.DataFrame:
    return simulate_bars(60, 11)


def broken(report: ValidationReport) -> dict[str, RuleResult]:
    return {result.name: result for result in report.expectations if not result.success}


def with_cell(bars: pd.DataFrame, column: str, value: Any, row: int = 17) -> pd.DataFrame:
    changed = bars.copy()
    changed.loc[row, column] = value
    return changed


def test_clean_bars_pass_without_a_warning(bars: pd.DataFrame) -> None:
    report = validate(bars)
    assert report.success
    assert (report.rows, report.first, report.last) == (60, "2022-01-01T00:00:00Z", "2022-01-01T04:55:00Z")
    assert report.warnings == ()
    assert failure_message(report) == ""


@pytest.mark.slow  # all together
@pytest.mark.parametrize(
    ("column", "value", "rules"),
    [
        ("high", 40_000.0, {"high >= max(open, close)"}),
        ("low", 50_000.0, {"low <= min(open, close)"}),
        ("volume", -1.0, {"volume >= 0 and finite"}),
        ("volume", np.inf, {"volume >= 0 and finite"}),
        ("volume", np.nan, {"volume is present"}),
        ("close", np.nan, {"close is present"}),
        ("low", 0.0, {"low > 0 and finite"}),
        ("low", 20_000.0, {"range of a bar, log(high / low), < 0.5"}),
        ("open_time", pd.NaT, {"open_time is present"}),
        ("open_time", pd.Timestamp("2022-01-01T01:25:00.001Z"), {GRID}),
        ("open_time", pd.Timestamp("2022-01-01T01:20:00Z"), {ORDER}),
    ],
)
def test_one_bad_cell_names_exactly_its_row(bars: pd.DataFrame, column: str, value: object, rules: set[str]) -> None:
    found = broken(validate(with_cell(bars, column, value)))
    assert set(found) == rules
    for result in found.values():
        assert result.unexpected_count == 1
        assert [offence.row for offence in result.offences] == [17]
        assert column in result.offences[0].values


def test_a_bar_ten_times_too_high_is_named_alone(bars: pd.DataFrame) -> None:
    prices = ["open", "high", "low", "close"]
    bars.loc[17, prices] *= 10
    found = broken(validate(bars))
    assert {name: [offence.row for offence in result.offences] for name, result in found.items()} == {JUMP: [17]}


def test_row_numbers_do_not_depend_on_the_index(bars: pd.DataFrame) -> None:
    changed = with_cell(bars, "volume", -1.0)
    changed.index = pd.Index(range(1000, 1060))
    (result,) = broken(validate(changed)).values()
    assert result.offences[0].row == 17
    assert result.offences[0].time == "2022-01-01T01:25:00Z"


def test_agreeing_and_disagreeing_duplicates_break_the_order(bars: pd.DataFrame) -> None:
    for volume in (bars["volume"].iloc[3], 99.0):
        twice = pd.concat([bars.iloc[:4], bars.iloc[3:4].assign(volume=volume), bars.iloc[4:]], ignore_index=True)
        (result,) = broken(validate(twice)).values()
        assert (result.name, [offence.row for offence in result.offences]) == (ORDER, [4])


def test_gap_and_quiet_bars_are_warnings_with_a_ledger(bars: pd.DataFrame) -> None:
    bars.loc[5, "volume"] = 0.0
    report = validate(bars.drop(index=[20, 21, 22]))
    assert report.success
    (gap,) = report.gaps
    assert (gap.first_missing, gap.last_missing, gap.bars) == ("2022-01-01T01:40:00Z", "2022-01-01T01:50:00Z", 3)
    assert (report.missing_bars, report.zero_volume_bars) == (3, 1)
    assert len(report.warnings) == 2


def test_price_may_be_anywhere_after_a_day_without_bars(bars: pd.DataFrame) -> None:
    later = bars.iloc[30:].copy()
    later["open_time"] += pd.Timedelta(days=2)
    later[["open", "high", "low", "close"]] *= 3
    assert validate(pd.concat([bars.iloc[:30], later])).success


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda bars: bars.rename(columns={"volume": "size"}), "was open_time, open, high, low, close, size"),
        (lambda bars: bars.assign(open=bars["open"].astype(str)), "open is of type float64: was str"),
        (
            lambda bars: bars.assign(open_time=bars["open_time"].dt.tz_localize(None)),
            "open_time is of type UTC timestamp",
        ),
        (lambda bars: bars.iloc[:0], "there is at least one bar: was 0"),
    ],
    ids=["column", "text", "naive time", "empty"],
)
def test_wrong_shape_is_a_failure_and_not_a_crash(bars: pd.DataFrame, change: object, words: str) -> None:
    assert callable(change)
    report = validate(change(bars))
    assert not report.success
    assert words in failure_message(report)
    assert json.loads(report.to_json())["success"] is False


def test_every_row_bad_is_counted_but_only_the_first_are_listed(bars: pd.DataFrame) -> None:
    (result,) = broken(validate(bars.assign(volume=-1.0))).values()
    assert result.unexpected_count == 60
    assert [offence.row for offence in result.offences] == list(range(10))


def test_message_is_one_line_with_rule_row_and_remedy(bars: pd.DataFrame) -> None:
    message = failure_message(validate(with_cell(bars, "volume", -1.0)))
    assert message == (
        "bars break 1 rule(s): volume >= 0 and finite: row 17 at 2022-01-01T01:25:00Z (volume -1.0); "
        "mend them in their source, then: btcai data import PATH"
    )


def test_report_is_strict_json_and_the_same_bytes_each_time(bars: pd.DataFrame) -> None:
    changed = with_cell(with_cell(bars, "close", np.nan), "low", np.inf, row=30)
    text = validate(changed).to_json()
    assert text == validate(changed).to_json()
    assert json.loads(text, parse_constant=pytest.fail)["rows"] == 60


def test_page_tells_the_verdict_first_and_loads_nothing(bars: pd.DataFrame) -> None:
    good = render_html(validate(bars.drop(index=20)))
    bad = render_html(validate(with_cell(bars, "volume", -1.0)))
    assert "Validation passed" in good
    assert "2022-01-01T01:40:00Z" in good
    assert "Validation failed" in bad
    assert "row 17 at 2022-01-01T01:25:00Z" in bad
    for page in (good, bad):
        assert not re.search(r"https?://|src=|<script|@import|url\(", page)


def test_page_escapes_what_a_file_brought(bars: pd.DataFrame) -> None:
    page = render_html(validate(bars.rename(columns={"volume": "<script>alert(1)</script>"})))
    assert "<script>" not in page


def data_docs(bars: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Great Expectations' pages of these bars by their place in `folder`."""
    _, context = examine(bars)
    write_data_docs(context, folder)
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    }


def test_data_docs_render_rules_that_hold_and_rules_that_are_broken(bars: pd.DataFrame, tmp_path: Path) -> None:
    pages = data_docs(with_cell(bars, "volume", -1.0), tmp_path / "docs")
    assert '">shape</a>: <span class="text-success">passed' in pages["index.html"]
    assert '">values</a>: <span class="text-danger">failed' in pages["index.html"]
    result = "validations/values/values/19700101T000000.000000Z/bars-values.html"
    assert f'href="{result}"' in pages["index.html"]
    assert "1 unexpected values found" in pages[result]
    for name in (GRID, ORDER, "volume >= 0 and finite"):
        assert name in pages[result]
        assert name in pages["expectations/values.html"]


def test_data_docs_of_a_wrong_shape_are_of_the_rules_that_were_judged(bars: pd.DataFrame, tmp_path: Path) -> None:
    pages = data_docs(bars.rename(columns={"volume": "<img src=x onerror=alert(1)>"}), tmp_path / "docs")
    assert '">shape</a>: <span class="text-danger">failed' in pages["index.html"]
    assert not [name for name in pages if "values" in name]
    assert not [name for name, page in pages.items() if "<img" in page]


@pytest.mark.slow
def test_data_docs_are_the_same_bytes_each_time_load_nothing_and_leave_nothing(
    bars: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    changed = with_cell(bars, "volume", -1.0)
    pages = data_docs(changed, tmp_path / "one")
    assert data_docs(changed, tmp_path / "other") == pages
    assert len(pages) == 5
    assert list((tmp_path / "temporary").iterdir()) == []
    for name, page in pages.items():
        assert not re.search(r"src=|<script|<link|@import|url\(|https?://", page), name
        for link in re.findall(r'href="([^"#]+)"', page):
            place = (tmp_path / "one" / name).parent / link
            assert place.is_file() or link == "../index.html", (name, link)


def test_a_suite_that_could_not_be_rendered_is_told(
    bars: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    def crash(*_: object) -> None:
        raise ValueError("no such renderer")

    monkeypatch.setattr(ValidationResultsPageRenderer, "render", crash)
    with pytest.raises(DataError, match="rendered no pages of the rules of shape"):
        data_docs(bars, tmp_path / "docs")


@pytest.mark.real
@pytest.mark.slow
def test_real_bars_pass_with_their_outage_and_quiet_bars_as_warnings(real_bars_path: Path) -> None:
    report = validate(read_bars(real_bars_path))
    assert report.success
    (gap,) = report.gaps
    assert (gap.first_missing, gap.last_missing, gap.bars) == ("2023-03-24T12:40:00Z", "2023-03-24T13:55:00Z", 16)
    assert report.zero_volume_bars == 14
