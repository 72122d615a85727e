"""What every bucket is measured against, on the same span, through the same fills and costs."""

from collections.abc import Mapping

from btcai.evaluation.forecasters import run_forecasters
from btcai.evaluation.judge import Results
from btcai.evaluation.random_trades import random_targets
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.rules_of_thumb import RULES_OF_THUMB
from btcai.evaluation.targets import run_targets
from btcai.features.splits import Splits
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.rules import Rules
from btcai.schema import MarketData, Span


def run_baselines(
    data: MarketData, splits: Splits, rules: Mapping[str, Rules], equity_usdt: float, *, buckets: Results, seed: int
) -> dict[str, dict[str, BacktestResult]]:
    """Every baseline on the test span under each of the rules: name -> rules' name -> result.

    buckets: what they did there, under the same names of rules; each that traded gets a random rival.
    """
    bars = bar_arrays(data)
    return {
        **run_rules_of_thumb(data, splits.test, rules, equity_usdt, bars),
        **run_forecasters(data, splits, rules, equity_usdt, bars, seed=seed),
        **run_random(data, splits.test, rules, equity_usdt, bars, buckets=buckets, seed=seed),
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


def run_random(
    data: MarketData,
    span: Span,
    rules: Mapping[str, Rules],
    equity_usdt: float,
    bars: BarArrays,
    *,
    buckets: Results,
    seed: int,
) -> dict[str, dict[str, BacktestResult]]:
    """random_BUCKET for each bucket that traded under any of the rules: its own trades, at random times."""
    mark = data.mark[span.first : span.stop]
    results = {}
    for number, (bucket, by) in enumerate(buckets.items()):
        if any(result.traded_usdt > 0.0 for result in by.values()):
            results[f"random_{bucket}"] = {
                severity: run_targets(
                    random_targets(by[severity], mark, seed + number),
                    data,
                    span,
                    rule,
                    equity_usdt,
                    band_frac=0.0,
                    bars=bars,
                )
                for severity, rule in rules.items()
            }
    return results
