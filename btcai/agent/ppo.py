"""Proximal policy optimisation that does not know the network: advantages, losses and the epochs of minibatches.

Schulman et al. 2017 (arXiv 1707.06347), with the details that Andrychowicz et al. 2020 (arXiv 2006.05990) found to
matter. Whoever calls it says with `Evaluate` how rows of experience become logits, values and an auxiliary loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from btcai.agent.shards import SHARDS, Shards
from btcai.schema import BoolArray, FloatArray


def gae(
    reward: FloatArray,
    value: FloatArray,
    next_value: FloatArray,
    terminated: BoolArray,
    truncated: BoolArray,
    discount: float,
    lam: float,
) -> tuple[FloatArray, FloatArray]:
    """Generalised advantage estimates (arXiv 1506.02438, eq. 16) and value targets; all arrays (..., K).

    value is that of the observation acted on, next_value that of the observation the step led to: where an episode
    ended, of its final observation and not of the next one's first. Two masks: `terminated` stops the bootstrap
    (next_value counts as 0) and the trace, `truncated` only the trace. The end of the data stops the trace and
    bootstraps, marked or not. Not normalised.
    """
    delta = reward + discount * (1.0 - terminated) * next_value - value
    carry = discount * lam * (1.0 - (terminated | truncated))
    advantage = np.zeros_like(delta)
    trace = np.zeros_like(delta[..., 0])
    for k in reversed(range(delta.shape[-1])):
        trace = delta[..., k] + carry[..., k] * trace
        advantage[..., k] = trace
    return advantage, advantage + value


@dataclass(frozen=True, kw_only=True)
class ValueScale:
    """Running mean and standard deviation of value targets: the unit in which the value head learns (PopArt).

    With `rescale_value_layer` what the head predicts does not move when the unit does (Hessel et al. 2019, arXiv
    1809.04474, eq. 5-7). Running statistics alone (Andrychowicz 2020, 3.5) would shift every prediction at every
    update, most of all while the targets drift, as they do while costs are ramped up.
    """

    mean: float = 0.0
    std: float = 1.0
    """Before the first update the size that targets are expected to have."""
    updates: int = 0
    least_std: float = 1e-2
    """Where all states are worth the same, dividing by less would make gradients of noise."""

    def normalise(self, value: FloatArray) -> FloatArray:
        """Values in the unit of rewards -> what the head learns."""
        return (value - self.mean) / self.std

    def restore(self, normalised: FloatArray) -> FloatArray:
        """What the head says -> values in the unit of rewards."""
        return normalised * self.std + self.mean

    def updated(self, value_target: FloatArray, rate: float) -> "ValueScale":
        """Take in one update's targets, in the unit of rewards; `rate` in (0, 1] is the weight of the newest update.

        The mean over all updates until there are 1 / rate of them, an exponential one from then on.
        """
        weight = max(rate, 1.0 / (self.updates + 1))
        step = float(value_target.mean()) - self.mean
        variance = (1 - weight) * (self.std**2 + weight * step**2) + weight * float(value_target.var())
        return ValueScale(
            mean=self.mean + weight * step,
            std=max(variance**0.5, self.least_std),
            updates=self.updates + 1,
            least_std=self.least_std,
        )


@torch.no_grad()
def rescale_value_layer(layer: nn.Linear, old: ValueScale, new: ValueScale) -> None:
    """Change the layer that puts out values so that new.restore(after) = old.restore(before), whatever its input.

    Linear, so averaged weights stay the average when they are rescaled alike. Adam's moments stay as they are.
    """
    layer.weight.mul_(old.std / new.std)
    layer.bias.mul_(old.std / new.std).add_((old.mean - new.mean) / new.std)


@dataclass(frozen=True, kw_only=True, eq=False)
class Experience:
    """What one update learns from; minibatches are drawn along the first axis of every tensor, all shapes (N, ...)."""

    action: Tensor  # int64
    logp: Tensor  # of the action when it was taken
    advantage: Tensor  # not normalised, unless `normalised`
    value_target: Tensor  # in the unit of the values that are evaluated
    teacher: Tensor | None = None  # probabilities of the actions (N, ..., A) that a teacher has
    weight: Tensor | None = None  # of each row (N,): how often it would have been drawn evenly; 1 where None
    explore: Tensor | None = None  # times the entropy bonus of each row (N,); 1 where None
    normalised: bool = False  # whether advantages are to be used as they are


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What a network says of B rows of experience, whose actions have the shape (B, ...).

    logits (B, ..., A): masked ones, or log-probabilities; an action that is ruled out has a large negative number and
    not -inf. value (B, ...). auxiliary (): a loss of its own, with a weight of its own.
    """

    logits: Tensor
    value: Tensor
    auxiliary: Tensor


Evaluate = Callable[[Tensor], Evaluation]
"""Rows of experience (B,) int64 -> what the network says of them, with gradients."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Means over an update's minibatches.

    kl is the k3 estimate of KL(old || new) in nats, clip_frac the share of clipped ratios, grad_norm the gradient's
    length before it is clipped. teacher_kl is KL(teacher || new), 0 without a teacher. last_kl is the last epoch's kl.
    """

    policy: float
    value: float
    entropy: float
    auxiliary: float
    kl: float
    clip_frac: float
    teacher_kl: float
    grad_norm: float
    epochs: float
    last_kl: float


