"""The components of a chain, in their order, for one decision or for a whole history."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from btcai.config import BucketConfig
from btcai.errors import ConfigError
from btcai.market.rules import Rules
from btcai.reasoning import levels, liquidity, patterns, regime, signals, volatility
from btcai.reasoning.records import Component
from btcai.reasoning.situation import Situation, situation_of
from btcai.schema import FloatArray, IntArray, MarketData


class Family(NamedTuple):
    """How a component is measured, and what one decision's facts are in words."""

    measure: Callable[[Situation], Component]
    sentence: Callable[[Mapping[str, float], BucketConfig], str]


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        regime.NAME: Family(regime.measure, regime.sentence),
        patterns.NAME: Family(patterns.measure, patterns.sentence),
        levels.NAME: Family(levels.measure, levels.sentence),
        volatility.NAME: Family(volatility.measure, volatility.sentence),
        liquidity.NAME: Family(liquidity.measure, liquidity.sentence),
        signals.ENTRY: Family(signals.measure_entry, signals.entry_sentence),
        signals.EXIT: Family(signals.measure_exit, signals.exit_sentence),
    }
)
COMPONENTS = tuple(FAMILIES)
"""Names, in the order of every chain and of the columns of every table of scores."""

EQUAL_WEIGHTS: Mapping[str, float] = MappingProxyType(dict.fromkeys(COMPONENTS, 1.0))


class Scores(NamedTuple):
    """Scores and confidence (D, K) of the components named (K,)."""

    names: tuple[str, ...]
    scores: FloatArray
    confidence: FloatArray


def measured(situation: Situation) -> tuple[Component, ...]:
    """Every component at the situation's decisions."""
    return tuple(family.measure(situation) for family in FAMILIES.values())


def reason_components(
    data: MarketData, decisions: IntArray, bucket: BucketConfig, rules: Rules, equity_usdt: float
) -> Scores:
    """Every component at decisions (D,), ascending bar indices of data; the same numbers as decision by decision."""
    found = measured(situation_of(data, decisions, bucket, rules, equity_usdt))
    return Scores(
        names=COMPONENTS,
        scores=np.stack([one.score for one in found], axis=1),
        confidence=np.stack([one.confidence for one in found], axis=1),
    )


def weight_row(weights: Mapping[str, float]) -> FloatArray:
    """Weights (K,) in the order of COMPONENTS; ConfigError where they name others, or are not amounts."""
    if set(weights) != set(COMPONENTS):
        odd = ", ".join(sorted(set(weights) ^ set(COMPONENTS)))
        raise ConfigError(f"weights must be of {', '.join(COMPONENTS)}; missing or unknown: {odd}")
    row = np.array([weights[name] for name in COMPONENTS], np.float64)
    if not (np.isfinite(row).all() and (row >= 0.0).all() and row.sum() > 0.0):
        raise ConfigError(f"weights must be at least 0 and not all 0, was {dict(weights)}")
    return row


def conviction(scores: FloatArray, confidence: FloatArray, weights: FloatArray) -> FloatArray:
    """scores, confidence (D, K), weights (K,) -> (D,) in -1 .. 1: the weighted mean of score * confidence.

    What is doubted counts as 0, not as absent: one voice among silent ones does not speak for all.
    """
    return np.asarray((scores * confidence * weights).sum(axis=1) / weights.sum())
