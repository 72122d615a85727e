"""Proximal policy optimisation on the encode-once design: the encoder runs once per decision time, agents share it.

Schulman et al. 2017 (arXiv 1707.06347), with the details that Andrychowicz et al. 2020 (arXiv 2006.05990) found to
matter.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from btcai.config import PpoConfig
from btcai.models.actor_critic import ActorCritic
from btcai.models.heads import forecast_loss
from btcai.schema import BoolArray, FloatArray


def gae(
    reward: FloatArray, value: FloatArray, terminated: BoolArray, discount: float, lam: float
) -> tuple[FloatArray, FloatArray]:
    """Generalised advantage estimates and value targets (arXiv 1506.02438, eq. 16), each (..., K).

    reward, terminated (..., K); value (..., K + 1), the last one bootstrapping the truncated end. A terminated step
    stops the bootstrap (its next value counts as 0) and the trace; the end of the data is a truncation: it stops the
    trace and bootstraps. Not normalised.
    """
    alive = 1.0 - terminated
    delta = reward + discount * alive * value[..., 1:] - value[..., :-1]
    advantage = np.zeros_like(delta)
    trace = np.zeros_like(delta[..., 0])
    for k in reversed(range(delta.shape[-1])):
        trace = delta[..., k] + discount * lam * alive[..., k] * trace
        advantage[..., k] = trace
    return advantage, advantage + value[..., :-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One update's experience as tensors: S stretches, G agents, K = M - 1 transitions, H horizons."""

    tokens: Tensor  # (S, N, P, F)
    target: Tensor  # (S, M, H)
    known: Tensor  # (S, M, H)
    observation: Tensor  # (S, G, K, A)
    action: Tensor  # (S, G, K)
    logp: Tensor  # (S, G, K)
    advantage: Tensor  # (S, G, K)
    value_target: Tensor  # (S, G, K)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Means over an update; kl is the k3 estimate of KL(old || new), clip_frac the share of clipped ratios."""

    policy: float
    value: float
    entropy: float
    forecast: float
    kl: float
    clip_frac: float
    epochs: float


def clipped_policy_loss(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, clip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean clipped surrogate loss (arXiv 1707.06347, eq. 7), its KL estimate and the clipped share; scalars."""
    log_ratio = logp - old_logp
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    kl = (ratio - 1 - log_ratio).mean()
    return -surrogate.mean(), kl.detach(), ((ratio - 1).abs() > clip).float().mean().detach()


def ppo_update(
    model: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: PpoConfig,
    entropy_coef: float,
    rng: np.random.Generator,
) -> Losses:
    """Epochs of minibatches of whole stretches; stops early once an epoch's KL passes target_kl."""
    n = len(batch.tokens)
    rows: list[tuple[float, ...]] = []
    epochs = 0
    for _ in range(config.epochs):
        epochs += 1
        start = len(rows)
        for index in np.split(rng.permutation(n), config.minibatches):
            rows.append(_minibatch(model, optimizer, batch, torch.from_numpy(index), config, entropy_coef))
        if np.mean([row[4] for row in rows[start:]]) > config.target_kl:
            break
    policy, value, entropy, forecast, kl, clip_frac = np.mean(rows, 0)
    return Losses(
        policy=policy, value=value, entropy=entropy, forecast=forecast, kl=kl, clip_frac=clip_frac, epochs=epochs
    )


def _minibatch(
    model: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    index: Tensor,
    config: PpoConfig,
    entropy_coef: float,
) -> tuple[float, ...]:
    encoding = model.encode(batch.tokens[index], banded=True)
    projected = model.head.market(model.latent(encoding)[:, :-1]).unsqueeze(1)  # shared by every agent of a stretch
    logits, value = model.head.act(projected, batch.observation[index])
    log_prob = logits.log_softmax(-1)
    logp = log_prob.gather(-1, batch.action[index].unsqueeze(-1)).squeeze(-1)
    advantage = batch.advantage[index]
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy, kl, clip_frac = clipped_policy_loss(logp, batch.logp[index], advantage, config.clip)
    value_loss = 0.5 * (value - batch.value_target[index]).square().mean()
    entropy = -(log_prob.exp() * log_prob).sum(-1).mean()
    forecast = forecast_loss(
        encoding.location,
        encoding.log_scale,
        encoding.degrees,
        encoding.quantiles,
        batch.target[index],
        batch.known[index],
    )
    loss = policy + config.value_coef * value_loss - entropy_coef * entropy + config.prediction_coef * forecast
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
    optimizer.step()
    return tuple(x.item() for x in (policy, value_loss, entropy, forecast, kl, clip_frac))
