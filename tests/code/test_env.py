"""The gymnasium environment: its contract, and that its numbers are the kernel's."""

from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from market_world import FREE, Trader, make_market

from btcai.config import BucketConfig, load_config
from btcai.errors import DataError
from btcai.features.scaling import Scaler, fit_scaler
from btcai.market.env import TradingEnv
from btcai.market.kernel import Rules, make_rules
from btcai.market.known_answer import LEVELS, known_answer_market, known_answer_rules
from btcai.market.reward import TERMS
from btcai.schema import MarketData, Span

RULES = known_answer_rules(LEVELS["easy"])._replace(max_lots=3)


@pytest.fixture(scope="module")
def data() -> MarketData:
    return known_answer_market(LEVELS["easy"], 600, seed=3, shown=True, n_noise_features=2)[0]


@pytest.fixture(scope="module")
def bucket(root: Path) -> BucketConfig:
    return load_config(root / "params.yaml").buckets["scalping"]


def make_env(
    data: MarketData, bucket: BucketConfig, rules: Rules = RULES, span: Span | None = None, **options: object
) -> TradingEnv:
    span = span or Span(0, len(data))
    return TradingEnv(data, span, bucket, rules, fit_scaler(data.features, span), **options)


def test_environment_keeps_the_gymnasium_contract(data: MarketData, bucket: BucketConfig) -> None:
    check_env(make_env(data, bucket, episode_decisions=50), skip_render_check=True)


def test_every_number_is_the_kernels(data: MarketData, bucket: BucketConfig) -> None:
    rules = RULES._replace(half_spread_frac=1e-4, stop_loss_frac=0.01, w_win=0.5, w_drawdown=0.3)
    env = make_env(data, bucket, rules, size_frac=0.2)
    observation, info = env.reset(seed=1)
    assert info["bar"] == 143
    trader = Trader(data, rules, 100_000.0)
    trader.t = 143
    rng = np.random.default_rng(2)
    truncated = False
    while not truncated:
        assert observation["account"].tolist() == list(trader.seen().values())
        action = int(rng.integers(4))
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated) == trader.decide(action, 0.2)
        assert info["reward_terms"] == dict(zip(TERMS, trader.terms.tolist(), strict=True))
        assert info["bar"] == trader.t
    assert info["bar"] == 599
    assert info["costs_usdt"] > 0


def test_market_half_is_the_scaled_lookback_up_to_the_decision(data: MarketData, bucket: BucketConfig) -> None:
    span = Span(100, 500)
    env = make_env(data, bucket, span=span)
    observation, info = env.reset()
    assert info["bar"] == 100 + 143
    scaler = fit_scaler(data.features, span)
    expected = np.clip((data.features[100:244] - scaler.mean) / scaler.std, -5, 5)
    np.testing.assert_array_equal(observation["market"], expected)


def test_missing_bar_is_a_row_of_zeros(bucket: BucketConfig) -> None:
    gappy = make_market([100.0] * 200, missing=[50])
    scaler = Scaler(mean=np.array([7, 0], np.float32), std=np.ones(2, np.float32))
    observation, _ = TradingEnv(gappy, Span(0, 200), bucket, FREE, scaler).reset()
    assert observation["market"][50].tolist() == [0.0, 0.0]
    assert observation["market"][51].tolist() == [-5.0, 1.0]


def test_same_seed_gives_the_same_episode(data: MarketData, bucket: BucketConfig) -> None:
    def episode(seed: int) -> list[float]:
        env = make_env(data, bucket, episode_decisions=40, seed=seed)
        out = [float(env.reset()[1]["bar"])]
        return out + [env.step(action)[1] for action in np.random.default_rng(0).integers(0, 4, 40)]

    assert episode(5) == episode(5)
    assert episode(5) != episode(6)


def test_seed_of_the_constructor_is_that_of_reset(data: MarketData, bucket: BucketConfig) -> None:
    built, reset = make_env(data, bucket, episode_decisions=40, seed=9), make_env(data, bucket, episode_decisions=40)
    assert built.reset()[1] == reset.reset(seed=9)[1]
    assert built.reset()[1] == reset.reset()[1]  # and goes on from there: not the same episode again


def test_episode_is_truncated_and_not_terminated_at_its_length(data: MarketData, bucket: BucketConfig) -> None:
    env = make_env(data, bucket, episode_decisions=3)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_last_reward_lies_inside_the_span(data: MarketData, bucket: BucketConfig) -> None:
    env = make_env(data, bucket, RULES._replace(patch_bars=4), span=Span(0, 300))
    env.reset(options={"start_bar": 290})
    assert env.step(0)[3] is False  # paid to bar 294, and the next one to bar 298
    _, _, _, truncated, info = env.step(0)
    assert truncated is True
    assert info["bar"] == 298


def test_ruin_terminates(bucket: BucketConfig) -> None:
    crash = make_market([100.0] * 150 + [5.0] * 10)
    env = make_env(crash, bucket, FREE._replace(max_lots=1), span=Span(0, 160))
    env.reset(options={"start_bar": 146})
    env.step(1)
    env.step(0)
    assert env.step(0)[2] is True


def test_sizes_and_leave_may_differ_by_bar(data: MarketData, bucket: BucketConfig) -> None:
    allowed = np.ones(len(data), bool)
    allowed[143] = False
    size = np.full(len(data), 0.1)
    size[144] = 0.3
    env = make_env(data, bucket, size_frac=size, entry_allowed=allowed)
    env.reset()
    assert env.step(1)[4]["n_lots"] == 0
    assert env.step(1)[4]["exposure_frac"] == pytest.approx(0.3, abs=0.01)


def test_span_without_room_for_a_lookback_is_refused(data: MarketData, bucket: BucketConfig) -> None:
    with pytest.raises(DataError, match=r"needs 145 bars .* the span has 144"):
        make_env(data, bucket, span=Span(0, 144))


def test_start_outside_the_span_is_refused(data: MarketData, bucket: BucketConfig) -> None:
    with pytest.raises(DataError, match=r"start_bar must be 143 \.\. 598, was 142"):
        make_env(data, bucket).reset(options={"start_bar": 142})


@pytest.mark.slow
def test_stable_baselines_trains_on_it_unmodified(data: MarketData, root: Path) -> None:
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    config = load_config(root / "params.yaml")
    bucket = config.buckets["scalping"]
    rules = make_rules(bucket, config.market.costs, config.risk)
    env = make_env(data, bucket, rules, episode_decisions=64)
    learner = stable_baselines3.PPO("MultiInputPolicy", env, n_steps=64, batch_size=64, n_epochs=1, seed=0)
    learner.learn(128)
    assert learner.num_timesteps == 128
