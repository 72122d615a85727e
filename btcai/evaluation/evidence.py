"""All that a report shows, and what its numbers rest on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from btcai.config import CostConfig
from btcai.evaluation.judge import Judgement, Results
from btcai.evaluation.metrics import utc_days
from btcai.evaluation.reliability import Reliability
from btcai.evaluation.result import BacktestResult


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The verdict and everything beside it, of one test span."""

    judgement: Judgement
    results: Results
    baselines: Results
    forecasts: Mapping[str, tuple[Reliability, ...]]
    """Bucket -> its horizons, shortest first."""
    curves: Mapping[str, pd.DataFrame]
    """Bucket -> curves.read_curves."""
    importance: Mapping[str, Mapping[str, float]]
    """Bucket -> curves.read_importance."""
    market: str
    data_version: str
    severities: Mapping[str, CostConfig]
    splits_text: str
    """The spans with bars and dates, as the command line prints them."""
    sealed_text: str
    """Which span is left, for example "2024-10-01 .. 2025-03-31, 52,416 bars"."""
    start_equity_usdt: float

    def daily(self) -> pd.DataFrame:
        """Equity / start (m, strategies) under the judged severity, at each UTC day's last bar."""
        return daily_growth({**self.results, **self.baselines}, self.judgement.severity)


def daily_growth(results: Results, severity: str) -> pd.DataFrame:
    """Equity / start (m, strategies) at each UTC day's last bar, indexed by date (datetime64, no zone)."""
    columns = {name: _growth(by[severity]) for name, by in results.items() if severity in by}
    return pd.DataFrame(columns)


def _growth(result: BacktestResult) -> "pd.Series[float]":
    days = utc_days(result.close_ts_ns)
    last_of_day = np.append(np.flatnonzero(np.diff(days)), len(days) - 1)
    dates = pd.DatetimeIndex(days[last_of_day].astype("datetime64[D]").astype("datetime64[s]"))
    return pd.Series(result.equity_usdt[last_of_day] / result.start_equity_usdt, index=dates)
