"""Nothing at or before t knows of anything after t: the whole chain, rerun on futures that were overwritten."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from export_fakes import N_BARS, TRAIN, exported, frame, loud_network, market, splits, tiny_config
from hypothesis import given
from hypothesis import strategies as st
from learning_tasks import played, settings

from btcai.agent.task import Task, sample_stretches
from btcai.data.store import to_grid
from btcai.envs.scenario import Scenario
from btcai.envs.trading_env import TradingEnv
from btcai.evaluation.backtest import backtest, decisions_with_history, encode_decisions
from btcai.evaluation.result import BacktestResult
from btcai.features.pipeline import build_market
from btcai.features.scaling import fit_scaler
from btcai.inference.bundle import Encoded, Policy, load_bundle
from btcai.market.rules import make_rules
from btcai.models.trunk import BANDED
from btcai.schema import BUCKETS, TOKENS, Float32Array, FloatArray, MarketData, Span
from btcai.training.calibrating import calibrate
from btcai.training.checkpoint import TorchPolicy
from btcai.training.progressive import make_task

CONFIG = tiny_config()
CUTS = (4321, 6000, 9401)
SPAN = Span(4000, N_BARS)
VALID = Span(7100, 9000)
CHAINS: dict[tuple[str, int | None], tuple[MarketData, Encoded, BacktestResult]] = {}


def overwritten(cut: int) -> pd.DataFrame:
    """The raw bars with everything after bar `cut` three times as dear, untraded, and one in three missing."""
    bars = frame().copy()
    future = bars.index > cut
    bars.loc[future, ["open", "high", "low", "close"]] *= 3.0
    bars.loc[future, "volume"] = 0.0
    missing = future & (bars.index % 3 == 0) & (bars.index < N_BARS - 1)
    return bars[~missing].reset_index(drop=True)


def chain(bucket_name: str, cut: int | None) -> tuple[MarketData, Encoded, BacktestResult]:
    """Raw bars -> grid -> features -> predictions -> backtest of a loud network; run once for each cut."""
    if (bucket_name, cut) not in CHAINS:
        data = market() if cut is None else build_market(to_grid(overwritten(cut)))
        policy, bucket = (
            TorchPolicy(loud_network(CONFIG, bucket_name, seed=1), bucket_name, CONFIG),
            CONFIG.buckets[bucket_name],
        )
        encoded = encode_decisions(policy, data, decisions_with_history(policy, data, SPAN))
        rules = [make_rules(bucket, CONFIG.market, CONFIG.risk)]
        (result,) = backtest(policy, data, SPAN, bucket, rules, CONFIG.sizing, CONFIG.market.equity_usdt)
        CHAINS[bucket_name, cut] = data, encoded, result
    return CHAINS[bucket_name, cut]


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("bucket_name", ["scalping", "medium"])
def test_an_overwritten_future_changes_nothing_up_to_its_cut(bucket_name: str, cut: int) -> None:
    data, encoded, result = chain(bucket_name, None)
    other_data, other_encoded, other_result = chain(bucket_name, cut)
    assert len(other_data) == len(data) == N_BARS
    assert not np.array_equal(data.features[cut + 1 :], other_data.features[cut + 1 :])  # the future did change
    for name in ("features", "mark", "sigma"):
        assert np.array_equal(getattr(data, name)[: cut + 1], getattr(other_data, name)[: cut + 1]), name
    known = result.decisions <= cut
    assert known.any()
    for name in Encoded.__dataclass_fields__:
        assert np.array_equal(getattr(encoded, name)[known], getattr(other_encoded, name)[known]), name
    assert np.array_equal(result.actions[known], other_result.actions[known])
    bars = cut + 1 - SPAN.first
    for name in ("equity_usdt", "position_frac", "n_lots"):
        assert np.array_equal(getattr(result, name)[:bars], getattr(other_result, name)[:bars]), name
    closed = [r.trades[r.trades["exit_ts_ns"] <= data.bars.close_ts_ns[cut]] for r in (result, other_result)]
    pd.testing.assert_frame_equal(*closed)


@pytest.mark.slow
@pytest.mark.parametrize("bucket_name", ["scalping", "medium"])
def test_the_network_of_these_tests_trades_and_would_show_a_leak(bucket_name: str) -> None:
    _, encoded, result = chain(bucket_name, None)
    assert len(set(result.actions)) >= 2
    assert result.traded_usdt > 0
    assert encoded.latent.std(0).min() > 0
    later = result.decisions > CUTS[0]
    assert not np.array_equal(result.actions[later], chain(bucket_name, CUTS[0])[2].actions[later])


@pytest.mark.parametrize("cut", CUTS)
def test_a_scaler_fitted_before_the_cut_knows_nothing_after_it(cut: int) -> None:
    span, other = Span(TRAIN.first, cut + 1), build_market(to_grid(overwritten(cut)))
    fitted, again = fit_scaler(market().features, span), fit_scaler(other.features, span)
    assert np.array_equal(fitted.mean, again.mean)
    assert np.array_equal(fitted.std, again.std)
    wider = Span(TRAIN.first, cut + 3)  # two bars more, of which one is there, and it does
    assert not np.array_equal(fitted.mean, fit_scaler(other.features, wider).mean)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("bucket_name", ["scalping", "medium"])
def test_observations_and_rewards_of_the_environment_end_at_the_cut(bucket_name: str, cut: int) -> None:
    bucket = CONFIG.buckets[bucket_name]
    rules = make_rules(bucket, CONFIG.market, CONFIG.risk)
    fitted = fit_scaler(market().features, Span(TRAIN.first, 4300))
    walks = []
    for data in (market(), build_market(to_grid(overwritten(cut)))):
        env = TradingEnv(Scenario(data, Span(2016, N_BARS), rules, fitted))
        steps = min(40, (cut - 2016) // bucket.patch_bars - TOKENS)
        # the last of these steps ends exactly at the cut
        observation, info = env.reset(options={"start_bar": cut - steps * bucket.patch_bars})
        seen, rewards, actions = [observation], [], np.random.default_rng(cut).integers(0, 4, steps + 1)
        for action in actions:
            observation, reward, _, _, info = env.step(action)
            seen.append(observation)
            rewards.append(reward)
        assert info["bar"] == cut + bucket.patch_bars
        walks.append((seen, rewards))
    (seen, rewards), (other_seen, other_rewards) = walks
    assert np.count_nonzero(rewards) > 5
    for step in range(len(seen) - 1):
        for half in ("market", "account"):
            assert np.array_equal(seen[step][half], other_seen[step][half])
    assert rewards[:-1] == other_rewards[:-1]
    assert not np.array_equal(seen[-1]["market"], other_seen[-1]["market"])


def check_reach(policy: Policy, rows: Float32Array) -> None:
    """rows hold decisions t - patch and t; the row before t's window is read by the first alone."""

    def changed(row: int) -> tuple[list[bool], list[bool]]:
        """Whether latent and mean of the two decisions move when all values of one row do."""
        other = rows.copy()
        other[row, :-1] -= 0.5 * np.sign(other[row, :-1])  # inwards: never clipped away
        after = policy.encode(other)
        moved = [[not np.array_equal(a[d], b[d]) for d in (0, 1)] for a, b in
                 ((before.latent, after.latent), (before.mean, after.mean))]  # fmt: skip
        return moved[0], moved[1]

    before = policy.encode(rows)
    t = len(rows) - 1
    outside, inside = t - policy.lookback_bars, t - policy.lookback_bars + 1
    assert changed(outside) == ([True, False], [True, False])
    assert changed(inside)[0][1]
    assert changed(inside)[1][1]
    assert changed(t) == ([False, True], [False, True])  # and the newest row is of the newest decision alone


