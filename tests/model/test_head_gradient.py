"""The compiled gradient of PPO's loss in the head is that of autograd, and the same whatever the number of threads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from btcai.agent.head_gradient import head_gradient
from btcai.agent.ppo import Evaluate, Evaluation, Experience, Gradient, Weights, autograd_gradient
from btcai.agent.shards import shards
from btcai.models.heads import ActorCriticHead, mask_actions
from btcai.schema import ACCOUNT_FEATURES, CAN_BUY, CAN_SELL, Action, Float32Array

STRETCHES, ACCOUNTS, DECISIONS, LATENT, HIDDEN = 6, 3, 20, 7, 24
WEIGHTS = Weights(clip=0.3, value=0.5, entropy=0.02, auxiliary=0.0)


def one_of_each() -> tuple[ActorCriticHead, Tensor, Float32Array, Experience]:
    """A head, latents, observations and experience of every kind: clipped and not, every action, some ruled out."""
    torch.manual_seed(3)
    rng = np.random.default_rng(5)
    head = ActorCriticHead(LATENT, HIDDEN)
    with torch.no_grad():
        head.policy.weight.mul_(60.0)  # a policy with preferences
    observation = rng.normal(size=(STRETCHES, ACCOUNTS, DECISIONS, len(ACCOUNT_FEATURES))).astype(np.float32)
    for column in (CAN_BUY, CAN_SELL):
        observation[..., column] = rng.random(observation.shape[:-1]) < 0.7
    latent = torch.randn(STRETCHES, DECISIONS, LATENT)
    with torch.no_grad():
        logits, value = head(latent.unsqueeze(1), torch.from_numpy(observation))
        taken = torch.distributions.Categorical(logits=logits)
        action = taken.sample()
        logp = taken.log_prob(action)
    experience = Experience(
        action=action,
        logp=logp + 0.4 * torch.randn_like(logp),  # as of an older policy: ratios on both sides of the clip
        advantage=torch.randn_like(logp),
        value_target=value + torch.randn_like(value),
    )
    return head, latent, observation, experience


def taught(observation: Float32Array) -> Tensor:
    """What a teacher would do: it rules out what the accounts cannot do."""
    logits = torch.randn(*observation.shape[:-1], len(Action))
    return mask_actions(logits, torch.from_numpy(observation)).softmax(-1)


def by_autograd(head: ActorCriticHead, latent: Tensor, observation: Float32Array) -> Evaluate:
    def evaluate(index: Tensor) -> Evaluation:
        seen = torch.from_numpy(observation).to(latent.dtype)[index]
        logits, value = head(latent[index].unsqueeze(1), seen)
        return Evaluation(logits=logits, value=value, auxiliary=latent.new_zeros(()))

    return evaluate


def gradients(head: ActorCriticHead, gradient: Gradient, index: Tensor) -> tuple[list[Tensor], Tensor]:
    figures = gradient(index)
    return [parameter.grad.clone() for parameter in head.parameters() if parameter.grad is not None], figures


@pytest.mark.parametrize("rows", [[0, 1], [5, 2, 4, 0]])
@pytest.mark.parametrize(
    ("entropy", "teacher", "weighted", "temperature"),
    [
        (0.0, 0.0, False, 1.0),
        (0.5, 0.0, False, 1.0),
        (0.0, 3.0, False, 1.0),
        (0.5, 3.0, True, 1.0),
        (0.5, 3.0, True, 2.5),
    ],
)
def test_it_is_the_gradient_that_autograd_finds_in_double_precision(
    rows: list[int], entropy: float, teacher: float, weighted: bool, temperature: float
) -> None:
    head, latent, observation, experience = one_of_each()
    if teacher:
        experience = replace(experience, teacher=taught(observation))
    if weighted:
        weight, explore = torch.linspace(0.2, 2.5, STRETCHES), torch.linspace(2.0, 0.0, STRETCHES)
        experience = replace(experience, weight=weight, explore=explore)
    index, weights = torch.tensor(rows), replace(WEIGHTS, entropy=entropy, teacher=teacher, temperature=temperature)
    with shards() as workers:
        ours, figures = gradients(head, head_gradient(head, latent, observation, experience, weights, workers), index)
        exact = head.double()
        told = Experience(
            action=experience.action, logp=experience.logp.double(), advantage=experience.advantage.double(),
            value_target=experience.value_target.double(),
            teacher=None if experience.teacher is None else experience.teacher.double(),
            weight=None if experience.weight is None else experience.weight.double(),
            explore=None if experience.explore is None else experience.explore.double(),
        )  # fmt: skip
        evaluate = by_autograd(exact, latent.double(), observation)
        theirs, expected = gradients(
            exact, autograd_gradient(evaluate, list(exact.parameters()), told, weights, workers), index
        )
    assert len(ours) == len(theirs) == 7
    for found, true in zip(ours, theirs, strict=True):
        assert found.shape == true.shape
        assert torch.allclose(found.double(), true, rtol=1e-4, atol=1e-6 * float(true.abs().max()))
    assert figures.tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)
    assert 0.05 < figures[5] < 0.95  # some are clipped, not all
    assert (float(figures[6]) > 0.1) == (teacher > 0)


def test_a_row_that_counts_twice_is_one_that_is_there_twice() -> None:
    head, latent, observation, experience = one_of_each()
    # the weights 2, 1, 1 of three rows, up to n - 1 in the spread that advantages are divided by
    twice = torch.tensor([0, 0, 1, 2])
    with shards() as workers:
        plain = head_gradient(head, latent[twice], observation[twice], parts(experience, twice), WEIGHTS, workers)
        expected, told = gradients(head, plain, torch.arange(4))
        index = torch.tensor([0, 1, 2, 3])
        weighted = replace(experience, weight=torch.tensor([2.0, 1.0, 1.0, 0.0, 1.0, 1.0]))
        found, said = gradients(head, head_gradient(head, latent, observation, weighted, WEIGHTS, workers), index)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=5e-3, atol=2e-3 * float(other.abs().max()))
    assert said[:3].tolist() == pytest.approx(told[:3].tolist(), rel=5e-3, abs=1e-3)


def parts(experience: Experience, index: Tensor) -> Experience:
    return Experience(
        action=experience.action[index],
        logp=experience.logp[index],
        advantage=experience.advantage[index],
        value_target=experience.value_target[index],
    )


def test_threads_change_no_bit() -> None:
    found = []
    for threads in (1, 2):
        head, latent, observation, experience = one_of_each()
        with shards(threads) as workers:
            gradient = head_gradient(head, latent, observation, experience, WEIGHTS, workers)
            found.append(gradients(head, gradient, torch.arange(STRETCHES)))
    (one, one_figures), (two, two_figures) = found
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(one_figures, two_figures)


def test_what_is_not_a_number_in_the_market_half_shows_in_the_figures() -> None:
    head, latent, observation, experience = one_of_each()
    latent[2, 3, 1] = torch.nan
    with shards() as workers:
        figures = head_gradient(head, latent, observation, experience, WEIGHTS, workers)(torch.arange(STRETCHES))
    assert torch.isnan(figures[:3]).all()  # of the policy, the values and the entropy


def test_an_action_that_is_ruled_out_is_not_learned_about() -> None:
    head, latent, observation, experience = one_of_each()
    observation[..., CAN_BUY], observation[..., CAN_SELL] = 1.0, 0.0
    experience.action.copy_(experience.action.where(experience.action < Action.SELL, torch.tensor(Action.BUY.value)))
    with shards() as workers:
        gradient = head_gradient(head, latent, observation, experience, replace(WEIGHTS, entropy=0.3), workers)
        gradients(head, gradient, torch.arange(STRETCHES))
    assert head.policy.weight.grad is not None
    per_action = head.policy.weight.grad.abs().sum(-1)
    assert per_action[Action.SELL] == per_action[Action.CLOSE_ALL] == 0.0
    assert min(per_action[Action.HOLD], per_action[Action.BUY]) > 0.0
