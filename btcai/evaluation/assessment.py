"""Everything that is judged on one span: the buckets at every cost, their portfolio, baselines, the verdict."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from btcai.config import Config
from btcai.evaluation.backtest import backtest
from btcai.evaluation.baselines import run_baselines, run_twins
from btcai.evaluation.incumbents import Incumbent, walk_incumbents
from btcai.evaluation.judge import CHAMPION, Judgement, Results, Trials, judge
from btcai.evaluation.portfolio import Portfolio, combine
from btcai.evaluation.robustness import cost_variants
from btcai.evaluation.slices import slice_table
from btcai.features.splits import Splits
from btcai.inference.bundle import Policy
from btcai.market.rules import make_rules, market_rules
from btcai.schema import MarketData

logger = logging.getLogger(__name__)

PORTFOLIO = "portfolio"
"""The buckets as one portfolio, in equal shares."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """What the buckets did on the test span, and what it is worth.

    results, beside, baselines: strategy -> cost severity or variant -> result, where beside are the buckets' portfolio
    and the champions; portfolio: it at the judged severity; slices: bucket -> slices.slice_table, of those
    that traded.
    """

    results: Results
    beside: Results
    baselines: Results
    portfolio: Portfolio
    judgement: Judgement
    slices: Mapping[str, pd.DataFrame]


def assess(
    policies: Mapping[str, Policy],
    data: MarketData,
    splits: Splits,
    config: Config,
    trials: Trials,
    incumbents: Mapping[str, Incumbent] | None = None,
) -> Assessment:
    """Walk every bucket over splits.test, greedily, at each of robustness.cost_variants, and judge it.

    Baselines that are fitted read the training and the validation span. incumbents: the champions there are; one that
    is what is judged is left out.
    """
    costs, equity_usdt, severity = cost_variants(config.market), config.market.equity_usdt, config.market.severity
    results = {}
    for bucket, policy in policies.items():
        settings = config.buckets[bucket]
        rules = [make_rules(settings, config.market, config.risk, cost) for cost in costs.values()]
        walks = backtest(policy, data, splits.test, settings, rules, config.sizing, equity_usdt)
        results[bucket] = dict(zip(costs, walks, strict=True))
        logger.info("%s walked %d decisions", bucket, len(walks[0].decisions))
    rules_of = {name: market_rules(config.market, cost) for name, cost in costs.items()}
    twins, ranks = run_twins(
        data, splits.test, rules_of, equity_usdt, buckets=results, severity=severity, seed=config.seed
    )
    baselines = {**run_baselines(data, splits, rules_of, equity_usdt, seed=config.seed), **twins}
    portfolios = {name: combine({bucket: by[name] for bucket, by in results.items()}) for name in costs}
    champions = walk_incumbents(incumbents or {}, policies, data, splits.test, config)
    beside = {
        PORTFOLIO: {name: portfolio.result for name, portfolio in portfolios.items()},
        **{f"{CHAMPION}{bucket}": by for bucket, by in champions.items()},
    }
    judgement = judge(
        results,
        baselines,
        splits.folds,
        seed=config.seed,
        buckets=config.buckets,
        severity=severity,
        trials=trials,
        beside=beside,
        ranks=ranks,
    )
    return Assessment(
        results=results,
        beside=beside,
        baselines=baselines,
        portfolio=portfolios[severity],
        judgement=judgement,
        slices={
            bucket: slice_table(by[severity], data, splits.train)
            for bucket, by in results.items()
            if by[severity].traded_usdt > 0.0
        },
    )
