"""What the components of the reasoning said along a walk, and what each of them was worth there."""

from dataclasses import dataclass

import numpy as np

from btcai.config import Config
from btcai.evaluation.reliability import outcomes
from btcai.evaluation.result import BacktestResult
from btcai.features.splits import Splits
from btcai.market.rules import make_rules
from btcai.reasoning.attribution import Attribution, attribute
from btcai.reasoning.components import EQUAL_WEIGHTS, Scores, reason_components
from btcai.schema import FloatArray, IntArray, MarketData, Span


@dataclass(frozen=True, kw_only=True, eq=False)
class Voices:
    """What the components of a bucket's reasoning said at D of its decisions, and what each of them was worth.

    close_ts_ns (D,), ascending; scores (D, K): -1 speaks for falling prices, 1 for rising ones; confidence (D, K):
    0 .. 1; worth, worth_low, worth_high (K,): of each component, with its 95 % interval (nan where the data are too few
    for one), in what worth_unit says.
    """

    names: tuple[str, ...]
    close_ts_ns: IntArray
    scores: FloatArray
    confidence: FloatArray
    worth: FloatArray
    worth_low: FloatArray
    worth_high: FloatArray
    worth_unit: str

    def __post_init__(self) -> None:
        table, row = (len(self.close_ts_ns), len(self.names)), (len(self.names),)
        shapes = {"scores": table, "confidence": table, "worth": row, "worth_low": row, "worth_high": row}
        for name, shape in shapes.items():
            if (found := getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must be of shape {shape}, was {found}; see names and close_ts_ns")


def voices(result: BacktestResult, data: MarketData, splits: Splits, config: Config, bucket: str) -> Voices:
    """At the decisions of a backtest; worth is measured on outcomes over the bucket's shortest horizon."""
    said = scores_at(result.decisions, data, config, bucket)
    found = worth_on(result.span, result.decisions, said, data, splits, config, bucket)
    worths = found.components
    return Voices(
        names=said.names,
        close_ts_ns=data.bars.close_ts_ns[result.decisions],
        scores=said.scores,
        confidence=said.confidence,
        worth=np.array([worth.value for worth in worths]),
        worth_low=np.array([worth.low for worth in worths]),
        worth_high=np.array([worth.high for worth in worths]),
        worth_unit=f"Sharpe ratio a decision over {found.horizon_bars} bars, before costs",
    )


def scores_at(decisions: IntArray, data: MarketData, config: Config, bucket: str) -> Scores:
    """Of every component at decision bars (D,)."""
    settings = config.buckets[bucket]
    rules = make_rules(settings, config.market, config.risk)
    return reason_components(data, decisions, settings, rules, config.market.equity_usdt)


def worth_on(
    span: Span, decisions: IntArray, said: Scores, data: MarketData, splits: Splits, config: Config, bucket: str
) -> Attribution:
    """What each component was worth at those of the decisions (D,) whose shortest horizon ends inside the span."""
    horizon = config.buckets[bucket].horizons_bars[0]
    inside = decisions + horizon < span.stop
    bars = decisions[inside]
    outcome, known = outcomes(data, span, bars, np.array([horizon]))
    return attribute(
        (said.scores * said.confidence)[inside],
        np.where(known[:, 0], outcome[:, 0], np.nan),
        bars,
        EQUAL_WEIGHTS,
        horizon_bars=horizon,
        span=span,
        splits=splits,
    )
