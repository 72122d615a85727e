"""Advantages and losses against numbers worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from btcai.agent.ppo import clipped_policy_loss, gae
from btcai.models.heads import forecast_loss
from btcai.schema import QUANTILE_LEVELS


def test_gae_of_three_steps_worked_by_hand() -> None:
    # discount .5, lambda .5: deltas 1 + .5 * 3 - 2 = .5; 0 + .5 * 1 - 3 = -2.5; 2 + .5 * 4 - 1 = 3
    # advantages backwards: 3; -2.5 + .25 * 3 = -1.75; .5 + .25 * -1.75 = .0625
    advantage, target = gae(
        np.array([1.0, 0.0, 2.0]), np.array([2.0, 3.0, 1.0, 4.0]), np.zeros(3, bool), discount=0.5, lam=0.5
    )
    assert advantage.tolist() == [0.0625, -1.75, 3.0]
    assert target.tolist() == [2.0625, 1.25, 4.0]


def test_a_terminated_step_stops_bootstrap_and_trace() -> None:
    # step 1 ends in ruin: its delta is 0 - 3 = -3, without .5 * 1; the step before it still feels it
    advantage, _ = gae(
        np.array([1.0, 0.0, 2.0]), np.array([2.0, 3.0, 1.0, 4.0]), np.array([False, True, False]), discount=0.5, lam=0.5
    )
    assert advantage.tolist() == [0.5 + 0.25 * -3.0, -3.0, 3.0]


def test_the_end_of_data_bootstraps() -> None:
    # truncation: the value after the last step counts in full
    advantage, _ = gae(np.array([1.0]), np.array([0.0, 10.0]), np.array([False]), discount=0.9, lam=0.95)
    assert advantage.tolist() == [10.0]


@given(st.integers(0, 2**31), st.floats(0, 0.99), st.floats(0, 1))
def test_gae_equals_the_sum_over_later_deltas(seed: int, discount: float, lam: float) -> None:
    rng = np.random.default_rng(seed)
    reward, value, terminated = rng.normal(size=7), rng.normal(size=8), rng.random(7) < 0.2
    advantage, _ = gae(reward, value, terminated, discount, lam)
    for k in range(7):
        total, weight = 0.0, 1.0
        for j in range(k, 7):
            alive = 0.0 if terminated[j] else 1.0
            total += weight * (reward[j] + discount * alive * value[j + 1] - value[j])
            weight *= discount * lam * alive
        assert advantage[k] == pytest.approx(total, abs=1e-12)


def test_clipped_loss_of_three_samples_worked_by_hand() -> None:
    # ratios 2 (A = 1, clipped to 1.2), .5 (A = -1, clipped to .8), 1.1 (A = 2): surrogates 1.2, -.8, 2.2; mean .8667
    ratio = torch.tensor([2.0, 0.5, 1.1])
    loss, kl, clipped = clipped_policy_loss(ratio.log(), torch.zeros(3), torch.tensor([1.0, -1.0, 2.0]), clip=0.2)
    assert loss.item() == pytest.approx(-(1.2 - 0.8 + 2.2) / 3, abs=1e-6)
    # k3: mean of ratio - 1 - log(ratio)
    by_hand = ((2 - 1 - math.log(2)) + (0.5 - 1 - math.log(0.5)) + (1.1 - 1 - math.log(1.1))) / 3
    assert kl.item() == pytest.approx(by_hand, abs=1e-6)
    assert clipped.item() == pytest.approx(2 / 3)


def test_clipped_samples_give_no_gradient() -> None:
    logp = torch.tensor([0.5, 0.05], requires_grad=True)  # ratios 1.65 (past the clip) and 1.05
    loss, _, _ = clipped_policy_loss(logp, torch.zeros(2), torch.ones(2), clip=0.2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logp.grad is not None
    assert logp.grad[0].item() == 0.0
    assert logp.grad[1].item() == pytest.approx(-math.exp(0.05) / 2, rel=1e-5)


def test_forecast_loss_of_one_outcome_worked_by_hand() -> None:
    # Student-t with 5 degrees at 0, scale 1, outcome 1: density Gamma(3) / (Gamma(2.5) sqrt(5 pi)) * (1 + 1/5)^-3
    density = math.gamma(3) / (math.gamma(2.5) * math.sqrt(5 * math.pi)) * 1.2**-3
    # every quantile predicted 0: pinball of level q is q * 1; their mean is .5
    one = torch.ones(1, 1, 1)
    loss = forecast_loss(
        0 * one,
        0 * one,
        5 * one,
        torch.zeros(1, 1, 1, len(QUANTILE_LEVELS)),
        one,
        torch.ones(1, 1, 1, dtype=torch.bool),
    )
    assert loss.item() == pytest.approx(-math.log(density) + 0.5, abs=1e-6)


def test_unknown_outcomes_do_not_count() -> None:
    known = torch.tensor([True, False]).view(1, 2, 1)
    target = torch.tensor([1.0, 1e9]).view(1, 2, 1)
    zero = torch.zeros(1, 2, 1)
    both = forecast_loss(zero, zero, zero + 5, torch.zeros(1, 2, 1, 7), target, known)
    first = forecast_loss(*(x[:, :1] for x in (zero, zero, zero + 5, torch.zeros(1, 2, 1, 7), target, known)))
    assert both.item() == pytest.approx(first.item())
