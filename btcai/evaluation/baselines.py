"""What every bucket is measured against, on the same span, through the same fills and costs."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from btcai.evaluation import metrics
from btcai.evaluation.forecasters import run_forecasters
from btcai.evaluation.judge import RANDOM, Results
from btcai.evaluation.random_trades import Course, course_of, random_targets
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.rows import daily_returns
from btcai.evaluation.rules_of_thumb import RULES_OF_THUMB
from btcai.evaluation.targets import run_targets
from btcai.evaluation.twins import Ranks, middle, rank
from btcai.features.splits import Splits
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.rules import Rules
from btcai.schema import MarketData, Span

TWINS = 200
"""Random twins of a bucket: below .05 are those that at most 9 of them equal, a chance of .0498 where timing says
nothing."""


def run_baselines(
    data: MarketData, splits: Splits, rules: Mapping[str, Rules], equity_usdt: float, *, seed: int
) -> dict[str, dict[str, BacktestResult]]:
    """Every baseline on the test span under each of the rules: name -> rules' name -> result."""
    bars = bar_arrays(data)
    return {
        **run_rules_of_thumb(data, splits.test, rules, equity_usdt, bars),
        **run_forecasters(data, splits, rules, equity_usdt, bars, seed=seed),
    }


def run_rules_of_thumb(
    data: MarketData, span: Span, rules: Mapping[str, Rules], equity_usdt: float, bars: BarArrays
) -> dict[str, dict[str, BacktestResult]]:
    """Rules without anything fitted; they need no training span."""
    results = {}
    for name, rule_of_thumb in RULES_OF_THUMB.items():
        targets, note = rule_of_thumb(data, span)
        results[name] = {
            severity: run_targets(targets, data, span, rule, equity_usdt, note=note, bars=bars)
            for severity, rule in rules.items()
        }
    return results


def run_twins(
    data: MarketData,
    span: Span,
    rules: Mapping[str, Rules],
    equity_usdt: float,
    *,
    buckets: Results,
    severity: str,
    seed: int,
    twins: int = TWINS,
) -> tuple[dict[str, dict[str, BacktestResult]], dict[str, Ranks]]:
    """Each bucket that traded at that severity, held against its own trades at random times: bucket -> Ranks.

    Beside them, as random_BUCKET, the twin whose net return is in the middle, under each of the rules. buckets: what
    they did under the same names of rules. A bucket that was ever short has no ranks: its twins would be long alone.
    """
    bars, mark, middles, ranks = bar_arrays(data), data.mark[span.first : span.stop], {}, {}

    def follow(course: Course, name: str, draw: tuple[int, int]) -> BacktestResult:
        targets = random_targets(course, np.random.default_rng((seed, *draw)))
        return run_targets(targets, data, span, rules[name], equity_usdt, band_frac=0.0, bars=bars)

    for number, (bucket, by) in enumerate(buckets.items()):
        if by[severity].traded_usdt == 0.0 or np.any(by[severity].position_frac < 0.0):
            continue
        course = course_of(by[severity], mark)
        drawn = np.array([_net_and_sharpe(follow(course, severity, (number, draw))) for draw in range(twins)])
        net, sharpe = map(rank, _net_and_sharpe(by[severity]), drawn.T)
        ranks[bucket] = Ranks(net_return=net, sharpe=sharpe, twins=twins)
        chosen, note = (number, middle(drawn[:, 0])), f"in the middle of {twins} draws"
        middles[f"{RANDOM}{bucket}"] = {
            name: replace(follow(course_of(by[name], mark), name, chosen), note=note) for name in rules
        }
    return middles, ranks


def _net_and_sharpe(result: BacktestResult) -> tuple[float, float]:
    net = metrics.net_return(result.equity_usdt, result.start_equity_usdt)
    return net, metrics.sharpe(daily_returns(result), metrics.DAYS_PER_YEAR)
