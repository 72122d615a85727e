"""It must learn what can be learned, and find nothing where there is nothing."""

import copy

import numpy as np
import pytest
import torch
from learning_tasks import LEVEL, SMALL, settings, task_from_returns

from btcai.agent.task import Task, clock_decisions, stretches_at
from btcai.config import PpoConfig
from btcai.models.actor_critic import ActorCritic
from btcai.models.heads import ActorCriticHead
from btcai.schema import Action, FloatArray, IntArray, Span
from btcai.training.play import LOTS, play
from btcai.training.trainer import pretrain, train_ppo
from btcai.training.yardstick import Budget, learn, mark
from btcai.yardstick.drift import DriftMarket
from btcai.yardstick.trading import RETURN_SCALE

SIGMA = LEVEL.sigma_bps / 1e4
# realised rewards: what is learned here without prediction has no forecast to be paid by
PPO = settings().ppo.model_copy(update={"surprise_control": 0.0})


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def trained(task: Task, updates: int, pretrain_updates: int = 0, seed: int = 0, ppo: PpoConfig = PPO) -> ActorCritic:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = ActorCritic(SMALL, task.patch_bars, task.features.shape[1], len(task.bucket.horizons_bars))
    brief = settings().pretrain.model_copy(update={"stretches": 8, "decisions": 128})
    for _ in pretrain(model, task, brief, pretrain_updates, rng):
        pass
    for _ in train_ppo(model, task, ppo, updates, rng):
        pass
    return model


def held_share(model: ActorCritic, task: Task) -> float:
    return float(play(model, task, clock_decisions(task, task.valid, 0)).observation[0, 0, 1:, LOTS].mean())


@pytest.mark.slow
def test_probe_a_market_that_only_rises_is_held() -> None:
    task = task_from_returns(np.full(4000, 10e-4), {})
    assert held_share(trained(task, 12), task) > 0.95


@pytest.mark.slow
def test_probe_a_market_that_only_falls_is_left() -> None:
    task = task_from_returns(np.full(4000, -1e-4), {})
    assert held_share(trained(task, 12), task) < 0.05


@pytest.mark.slow
def test_probe_the_policy_reads_the_observation() -> None:
    # the sign of the next ten returns is announced in the features
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], 600).repeat(10)
    task = task_from_returns(np.r_[0.0, sign[:-1]] * 30e-4, {"announced": sign})
    model = trained(task, 40, pretrain_updates=30)
    decisions = clock_decisions(task, task.valid, 0)
    held = play(model, task, decisions).observation[0, 0, 1:, LOTS]
    right = held == (sign[decisions[:-1]] > 0)
    assert right.mean() > 0.9


@pytest.mark.slow
def test_probe_value_is_the_discounted_reward() -> None:
    # one lot of half the equity in a market that gains 10 bp a bar: each held bar pays 5 bp; V = 5 bp / (1 - .99)
    task = task_from_returns(np.full(4000, 10e-4), {}, cost_bps=0.0)
    # returns without any noise have no likelihood to learn: the prediction loss would only drown the value's
    model = trained(task, 40, ppo=PPO.model_copy(update={"prediction_coef": 0.0}))
    rollout = play(model, task, clock_decisions(task, task.valid, 0)[:50])
    value = rollout.value[0, 0, 30:] * float(model.value_std) + float(model.value_mean)
    assert value.mean() == pytest.approx(RETURN_SCALE * 5e-4 / (1 - task.bucket.discount), rel=0.2)


@pytest.mark.slow
def test_no_head_is_sure_of_what_it_never_tried_where_the_next_return_is_shown() -> None:
    # one training of four stayed out, or sold at once whatever it had bought, when the rate did not rise first
    returns = SIGMA * np.random.default_rng(1).standard_normal(60_000)
    task = task_from_returns(returns, {"leaked": np.r_[returns[1:], 0.0] / SIGMA}, cost_bps=5.0, valid_bars=6000)
    torch.manual_seed(0)
    taught = ActorCritic(settings().model, 1, task.features.shape[1], len(task.bucket.horizons_bars))
    list(pretrain(taught, task, settings().pretrain, 120, np.random.default_rng(0)))
    scores = []
    for seed in range(10):
        model = copy.deepcopy(taught)
        torch.manual_seed(seed)
        model.head.load_state_dict(ActorCriticHead(model.head.market.in_features, settings().model.hidden).state_dict())
        rows = list(train_ppo(model, task, settings().ppo, 30, np.random.default_rng(seed)))
        scores.append(rows[-1]["valid_expected_score"])
    assert min(scores) > 0.9 * max(scores)


@pytest.mark.slow
def test_the_leaked_next_return_earns_what_the_oracle_does() -> None:
    rng = np.random.default_rng(1)
    returns = rng.standard_normal(30_000) * SIGMA
    leaked = np.r_[returns[1:], 0.0] / SIGMA
    task = task_from_returns(returns, {"leaked": leaked}, cost_bps=5.0, valid_bars=6000)
    model = trained(task, 60, pretrain_updates=60)
    decisions = clock_decisions(task, task.valid, 0)
    held = play(model, task, decisions).observation[0, 0, 1:, LOTS].astype(float)
    following = returns[decisions[1:]]
    assert profit(held, following) > 0.97 * profit(oracle(following), following)  # .984 when written


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
    assert result.low > 0.90


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


def profit(positions: FloatArray, following: FloatArray, cost: float = 5e-4) -> float:
    return float((positions * following).sum() - cost * np.abs(np.diff(np.r_[0.0, positions])).sum())