def rows_of_two_decisions(patch_bars: int) -> Float32Array:
    return market().features[9000 - (TOKENS + 1) * patch_bars : 9000].copy()


@pytest.mark.parametrize("bucket_name", BUCKETS)
def test_a_decision_reads_its_oldest_row_and_not_the_one_before(bucket_name: str) -> None:
    policy = TorchPolicy(loud_network(CONFIG, bucket_name), bucket_name, CONFIG)
    check_reach(policy, rows_of_two_decisions(policy.patch_bars))


@pytest.mark.slow
@pytest.mark.parametrize("bucket_name", BUCKETS)
def test_an_exported_decision_reads_its_oldest_row_and_not_the_one_before(bucket_name: str) -> None:
    bundle = load_bundle(exported(bucket_name)[1])
    assert bundle.settings == settings().buckets[bucket_name]
    check_reach(bundle, rows_of_two_decisions(bundle.patch_bars))


def poisoned(task: Task, span: Span, value: float) -> Task:
    """The task with every feature and every price outside the span overwritten."""
    outside = np.ones(len(task.features), np.bool_)
    outside[span.first : span.stop] = False

    def spoil(column: FloatArray) -> FloatArray:
        return np.where(outside, value, column)

    old = task.bars
    bars = old._replace(
        open=spoil(old.open),
        high=spoil(old.high),
        low=spoil(old.low),
        volume=spoil(old.volume),
        mark=spoil(old.mark),
        sigma=spoil(old.sigma),
    )
    features = np.where(outside[:, None], np.float32(value), task.features)
    return replace(task, bars=bars, features=features)


