"""What is not sound in training is named: updates that blew up, and policies that collapsed."""

import numpy as np
import pytest
from torch import nn

from btcai.schema import Action
from btcai.training.health import behaviour, collapse, fault


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))


FINE = {"policy": 0.1, "value": 2.0}


@pytest.mark.parametrize(
    ("losses", "grad_norm", "expected"),
    [
        (FINE, 0.0, None),
        (FINE, 1e5, None),
        ({**FINE, "value": float("nan")}, 1.0, "the value loss is nan"),
        ({**FINE, "policy": float("-inf")}, 1.0, "the policy loss is -inf"),
        (FINE, 1.1e5, "the gradient's norm is 1.1e+05, above 100000"),
        (FINE, float("nan"), "the gradient's norm is nan, above 100000"),
        (FINE, float("inf"), "the gradient's norm is inf, above 100000"),
    ],
)
def test_losses_and_gradients_that_blew_up_are_named(
    losses: dict[str, float], grad_norm: float, expected: str | None
) -> None:
    assert fault(losses, grad_norm, network()) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_single_weight_or_buffer_that_is_not_finite_is_named(value: float) -> None:
    broken = network()
    broken.get_buffer("1.running_var")[3] = value
    assert fault(FINE, 1.0, network(), broken) == "the weight 1.running_var is not finite"


def shares(hold: float, buy: float, sell: float, close_all: float, long_frac: float, short_frac: float = 0.0) -> dict:
    """Of a behaviour."""
    names = ("share_hold", "share_buy", "share_sell", "share_close_all", "long_frac", "short_frac")
    return dict(zip(names, (hold, buy, sell, close_all, long_frac, short_frac), strict=True))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (shares(0.43, 0.28, 0.14, 0.15, 0.43), None),  # the first update of a training on the yardstick
        (shares(0.95, 0.02, 0.02, 0.01, 0.41), None),  # its 25th, which earns
        (shares(0.998, 0.001, 0.001, 0.0, 0.5), None),  # one trade in five hundred decisions
        (shares(1.0, 0.0, 0.0, 0.0, 0.0), "flat"),
        (shares(0.5, 0.0, 0.25, 0.25, 0.01), "flat"),
        (shares(0.5, 0.0, 0.25, 0.25, 0.011), None),
        (shares(0.9, 0.1, 0.0, 0.0, 0.99), "always long"),
        (shares(0.9, 0.1, 0.0, 0.0, 0.98), None),
        (shares(0.9, 0.0, 0.1, 0.0, 0.0, 0.995), "always short"),
        (shares(0.9, 0.05, 0.05, 0.0, 0.5, 0.495), None),  # always in the market, on both sides
        (shares(1.0, 0.0, 0.0, 0.0, 0.5), "one action"),  # half the accounts began with lots and keep them
        (shares(0.001, 0.999, 0.0, 0.0, 0.6), "one action"),  # stops close what it buys
    ],
)
def test_collapse_is_named_by_what_a_policy_does(seen: dict[str, float], expected: str | None) -> None:
    assert collapse(seen) == expected


def test_behaviour_counts_actions_and_sides() -> None:
    action = np.array([[Action.HOLD, Action.BUY, Action.HOLD], [Action.CLOSE_ALL, Action.HOLD, Action.HOLD]])
    lots_frac = np.array([[0.0, 0.5, 1.0], [0.2, 0.0, -1.0]], np.float32)
    assert behaviour(action, lots_frac) == pytest.approx(shares(4 / 6, 1 / 6, 0, 1 / 6, 3 / 6, 1 / 6))