FIGURES = ("policy", "value", "entropy", "auxiliary", "kl", "clip_frac", "teacher_kl", "grad_norm")
KL = FIGURES.index("kl")
LEAST_STD = 1e-8
"""Added to the spread of a minibatch's advantages, which may be 0."""


def clipped_policy_loss(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, clip: float, counts: Tensor | float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean clipped surrogate loss (arXiv 1707.06347, eq. 7), its KL estimate and the clipped share; scalars.

    counts: what each row counts in the loss alone.
    """
    log_ratio = logp - old_logp
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    kl = (ratio - 1 - log_ratio).mean()
    return -(counts * surrogate).mean(), kl.detach(), ((ratio - 1).abs() > clip).float().mean().detach()


Gradient = Callable[[Tensor], Tensor]
"""Rows of a minibatch (B,) int64 -> figures (7,), FIGURES without the last; leaves every .grad at the gradient of the
loss, normalised over the minibatch's own advantages."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the parts of the loss beside the policy's, and where its ratios are clipped."""

    clip: float
    value: float
    entropy: float
    auxiliary: float
    teacher: float = 0.0
    """Of KL(teacher || new)."""
    temperature: float = 1.0
    """Of the policy that acted and that learns: divides its logits."""


def ppo_update(
    gradient: Gradient,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    n_rows: int,
    epochs: int,
    minibatches: int,
    target_kl: float,
    grad_clip: float,
    rng: np.random.Generator,
) -> Losses:
    """Epochs of minibatches that move `parameters` alone; stops early once an epoch's KL passes target_kl.

    ValueError where the rows cannot be split into equal minibatches of at least SHARDS.
    """
    if n_rows % (SHARDS * minibatches):
        raise ValueError(
            f"rows of experience must be a multiple of {SHARDS} * minibatches, were {n_rows} / {minibatches}"
        )
    optimizer.zero_grad()  # gradients of what is not among `parameters` are not to be stepped along again
    figures: list[Tensor] = []
    done, last_kl = 0, 0.0
    for _ in range(epochs):
        done += 1
        for rows in torch.from_numpy(rng.permutation(n_rows)).chunk(minibatches):
            found = gradient(rows)
            grad_norm = nn.utils.clip_grad_norm_(parameters, grad_clip)
            optimizer.step()
            figures.append(torch.cat([found, grad_norm[None].to(found.device)]))
        last_kl = float(torch.stack(figures[-minibatches:])[:, KL].mean())
        if last_kl > target_kl:
            break
    mean = torch.stack(figures).mean(0).tolist()
    return Losses(**dict(zip(FIGURES, mean, strict=True)), epochs=done, last_kl=last_kl)


def spread(experience: Experience, index: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a minibatch's advantages, as of even draws, to normalise them by; scalars."""
    drawn = experience.advantage[index]
    if experience.normalised:
        return drawn.new_zeros(()), drawn.new_ones(())
    if experience.weight is None:
        return drawn.mean(), drawn.std() + LEAST_STD
    counts = _beside(experience.weight[index], drawn).expand_as(drawn)
    mean = (counts * drawn).sum() / counts.sum()
    return mean, ((counts * (drawn - mean).square()).sum() / counts.sum()).sqrt() + LEAST_STD


def _beside(weight: Tensor, of: Tensor) -> Tensor:
    """(B,) in the shape of (B, ...)."""
    return weight.view(-1, *[1] * (of.dim() - 1))


def autograd_gradient(
    evaluate: Evaluate, parameters: Sequence[nn.Parameter], experience: Experience, weights: Weights, shards: Shards
) -> Gradient:
    """For any network: `evaluate` says what it makes of rows of experience."""

    def gradient(index: Tensor) -> Tensor:
        index = index.to(experience.action.device)
        mean, std = spread(experience, index)

        def part(rows: Tensor) -> tuple[Tensor, Tensor]:
            said = evaluate(rows)
            log_prob = (said.logits / weights.temperature).log_softmax(-1)
            logp = log_prob.gather(-1, experience.action[rows].unsqueeze(-1)).squeeze(-1)
            advantage = (experience.advantage[rows] - mean) / std
            counts = 1.0 if experience.weight is None else _beside(experience.weight[rows], advantage)
            policy, kl, clip_frac = clipped_policy_loss(logp, experience.logp[rows], advantage, weights.clip, counts)
            value = 0.5 * (counts * (said.value - experience.value_target[rows]).square()).mean()
            surprisal = -(counts * (log_prob.exp() * log_prob).sum(-1))
            entropy = surprisal.mean()
            bonus = entropy
            if experience.explore is not None:
                bonus = (_beside(experience.explore[rows], advantage) * surprisal).mean()
            loss = policy + weights.value * value - weights.entropy * bonus + weights.auxiliary * said.auxiliary
            teacher_kl = torch.zeros_like(kl)
            if experience.teacher is not None:
                given = experience.teacher[rows]
                teacher_kl = (counts * (torch.xlogy(given, given) - given * log_prob).sum(-1)).mean()
                loss = loss + weights.teacher * teacher_kl
            return loss, torch.stack([policy, value, entropy, said.auxiliary, kl, clip_frac, teacher_kl]).detach()

        return shards.gradients(parameters, [partial(part, rows) for rows in index.chunk(SHARDS)])

    return gradient
