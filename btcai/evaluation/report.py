"""The evaluation's files, byte-stable: metrics.json, table.csv, equity.csv, pictures, and one page for people."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from btcai.config import CostConfig
from btcai.evaluation import figures
from btcai.evaluation.formats import COLUMNS, flag
from btcai.evaluation.judge import Judgement, Results, Row
from btcai.evaluation.metrics import utc_days
from btcai.evaluation.page import render_page
from btcai.evaluation.result import BacktestResult, label

if TYPE_CHECKING:
    from rich.table import Table

_LOG = logging.getLogger(__name__)
_WIDE = 122


@dataclass(frozen=True, kw_only=True)
class ReportInfo:
    """What the numbers rest on, printed with them."""

    market: str
    data_version: str
    severities: Mapping[str, CostConfig]
    splits_text: str
    """The spans with bars and dates, as the command line prints them."""
    sealed_text: str
    """Which span is left, for example "2024-10-01 .. 2025-03-31, 52,416 bars"."""
    start_equity_usdt: float


def write_report(
    folder: Path, judgement: Judgement, results: Results, baselines: Results, info: ReportInfo
) -> tuple[Path, ...]:
    """Write every file of the report to `folder`; the same inputs give the same bytes. Returns the files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    daily = daily_growth({**results, **baselines}, judgement.severity)
    pictures = draw(daily, judgement, info)
    page = render_page(judgement, info, first_and_last_day(daily), pictures)
    texts = {
        "metrics.json": strict_json(metrics_record(judgement, info, daily)),
        "table.csv": table(judgement.rows).to_csv(index=False, lineterminator="\n"),
        "equity.csv": (daily * info.start_equity_usdt).round(2).to_csv(lineterminator="\n", index_label="utc_date"),
        "index.html": page,
    }
    files = {name: text.encode() for name, text in texts.items()} | pictures
    for name, content in files.items():
        (folder / name).write_bytes(content)
    _LOG.info("wrote %d files to %s", len(files), folder)
    return tuple(folder / name for name in files)


def daily_growth(results: Results, severity: str) -> pd.DataFrame:
    """Equity / start (m, strategies) at each UTC day's last bar, indexed by date (datetime64, no zone)."""
    columns = {name: _growth(by[severity]) for name, by in results.items() if severity in by}
    return pd.DataFrame(columns)


def _growth(result: BacktestResult) -> "pd.Series[float]":
    days = utc_days(result.close_ts_ns)
    last_of_day = np.append(np.flatnonzero(np.diff(days)), len(days) - 1)
    dates = pd.DatetimeIndex(days[last_of_day].astype("datetime64[D]").astype("datetime64[s]"))
    return pd.Series(result.equity_usdt[last_of_day] / result.start_equity_usdt, index=dates)


def first_and_last_day(daily: pd.DataFrame) -> str:
    """The tested span in words: "2024-05-01 to 2024-10-31"."""
    return f"{daily.index[0]:%Y-%m-%d} to {daily.index[-1]:%Y-%m-%d}"


def draw(daily: pd.DataFrame, judgement: Judgement, info: ReportInfo) -> dict[str, bytes]:
    """The pictures by file name."""
    cost = info.severities[judgement.severity]
    where = f"{info.market}, {first_and_last_day(daily)}, {judgement.severity} costs ({cost_text(cost)})"
    return {
        "equity.png": figures.equity_png(daily, f"Equity: {where}"),
        "drawdown.png": figures.drawdown_png(daily, f"Drawdown: {where}"),
        "sharpe.png": figures.sharpe_png(judgement.judged_rows(), f"Sharpe ratio: {where}"),
    }


def cost_text(cost: CostConfig) -> str:
    """What one side of a trade costs, in words."""
    return f"a side: fee {cost.fee_bps:g} bp, half spread {cost.half_spread_bps:g} bp, impact {cost.impact_coef:g}"


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Every figure of every row; fold figures in columns of their own (fold_1_return, fold_1_sharpe, ...)."""
    records = []
    for row in rows:
        record = asdict(row)
        returns, sharpes = record.pop("fold_returns"), record.pop("fold_sharpes")
        for number, (gain, ratio) in enumerate(zip(returns, sharpes, strict=True), start=1):
            record |= {f"fold_{number}_return": gain, f"fold_{number}_sharpe": ratio}
        records.append(record)
    return pd.DataFrame(records)


def metrics_record(judgement: Judgement, info: ReportInfo, daily: pd.DataFrame) -> dict[str, Any]:
    """metrics.json: strategies -> severity -> figures, and a verdict per bucket."""
    strategies: dict[str, dict[str, Any]] = {}
    for row in judgement.rows:
        figures_of = asdict(row)
        strategies.setdefault(figures_of.pop("strategy"), {})[figures_of.pop("severity")] = figures_of
    verdicts = {
        verdict.bucket: {
            "edge": verdict.edge,
            "text": verdict.text,
            "sharpe_differences": {name: {"low": low, "high": high} for name, low, high in verdict.differences},
        }
        for verdict in judgement.verdicts
    }
    return {
        "market": info.market,
        "data_version": info.data_version,
        "judged_severity": judgement.severity,
        "first_day": f"{daily.index[0]:%Y-%m-%d}",
        "last_day": f"{daily.index[-1]:%Y-%m-%d}",
        "sealed_span": {"read": False, "span": info.sealed_text},
        "severities": {name: cost.model_dump() for name, cost in info.severities.items()},
        "strategies": strategies,
        "verdicts": verdicts,
    }


def strict_json(record: object) -> str:
    """JSON with sorted keys in which an undefined number is null."""
    return json.dumps(_finite(record), sort_keys=True, indent=2, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    return value


def rich_table(rows: Sequence[Row], width: int | None = None) -> "Table":
    """The table for the terminal; pass the rows of one severity. Below _WIDE columns only the essential ones fit.

    `width` in characters; None asks the terminal.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    wide = (shutil.get_terminal_size().columns if width is None else width) >= _WIDE
    columns = [column for column in COLUMNS if wide or column.essential]
    costs = ", ".join(sorted({row.severity for row in rows}))
    notes = "; ".join(f"* {label(row.strategy)}: {flag(row)}" for row in rows if flag(row))
    shown = Table(
        title=f"Test span, {costs} costs",
        caption=notes or None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        shown.add_column(column.head, justify="left" if column.head == "strategy" else "right", no_wrap=True)
    for number, row in enumerate(rows):
        cells = [Text(column.text(row), style=_sign_style(column.sign(row))) for column in columns]
        if flag(row):
            cells[0].append(" *", style="yellow")
        last_bucket = row.is_bucket and number + 1 < len(rows) and not rows[number + 1].is_bucket
        shown.add_row(*cells, end_section=last_bucket)
    return shown


def _sign_style(value: float) -> str:
    return "green" if value > 0 else "red" if value < 0 else ""
