"""The decision threshold: what is traded is the likeliest action, so how likely a trade must be is fitted."""

import numpy as np
import torch
from learning_tasks import SMALL, task_from_returns

from btcai.agent.task import Task, clock_decisions
from btcai.models.actor_critic import ActorCritic
from btcai.training.play import LOTS, choose_hold_bias, play


def hesitant(task: Task) -> ActorCritic:
    """Buys with probability .3 at every flat decision, whatever it sees, and never sells."""
    model = ActorCritic(SMALL, task.patch_bars, task.features.shape[1], len(task.bucket.horizons_bars))
    for parameter in model.head.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        model.head.policy.bias.copy_(torch.tensor([np.log(0.7), np.log(0.3), -50.0, -50.0]))
    return model


def test_a_hesitant_buyer_of_a_rising_market_is_made_to_buy() -> None:
    task = task_from_returns(np.full(1500, 10e-4), {})
    model = hesitant(task)
    held = play(model, task, clock_decisions(task, task.valid, 0)).observation[0, 0, 1:, LOTS]
    assert held.max() == 0.0  # its likeliest action is to wait for ever
    validation, bias = choose_hold_bias(model, task)
    # .7 exp(-.5) = .42 still waits, .7 exp(-1) = .26 < .3 buys; so do lower ones, and the smallest change is taken
    assert bias == -1.0
    assert validation.score > 0
    assert validation.orders == 1


def test_a_falling_market_is_left_to_a_hesitant_buyer() -> None:
    task = task_from_returns(np.full(1500, -1e-4), {})
    validation, bias = choose_hold_bias(hesitant(task), task)
    assert bias == 0.0
    assert validation.score == validation.orders == 0.0
