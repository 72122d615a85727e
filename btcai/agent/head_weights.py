"""The actor-critic head's account half as plain arrays, for compiled code."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from btcai.models.heads import ActorCriticHead
from btcai.schema import Action, Float32Array


class HeadWeights(NamedTuple):
    """float32 and contiguous: account (A, hidden), policy (actions, hidden), policy_bias (actions,), value (hidden,),
    value_bias (1,); or a gradient in them."""

    account: Float32Array
    policy: Float32Array
    policy_bias: Float32Array
    value: Float32Array
    value_bias: Float32Array


def head_weights(head: ActorCriticHead, hold_bias: float = 0.0, temperature: float = 1.0) -> HeadWeights:
    """As they are, HOLD's logit raised by hold_bias, then all logits over a temperature."""
    policy_bias = _array(head.policy.bias).copy()
    policy_bias[Action.HOLD] += hold_bias
    return HeadWeights(
        account=_array(head.account.weight.T),
        policy=_array(head.policy.weight) / np.float32(temperature),
        policy_bias=policy_bias / np.float32(temperature),
        value=_array(head.value.weight[0]),
        value_bias=_array(head.value.bias),
    )


def _array(weight: Tensor) -> Float32Array:
    return np.ascontiguousarray(weight.detach().numpy())
