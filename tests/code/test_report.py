"""The verdict and the report's files: what is called an edge, strict JSON, stable bytes, no network."""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from btcai.config import CostConfig
from btcai.evaluation import judge as judging
from btcai.evaluation.formats import COLUMNS, between, flag, percent, ratio
from btcai.evaluation.judge import Judgement, Results
from btcai.evaluation.report import ReportInfo, daily_growth, rich_table, strict_json, write_report
from btcai.evaluation.result import BacktestResult, trades_table
from btcai.schema import BAR_NS, BARS_PER_DAY, BUCKETS, Span

SEVERITIES = {
    "optimistic": CostConfig(fee_bps=4, half_spread_bps=0.1, impact_coef=0, max_volume_share=1),
    "base": CostConfig(fee_bps=7.5, half_spread_bps=0.5, impact_coef=0.5, max_volume_share=0.25),
    "pessimistic": CostConfig(fee_bps=10, half_spread_bps=1, impact_coef=1, max_volume_share=0.1),
}
INFO = ReportInfo(
    market="btc<usdt>",
    data_version="0123abcd",
    severities=SEVERITIES,
    splits_text="span  bars\ntest  34,560",
    sealed_text="2024-07-01 00:05 to 2024-12-31 23:55, 52,000 bars",
    start_equity_usdt=100_000.0,
)
DAYS = 120
SPAN = Span(1000, 1000 + DAYS * BARS_PER_DAY)
FOLDS = [Span(1000 + k * 30 * BARS_PER_DAY, 1000 + (k + 1) * 30 * BARS_PER_DAY) for k in range(4)]
FIRST_CLOSE_BAR = 19_700 * BARS_PER_DAY + 1


def _result(returns: np.ndarray, *, exposure: float = 1.0, trades: int = 0, note: str = "") -> BacktestResult:
    """A result with these daily returns, each made in even steps over its day."""
    n = len(returns) * BARS_PER_DAY
    steps = np.repeat(np.log1p(returns) / BARS_PER_DAY, BARS_PER_DAY)
    closes = (FIRST_CLOSE_BAR + np.arange(n, dtype=np.int64)) * BAR_NS
    closed = np.array([[k, k + 5, 0.1, 1e4, 1.01e4, 1000.0, 1010.0 - 15 * (k % 3)] for k in range(trades)])
    return BacktestResult(
        span=SPAN,
        start_equity_usdt=100_000.0,
        close_ts_ns=closes,
        equity_usdt=100_000.0 * np.exp(np.cumsum(steps)),
        position_frac=np.full(n, exposure),
        n_lots=np.ones(n, np.int64),
        decisions=np.empty(0, np.int64),
        actions=np.empty(0, np.int64),
        trades=trades_table(closed, closes),
        costs_usdt=1234.5 * (exposure > 0),
        traded_usdt=2e6 * exposure,
        note=note,
    )


def judge(results: Results, baselines: Results, folds: list[Span], severity: str = "pessimistic") -> Judgement:
    """With few resamples: the verdicts below are not close."""
    return judging.judge(results, baselines, folds, seed=7, severity=severity, resamples=60)


def _all(result: BacktestResult) -> dict[str, BacktestResult]:
    return {severity: result for severity in SEVERITIES}


def _noise(seed: int, mean: float = 0.0) -> np.ndarray:
    return mean + np.random.default_rng(seed).normal(0.0, 0.02, DAYS)


def _baselines() -> Results:
    flat = np.zeros(DAYS)
    return {
        "cash": _all(_result(flat, exposure=0.0)),
        "buy_and_hold": _all(_result(_noise(1))),
        "volatility_targeted": _all(_result(0.6 * _noise(1))),
        "momentum_90d": _all(_result(_noise(2), note="in cash for the first 3 of 120 daily decisions")),
    }


def _buckets(returns: Iterable[np.ndarray], **settings: float) -> Results:
    return {name: _all(_result(one, **settings)) for name, one in zip(BUCKETS, returns, strict=False)}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def buckets() -> Results:
    noisy = _buckets([_noise(seed, mean=-0.001) for seed in (11, 12, 13)], trades=7)
    return {**noisy, "long": _all(_result(np.zeros(DAYS), exposure=0.0))}


