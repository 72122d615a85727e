"""Closed trades taken apart: parts by hand, that they add up to the profit, and costs as the account counts them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import FakePolicy, make_market
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.config import Config
from btcai.evaluation.backtest import backtest
from btcai.evaluation.result import trades_table
from btcai.market.rules import make_rules
from btcai.params import load_config
from btcai.reasoning.posttrade import PARTS, entry_decisions, predicted_and_actual, split_profits, totals
from btcai.schema import FloatArray, MarketData, Span

WHOLE = Span(0, 60)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(Path(__file__).resolve().parents[2] / "params.yaml")


def market_of(opened: FloatArray, mark: FloatArray) -> MarketData:
    """Bars that go from each open to each mark and no further."""
    market = make_market(len(mark))
    high, low = np.maximum(opened, mark), np.minimum(opened, mark)
    return replace(market, bars=replace(market.bars, open=opened, high=high, low=low, close=mark), mark=mark)


def trade(
    market: MarketData, entry_bar: int, exit_bar: int, btc: float, entry: float, leave: float, fee: float = 0.0
) -> pd.DataFrame:
    """One closed lot, the fee of both sides a share of its notional."""
    signed, size = btc * (leave - entry), abs(btc)
    cost = size * entry * (1 + np.sign(btc) * fee)
    proceeds = cost + signed - fee * size * (entry + leave)
    rows = np.array([[entry_bar, exit_bar, btc, entry, leave, cost, proceeds]])
    return trades_table(rows, market.bars.close_ts_ns)


def parts_of(market: MarketData, trades: pd.DataFrame, stop_loss_frac: float = 0.0) -> dict[str, float]:
    split = split_profits(trades, market, Span(0, len(market)), window_bars=1, stop_loss_frac=stop_loss_frac)
    return {name.removesuffix("_usdt"): float(split[name].iloc[0]) for name in PARTS}


def test_one_trade_by_hand() -> None:
    # Marks 100 but for the bars around the exit; entered at 100.5 where the market stood at 100, left at 119 of 120.
    mark = np.full(12, 100.0)
    mark[7:] = 118.0
    opened = np.concatenate(([100.0], mark[:-1]))
    opened[8] = 120.0
    market = market_of(opened, mark)
    parts = parts_of(market, trade(market, 2, 8, 2.0, 100.5, 119.0, fee=0.001))
    drift = 2.0 * 100.0 * (0.18 / 11) * 6
    assert parts["drift"] == pytest.approx(drift)
    assert parts["direction"] == pytest.approx(2.0 * 18.0 - drift)
    assert parts["timing"] == pytest.approx(2.0 * (0.0 + 2.0))
    assert parts["sizing"] == 0.0
    assert parts["costs"] == pytest.approx(-2.0 * (0.5 + 1.0) - 0.001 * 2.0 * (100.5 + 119.0))


def test_a_short_earns_from_a_fall() -> None:
    mark = np.concatenate((np.full(6, 100.0), np.full(6, 80.0)))
    market = market_of(np.concatenate(([100.0], mark[:-1])), mark)
    parts = parts_of(market, trade(market, 2, 9, -1.5, 100.0, 80.0))
    assert parts["direction"] + parts["drift"] == pytest.approx(30.0)
    assert parts["drift"] > 0.0  # the span fell as well
    assert (parts["timing"], parts["sizing"], parts["costs"]) == (0.0, 0.0, 0.0)


def test_size_is_held_against_the_mean_notional_of_all_trades() -> None:
    mark = np.concatenate((np.full(6, 100.0), np.full(6, 110.0)))
    market = market_of(np.concatenate(([100.0], mark[:-1])), mark)
    both = pd.concat([trade(market, 2, 9, btc, 100.0, 110.0) for btc in (3.0, 1.0)], ignore_index=True)
    split = split_profits(both, market, Span(0, 12), window_bars=1, stop_loss_frac=0.0)
    assert split["sizing_usdt"].tolist() == pytest.approx([10.0, -10.0])
    assert split["direction_usdt"].iloc[0] == pytest.approx(split["direction_usdt"].iloc[1])
    assert totals(split)["profit_usdt"] == pytest.approx(both["profit_usdt"].sum())


@pytest.mark.parametrize(
    ("leave", "stop_loss_frac", "reference"),
    [
        (94.9, 0.05, 95.0),  # stopped inside the bar
        (97.5, 0.05, 98.0),  # sold at the open, before the stop
        (97.5, 0.0, 98.0),
        (99.0, 0.0, 99.0),  # better than the open: a target, or an order that rested
    ],
)
def test_the_price_without_costs_at_an_exit(leave: float, stop_loss_frac: float, reference: float) -> None:
    mark = np.full(8, 100.0)
    opened = np.full(8, 100.0)
    opened[5] = 98.0
    market = market_of(opened, mark)
    market = replace(market, bars=replace(market.bars, low=np.full(8, 94.0)))
    parts = parts_of(market, trade(market, 2, 5, 1.0, 100.0, leave), stop_loss_frac)
    assert parts["costs"] == pytest.approx(leave - reference)
    assert parts["timing"] == pytest.approx(reference - 100.0)


def test_a_gap_through_the_stop_costs_from_the_open() -> None:
    opened = np.full(8, 100.0)
    opened[5] = 90.0
    market = market_of(opened, np.full(8, 90.0))
    parts = parts_of(market, trade(market, 2, 5, 1.0, 100.0, 89.5), 0.05)
    assert parts["costs"] == pytest.approx(-0.5)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 40), window_bars=st.integers(1, 30), stop=st.sampled_from([0.0, 0.02])
)
def test_the_parts_add_up_to_the_profit(seed: int, n: int, window_bars: int, stop: float) -> None:
    market, rng = make_market(60, seed), np.random.default_rng(seed)
    bars = np.sort(rng.integers(1, 60, (n, 2)), axis=1)
    trades = pd.concat(
        [
            trade(
                market,
                *map(int, bars[i]),
                float(rng.normal()),
                *(market.bars.open[bars[i]] * rng.uniform(0.99, 1.01, 2)).tolist(),
                fee=float(rng.uniform(0, 0.01)),
            )
            for i in range(n)
        ],
        ignore_index=True,
    )
    split = split_profits(trades, market, WHOLE, window_bars=window_bars, stop_loss_frac=stop)
    scale = np.abs(trades["btc"].to_numpy()) * 30_000.0
    assert np.all(np.abs(split.sum(axis=1) - trades["profit_usdt"]) <= 1e-9 * scale)


@pytest.mark.parametrize("stop_loss_frac", [0.0, 0.005])
@pytest.mark.parametrize("name", ["base", "pessimistic"])
def test_costs_are_those_that_the_account_counted(config: Config, stop_loss_frac: float, name: str) -> None:
    market, span = make_market(3000, seed=6), Span(200, 3000)
    bucket = config.buckets["scalping"].model_copy(
        update={"max_lots": 5, "stop_loss_frac": stop_loss_frac, "take_profit_frac": 0.0, "horizons_bars": (3, 12, 36)}
    )
    market_config = config.market.model_copy(
        update={"exchange": config.market.exchange.model_copy(update={"maker_bars": 0})}
    )
    rules = make_rules(bucket, market_config, config.risk, config.market.severities[name])  # type: ignore[index]
    (result,) = backtest(FakePolicy(), market, span, bucket, [rules], config.sizing, 100_000.0)
    assert len(result.trades) > 20
    split = split_profits(result.trades, market, span, window_bars=6, stop_loss_frac=stop_loss_frac)
    assert split.sum(axis=1).to_numpy() == pytest.approx(result.trades["profit_usdt"].to_numpy(), abs=1e-6)
    open_at_end = 0.002 * 100_000.0 / 5 * float(result.n_lots[-1])  # entry costs of lots that are in no trade
    assert -split["costs_usdt"].sum() == pytest.approx(result.costs_usdt, abs=open_at_end + 1e-6 * result.costs_usdt)


def test_no_trades_have_no_parts() -> None:
    market = make_market(60)
    none = trade(market, 1, 2, 1.0, 1.0, 1.0).iloc[:0]
    assert len(split_profits(none, market, WHOLE, window_bars=3, stop_loss_frac=0.0)) == 0
    with pytest.raises(ValueError, match="window_bars must be at least 1, was 0"):
        split_profits(none, market, WHOLE, window_bars=0, stop_loss_frac=0.0)


def test_trades_of_another_market_are_refused() -> None:
    market, other = make_market(60), make_market(60, first_close_bar=1)
    with pytest.raises(ValueError, match="must lie on the market's bars"):
        split_profits(trade(market, 1, 2, 1.0, 1.0, 1.0), other, WHOLE, window_bars=3, stop_loss_frac=0.0)


def test_a_forecast_beside_what_came_by_hand() -> None:
    mark = 100.0 * np.exp(0.01 * np.arange(40))
    market = market_of(np.concatenate(([100.0], mark[:-1])), mark)
    decisions = np.array([10, 20, 30])
    mean = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32)
    quantiles = mean[:, :, None] + np.linspace(-0.15, 0.15, 7, dtype=np.float32)
    both = pd.concat(
        [trade(market, 21, 33, 1.0, 100.0, 110.0), trade(market, 31, 34, -1.0, 100.0, 110.0)], ignore_index=True
    )
    found = predicted_and_actual(both, market, decisions, mean, quantiles, (5, 10))
    assert entry_decisions(both, market, decisions).tolist() == [1, 2]
    same_bar = trade(market, 20, 33, 1.0, 100.0, 110.0)  # filled in the bar at whose close the second was taken
    assert entry_decisions(same_bar, market, decisions).tolist() == [0]
    assert found["held_bars"].tolist() == [12, 3]
    assert found["horizon_bars"].tolist() == [10, 5]  # the nearest by ratio
    assert found["predicted"].tolist() == pytest.approx([0.4, 0.5])
    assert found["low"].tolist() == pytest.approx([0.25, 0.35])
    assert found["actual"].tolist() == pytest.approx([0.1, 0.05])
    assert found["inside"].tolist() == [0.0, 0.0]
    assert found["earned"].tolist() == pytest.approx([np.log(1.1), -np.log(1.1)])


def test_what_the_history_does_not_hold_yet_is_unknown() -> None:
    market = make_market(40)
    decisions, mean = np.array([35]), np.zeros((1, 1), np.float32)
    found = predicted_and_actual(
        trade(market, 36, 39, 1.0, 1.0, 1.0), market, decisions, mean, np.zeros((1, 1, 7), np.float32), (5,)
    )
    assert found[["actual", "inside"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="entered at bar 30, before the first decision at 35"):
        predicted_and_actual(
            trade(market, 30, 39, 1.0, 1.0, 1.0), market, decisions, mean, np.zeros((1, 1, 7), np.float32), (5,)
        )
