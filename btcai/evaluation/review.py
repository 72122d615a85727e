"""A bucket's closed trades looked back on: what earned or cost, what was predicted, what told success from failure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from btcai.config import BucketConfig
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.voices import Voices
from btcai.reasoning.lessons import Lesson, lessons
from btcai.reasoning.posttrade import entry_decisions, predicted_and_actual, split_profits, totals
from btcai.schema import BARS_PER_YEAR, MarketData

HOUR_NS = 3_600 * 1_000_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Review:
    """trades: a row per closed lot in order of entry, numbered from 1: TRADE_COLUMNS, posttrade.PARTS and what was
    predicted; totals: of the parts, USDT; lessons: significant contrasts of successes and failures, most often none."""

    trades: pd.DataFrame
    totals: Mapping[str, float]
    lessons: tuple[Lesson, ...]


def review(result: BacktestResult, data: MarketData, settings: BucketConfig, voices: Voices) -> Review | None:
    """Of a backtest of a policy, with what its reasoning's components said; None where no lot was closed."""
    if result.trades.empty or result.encoded is None:
        return None
    trades = result.trades.sort_values(["entry_ts_ns", "exit_ts_ns"], kind="stable").reset_index(drop=True)
    said, horizons = result.encoded, settings.horizons_bars
    parts = split_profits(
        trades, data, result.span, window_bars=settings.patch_bars, stop_loss_frac=settings.stop_loss_frac
    )
    foreseen = predicted_and_actual(trades, data, result.decisions, said.mean, said.quantiles, horizons)
    decided = entry_decisions(trades, data, result.decisions)
    bars = result.decisions[decided]
    context = pd.DataFrame(
        {
            **{name: (voices.scores * voices.confidence)[decided, k] for k, name in enumerate(voices.names)},
            "volatility a year": np.asarray(data.sigma)[bars] * BARS_PER_YEAR**0.5,
            "hour of the day": data.bars.close_ts_ns[bars] // HOUR_NS % 24,
            "forecast mean": said.mean[decided, 0],
            "forecast deviation": said.std[decided, 0],
            "unfamiliarity": said.unfamiliarity[decided],
        }
    )
    numbered = trades.assign(number=np.arange(1, len(trades) + 1))
    return Review(
        trades=pd.concat([numbered, parts, foreseen], axis=1),
        totals=totals(parts),
        lessons=lessons(context, trades["profit_usdt"].to_numpy() > 0.0),
    )
