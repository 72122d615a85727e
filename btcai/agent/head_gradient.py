"""The gradient of PPO's loss in the actor-critic head, by one compiled pass over the accounts' decisions.

The market half of the head is projected once per decision time and shared by all accounts there, so nearly all of an
update's work is the small account half, some thousand rows of it at a time. One tensor operation after the other waits
for memory and for the interpreter; here a decision's forward and backward pass are done while it is in the cache.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btcai.agent.head_weights import HeadWeights, head_weights
from btcai.agent.ppo import LEAST_STD, Experience, Gradient, Weights, spread
from btcai.agent.shards import SHARDS, Shards
from btcai.compiled import summing
from btcai.models.heads import ActorCriticHead
from btcai.schema import ACCOUNT_FEATURES, CAN_BUY, CAN_SELL, MASKED, Action, Float32Array

N_ACTIONS, N_SEEN = len(Action), len(ACCOUNT_FEATURES)


class _Batch(NamedTuple):
    """What an update draws its minibatches from.

    observation (S, G, K, A); counts (S,) what a stretch counts, bonus (S,) its entropy bonus; teacher (S, G, K,
    actions), or empty; the others (S, G, K).
    """

    observation: Float32Array
    action: NDArray[np.int64]
    old_logp: Float32Array
    advantage: Float32Array
    value_target: Float32Array
    counts: Float32Array
    bonus: Float32Array
    teacher: Float32Array


class _Scratch(NamedTuple):
    """To work in, one for each shard.

    hidden, d_hidden (hidden,); prob, log_prob, d_logit (actions,).
    """

    hidden: Float32Array
    d_hidden: Float32Array
    prob: Float32Array
    log_prob: Float32Array
    d_logit: Float32Array


def head_gradient(
    head: ActorCriticHead,
    latent: Tensor,
    observation: Float32Array,
    experience: Experience,
    weights: Weights,
    shards: Shards,
) -> Gradient:
    """The same numbers as autograd_gradient of `head`, up to rounding; without an auxiliary loss.

    latent (S, K, Z) what the head reads of the market; observation (S, G, K, A) of the accounts; experience (S, G, K).
    """
    batch = _batch(observation, experience, weights)
    parameters = [head.market.weight, head.market.bias, head.account.weight, head.policy.weight, head.policy.bias,
                  head.value.weight, head.value.bias]  # fmt: skip

    def of_shard(rows: NDArray[np.int64], mean: float, std: float) -> list[Tensor]:
        """Sums over a shard's decisions: the figures of a Gradient, gradients in the order of `parameters`."""
        seen = latent[torch.from_numpy(rows)]
        with torch.no_grad():
            projected = head.market(seen).numpy()
        of_head = head_weights(head, temperature=weights.temperature)
        sums = HeadWeights(*map(np.zeros_like, of_head))
        d_projected, figures = np.zeros_like(projected), np.zeros(7)
        size = projected.shape[-1]
        scratch = _Scratch(*(np.empty(n, np.float32) for n in (size, size, N_ACTIONS, N_ACTIONS, N_ACTIONS)))
        _rows(
            rows, batch, of_head, projected, mean, std, weights.clip, weights.value, weights.teacher, d_projected, sums,
            figures, scratch,
        )  # fmt: skip
        flat = torch.from_numpy(d_projected).flatten(0, 1)
        d_market = flat.T @ seen.flatten(0, 1), flat.sum(0)
        cooled = np.float32(weights.temperature)
        others = sums.account.T, sums.policy / cooled, sums.policy_bias / cooled, sums.value[None], sums.value_bias
        return [torch.from_numpy(figures), *d_market, *map(torch.from_numpy, others)]

    def gradient(index: Tensor) -> Tensor:
        rows = index.numpy()
        drawn = batch.advantage[rows]
        if experience.weight is None and not experience.normalised:
            mean, std = float(drawn.mean()), float(drawn.std(ddof=1)) + LEAST_STD
        else:
            mean, std = (float(figure) for figure in spread(experience, index))
        sums = shards.sums(lambda part: of_shard(part, mean, std), np.split(rows, SHARDS))
        means: list[Tensor] = [given / drawn.size for given in sums if given is not None]
        for parameter, given in zip(parameters, means[1:], strict=True):
            parameter.grad = given.contiguous()
        return means[0].float()

    return gradient


def _batch(observation: Float32Array, experience: Experience, weights: Weights) -> _Batch:
    action, old_logp, advantage, value_target = (
        np.ascontiguousarray(tensor.numpy())
        for tensor in (experience.action, experience.logp, experience.advantage, experience.value_target)
    )
    counts = np.ones(len(action), np.float32) if experience.weight is None else experience.weight.float().numpy()
    bonus = np.float32(weights.entropy) * counts
    if experience.explore is not None:
        bonus = bonus * experience.explore.float().numpy()
    given = experience.teacher
    teacher = np.zeros((0, 0, 0, 0), np.float32) if given is None else np.ascontiguousarray(given.numpy())
    return _Batch(observation, action, old_logp, advantage, value_target, counts, bonus, teacher)


