"""The chain of one decision: what the market shows, what is forecast and remembered, what the policy and the rules say.

Deterministic: the same case gives the same sentences, letter by letter.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from btcai.config import BucketConfig, SizingConfig
from btcai.market.account import EQUITY
from btcai.market.rules import Rules
from btcai.reasoning import signals, steps
from btcai.reasoning.components import EQUAL_WEIGHTS, FAMILIES, conviction, measured, weight_row
from btcai.reasoning.records import Component, Reasoning, Recalled, Step
from btcai.reasoning.situation import situation_of
from btcai.schema import Decision, FloatArray, MarketData


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One decision with what it was taken on."""

    decision: Decision
    data: MarketData
    """Its last row is the decision's bar; more than the bucket's lookback and warm-up are not read."""
    bucket: BucketConfig
    rules: Rules
    sizing: SizingConfig
    account: FloatArray
    """(N_ACCOUNT,) at that close, halts applied, before the decision's order."""
    lots: FloatArray
    """(max_lots, N_LOT) of that account."""
    told: str
    """Which account that is, in words: where it was described, or what was assumed."""
    recalled: Recalled | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: EQUAL_WEIGHTS)


def reason(case: Case) -> Reasoning:
    """Every step of the case's decision, in order; ConfigError where its weights are not of the components."""
    decision, newest = case.decision, np.array([len(case.data) - 1])
    situation = situation_of(case.data, newest, case.bucket, case.rules, float(case.account[EQUITY]))
    found = measured(situation)
    sigma = float(case.data.sigma[-1])
    chain = [_component_step(one, case.bucket) for one in found]
    place = [step.name for step in chain].index(signals.EXIT)
    mark = float(case.data.mark[-1])
    chain[place] = steps.with_lots(chain[place], case.account, case.lots, mark, sigma, decision.forecasts, case.rules)
    chain += [
        steps.forecast(decision, sigma, case.sizing),
        steps.memory(case.recalled, decision.forecasts[0]),
        steps.policy(decision),
        steps.sizing(decision, sigma, case.bucket, case.sizing),
        steps.risk(case.account, case.rules),
        steps.decision(decision),
    ]
    scores, confidence = (np.array([[getattr(one, name)[0] for one in found]]) for name in ("score", "confidence"))
    return Reasoning(
        bucket=decision.bucket,
        close_ts_ns=decision.close_ts_ns,
        action=decision.action.name,
        size_frac=decision.size_frac,
        conviction=float(conviction(scores, confidence, weight_row(case.weights))[0]),
        account=case.told,
        model_version=decision.model_version,
        data_version=decision.data_version,
        steps=tuple(chain),
        recalled=case.recalled,
    )


def _component_step(component: Component, bucket: BucketConfig) -> Step:
    """A component of one decision in words."""
    facts = {name: float(values[0]) for name, values in component.facts.items()}
    blind = all(math.isnan(value) for value in facts.values())
    return Step(
        name=component.name,
        score=float(component.score[0]),
        confidence=float(component.confidence[0]),
        sentence=steps.BLIND if blind else FAMILIES[component.name].sentence(facts, bucket),
        facts=facts,
    )
