"""stable-baselines3 as it comes trains on the environment, shorts, transfers and all."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from market_world import make_market

from btcai.envs.scenario import Scenario
from btcai.envs.trading_env import TradingEnv
from btcai.features.scaling import fit_scaler
from btcai.market.rules import make_rules
from btcai.params import load_config
from btcai.schema import Span

pytestmark = pytest.mark.slow
sb3 = pytest.importorskip("stable_baselines3")


@pytest.fixture(scope="module")
def env(root: Path) -> TradingEnv:
    """The scalping bucket of params.yaml on a swap that pays funding."""
    config = load_config(root / "params.yaml")
    rules = make_rules(config.buckets["scalping"], config.market, config.risk)
    rules = rules._replace(
        perpetual=True, allow_short=True, max_lots=3, transfer_daily_probability=1.0, transfer_max_frac=0.2
    )
    prices = 40_000 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.002, 1_200)))
    data = make_market(prices, sigma=0.002, funding={bar: 1e-4 for bar in range(95, 1_200, 96)})
    span = Span(0, len(data))
    return TradingEnv(Scenario(data, span, rules, fit_scaler(data.features, span), episode_decisions=64))


def test_environment_keeps_the_contract_of_stable_baselines3(env: TradingEnv) -> None:
    from stable_baselines3.common.env_checker import check_env

    check_env(env, warn=False)


def test_environments_in_processes_of_their_own_step_as_here(env: TradingEnv) -> None:
    from stable_baselines3.common.vec_env import SubprocVecEnv

    make = partial(TradingEnv, env.scenario)
    spawned = SubprocVecEnv([make, make], start_method="spawn")
    try:
        spawned.seed(5)  # the second one with 6
        seen = [spawned.reset()]
        rewards = []
        for _ in range(3):
            observation, reward, _, _ = spawned.step(np.array([1, 0]))
            seen.append(observation)
            rewards.append(reward)
    finally:
        spawned.close()
    for i, action in enumerate((1, 0)):
        here = make()
        expected = [here.reset(seed=5 + i)[0]]
        for k in range(3):
            observation, reward, *_ = here.step(action)
            expected.append(observation)
            assert rewards[k][i] == reward
        for name in ("market", "account"):
            np.testing.assert_array_equal([each[name][i] for each in seen], [each[name] for each in expected])


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_stable_baselines3_trains_unmodified(env: TradingEnv, algorithm: str) -> None:
    extra: dict[str, Any] = {"batch_size": 64, "n_epochs": 2} if algorithm == "PPO" else {}
    learner = getattr(sb3, algorithm)("MultiInputPolicy", env, n_steps=64, seed=0, device="cpu", **extra)
    before = {name: weights.clone() for name, weights in learner.policy.named_parameters()}
    learner.learn(320)
    assert learner.num_timesteps == 320
    losses = {name: value for name, value in learner.logger.name_to_value.items() if "loss" in name}
    assert len(losses) >= 2
    assert np.isfinite(list(losses.values())).all()
    assert any(not weights.equal(before[name]) for name, weights in learner.policy.named_parameters())
    action, _ = learner.predict(env.reset(seed=1)[0], deterministic=True)
    assert np.isfinite(env.step(action)[1])
