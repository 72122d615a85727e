"""Costs that a result must survive: dearer and later than those it is judged at."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import make_market

from btcai.config import MarketConfig
from btcai.evaluation.robustness import cost_variants
from btcai.evaluation.targets import run_targets
from btcai.market.rules import market_rules
from btcai.params import load_config
from btcai.schema import Span


@pytest.fixture(scope="module")
def market_config(root: Path) -> MarketConfig:
    return load_config(root / "params.yaml").market


def test_the_variants_stand_after_the_severities_and_come_from_the_judged_one(market_config: MarketConfig) -> None:
    found = cost_variants(market_config)
    assert list(found) == ["optimistic", "base", "pessimistic", "costs_x1.5", "one_bar_later"]
    judged, dearer, later = found["pessimistic"], found["costs_x1.5"], found["one_bar_later"]
    assert judged == market_config.costs
    assert (dearer.taker_fee_bps, dearer.maker_fee_bps, dearer.half_spread_bps) == (15.0, 15.0, 1.5)
    assert (dearer.impact_coef, dearer.max_volume_share, dearer.latency_bars) == (1.5, 0.1, 0)
    assert later == judged.model_copy(update={"latency_bars": 1})


def test_a_rebate_is_not_made_larger(market_config: MarketConfig) -> None:
    costs = market_config.costs.model_copy(update={"maker_fee_bps": -1.0})
    config = market_config.model_copy(update={"severities": {**market_config.severities, "pessimistic": costs}})
    assert cost_variants(config)["costs_x1.5"].maker_fee_bps == -1.0


def test_both_make_the_same_trades_worse_or_later(market_config: MarketConfig) -> None:
    market, span = make_market(400, seed=3), Span(0, 400)
    targets = np.where(np.arange(400) % 40 == 0, 1.0, np.where(np.arange(400) % 40 == 20, 0.0, np.nan))
    paid, entered = {}, {}
    for name, costs in cost_variants(market_config).items():
        result = run_targets(targets, market, span, market_rules(market_config, costs), 1e4)
        paid[name], entered[name] = result.costs_usdt / result.traded_usdt, result.trades.entry_ts_ns.to_numpy()
    assert paid["costs_x1.5"] == pytest.approx(1.5 * paid["pessimistic"], rel=0.01)
    assert np.all(entered["one_bar_later"] - entered["pessimistic"] == 300 * 10**9)
