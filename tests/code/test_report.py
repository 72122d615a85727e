"""The report's files: strict JSON that reads back, stable bytes, a page that opens without a network."""

import csv
import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from report_fakes import (
    DAYS,
    FOLDS,
    SEVERITIES,
    baselines,
    earned,
    everywhere,
    evidence,
    full_evidence,
    judge,
    losing_buckets,
    noise,
)
from rich.console import Console

from btcai.evaluation.judge import Judgement, Results
from btcai.evaluation.result import LABELS
from btcai.evaluation.twins import Rank, Ranks
from btcai.report.evidence import Evidence, daily_growth
from btcai.report.formats import COLUMNS, between, cost_text, duration, percent, percents, ratio, sealed_words
from btcai.report.page import render_page
from btcai.report.record import judgement_of, metrics_record, strict_json
from btcai.report.report import markdown, rich_table, write_report
from btcai.schema import BUCKETS


@pytest.fixture(scope="module")
def buckets() -> Results:
    return losing_buckets()


@pytest.fixture(scope="module")
def judgement(buckets: Results) -> Judgement:
    return judge(buckets, baselines(), FOLDS)


def test_strict_json_writes_undefined_numbers_as_null_and_sorts_keys() -> None:
    text = strict_json({"b": [np.float64("nan"), 1.5], "a": float("inf"), "c": (True, "x")})
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": [True, "x"]}
    assert text.index('"a"') < text.index('"b"') < text.index('"c"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.1234), "12.3 %"),
        (percent(-0.0001), "0.0 %"),
        (percent(float("nan")), "-"),
        (ratio(-1.005), "-1.00"),
        (ratio(1234.5, 1), "1,234.5"),
        (between(-0.5, 1.25), "-0.50 .. 1.25"),
        (between(float("nan"), 1.0), "-"),
        (percents(-0.05, 0.125), "-5.0 .. 12.5 %"),
        (percents(0.1, float("nan")), "-"),
        (cost_text(SEVERITIES["base"]), "taker fee 7.5 bp, half spread 0.5 bp, impact 0.5"),
        (cost_text(SEVERITIES["base"].model_copy(update={"latency_bars": 1})).split(", ")[-1], "1 bar late"),
    ],
)
def test_figures_read_as_written(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("bars", "expected"), [(1, "5 min"), (12, "1 h"), (36, "3 h"), (288, "1 d"), (1008, "3.5 d"), (8064, "28 d")]
)
def test_horizons_read_in_the_largest_unit_that_fits(bars: int, expected: str) -> None:
    assert duration(bars) == expected


@pytest.fixture(scope="module")
def found(judgement: Judgement, buckets: Results) -> Evidence:
    return evidence(judgement, buckets)


@pytest.fixture(scope="module")
def folder(found: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, found)
    return folder


def test_report_writes_the_same_bytes_twice(found: Evidence, folder: Path, tmp_path: Path) -> None:
    written = write_report(tmp_path, found)
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    pictures = {"equity.png", "drawdown.png", "sharpe.png", "calibration.png", "training.png", "figures/folds.png"}
    summaries = {f"summary/{name}.json" for name in (*BUCKETS, *baselines())}
    assert (
        names
        == {"metrics.json", "table.csv", "equity.csv", "forecasts.csv", "trades.csv", "index.html"}
        | pictures
        | summaries
    )
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    for name in pictures:
        png = (folder / name).read_bytes()
        assert png.startswith(b"\x89PNG")
        assert b"Software" not in png
        assert b"matplotlib" not in png