@pytest.fixture(scope="module")
def judgement(buckets: Results) -> Judgement:
    return judge(buckets, _baselines(), FOLDS)


def test_an_oracle_has_an_edge_and_is_called_so() -> None:
    oracle = np.abs(_noise(5)) + 0.002
    verdict = judge(_buckets([oracle], trades=9), _baselines(), FOLDS).verdicts[0]
    assert verdict.edge == "proven"
    assert verdict.text.startswith("edge shown: net +")
    assert "4 of 4 folds up" in verdict.text
    assert all(low > 0 for _, low, _ in verdict.differences)


def test_a_bucket_that_never_traded_has_no_edge_and_is_flagged(judgement: Judgement) -> None:
    row = next(row for row in judgement.judged_rows() if row.strategy == "long")
    verdict = judgement.verdicts[3]
    assert row.did_not_trade
    assert flag(row) == "did not trade"
    assert (row.net_return, row.trades, row.walk_forward_score) == (0.0, 0, 0.0)
    assert np.isnan([row.sharpe, row.win_rate, row.calmar]).all()
    assert (verdict.bucket, verdict.edge) == ("long", "none")
    assert "did not trade" in verdict.text
    assert "recommended: stay in cash or hold the volatility-targeted" in verdict.text


def test_cash_is_not_flagged_for_doing_its_job(judgement: Judgement) -> None:
    row = next(row for row in judgement.judged_rows() if row.strategy == "cash")
    assert row.did_not_trade
    assert flag(row) == ""


def test_noise_has_no_edge_and_the_verdict_gives_its_numbers(judgement: Judgement) -> None:
    verdict = judgement.verdicts[0]
    assert verdict.edge == "none"
    numbers = r"net -\d+\.\d% after pessimistic costs, Sharpe -?\d+\.\d\d, \d of 4 folds up"
    assert re.match("no edge shown: " + numbers, verdict.text)
    assert "buy and hold -" in verdict.text


def test_luck_in_one_fold_is_not_an_edge() -> None:
    lucky = np.concatenate([np.full(90, -0.0001), np.full(30, 0.05)]) + 1e-4 * _noise(3)
    verdict = judge(_buckets([lucky], trades=9), {"cash": _baselines()["cash"]}, FOLDS).verdicts[0]
    assert verdict.edge == "none"
    assert "1 of 4 folds up (60% needed)" in verdict.text


def test_an_edge_over_most_baselines_is_none_when_one_is_as_good() -> None:
    good = _noise(5, mean=0.012)
    rivals = {**_baselines(), "buy_and_hold": _all(_result(good))}
    verdict = judge(_buckets([good], trades=9), rivals, FOLDS).verdicts[0]
    assert verdict.edge == "none"
    assert "buy and hold 0.00 to 0.00" in verdict.text
    assert judge(_buckets([good], trades=9), _baselines(), FOLDS).verdicts[0].edge == "proven"


def test_a_gain_that_harsher_costs_eat_is_not_an_edge() -> None:
    good, eaten = _result(np.abs(_noise(5)) + 0.002, trades=9), _result(-np.abs(_noise(5)), trades=9)
    by = {"base": good, "pessimistic": eaten}
    verdict = judge({"short": by}, _baselines(), FOLDS, severity="base").verdicts[0]
    assert verdict.edge == "none"
    assert re.search(r"net -\d+\.\d% under the harshest costs", verdict.text)


def test_fold_figures_by_hand() -> None:
    gains = np.repeat([0.01, -0.01, 0.0, 0.02], 30)
    row = judge(_buckets([gains]), _baselines(), FOLDS).rows[0]
    assert row.fold_returns == pytest.approx([1.01**30 - 1, 0.99**30 - 1, 0.0, 1.02**30 - 1])
    # Constant returns have no variance (the bars' sums may leave some rounding), so every fold counts as 0.
    assert np.isnan(row.fold_sharpes).all()
    assert row.walk_forward_score == 0.0


def test_walk_forward_score_is_the_mean_of_the_folds_ratios(judgement: Judgement) -> None:
    row = judgement.rows[0]
    assert row.walk_forward_score == pytest.approx(np.mean(row.fold_sharpes))
    assert len(row.fold_sharpes) == 4


