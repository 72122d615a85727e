"""It must learn what can be learned, and find nothing where there is nothing."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from learning_tasks import LEVEL, fresh_model, settings, task_from_returns

from btcai.agent.task import Task, clock_decisions, stretches_at
from btcai.models.actor_critic import ActorCritic
from btcai.schema import Action, FloatArray, IntArray, Span
from btcai.training.play import LOTS, play
from btcai.training.trainer import pretrain, train_ppo
from btcai.training.yardstick import Budget, learn, mark
from btcai.yardstick.drift import DriftMarket
from btcai.yardstick.trading import RETURN_SCALE

SIGMA = LEVEL.sigma_bps / 1e4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)  # hypothesis, in tests that follow, wants the smallest floats


def trained(task: Task, updates: int, pretrain_updates: int = 0, seed: int = 0, **ppo: float) -> ActorCritic:
    """A small network after some updates of prediction, in small batches, and of PPO by the shipped settings."""
    torch.manual_seed(seed)
    rng, model = np.random.default_rng(seed), fresh_model(task)
    brief = settings().pretrain.model_copy(update={"stretches": 8, "decisions": 128})
    for _ in pretrain(model, task, brief, pretrain_updates, rng):
        pass
    for _ in train_ppo(model, task, settings().ppo.model_copy(update=ppo), updates, rng):
        pass
    return model


def held_share(model: ActorCritic, task: Task) -> float:
    return float(play(model, task, clock_decisions(task, task.valid, 0)).observation[0, 0, 1:, LOTS].mean())


@pytest.mark.slow
def test_probe_a_market_that_only_rises_is_held() -> None:
    task = task_from_returns(np.full(4000, 10e-4), {})
    assert held_share(trained(task, 12, pretrain_updates=20), task) > 0.95


@pytest.mark.slow
def test_probe_a_market_that_only_falls_is_left() -> None:
    task = task_from_returns(np.full(4000, -1e-4), {})
    assert held_share(trained(task, 12, pretrain_updates=20), task) < 0.05


@pytest.mark.slow
def test_probe_the_policy_reads_the_observation() -> None:
    # the sign of the next ten returns is announced in the features
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], 600).repeat(10)
    task = task_from_returns(np.r_[0.0, sign[:-1]] * 30e-4, {"announced": sign})
    model = trained(task, 40, pretrain_updates=60)
    decisions = clock_decisions(task, task.valid, 0)
    held = play(model, task, decisions).observation[0, 0, 1:, LOTS]
    right = held == (sign[decisions[:-1]] > 0)
    assert right.mean() > 0.95


@pytest.mark.slow
def test_probe_value_is_the_discounted_reward() -> None:
    # one lot of half the equity in a market that gains 10 bp a bar: each held bar pays 5 bp; V = 5 bp / (1 - .99)
    task = task_from_returns(np.full(4000, 10e-4), {}, cost_bps=0.0)
    # without noise returns have no likelihood to learn, and without prediction all of them would be surprise
    model = trained(task, 40, prediction_coef=0.0, surprise_control=0.0)
    rollout = play(model, task, clock_decisions(task, task.valid, 0)[:50])
    value = rollout.value[0, 0, 30:] * float(model.value_std) + float(model.value_mean)
    assert value.mean() == pytest.approx(RETURN_SCALE * 5e-4 / (1 - task.bucket.discount), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_leaked_next_return_earns_nearly_all_that_the_oracle_does(seed: int) -> None:
    # the oracle knows all returns to come; who knows the next one alone can earn .985 of its profit, and no more
    rng = np.random.default_rng(1)
    returns = rng.standard_normal(30_000) * SIGMA
    leaked = np.r_[returns[1:], 0.0] / SIGMA
    task = task_from_returns(returns, {"leaked": leaked}, cost_bps=5.0, valid_bars=6000)
    model = trained(task, 60, pretrain_updates=100, seed=seed)
    decisions = clock_decisions(task, task.valid, 0)
    held = play(model, task, decisions).observation[0, 0, 1:, LOTS].astype(float)
    following = returns[decisions[1:]]
    best = profit(oracle(following), following)
    assert 0.984 < profit(knowing_the_next_alone(following), following) / best < 0.986
    assert profit(held, following) > 0.98 * best


@pytest.mark.slow
def test_a_drift_that_is_shown_is_earned() -> None:
    config = settings()
    market = DriftMarket(level=LEVEL, shown=True)
    agent = learn(
        market,
        seed=0,
        budget=Budget(pretrain_updates=50, ppo_updates=60),
        bucket=config.buckets["scalping"],
        model=config.model,
        pretrain_config=config.pretrain,
        ppo=config.ppo,
    )
    result = mark(agent, market, bucket=config.buckets["scalping"], seeds=range(900, 904), n_decisions=50_000)
    assert result.low > 0.97


@pytest.mark.slow
def test_shuffled_returns_hold_no_edge_when_trading_is_forced() -> None:
    # no cost, and the position must change at every decision where the policy would rather do it than not
    rng = np.random.default_rng(2)
    returns = rng.permutation(rng.standard_t(4, 40_000) * SIGMA / 2)
    task = task_from_returns(returns, {"noise": rng.standard_normal(40_000)}, cost_bps=0.0, valid_bars=20_000)
    model = trained(task, 15, pretrain_updates=10)
    decisions = clock_decisions(task, task.valid, 0)
    held = forced_positions(model, task, decisions)
    assert np.abs(np.diff(held)).mean() > 0.05  # it did trade
    gross = (held - held.mean()) * returns[decisions[1:]]  # timing alone: what the market gave to all is taken out
    standard_error = gross.std() / len(gross) ** 0.5
    assert abs(gross.mean()) < 2.6 * standard_error


def forced_positions(model: ActorCritic, task: Task, decisions: IntArray) -> FloatArray:
    """1 where the model prefers being long more than it does on the median decision: half the time in the market."""
    flat = play(model, task, decisions)
    with torch.no_grad():
        preference = []
        for chunk in range(0, len(decisions), 1000):
            stretch = stretches_at(task, Span(0, len(task.features)), decisions[None, chunk : chunk + 1000])
            latent = model.latent(model.encode(torch.from_numpy(stretch.tokens)))[0]
            account = torch.from_numpy(flat.observation[0, 0, :1]).expand(len(latent), -1)
            logits, _ = model.head(latent, account)
            preference.append((logits[:, Action.BUY] - logits[:, Action.HOLD]).numpy())
    wanted = np.concatenate(preference)[:-1]
    return (wanted > np.median(wanted)).astype(float)


def oracle(following: FloatArray, cost: float = 5e-4) -> FloatArray:
    """Best positions of 0 or 1 against known returns, by dynamic programming backwards."""
    worth = np.zeros((len(following) + 1, 2))
    choice = np.zeros((len(following), 2), int)
    for k in reversed(range(len(following))):
        for before in (0, 1):
            options = [after * following[k] - cost * abs(after - before) + worth[k + 1, after] for after in (0, 1)]
            choice[k, before] = int(np.argmax(options))
            worth[k, before] = max(options)
    positions = np.zeros(len(following))
    held = 0
    for k in range(len(following)):
        held = choice[k, held]
        positions[k] = held
    return positions


def knowing_the_next_alone(following: FloatArray, cost: float = 5e-4) -> FloatArray:
    """Best positions for who knows of each return only when it is next: those after it are worth the same either way.

    Their mean is zero and each is as likely as its opposite.
    """
    held, positions = 0.0, np.zeros(len(following))
    for k, price_return in enumerate(following):
        held = float(price_return > (-cost if held else cost))
        positions[k] = held
    return positions


def profit(positions: FloatArray, following: FloatArray, cost: float = 5e-4) -> float:
    return float((positions * following).sum() - cost * np.abs(np.diff(np.r_[0.0, positions])).sum())