def test_calibration_reads_its_own_span_only() -> None:
    task = make_task(market(), splits(TRAIN, VALID), "scalping", CONFIG)
    clean, spoiled = loud_network(CONFIG, "scalping"), loud_network(CONFIG, "scalping")
    assert calibrate(clean, task) == calibrate(spoiled, poisoned(task, VALID, 1e3))
    assert torch.equal(clean.quantile_offset, spoiled.quantile_offset)
    assert torch.equal(clean.std_factor, spoiled.std_factor)
    assert not torch.equal(clean.std_factor, torch.ones_like(clean.std_factor))


def test_what_is_familiar_is_read_from_the_training_and_the_validation_span_only() -> None:
    task = make_task(market(), splits(TRAIN, VALID), "scalping", CONFIG)
    clean, spoiled = loud_network(CONFIG, "scalping"), loud_network(CONFIG, "scalping")
    both = Span(TRAIN.first, VALID.stop)
    assert calibrate(clean, task) == calibrate(spoiled, poisoned(task, both, float("nan")))
    for name in ("usual_mean", "usual_root", "usual_far"):
        assert torch.equal(getattr(clean, name), getattr(spoiled, name))


def test_a_scaler_reads_its_own_span_only() -> None:
    task = poisoned(make_task(market(), splits(TRAIN, VALID), "scalping", CONFIG), TRAIN, float("nan"))
    fitted, again = fit_scaler(market().features, TRAIN), fit_scaler(task.features, TRAIN)
    assert np.array_equal(fitted.mean, again.mean)
    assert np.array_equal(fitted.std, again.std)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    bucket_name=st.sampled_from(["scalping", "short", "medium"]),
    first=st.integers(0, 5000),
    spare=st.integers(1, 400),
)
def test_training_never_reads_or_earns_outside_its_span(seed: int, bucket_name: str, first: int, spare: int) -> None:
    patch, decisions = CONFIG.buckets[bucket_name].patch_bars, BANDED
    span = Span(first, first + (TOKENS + decisions) * patch + spare - 1)  # spare = 1: exactly one start fits
    task = poisoned(make_task(market(), splits(span, VALID), bucket_name, CONFIG), span, float("nan"))
    rng = np.random.default_rng(seed)
    stretches = sample_stretches(task, task.train, 4, decisions, rng)
    assert np.isfinite(stretches.tokens).all()
    assert np.isfinite(stretches.target[stretches.known]).all()
    assert stretches.bars.min() - TOKENS * patch + 1 >= span.first
    found = played(loud_network(CONFIG, bucket_name), task, stretches, 2, rng)
    rollout = found.rollout
    for paid in (rollout.reward, rollout.observation, rollout.value, rollout.terms, found.surprise):
        assert np.isfinite(paid).all()


def test_a_decision_on_a_missing_bar_keeps_the_unit_of_its_forecasts() -> None:
    config = tiny_config()
    whole = to_grid(frame())
    present = whole.present.copy()
    present[8999] = False
    gap = replace(
        whole,
        present=present,
        volume=np.where(present, whole.volume, 0.0),
        **{name: np.where(present, getattr(whole, name), np.nan) for name in ("open", "high", "low", "close")},
    )
    policy = TorchPolicy(loud_network(config, "scalping"), "scalping", config)
    before, at = (
        policy.encode(build_market(gap).features[stop - policy.lookback_bars : stop]) for stop in (8999, 9000)
    )
    assert np.all(at.std < 2 * before.std)
    assert np.all(at.std > before.std / 2)