@summing
def _rows(
    rows: NDArray[np.int64],
    batch: _Batch,
    weights: HeadWeights,
    projected: Float32Array,
    mean: float,
    std: float,
    clip: float,
    value_weight: float,
    teacher_weight: float,
    d_projected: Float32Array,
    gradient: HeadWeights,
    figures: NDArray[np.float64],
    scratch: _Scratch,
) -> None:
    """Adds the sums over all decisions of the stretches `rows` to `gradient`, d_projected and figures.

    projected, d_projected (S', K, hidden); mean and std of advantages.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    least, most = one - np.float32(clip), one + np.float32(clip)
    observation, hidden, prob, log_prob, d_logit = (
        batch.observation,
        scratch.hidden,
        scratch.prob,
        scratch.log_prob,
        scratch.d_logit,
    )
    for i in range(len(rows)):
        s = rows[i]
        count, explore = batch.counts[s], batch.bonus[s]
        for g in range(observation.shape[1]):
            for k in range(projected.shape[1]):
                _hidden(projected, i, observation, s, g, k, weights.account, hidden)
                value = weights.value_bias[0]
                for j in range(len(hidden)):
                    value += hidden[j] * weights.value[j]
                entropy = _policy(weights, observation, s, g, k, scratch)

                taken = batch.action[s, g, k]
                log_ratio = log_prob[taken] - batch.old_logp[s, g, k]
                ratio = np.exp(log_ratio)
                advantage = np.float32((batch.advantage[s, g, k] - mean) / std)
                clipped = min(max(ratio, least), most) * advantage
                d_logp = -ratio * advantage * count if ratio * advantage <= clipped else zero
                error = value - batch.value_target[s, g, k]
                figures[0] -= count * min(ratio * advantage, clipped)
                figures[1] += 0.5 * count * error * error
                figures[2] += count * entropy
                figures[4] += ratio - one - log_ratio
                figures[5] += abs(ratio - one) > clip

                d_value = np.float32(value_weight) * error * count
                gradient.value_bias[0] += d_value
                for a in range(N_ACTIONS):
                    d_logit[a] = prob[a] * (explore * (log_prob[a] + entropy) - d_logp)
                d_logit[taken] += d_logp
                if len(batch.teacher) > 0:
                    figures[6] += count * _towards(batch.teacher[s, g, k], scratch, teacher_weight * count)
                _back(d_value, weights, gradient, scratch)
                for j in range(len(hidden)):
                    d_projected[i, k, j] += scratch.d_hidden[j]
                _back_to_account(scratch.d_hidden, observation, s, g, k, gradient.account)


@summing
def _hidden(
    projected: Float32Array,
    i: int,
    observation: Float32Array,
    s: int,
    g: int,
    k: int,
    w_account: Float32Array,
    hidden: Float32Array,
) -> None:
    """What ActorCriticHead makes of one account's decision before its last layers."""
    for j in range(len(hidden)):
        hidden[j] = projected[i, k, j]
    for a in range(N_SEEN):
        x = observation[s, g, k, a]
        if x != 0:
            for j in range(len(hidden)):
                hidden[j] += x * w_account[a, j]
    for j in range(len(hidden)):
        hidden[j] = max(hidden[j], np.float32(0.0))


@summing
def _policy(weights: HeadWeights, observation: Float32Array, s: int, g: int, k: int, scratch: _Scratch) -> float:
    """Probabilities of the actions and their logarithms; returns their entropy."""
    hidden, prob, log_prob = scratch.hidden, scratch.prob, scratch.log_prob
    for a in range(N_ACTIONS):
        logit = weights.policy_bias[a]
        for j in range(len(hidden)):
            logit += hidden[j] * weights.policy[a, j]
        log_prob[a] = logit
    if observation[s, g, k, CAN_BUY] == 0:
        log_prob[1] = MASKED
    if observation[s, g, k, CAN_SELL] == 0:
        log_prob[2] = log_prob[3] = MASKED
    top = max(log_prob[0], log_prob[1], log_prob[2], log_prob[3])
    total, entropy = np.float32(0.0), np.float32(0.0)
    for a in range(N_ACTIONS):
        prob[a] = np.exp(log_prob[a] - top)
        total += prob[a]
    normal = top + np.log(total)
    for a in range(N_ACTIONS):
        prob[a] /= total
        log_prob[a] -= normal
        entropy -= prob[a] * log_prob[a]
    return float(entropy)


@summing
def _towards(teacher: Float32Array, scratch: _Scratch, weight: float) -> float:
    """KL(teacher || policy) of one decision; adds its gradient to the logits'."""
    kl = np.float32(0.0)
    for a in range(N_ACTIONS):
        scratch.d_logit[a] += np.float32(weight) * (scratch.prob[a] - teacher[a])
        if teacher[a] > 0:
            kl += teacher[a] * (np.log(teacher[a]) - scratch.log_prob[a])
    return float(kl)


@summing
def _back(d_value: float, weights: HeadWeights, gradient: HeadWeights, scratch: _Scratch) -> None:
    """From the logits and the value to the hidden layer."""
    zero, hidden, d_hidden = np.float32(0.0), scratch.hidden, scratch.d_hidden
    for j in range(len(hidden)):
        gradient.value[j] += d_value * hidden[j]
    for j in range(len(hidden)):
        d_hidden[j] = d_value * weights.value[j]
    for a in range(N_ACTIONS):
        slope = scratch.d_logit[a]
        gradient.policy_bias[a] += slope
        if slope != zero:
            for j in range(len(hidden)):
                d_hidden[j] += slope * weights.policy[a, j]
            for j in range(len(hidden)):
                gradient.policy[a, j] += slope * hidden[j]
    for j in range(len(hidden)):
        d_hidden[j] = d_hidden[j] if hidden[j] > zero else zero


@summing
def _back_to_account(
    d_hidden: Float32Array, observation: Float32Array, s: int, g: int, k: int, d_account: Float32Array
) -> None:
    for a in range(N_SEEN):
        x = observation[s, g, k, a]
        if x != 0:
            for j in range(len(d_hidden)):
                d_account[a, j] += x * d_hidden[j]
