"""Rewards without what no forecast knew: exposures against the market's own fills, and the control variate by hand."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning_tasks import fresh_model, played, settings, small_task, task_from_returns

from btcai.agent.rollout import (
    Rollout,
    intended_exposure_frac,
    randomise_accounts,
    reward_sensitivity,
    without_surprise,
)
from btcai.agent.task import Task, sample_stretches
from btcai.market.account import new_accounts
from btcai.market.kernel import decision_step, observe
from btcai.market.reward import TERMS
from btcai.schema import ACCOUNT_FEATURES, CAN_BUY, CAN_SELL, Action, FloatArray
from btcai.training.play import Played
from btcai.training.trainer import train_ppo

MAX_LOTS = 4
LOT = 0.2


@cache
def free_task(*, shorts: bool) -> Task:
    """Noise without costs, four lots of a fifth each: a decision's reward is the exposure times the return."""
    task = small_task(n_bars=1000)
    rules = task.rules._replace(max_lots=MAX_LOTS, taker_fee_frac=0.0, perpetual=shorts, allow_short=shorts)
    return replace(task, rules=rules)


def every_action_of_some_accounts(task: Task, n: int) -> tuple[Rollout, FloatArray]:
    """One decision of n accounts with a past, once for each action that they have; and what they earned by the kernel.

    The rollout has a stretch for each, and what they saw before and after it.
    """
    rng = np.random.default_rng(5)
    bar = rng.integers(200, 900, n)
    account, lots = new_accounts(n, MAX_LOTS, task.equity_usdt)
    randomise_accounts(account, lots, task, bar, np.full(n, LOT), rng)
    seen, taken, earned = [], [], []
    for i, action in np.ndindex(n, len(Action)):
        observation = np.zeros((2, len(ACCOUNT_FEATURES)), np.float32)
        rows, held = account[i].copy(), lots[i].copy()
        observe(rows, held, task.bars, bar[i], task.rules, observation[0])
        if (action == Action.BUY and not observation[0, CAN_BUY]) or (action >= 2 and not observation[0, CAN_SELL]):
            continue
        reward, _ = decision_step(
            rows, held, task.bars, bar[i], action, LOT, True, task.rules, terms := np.zeros(len(TERMS))
        )
        assert reward == terms[0]
        seen.append(observation)
        taken.append(action)
        earned.append(reward / (task.bars.mark[bar[i] + 1] / task.bars.mark[bar[i]] - 1.0))
    shape = (len(taken), 1, 1)
    zero = np.zeros(shape)
    rollout = Rollout(
        observation=np.array(seen)[:, None],
        value=np.zeros((len(taken), 1, 2), np.float32),
        action=np.array(taken).reshape(shape),
        logp=zero.astype(np.float32),
        reward=np.reshape(earned, shape),
        terminated=zero > 0,
        terms=np.zeros((*shape, len(TERMS))),
        size_frac=np.full((len(taken), 1), LOT),
    )
    return rollout, np.array(earned)


@pytest.mark.parametrize("shorts", [False, True])
def test_the_intended_exposure_is_what_the_market_fills_at_the_next_open(shorts: bool) -> None:
    rollout, exposure = every_action_of_some_accounts(free_task(shorts=shorts), 300)
    lots = np.round(rollout.observation[:, 0, 0, ACCOUNT_FEATURES.index("lots_frac")] * MAX_LOTS)
    action = rollout.action[:, 0, 0]
    met = set(zip(lots, action, strict=True))
    held = range(-MAX_LOTS if shorts else 0, MAX_LOTS + 1)  # flat, full, and all between, of both sides
    assert {lots for lots, _ in met} == set(held)
    assert all((float(n), int(Action.HOLD)) in met for n in held)
    assert not any((float(n), int(Action.BUY)) in met for n in (MAX_LOTS,))  # a full account buys no more
    assert ((0.0, int(Action.SELL)) in met) == shorts
    np.testing.assert_allclose(intended_exposure_frac(rollout, MAX_LOTS)[:, 0, 0], exposure, atol=2e-5)


