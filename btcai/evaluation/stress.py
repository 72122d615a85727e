"""What every strategy does in markets that things happen to: simulated, seeded, the same for all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from btcai.config import Config
from btcai.data.store import to_grid
from btcai.evaluation import metrics
from btcai.evaluation.backtest import backtest
from btcai.evaluation.baselines import run_rules_of_thumb
from btcai.evaluation.result import BacktestResult
from btcai.features.pipeline import build_market
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import Policy
from btcai.inference.decision import sizes
from btcai.market.bars import bar_arrays
from btcai.market.rules import make_rules, market_rules
from btcai.schema import BARS_PER_DAY, Action, MarketData, Span
from btcai.simulator.bars import simulate_bars
from btcai.simulator.events import Event
from btcai.simulator.scenarios import SCENARIOS, scenario

CALM = "calm"
"""The simulated market without events, to hold the others against."""

FUNDING = "funding"
"""The scenario that moves nothing but what perpetual swaps pay."""

BESIDE = ("buy_and_hold", "volatility_targeted")
DAYS = 60


@dataclass(frozen=True, kw_only=True)
class StressRow:
    """One strategy in one scenario, at the costs that are judged.

    refused_frac: of the lots that the policy would have opened, those that sizing did not allow; unfamiliar_frac: of
    decision times, those beyond 1; both nan for what has no policy.
    """

    scenario: str
    strategy: str
    net_return: float
    max_drawdown_frac: float
    trades: int
    cost_frac: float
    refused_frac: float
    unfamiliar_frac: float
    unfamiliarity: float
    """Its .99 quantile: 1 on the validation span."""


def stress(policies: Mapping[str, Policy], config: Config, *, seed: int, days: int = DAYS) -> list[StressRow]:
    """Every bucket and two baselines in CALM and every scenario, over so many days after what they look back on."""
    rows = []
    for name in (CALM, *(name for name in SCENARIOS if name != FUNDING or config.market.perpetual.enabled)):
        data, span = _market(name, config, days, seed)
        rows += [
            _row(name, bucket, _walked(policy, data, span, config, bucket), config, policy, data)
            for bucket, policy in policies.items()
        ]
        rules = {"judged": market_rules(config.market, config.market.costs)}
        beside = run_rules_of_thumb(data, span, rules, config.market.equity_usdt, bar_arrays(data))
        rows += [_row(name, rule, beside[rule]["judged"], config) for rule in BESIDE]
    return rows


def _market(name: str, config: Config, days: int, seed: int) -> tuple[MarketData, Span]:
    """The simulated bars with the scenario's events after what is looked back on, and where these are."""
    before = max(bucket.lookback_bars for bucket in config.buckets.values()) + WARMUP_BARS
    n_bars = days * BARS_PER_DAY
    events = () if name == CALM else _events(name, n_bars, seed)
    later = [replace(event, start_bar=event.start_bar + before) for event in events]  # type: ignore[type-var]
    data = build_market(to_grid(simulate_bars(before + n_bars, seed, events=later)))
    return data, Span(before, before + n_bars)


def _events(name: str, n_bars: int, seed: int) -> tuple[Event, ...]:
    """The scenario by the first seed from this one on by which something happens in the first half."""
    found = (scenario(name, n_bars, trial) for trial in count(seed))
    return next(events for events in found if any(event.start_bar < n_bars // 2 for event in events))


def _walked(policy: Policy, data: MarketData, span: Span, config: Config, bucket: str) -> BacktestResult:
    settings = config.buckets[bucket]
    rules = [make_rules(settings, config.market, config.risk)]
    return backtest(policy, data, span, settings, rules, config.sizing, config.market.equity_usdt)[0]


def _row(
    name: str,
    strategy: str,
    result: BacktestResult,
    config: Config,
    policy: Policy | None = None,
    data: MarketData | None = None,
) -> StressRow:
    refused = unfamiliar = usual = float("nan")
    if policy is not None and data is not None and result.encoded is not None:
        sigma = np.asarray(data.sigma)[result.decisions]
        _, allowed = sizes(policy, config.buckets[strategy], config.sizing, result.encoded, sigma)
        wanted = result.actions == Action.BUY
        refused = float(np.mean(~allowed[wanted])) if wanted.any() else float("nan")
        unfamiliar = float(np.mean(result.encoded.unfamiliarity > 1.0))
        usual = float(np.quantile(result.encoded.unfamiliarity, 0.99))
    return StressRow(
        scenario=name,
        strategy=strategy,
        net_return=metrics.net_return(result.equity_usdt, result.start_equity_usdt),
        max_drawdown_frac=metrics.max_drawdown(result.equity_usdt).frac,
        trades=len(result.trades),
        cost_frac=metrics.cost_frac(result.costs_usdt, result.start_equity_usdt),
        refused_frac=refused,
        unfamiliar_frac=unfamiliar,
        unfamiliarity=usual,
    )