def test_folds_outside_the_tested_span_are_refused(buckets: Results) -> None:
    with pytest.raises(ValueError, match="folds must lie inside the tested span"):
        judge(buckets, _baselines(), [Span(0, 500)])


def test_rows_come_in_the_order_of_the_table(judgement: Judgement) -> None:
    order = [row.strategy for row in judgement.judged_rows()]
    assert order == [*BUCKETS, "cash", "buy_and_hold", "volatility_targeted", "momentum_90d"]
    assert len(judgement.rows) == 3 * 8


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
    ],
)
def test_figures_read_as_written(text: str, expected: str) -> None:
    assert text == expected


def test_report_writes_the_same_bytes_twice(judgement: Judgement, buckets: Results, tmp_path: Path) -> None:
    written = [write_report(tmp_path / name, judgement, buckets, _baselines(), INFO) for name in ("one", "two")]
    names = {path.name for path in written[0]}
    pictures = {"equity.png", "drawdown.png", "sharpe.png"}
    assert names == {"metrics.json", "table.csv", "equity.csv", "index.html"} | pictures
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    png = (tmp_path / "one" / "equity.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert b"Software" not in png
    assert b"matplotlib" not in png


@pytest.fixture(scope="module")
def folder(judgement: Judgement, buckets: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, judgement, buckets, _baselines(), INFO)
    return folder


def test_page_is_self_contained_and_says_what_matters(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert page.count("data:image/png;base64,") == 3
    assert "No edge shown in any bucket." in page
    assert "Sealed span, untouched:" in page
    assert "2024-07-01 00:05 to 2024-12-31 23:55, 52,000 bars" in page
    assert "btc&lt;usdt&gt;" in page
    assert "btc<usdt>" not in page
    assert "did not trade" in page
    assert "in cash for the first 3" in page
    assert all(column.head.replace("-\n", "-").replace("\n", " ") in page for column in COLUMNS)


def test_metrics_file_is_strict_and_complete(folder: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert record["strategies"]["long"]["pessimistic"]["sharpe"] is None
    assert record["strategies"]["scalping"]["base"]["trades"] == 7
    assert record["verdicts"]["scalping"]["edge"] == "none"
    assert set(record["verdicts"]["scalping"]["sharpe_differences"]) == set(_baselines())
    assert record["sealed_span"]["read"] is False
    assert (record["first_day"], record["last_day"]) == ("2023-12-09", "2024-04-06")


def test_tables_hold_every_row_and_every_day(folder: Path) -> None:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert "fold_4_sharpe" in rows[0]
    with (folder / "equity.csv").open(encoding="utf-8", newline="") as file:
        days = list(csv.DictReader(file))
    assert len(days) == DAYS
    assert days[0]["utc_date"] == "2023-12-09"
    assert days[-1]["cash"] == "100000.0"


def test_daily_growth_ends_at_the_net_return(judgement: Judgement, buckets: Results) -> None:
    growth = daily_growth(buckets, "pessimistic")
    assert growth["short"].iloc[-1] - 1 == pytest.approx(judgement.judged_rows()[1].net_return)


def test_terminal_table_holds_the_rows_and_flags(judgement: Judgement) -> None:
    console = Console(width=240, record=True, file=StringIO())
    console.print(rich_table(judgement.judged_rows(), width=240))
    text = console.export_text()
    for word in (*BUCKETS, "buy and hold", "volatility-targeted", "momentum 90 d", "* long: did not trade", "turnover"):
        assert word in text


def test_narrow_terminal_shows_the_essential_columns_whole(judgement: Judgement) -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(rich_table(judgement.judged_rows(), width=80))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert "turnover" not in "".join(lines)


def test_too_few_days_give_dashes_not_numbers() -> None:
    short = Span(1000, 1000 + 10 * BARS_PER_DAY)
    result = replace(_result(_noise(1)[:10]), span=short)
    row = judge({"short": {"pessimistic": result}}, {}, [short]).rows[0]
    assert np.isnan([row.sharpe, row.sharpe_low, row.cagr, row.sortino]).all()
    assert row.walk_forward_score == 0.0