def test_a_lot_that_may_not_be_opened_is_no_exposure() -> None:
    task = free_task(shorts=False)
    model = fresh_model(task)
    with torch.no_grad():
        model.head.policy.bias.copy_(torch.tensor([0.0, 50.0, -50.0, -50.0]))  # buys whenever it can
    forbidden = replace(
        task, sizes=lambda mean, std, sigma, unfamiliarity: (np.full(len(mean), LOT), np.zeros(len(mean), np.bool_))
    )
    rng = np.random.default_rng(0)
    rollout = played(model, forbidden, sample_stretches(task, task.train, 2, 128, rng), 4, rng).rollout
    flat = rollout.observation[:, :, :-1, ACCOUNT_FEATURES.index("lots_frac")] == 0
    assert flat.any()
    assert (rollout.action[flat] == Action.BUY).all()
    assert not intended_exposure_frac(rollout, MAX_LOTS)[flat].any()


def test_a_control_variate_worked_by_hand() -> None:
    # exposure times surprise 4, 0, -4; coefficient (3 * 4 + 1 * 0 + 1 * 4) / 32 = 1/2; variance 8/3, then 0 or 2/3
    reward, exposure = np.array([[[3.0, 1.0, -1.0]]]), np.array([[[1.0, 0.0, 0.5]]])
    surprise = np.array([[4.0, 5.0, -8.0]])
    whole, share = without_surprise(reward, exposure, surprise, 1.0)
    assert (whole.tolist(), share) == ([[[1.0, 1.0, 1.0]]], 1.0)
    half, share = without_surprise(reward, exposure, surprise, 0.5)
    assert (half.tolist(), share) == ([[[2.0, 1.0, 0.0]]], 0.75)


@pytest.mark.parametrize("foreseen", [0.0, 0.5, 0.9, 1.0])
def test_what_a_timid_forecast_foresaw_of_each_return_is_left(foreseen: float) -> None:
    # it says this part of each return; fitted without a limit, the missing part would stand for the whole
    returns, exposure = np.array([[2.0, -1.0, 4.0]]), np.array([[[0.5, 0.5, 1.0]]])
    reward = exposure * returns[:, None]
    cleaned, _ = without_surprise(reward, exposure, (1.0 - foreseen) * returns, 1.0)
    np.testing.assert_allclose(cleaned, foreseen * reward, atol=1e-12)


def test_accounts_that_hold_nothing_keep_their_rewards() -> None:
    reward = np.array([[[-1.0, 0.0, 2.0]]])
    cleaned, share = without_surprise(reward, 0 * reward, np.ones((1, 3)), 1.0)
    assert (cleaned.tolist(), share) == (reward.tolist(), 0.0)


@given(st.integers(0, 2**31))
def test_no_share_changes_nothing(seed: int) -> None:
    reward, exposure, surprise = noise(seed)
    cleaned, share = without_surprise(reward, exposure, surprise, 0.0)
    assert np.array_equal(cleaned, reward)
    assert share == 0.0


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_surprises_of_mean_zero_leave_the_mean_reward(seed: int, share: float) -> None:
    # the same exposure throughout a stretch, and as much bad luck in it as good
    reward, exposure, surprise = noise(seed)
    exposure[:] = exposure[..., :1]
    cleaned, _ = without_surprise(reward, exposure, surprise - surprise.mean(1, keepdims=True), share)
    np.testing.assert_allclose(cleaned.mean(-1), reward.mean(-1), atol=1e-12)


@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_the_more_is_taken_out_the_smaller_is_what_is_left(seed: int, share: float, more: float) -> None:
    reward, exposure, surprise = noise(seed)
    left = [(without_surprise(reward, exposure, surprise, s)[0] ** 2).sum() for s in sorted((share, more))]
    assert left[1] <= left[0] * (1 + 1e-12)


def noise(seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rewards and exposures (2, 3, 20), surprises (2, 20)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, 3, 20)), rng.normal(size=(2, 3, 20)), rng.normal(size=(2, 20))


