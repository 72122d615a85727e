"""All that a report shows, and what its numbers rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from btcai.config import BucketConfig, CostConfig, SizingConfig
from btcai.evaluation.forecast_skill import ForecastSkill
from btcai.evaluation.judge import Judgement, Results
from btcai.evaluation.metrics import utc_days
from btcai.evaluation.reliability import Reliability
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.review import Review
from btcai.evaluation.sizing_comparison import SizingRow
from btcai.evaluation.stress import StressRow
from btcai.evaluation.voices import Voices
from btcai.features.splits import Splits
from btcai.schema import MarketData


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The verdict and everything beside it, of one test span. What has a default may be left out, and so may its part
    of the report."""

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
    skills: Sequence[ForecastSkill] = ()
    """forecast_skill.forecast_skills: of the validation span, then of the test span."""
    sealed_looks: int = 0
    """How often any of the sealed time was looked at, by the ledger of openings."""
    data: MarketData | None = None
    """The market that was traded; pictures read it up to the sealed span, see `unsealed`."""
    splits: Splits | None = None
    """Without it the market is not drawn."""
    buckets: Mapping[str, BucketConfig] = field(default_factory=dict)
    sizing: SizingConfig | None = None
    measures: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Bucket -> curves.read_measures."""
    trained: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Bucket -> curves.read_trained."""
    ablation: pd.DataFrame = field(default_factory=pd.DataFrame)
    """curves.read_ablation."""
    beside: Results = field(default_factory=dict)
    """Accounts that are no bucket and no baseline: all four buckets as one portfolio."""
    correlation: pd.DataFrame = field(default_factory=pd.DataFrame)
    """(B, B) of the buckets' daily returns under the judged severity: portfolio.Portfolio."""
    diversification_ratio: float = float("nan")
    slices: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Bucket -> slices.slice_table under the judged severity."""
    stress: Sequence[StressRow] = ()
    """stress.stress."""
    reasoning: Mapping[str, Voices] = field(default_factory=dict)
    """Bucket -> its components at the decisions of the test span."""
    sizings: Mapping[str, Sequence[SizingRow]] = field(default_factory=dict)
    """Bucket -> its decisions under every sizing strategy beside fixed sizes, of those that traded."""
    reviews: Mapping[str, Review] = field(default_factory=dict)
    """Bucket -> its closed trades looked back on, of those that closed any."""

    def daily(self) -> pd.DataFrame:
        """Equity / start (m, strategies) under the judged severity, at each UTC day's last bar."""
        return daily_growth({**self.results, **self.beside, **self.baselines}, self.judgement.severity)

    def judged(self) -> dict[str, BacktestResult]:
        """Bucket -> what it did under the judged severity."""
        return {name: by[self.judgement.severity] for name, by in self.results.items()}

    def unsealed(self) -> MarketData | None:
        """The market up to the sealed span; None where it is not at hand."""
        return None if self.data is None or self.splits is None else self.data.until(self.splits.sealed.first)


def daily_growth(results: Results, severity: str) -> pd.DataFrame:
    """Equity / start (m, strategies) at each UTC day's last bar, indexed by date (datetime64, no zone)."""
    columns = {name: _growth(by[severity]) for name, by in results.items() if severity in by}
    return pd.DataFrame(columns)


def _growth(result: BacktestResult) -> "pd.Series[float]":
    days = utc_days(result.close_ts_ns)
    last_of_day = np.append(np.flatnonzero(np.diff(days)), len(days) - 1)
    dates = pd.DatetimeIndex(days[last_of_day].astype("datetime64[D]").astype("datetime64[s]"))
    return pd.Series(result.equity_usdt[last_of_day] / result.start_equity_usdt, index=dates)