def test_page_is_self_contained_and_says_what_matters(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert page.count("data:image/png;base64,") == 6
    assert "No edge shown in any bucket." in page
    assert "No figure here has read it; the sealed span is unread." in page
    assert "2024-07-01 00:05 to 2024-12-31 23:55, 52,000 bars" in page
    assert "btc&lt;usdt&gt;" in page
    assert "btc<usdt>" not in page
    assert "did not trade" in page
    assert "in cash for the first 3" in page
    assert "36 (12: too few)" in page
    assert all(column.head.replace("-\n", "-").replace("\n", " ") in page for column in COLUMNS)


def test_page_shows_every_check_of_the_gate(folder: Path, judgement: Judgement) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    shown = page.split("every check of every bucket</h3>")[1].split("</table>")[0]
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td>(.*?)</tr>", shown)
    assert [name for name, _, _ in rows][:-4] == [check.name for check in judgement.verdicts[0].checks]
    found: list[bool] = []
    for (_, threshold, cells), check in zip(rows, judgement.verdicts[0].checks, strict=False):
        assert threshold.endswith(f"{check.threshold:g}")
        passed = [verdict.checks[len(found)].passed for verdict in judgement.verdicts]
        found.append(cells.count('class="up"') == sum(passed) and cells.count('class="down"') == 4 - sum(passed))
    assert all(found)
    assert rows[-1][0] == "trials counted"


def test_page_shows_the_random_twins_the_champion_and_a_check_that_not_every_bucket_has(
    buckets: Results,
) -> None:
    twins = Ranks(net_return=Rank(-0.1, -0.25, -0.125, 0.05, 0.04), sharpe=Rank(-0.5, -3.0, -1.0, 1.0, 0.3), twins=200)
    champion = {"champion_short": everywhere(earned(noise(40)))}
    found = judge(buckets, baselines(), FOLDS, beside=champion, ranks={"short": twins})
    shown = replace(evidence(found, buckets), beside=champion)
    page = render_page(shown, "120 days", {})
    row = page.split("chance that random times do as well</td>")[1].split("</tr>")[0]
    assert row == '<td>under 0.05</td><td>-</td><td class="down">0.300</td><td>-</td><td>-</td>'
    told = page.split("The same trades at random times</h3>")[1].split("</table>")[0]
    assert "Among 200 twins" in told
    assert re.findall(r">([^<]+)</td>", told) == [
        "short", "-10.0 %", "-25.0 %", "-12.5 %", "5.0 %", "0.040", "-0.50", "-3.00", "-1.00", "1.00", "0.300"
    ]  # fmt: skip
    over = page.split("over its champion (no check)</td>")[1].split("</tr>")[0]
    low, high = found.verdicts[1].over_champion or (0.0, 0.0)
    assert re.findall(r">([^<]+)</td>", over) == ["-", between(low, high), "-", "-"]
    assert "champion of short" in page
    read = judgement_of(json.loads(strict_json(metrics_record(shown, shown.daily()))))
    assert repr(read.verdicts) == repr(found.verdicts)


def test_page_names_the_features_that_each_bucket_reads_most(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr><td>(\d)</td>(.*?)</tr>", page.split("<h2>Features</h2>")[1].split("</table>")[0])
    assert [place for place, _ in rows] == list("12345678")
    # feature_9 has 9 / 45 and bars are drawn to the longest, .75
    assert rows[0][1] == (
        '<td class="bar" style="--share: 26.7%">feature_9 20.0 %</td>'
        '<td class="bar" style="--share: 100.0%">a&lt;b 75.0 %</td>'
    )
    assert rows[2][1].endswith("feature_7 15.6 %</td><td></td>")
    assert "scalping (each alike: 10.0 %)" in page
    assert "make them with btcai stage consolidate" in page


def test_the_answer_comes_first_and_what_there_is_nothing_of_is_left_out(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert page.index('class="answer"') < page.index("<nav") < page.index("<h2>")
    assert titles[:3] == ["Verdicts", "Every bucket beside every baseline", "Walk-forward folds"]
    assert titles[-1] == "How this was measured"
    assert not {"Reasoning", "Doubt and decisions", "Trades on candles", "What was trained", "The market"} & set(titles)


@pytest.fixture(scope="module")
def full() -> Evidence:
    return full_evidence()


@pytest.fixture(scope="module")
def full_folder(full: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    write_report(folder, full)
    return folder


@pytest.mark.slow
def test_everything_that_is_known_is_drawn_and_linked(full_folder: Path) -> None:
    page = (full_folder / "index.html").read_text(encoding="utf-8")
    drawn = {path.relative_to(full_folder).as_posix() for path in full_folder.rglob("*.png")}
    names = "ablation doubt facts fans folds importance reasoning_scalping slices_short spans stress "
    names += "trade_scalping trade_short transfer"
    own = {f"figures/{name}.png" for name in (*names.split(), "trades_scalping", "trades_short")}
    assert drawn == own | {"equity.png", "drawdown.png", "sharpe.png", "calibration.png", "training.png"}
    assert page.count("data:image/png;base64,") == len(drawn)
    links, anchors = re.findall(r'href="#(.*?)"', page), re.findall(r'<section id="(.*?)"', page)
    assert links == anchors
    assert len(set(anchors)) == len(anchors) == 17
    assert "No lot was closed by medium, long" in page
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)


@pytest.mark.slow
def test_the_report_does_not_read_the_sealed_span(full: Evidence, full_folder: Path, tmp_path: Path) -> None:
    """Other prices, volume and gaps there give the same bytes."""
    assert full.data is not None
    assert full.splits is not None
    bars, sealed = full.data.bars, slice(full.splits.sealed.first, None)
    columns = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume", "present")}
    for column in columns.values():
        column[sealed] = 0
    mark, sigma = full.data.mark.copy(), np.asarray(full.data.sigma).copy()
    mark[sealed], sigma[sealed] = np.nan, np.nan
    poisoned = replace(full.data, bars=replace(bars, **columns), mark=mark, sigma=sigma)
    for path in write_report(tmp_path, replace(full, data=poisoned)):
        assert path.read_bytes() == (full_folder / path.relative_to(tmp_path)).read_bytes(), path.name


def test_metrics_file_is_strict_and_complete(folder: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert record["strategies"]["long"]["pessimistic"]["sharpe"] is None
    assert record["strategies"]["scalping"]["base"]["trades"] == 7
    assert record["verdicts"]["scalping"]["edge"] == "none"
    assert set(record["verdicts"]["scalping"]["sharpe_differences"]) == set(baselines())
    assert record["sealed_span"]["looks"] == 0
    assert (record["first_day"], record["last_day"]) == ("2023-12-09", "2024-04-06")


def test_metrics_read_back_as_the_judgement_that_was_written(judgement: Judgement, folder: Path) -> None:
    read = judgement_of(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    assert read.severity == judgement.severity
    assert repr(read.verdicts) == repr(judgement.verdicts)  # as text, for nan is no equal of nan
    assert repr(read.judged_rows()) == repr(judgement.judged_rows())
    assert len(read.rows) == len(judgement.rows)


def test_a_summary_holds_the_figures_that_compare(judgement: Judgement, folder: Path) -> None:
    bucket = json.loads((folder / "summary" / "scalping.json").read_text(encoding="utf-8"))
    baseline = json.loads((folder / "summary" / "cash.json").read_text(encoding="utf-8"))
    row = judgement.judged_rows()[0]
    assert bucket["edge"] == "none"
    assert (bucket["net_return"], bucket["sharpe_low"]) == (row.net_return, row.sharpe_low)
    assert bucket.keys() - baseline.keys() == {"edge"}
    assert all(isinstance(value, int | float | str) or value is None for value in bucket.values())


def test_markdown_has_a_line_per_strategy_and_the_verdicts(folder: Path) -> None:
    lines = markdown(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))).splitlines()
    assert lines[0].startswith("**btc<usdt>**, 2023-12-09 to 2024-04-06, pessimistic costs")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4 + 4
    assert {line.count("|") for line in table} == {8}
    assert table[0] == "| strategy | net return | Sharpe (95 %) | drawdown | trades | costs | exposure |"
    assert table[5] == r"| long \* | 0.0 % | - | 0.0 % | 0 | 0.0 % | 0 % |"
    assert lines[5].startswith("- **long**: no edge shown: long did not trade")
    assert r"- \* long: did not trade" in lines


def test_tables_hold_every_row_and_every_day(folder: Path) -> None:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert "fold_4_sharpe" in rows[0]
    with (folder / "equity.csv").open(encoding="utf-8", newline="") as file:
        days = list(csv.DictReader(file))
    assert len(days) == DAYS
    assert days[0]["utc_date"] == "2023-12-09"
    assert days[-1]["cash"] == "100000.0"


def test_daily_growth_ends_at_the_net_return(judgement: Judgement, buckets: Results) -> None:
    growth = daily_growth(buckets, "pessimistic")
    assert growth["short"].iloc[-1] - 1 == pytest.approx(judgement.judged_rows()[1].net_return)


@pytest.mark.parametrize(
    ("looks", "said"),
    [(0, "is unread"), (1, "was looked at once: expect luck"), (2, "was looked at 2 times: expect luck")],
)
def test_how_often_the_sealed_span_was_looked_at_is_said(looks: int, said: str) -> None:
    assert sealed_words(looks) == f"the sealed span {said}"


def test_terminal_table_holds_the_rows_and_flags(judgement: Judgement) -> None:
    console = Console(width=240, record=True, file=StringIO())
    console.print(rich_table(judgement.judged_rows(), "Some span", width=240))
    text = console.export_text()
    assert text.startswith("Some span, pessimistic costs")
    for word in (*BUCKETS, "buy and hold", "volatility-targeted", "momentum 90 d", "* long: did not trade", "turnover"):
        assert word in text


def test_narrow_terminal_shows_the_essential_columns_whole(judgement: Judgement) -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(rich_table(judgement.judged_rows(), "Some span", width=80))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert "turnover" not in "".join(lines)


@pytest.mark.parametrize("width", [80, 130])
def test_every_baselines_name_and_its_figures_are_whole_in_the_terminal(judgement: Judgement, width: int) -> None:
    lost = {"net_return": -0.89, "sharpe": -13.5, "sharpe_low": -18.05, "sharpe_high": -9.38, "trades": 1_041,
            "max_drawdown_frac": 0.894, "win_rate": 0.27, "turnover_per_year": 4_385.9}  # fmt: skip
    rows = [replace(judgement.judged_rows()[0], strategy=name, **lost) for name in LABELS]
    console = Console(width=width, record=True, file=StringIO())
    console.print(rich_table(rows, "Some span", width=width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figure in ("-89.0 %", "-13.50", "-18.05 .. -9.38", "89.4 %", "27 %", "1,041"):
        assert text.count(figure) == len(LABELS)
    said = " ".join(" ".join(line[:30].split("  ")[0] for line in text.splitlines()).split())
    for name in LABELS.values():
        assert name in said