def test_rewards_of_other_weights_are_cleaned_to_their_multiples() -> None:
    # three times the weights: three times the reward, and of that as much is surprise as before
    task, found = walked(0.2)
    weighted = task.rules._replace(w_drawdown=0.4, w_goal=0.3)
    threefold = weighted._replace(w_net_profit=3.0, w_drawdown=1.2, w_goal=0.9)
    reward = found.rollout.terms @ [getattr(weighted, f"w_{name}") for name in TERMS]
    one, share = without_surprise(reward, reward_sensitivity(found.rollout, weighted), found.surprise, 1.0)
    three, same = without_surprise(3 * reward, reward_sensitivity(found.rollout, threefold), found.surprise, 1.0)
    np.testing.assert_allclose(three, 3 * one, atol=1e-12)
    assert same == pytest.approx(share, rel=1e-9)


@cache
def walked(forecast_sigmas: float, w_goal: float = 0.0) -> tuple[Task, Played]:
    """Random play by a network that forecasts so many sigmas, on a market that drifts by 0.2 at a cost of 5 bp."""
    rng = np.random.default_rng(2)
    plain = small_task(n_bars=3000)
    sigma = plain.bars.sigma[0] / 0.01
    task = task_from_returns(sigma * (rng.standard_normal(3000) + 0.2), {}, cost_bps=5.0)
    task = replace(task, rules=task.rules._replace(w_goal=w_goal))
    model = fresh_model(task)
    with torch.no_grad():
        model.forecast.student.weight.zero_()
        model.forecast.student.bias.zero_()
        model.forecast.student.bias[0] = forecast_sigmas
    return task, played(model, task, sample_stretches(task, task.train, 16, 128, rng), 8, rng)


def test_the_surprise_is_the_return_to_the_next_decision_less_its_forecast() -> None:
    task, found = walked(0.2)
    rng = np.random.default_rng(2)
    rng.standard_normal(3000)
    bars = sample_stretches(task, task.train, 16, 128, rng).bars[:, :-1]
    price_return = np.log(task.bars.mark[bars + 1] / task.bars.mark[bars])
    np.testing.assert_allclose(found.surprise, price_return - 0.2 * task.bars.sigma[bars], rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("w_goal", [0.0, 0.5])
def test_what_is_left_of_a_market_is_the_forecast_and_the_costs(w_goal: float) -> None:
    # the goal is a gain of 100 %: progress to it pays w_goal times each return and each cost once more
    task, found = walked(0.2, w_goal)
    rollout = found.rollout
    cleaned, share = without_surprise(rollout.reward, reward_sensitivity(rollout, task.rules), found.surprise, 1.0)
    assert share > 0.5
    costs = rollout.terms[..., TERMS.index("cost")]
    explained = (1.0 + w_goal) * (intended_exposure_frac(rollout, 1) * 0.2 * task.bars.sigma[0] + costs)
    # of a decision's reward nothing is left but what was known when it was taken; fills at the next open, at the mark
    assert np.abs(cleaned - explained).max() < 0.01 * rollout.reward.std()
    standard_error = (cleaned - rollout.reward).mean((1, 2)).std() / 4
    assert abs((cleaned - rollout.reward).mean()) < 3 * standard_error


def test_a_forecast_that_is_wrong_is_wrong_by_the_exposure_times_its_error() -> None:
    task, found = walked(0.0)
    exposure = intended_exposure_frac(found.rollout, 1)
    cleaned, _ = without_surprise(found.rollout.reward, exposure, found.surprise, 1.0)
    costs = found.rollout.terms[..., TERMS.index("cost")]
    assert (cleaned - costs).mean() == pytest.approx(0.0, abs=0.1 * 0.2 * exposure.mean() * task.bars.sigma[0])


def test_values_are_learned_in_the_unit_of_rewards_without_surprises() -> None:
    # pure noise with next to no costs: what is left of a reward without surprises is a small share of it
    task = small_task(n_bars=3000)
    task = replace(task, rules=task.rules._replace(taker_fee_frac=1e-6))
    unit = {}
    for share in (0.0, 1.0):
        torch.manual_seed(2)
        model = fresh_model(task)
        config = settings().ppo.model_copy(
            update={
                "stretches": 4,
                "head_minibatches": 2,
                "agents": 2,
                "surprise_control": share,
                "first_hold_logit": 3.0,
            }
        )
        list(train_ppo(model, task, config, 1, np.random.default_rng(3)))
        unit[share] = float(model.value_std)
    assert unit[1.0] < 0.1 * unit[0.0]
