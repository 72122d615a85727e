"""Backtests: the clock, encoding in chunks, no look ahead, and the same numbers as the market's own steps."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import FakePolicy, make_market

from btcai.config import BucketConfig, Config, CostConfig
from btcai.errors import DataError
from btcai.evaluation.backtest import backtest, decision_bars, decisions_with_history, encode_decisions
from btcai.evaluation.result import BacktestResult
from btcai.inference.bundle import Encoded
from btcai.inference.decision import sizes
from btcai.market.account import COSTS_PAID, EQUITY, new_accounts
from btcai.market.bars import bar_arrays
from btcai.market.kernel import decision_step, observe
from btcai.market.reward import TERMS
from btcai.market.rules import FREE_RULES, make_rules
from btcai.params import load_config
from btcai.schema import ACCOUNT_FEATURES, BAR_NS, Action, MarketData, Span

NAMES = ("optimistic", "base", "pessimistic")


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(Path(__file__).resolve().parents[2] / "params.yaml")


def _bucket(config: Config, patch_bars: int = 1, stop_loss_frac: float = 0.01) -> BucketConfig:
    update = {"patch_bars": patch_bars, "max_lots": 5, "stop_loss_frac": stop_loss_frac, "horizons_bars": (3, 12, 36)}
    return config.buckets["scalping"].model_copy(update=update)


def _run(
    config: Config,
    policy: FakePolicy,
    market: MarketData,
    span: Span,
    bucket: BucketConfig,
    names: tuple[str, ...] = NAMES,
) -> list[BacktestResult]:
    costs: list[CostConfig] = [config.market.severities[name] for name in names]  # type: ignore[index]
    rules = [make_rules(bucket, config.market, config.risk, cost) for cost in costs]
    return backtest(policy, market, span, bucket, rules, config.sizing, 100_000.0)


@pytest.mark.parametrize("first_close_bar", [700, 701, 713])
def test_decisions_keep_the_absolute_clock_wherever_the_history_starts(first_close_bar: int) -> None:
    closes = (first_close_bar + np.arange(100, dtype=np.int64)) * BAR_NS
    span = Span(7, 93)
    found = decision_bars(closes, span, 10)
    by_hand = [t for t in range(100) if closes[t] // BAR_NS % 10 == 0 and t >= 7 and t + 10 <= 92]
    assert found.tolist() == by_hand


def test_the_last_decision_leaves_its_patch_inside_the_span() -> None:
    closes = np.arange(50, dtype=np.int64) * BAR_NS
    assert decision_bars(closes, Span(0, 31), 10).tolist() == [0, 10, 20]  # bar 30 is the last bar of 20's patch
    assert decision_bars(closes, Span(0, 30), 10).tolist() == [0, 10]
    assert decision_bars(closes, Span(5, 9), 10).tolist() == []


def test_the_first_decision_has_its_lookback_after_the_warm_up() -> None:
    market = make_market(400, first_close_bar=0, warmup_bars=20)
    decisions = decisions_with_history(FakePolicy(patch_bars=2), market, Span(100, 400))
    assert decisions[0] == 308  # rows 21 .. 308 are its 288; 306 would read row 19
    assert decisions_with_history(FakePolicy(), market, Span(100, 400))[0] == 163


def test_history_before_the_span_is_read_so_that_it_decides_from_its_first_bar() -> None:
    assert decisions_with_history(FakePolicy(), make_market(400), Span(300, 400))[0] == 300


def test_a_span_without_a_decision_names_what_it_needs() -> None:
    with pytest.raises(DataError, match=r"scalping needs 144 bars .* and 1 after it; span 10 \.\. 60"):
        decisions_with_history(FakePolicy(), make_market(100), Span(10, 60))


@pytest.mark.parametrize("patch_bars", [1, 2])
@pytest.mark.parametrize("chunk_decisions", [1, 7, 64, 1000])
def test_encoding_in_chunks_equals_encoding_at_once(patch_bars: int, chunk_decisions: int) -> None:
    market, policy = make_market(600), FakePolicy(patch_bars=patch_bars)
    decisions = decisions_with_history(policy, market, Span(0, 600))
    pieces = encode_decisions(policy, market, decisions, chunk_decisions)
    assert len(pieces) == len(decisions)
    rows = market.features[:, 0]
    for d in (0, 1, 50, len(decisions) - 1):
        window = rows[decisions[d] + 1 - policy.lookback_bars : decisions[d] + 1]
        assert pieces.latent[d, 0] == pytest.approx(window.mean(dtype=np.float64), rel=1e-6)
    at_once = encode_decisions(policy, market, decisions, 10_000)
    assert all(np.array_equal(getattr(pieces, n), getattr(at_once, n)) for n in Encoded.__dataclass_fields__)


def test_encoding_a_long_span_holds_what_it_returns_and_one_chunk_beside() -> None:
    market, policy = make_market(20_000), FakePolicy()
    decisions = decisions_with_history(policy, market, Span(0, 20_000))
    tracemalloc.start()
    try:
        found = encode_decisions(policy, market, decisions, 256)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept_bytes = sum(getattr(found, name).nbytes for name in Encoded.__dataclass_fields__)
    assert len(decisions) > 60 * 256
    assert kept_bytes < peak_bytes < 1.5 * kept_bytes


@pytest.mark.parametrize(("patch_bars", "first_close_bar"), [(1, 1000), (2, 1001)])
def test_backtest_equals_a_loop_of_the_markets_own_decision_steps(
    config: Config, patch_bars: int, first_close_bar: int
) -> None:
    market = make_market(900, seed=2, missing=(400, 401, 555), first_close_bar=first_close_bar)
    policy, bucket, span = FakePolicy(patch_bars=patch_bars), _bucket(config, patch_bars), Span(320, 900)
    results = _run(config, policy, market, span, bucket)
    decisions = results[0].decisions
    encoded = encode_decisions(policy, market, decisions)
    size, allowed = sizes(policy, bucket, config.sizing, encoded, market.sigma[decisions])
    bars, terms, seen = bar_arrays(market), np.zeros(len(TERMS)), np.zeros(len(ACCOUNT_FEATURES), np.float32)
    for result, name in zip(results, NAMES, strict=True):
        rules = make_rules(bucket, config.market, config.risk, config.market.severities[name])  # type: ignore[index]
        accounts, lots = new_accounts(1, bucket.max_lots, 100_000.0)
        account, own = accounts[0], lots[0]
        for d, t in enumerate(decisions.tolist()):
            observe(account, own, bars, t, rules, seen)
            action = int(policy.probabilities(encoded.latent[d : d + 1], seen[None])[0].argmax())
            assert action == result.actions[d]
            decision_step(account, own, bars, t, action, size[d], allowed[d], rules, terms)
            assert account[EQUITY] == result.equity_usdt[t + patch_bars - span.first]
        assert account[COSTS_PAID] == result.costs_usdt > 0.0


def test_closed_lots_add_up_to_the_change_of_equity(config: Config) -> None:
    market, span = make_market(1500, seed=6), Span(200, 1500)
    for result in _run(config, FakePolicy(), market, span, _bucket(config)):
        trades, open_at_end = result.trades, result.n_lots[-1]
        assert len(trades) > 20
        closed = result.equity_usdt[-1] - 100_000.0
        if open_at_end == 0:
            assert trades.profit_usdt.sum() == pytest.approx(closed, abs=1e-6)
        assert (trades.exit_ts_ns >= trades.entry_ts_ns).all()
        rows = np.searchsorted(market.bars.close_ts_ns, trades.entry_ts_ns)
        assert (trades.entry_price >= market.bars.open[rows]).all()
        assert np.allclose(trades.net_return, trades.profit_usdt / (trades.profit_usdt / trades.net_return))


def test_lots_closed_together_are_listed_oldest_first(config: Config) -> None:
    market, span = make_market(1500, seed=6), Span(200, 1500)
    for stop_loss_frac in (0.0, 0.01):  # closed by CLOSE_ALL, then by stops
        (result,) = _run(config, FakePolicy(), market, span, _bucket(config, 1, stop_loss_frac), ("base",))
        together = [lots.entry_ts_ns for _, lots in result.trades.groupby("exit_ts_ns") if len(lots) > 1]
        assert len(together) > 1
        assert all(entries.is_monotonic_increasing for entries in together)
        assert (int(Action.CLOSE_ALL) in result.actions) == (stop_loss_frac == 0.0)


def test_one_lot_bought_and_sold_by_hand(config: Config) -> None:
    # Flat prices of 100 USDT, so that everything that moves is a cost: two sides of 10 bp fee and 1 bp spread.
    market = make_market(160)
    flat = np.full(160, 100.0)
    market = replace(market, bars=replace(market.bars, open=flat, high=flat, low=flat, close=flat), mark=flat)
    rules = FREE_RULES._replace(taker_fee_frac=1e-3, half_spread_frac=1e-4, max_lots=1, compound=True)

    class BuyThenSell(FakePolicy):
        def probabilities(self, latent: np.ndarray, account: np.ndarray) -> np.ndarray:
            chosen = np.where(account[:, 1] > 0, int(Action.CLOSE_ALL), int(Action.BUY))
            return np.eye(4, dtype=np.float32)[chosen]

    bucket = _bucket(config, stop_loss_frac=0.0).model_copy(update={"max_lots": 1})
    (result,) = backtest(BuyThenSell(), market, Span(143, 146), bucket, [rules], config.sizing, 1_000.0)
    assert result.actions.tolist() == [Action.BUY, Action.CLOSE_ALL]
    assert result.equity_usdt[0] == 1_000.0
    (trade,) = result.trades.itertuples()
    assert trade.entry_price == pytest.approx(100.01)
    assert trade.exit_price == pytest.approx(99.99)
    assert trade.net_return == pytest.approx(99.99 * 0.999 / (100.01 * 1.001) - 1)
    assert result.equity_usdt[2] == pytest.approx(1_000.0 + trade.profit_usdt)
    assert result.traded_usdt == pytest.approx(trade.btc * 200.0)
    assert result.costs_usdt == pytest.approx(-trade.profit_usdt)
    assert (trade.entry_ts_ns, trade.exit_ts_ns) == tuple(market.bars.close_ts_ns[[144, 145]])


def test_higher_costs_earn_less(config: Config) -> None:
    market = make_market(1500, seed=6)
    ends = [result.equity_usdt[-1] for result in _run(config, FakePolicy(), market, Span(200, 1500), _bucket(config))]
    assert ends[0] > ends[1] > ends[2]


def test_accounts_that_walk_together_do_not_touch_each_other(config: Config) -> None:
    market, span = make_market(700, seed=8), Span(200, 700)
    together = _run(config, FakePolicy(), market, span, _bucket(config))
    for name, result in zip(NAMES, together, strict=True):
        (alone,) = _run(config, FakePolicy(), market, span, _bucket(config), (name,))
        assert np.array_equal(alone.equity_usdt, result.equity_usdt)
        assert alone.trades.equals(result.trades)


def test_a_policy_that_holds_does_not_trade(config: Config) -> None:
    policy = FakePolicy(always=Action.HOLD)
    for result in _run(config, policy, make_market(400), Span(150, 400), _bucket(config)):
        assert np.array_equal(result.equity_usdt, np.full(250, 100_000.0))
        assert (result.traded_usdt, len(result.trades), result.n_lots.max()) == (0.0, 0, 0)


def test_an_oracle_of_the_next_bar_makes_money_and_its_opposite_loses(config: Config) -> None:
    market, span = make_market(1200, seed=9), Span(200, 1200)
    ahead = np.append(market.features[1:, 0], np.float32(0.0))

    class Oracle(FakePolicy):
        sign = 1.0

        def encode(self, features: np.ndarray) -> Encoded:
            encoded = super().encode(features)
            return replace(encoded, latent=self.sign * 100 * features[143:, :1])

    class Opposite(Oracle):
        sign = -1.0

    leaked = replace(market, features=np.stack([ahead, market.features[:, 1], market.features[:, 2]], axis=1))
    bucket = _bucket(config, stop_loss_frac=0.0).model_copy(update={"max_lots": 1})
    costs = config.market.severities["optimistic"].model_copy(update={"taker_fee_bps": 0.0})
    rules = [make_rules(bucket, config.market, config.risk, costs)]
    for policy, wins in ((Oracle(), True), (Opposite(), False)):
        (result,) = backtest(policy, leaked, span, bucket, rules, config.sizing, 1e5)
        assert (result.equity_usdt[-1] > 1e5) == wins


@pytest.mark.parametrize("patch_bars", [1, 2])
@pytest.mark.parametrize("cut", [350, 431, 555, 698])
def test_overwriting_the_future_changes_no_decision_and_no_equity_up_to_then(
    config: Config, patch_bars: int, cut: int
) -> None:
    market, other, span = make_market(700, seed=3), make_market(700, seed=33), Span(300, 700)
    columns = {}
    for name in ("open", "high", "low", "close", "volume"):
        past, future = getattr(market.bars, name)[: cut + 1], getattr(other.bars, name)[cut + 1 :]
        columns[name] = np.concatenate([past, 2 * future])
    poisoned = replace(
        market,
        bars=replace(market.bars, **columns),
        mark=np.concatenate([market.mark[: cut + 1], 2 * other.mark[cut + 1 :]]),
        sigma=np.concatenate([market.sigma[: cut + 1], 5 * other.sigma[cut + 1 :]]),
        features=np.concatenate([market.features[: cut + 1], -9 * other.features[cut + 1 :]]),
    )
    policy, bucket = FakePolicy(patch_bars=patch_bars), _bucket(config, patch_bars)
    honest, changed = (_run(config, policy, one, span, bucket) for one in (market, poisoned))
    for before, after in zip(honest, changed, strict=True):
        known = before.decisions <= cut
        assert known.any()
        assert before.traded_usdt > 0.0
        assert np.array_equal(before.actions[known], after.actions[known])
        assert np.array_equal(before.equity_usdt[: cut + 1 - span.first], after.equity_usdt[: cut + 1 - span.first])
        assert np.array_equal(before.position_frac[: cut + 1 - span.first], after.position_frac[: cut + 1 - span.first])


def test_an_order_knows_nothing_of_the_features_and_volatility_after_its_decision(config: Config) -> None:
    # Bars stay as they are, so that the fill right after the cut can be compared: it must not change either.
    market, span, bucket = make_market(500, seed=3), Span(200, 500), _bucket(config)
    (honest,) = _run(config, FakePolicy(), market, span, bucket, ("pessimistic",))
    bought = span.first + np.flatnonzero(np.diff(honest.n_lots) > 0)  # the decision bars before each purchase
    assert len(bought) >= 5
    for cut in bought[:5]:
        future = np.arange(500) > cut
        poisoned = replace(
            market,
            sigma=np.where(future, market.sigma / 100, market.sigma),
            features=np.where(future[:, None], -market.features, market.features),
        )
        (changed,) = _run(config, FakePolicy(), poisoned, span, bucket, ("pessimistic",))
        known = cut + 2 - span.first
        assert np.array_equal(honest.equity_usdt[:known], changed.equity_usdt[:known])
        assert not np.array_equal(honest.equity_usdt, changed.equity_usdt)


def test_the_same_run_gives_the_same_bits(config: Config) -> None:
    market, span = make_market(500, seed=4), Span(200, 500)
    first, second = (_run(config, FakePolicy(), market, span, _bucket(config)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.equity_usdt, other.equity_usdt)
        assert one.trades.equals(other.trades)


def test_nothing_fills_while_bars_are_missing(config: Config) -> None:
    missing = tuple(range(220, 240))
    market = make_market(400, missing=missing)
    (result,) = _run(config, FakePolicy(always=Action.BUY), market, Span(219, 400), _bucket(config), ("base",))
    assert not result.n_lots[: 240 - 219].any()
    assert result.n_lots[240 - 219] == 1


def test_deposits_change_no_figure_but_the_size_of_what_is_traded(config: Config) -> None:
    market, span = make_market(1500, seed=6), Span(200, 1500)
    rules = make_rules(_bucket(config), config.market, config.risk)._replace(
        lot_step_btc=0.0, impact_coef=0.0, max_volume_share=1.0, min_notional_usdt=0.0, tick_usdt=0.0
    )
    paid = rules._replace(transfer_every_days=1, transfer_usdt=20_000.0)
    plain, fed = backtest(FakePolicy(), market, span, _bucket(config), (rules, paid), config.sizing, 100_000.0)
    assert len(plain.trades) > 20
    np.testing.assert_array_equal(fed.actions, plain.actions)
    growth = [result.equity_usdt[1:] / result.equity_usdt[:-1] for result in (plain, fed)]
    np.testing.assert_allclose(growth[1], growth[0], rtol=0.01)
    assert fed.costs_usdt == pytest.approx(plain.costs_usdt, rel=0.2)  # a lot is a smaller share after a deposit
    assert fed.traded_usdt == pytest.approx(plain.traded_usdt, rel=0.2)
