"""The evaluation's files, byte-stable: metrics.json, table.csv, equity.csv, pictures, and one page for people."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from btcai.evaluation.forecast_skill import skill_table
from btcai.evaluation.result import TRADE_COLUMNS, label
from btcai.evaluation.rows import Row
from btcai.report.drawing import draw
from btcai.report.evidence import Evidence
from btcai.report.formats import COLUMNS, UNDEFINED, between, flag, percent, ratio, sealed_words
from btcai.report.page import render_page
from btcai.report.record import judgement_of, metrics_record, strict_json, summary_records

if TYPE_CHECKING:
    from rich.table import Table

_WIDE = 130
_NAME = len("volatility-targeted")


def write_report(folder: Path, evidence: Evidence) -> tuple[Path, ...]:
    """Write every file of the report to `folder`; the same evidence gives the same bytes. Returns the files' paths.

    summary/STRATEGY.json: a file each, for `dvc metrics show` puts files in rows and figures in columns. Pictures that
    every report has and earlier versions had lie beside the page, all others in figures/.
    """
    daily = evidence.daily()
    days = f"{daily.index[0]:%Y-%m-%d} to {daily.index[-1]:%Y-%m-%d}"
    pictures = draw(evidence, daily, days)
    summaries = summary_records(evidence.judgement)
    texts = {
        "metrics.json": strict_json(metrics_record(evidence, daily)),
        "table.csv": table(evidence.judgement.rows).to_csv(index=False, lineterminator="\n"),
        "equity.csv": (daily * evidence.start_equity_usdt).round(2).to_csv(lineterminator="\n", index_label="utc_date"),
        "forecasts.csv": skill_table(evidence.skills).to_csv(index=False, lineterminator="\n"),
        "trades.csv": closed_trades(evidence).to_csv(index=False, lineterminator="\n"),
        "index.html": render_page(evidence, days, pictures),
        **{f"summary/{name}.json": strict_json(record) for name, record in summaries.items()},
    }
    files = {folder / name: picture.png for name, picture in pictures.items()}
    files |= {folder / name: text.encode() for name, text in texts.items()}
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tuple(files)


def closed_trades(evidence: Evidence) -> pd.DataFrame:
    """Every closed lot of the buckets under the judged severity: bucket, number, TRADE_COLUMNS, then Review.trades'."""
    parts = [one.trades.assign(bucket=bucket) for bucket, one in evidence.reviews.items()]
    first = ["bucket", "number", *TRADE_COLUMNS]
    if not parts:
        return pd.DataFrame(columns=first)
    trades = pd.concat(parts, ignore_index=True)
    return trades[[*first, *(name for name in trades.columns if name not in first)]]


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Every figure of every row; fold figures in columns of their own (fold_1_return, fold_1_sharpe, ...)."""
    records = []
    for row in rows:
        record = asdict(row)
        returns, sharpes = record.pop("fold_returns"), record.pop("fold_sharpes")
        for number, (gain, sharpe) in enumerate(zip(returns, sharpes, strict=True), start=1):
            record |= {f"fold_{number}_return": gain, f"fold_{number}_sharpe": sharpe}
        records.append(record)
    return pd.DataFrame(records)


def rich_table(rows: Sequence[Row], span: str, width: int | None = None) -> "Table":
    """The table for the terminal; pass the rows of one severity. Below _WIDE columns only the essential ones fit.

    `span` names what was judged on, in the title; `width` in characters, None asks the terminal.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    wide = (shutil.get_terminal_size().columns if width is None else width) >= _WIDE
    columns = [column for column in COLUMNS if wide or column.essential]
    costs = ", ".join(sorted({row.severity for row in rows}))
    notes = "; ".join(f"* {label(row.strategy)}: {flag(row)}" for row in rows if flag(row))
    shown = Table(
        title=f"{span}, {costs} costs",
        caption=f"\n{notes}" if notes else None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    names, *figures = columns
    shown.add_column(names.head, min_width=_NAME)  # long names break between their words, no figure does
    for column in figures:
        shown.add_column(column.head, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        cells = [Text(column.text(row), style=_sign_style(column.sign(row))) for column in columns]
        if flag(row):
            cells[0].append(" *", style="yellow")
        last_bucket = row.is_bucket and number + 1 < len(rows) and not rows[number + 1].is_bucket
        shown.add_row(*cells, end_section=last_bucket)
    return shown


def _sign_style(value: float) -> str:
    return "green" if value > 0 else "red" if value < 0 else ""


def markdown(found: Mapping[str, Any]) -> str:
    """metrics.json as read back -> a verdict per bucket, and a table of every strategy under the judged severity.

    Narrow enough for Prefect's page, which breaks no cell: what a reader must know of a row is below the table.
    """
    judgement = judgement_of(found)
    heads = ("strategy", "net return", "Sharpe (95 %)", "drawdown", "trades", "costs", "exposure")
    rows = judgement.judged_rows()
    lines = [
        f"**{found['market']}**, {found['first_day']} to {found['last_day']}, {judgement.severity} costs; "
        f"{sealed_words(found['sealed_span']['looks'])}.",
        "",
        *(f"- **{verdict.bucket}**: {verdict.text}." for verdict in judgement.verdicts),
        "",
        _line(heads),
        _line([":--", *["--:"] * (len(heads) - 1)]),
        *(_line(_cells(row)) for row in rows),
        "",
        *(f"- \\* {label(row.strategy)}: {flag(row)}" for row in rows if flag(row)),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    interval = between(row.sharpe_low, row.sharpe_high)
    return [
        label(row.strategy) + (" \\*" if flag(row) else ""),
        percent(row.net_return),
        UNDEFINED if interval == UNDEFINED else f"{ratio(row.sharpe)} ({interval})",
        percent(row.max_drawdown_frac),
        f"{row.trades:,}",
        percent(row.cost_frac),
        percent(row.exposure_frac, 0),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
