"""Training one network on one task: prediction first, then PPO, keeping what validates best."""

import copy
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from btcai.agent.ppo import Batch, gae, ppo_update
from btcai.agent.rollout import Rollout
from btcai.agent.task import Stretches, Task, sample_stretches, stretches_at
from btcai.config import PpoConfig, PretrainConfig
from btcai.errors import DataError
from btcai.market.reward import TERMS
from btcai.models.actor_critic import ActorCritic, Encoding
from btcai.models.heads import forecast_loss
from btcai.schema import TOKENS, Action
from btcai.training.play import choose_hold_bias, collect

Row = dict[str, float]

HELD_OUT = 128  # decision times of each validation stretch that judges the forecasts
VALIDATIONS = 8  # times a phase of training looks at the validation span


def pretrain(
    model: ActorCritic, task: Task, config: PretrainConfig, updates: int, rng: np.random.Generator
) -> Iterator[Row]:
    """Teach the encoder the next returns; afterwards `model` holds the weights with the least validation loss.

    Yields one row per update: forecast_loss, and valid_forecast_loss where it was measured.
    """
    if updates == 0:
        return
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, eps=1e-5)
    held_out = _held_out(task)
    best, kept = forecast_error(model, held_out), copy.deepcopy(model.state_dict())
    for update in range(updates):
        _set_rate(optimizer, config.learning_rate * (1 - update / updates))
        batch = sample_stretches(task, task.train, config.stretches, config.decisions, rng)
        loss = _forecast_loss(model, model.encode(torch.from_numpy(batch.tokens), banded=True), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        row = {"forecast_loss": loss.item()}
        if _is_due(update, updates):
            error = row["valid_forecast_loss"] = forecast_error(model, held_out)
            if error < best:
                best, kept = error, copy.deepcopy(model.state_dict())
        yield row
    model.load_state_dict(kept)


def train_ppo(
    model: ActorCritic, task: Task, config: PpoConfig, updates: int, rng: np.random.Generator
) -> Iterator[Row]:
    """PPO; afterwards `model` holds the averaged weights that scored best on the validation span.

    Yields one row per update: losses, mean reward and its named terms, and valid_* where they were measured.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, eps=1e-5)
    average = copy.deepcopy(model)
    best, kept = -np.inf, copy.deepcopy(model.state_dict())
    for update in range(updates):
        left = 1 - update / updates
        _set_rate(optimizer, config.learning_rate * left)
        stretches = sample_stretches(task, task.train, config.stretches, config.decisions, rng)
        if update == 0 and float(model.reward_scale) == 1.0:
            at_full_cost = collect(model, task, stretches, config.agents, rng)
            model.reward_scale.fill_(reward_unit(at_full_cost, task.bucket.discount))
        rollout = collect(model, with_cost_share(task, update, updates, config), stretches, config.agents, rng)
        batch = _batch(model, task, stretches, rollout, config)
        losses = ppo_update(model, optimizer, batch, config, entropy_at(update, updates, config), rng)
        _average_weights(average, model, min(config.average_decay, (1 + update) / (4 + update)))
        row = {**asdict(losses), "reward": float(rollout.reward.mean()), **_terms(rollout)}
        if _is_due(update, updates):
            validation, bias = choose_hold_bias(average, task)
            row |= {f"valid_{name}": value for name, value in asdict(validation).items()}
            if validation.score >= best:  # of equals the latest: it has learned most
                best, kept = validation.score, copy.deepcopy(average.state_dict())
                kept["head.policy.bias"][Action.HOLD] += bias
        yield row
    model.load_state_dict(kept)


@torch.no_grad()
def forecast_error(model: ActorCritic, held_out: Stretches) -> float:
    """The prediction loss on held-out stretches."""
    return float(_forecast_loss(model, model.encode(torch.from_numpy(held_out.tokens)), held_out))


def entropy_at(update: int, updates: int, config: PpoConfig) -> float:
    """The entropy coefficient, falling to zero over the first entropy_frac of the updates.

    With a bonus left a policy prefers to trade with a small probability at each decision: as good when sampled, but its
    likeliest action, which is what is traded, is to wait.
    """
    return config.entropy_coef * max(0.0, 1 - update / max(1.0, config.entropy_frac * updates))


def with_cost_share(task: Task, update: int, updates: int, config: PpoConfig) -> Task:
    """The task with its trading costs scaled from 0 up to 1 over the first cost_ramp_frac of the updates.

    At full cost from the start every random trade loses, and the policy learns to stay flat before it can read.
    """
    ramp = config.cost_ramp_frac * updates
    share = min(1.0, update / ramp) if ramp else 1.0
    costs = ("taker_fee_frac", "maker_fee_frac", "half_spread_frac", "impact_coef")
    rules = task.rules._replace(**{name: share * getattr(task.rules, name) for name in costs})
    return replace(task, rules=rules)


def reward_unit(rollout: Rollout, discount: float) -> float:
    """Scale that makes value targets of order one, from steps of this mean and variance; 1e-8 at least.

    Root mean square of the discounted sum of independent rewards: var / (1 - discount^2) + (mean / (1 - discount))^2.
    """
    square = rollout.reward.var() / (1 - discount**2) + (rollout.reward.mean() / (1 - discount)) ** 2
    return float(max(np.sqrt(square), 1e-8))


def _batch(model: ActorCritic, task: Task, stretches: Stretches, rollout: Rollout, config: PpoConfig) -> Batch:
    advantage, value_target = gae(
        rollout.reward / float(model.reward_scale),
        rollout.value.astype(np.float64),
        rollout.terminated,
        task.bucket.discount,
        config.gae_lambda,
    )
    return Batch(
        tokens=torch.from_numpy(stretches.tokens),
        target=torch.from_numpy(stretches.target),
        known=torch.from_numpy(stretches.known),
        observation=torch.from_numpy(rollout.observation[:, :, :-1]),
        action=torch.from_numpy(rollout.action),
        logp=torch.from_numpy(rollout.logp),
        advantage=torch.from_numpy(advantage.astype(np.float32)),
        value_target=torch.from_numpy(value_target.astype(np.float32)),
    )


def _forecast_loss(model: ActorCritic, encoding: Encoding, batch: Stretches) -> Tensor:
    return forecast_loss(
        encoding.location, encoding.log_scale, encoding.degrees, encoding.quantiles,
        torch.from_numpy(batch.target), torch.from_numpy(batch.known),
    )  # fmt: skip


def _held_out(task: Task) -> Stretches:
    """Validation stretches, evenly spread and the same every time."""
    starts = task.valid.first + TOKENS * task.patch_bars - 1, task.valid.stop - 1 - HELD_OUT * task.patch_bars
    if starts[1] < starts[0]:
        raise DataError(
            f"judging forecasts needs {(TOKENS + HELD_OUT) * task.patch_bars} validation bars, was {len(task.valid)}; "
            "import more history or raise splits.valid_frac in params.yaml"
        )
    first = np.linspace(*starts, 32, dtype=np.int64)
    return stretches_at(task, task.valid, first[:, None] + task.patch_bars * np.arange(HELD_OUT))


def _terms(rollout: Rollout) -> Row:
    return {f"reward_{name}": float(rollout.terms[..., k].mean()) for k, name in enumerate(TERMS)}


@torch.no_grad()
def _average_weights(average: ActorCritic, model: ActorCritic, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model; buffers (scales, calibration) are copied."""
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for copied, buffer in zip(average.buffers(), model.buffers(), strict=True):
        copied.copy_(buffer)


def _is_due(update: int, updates: int) -> bool:
    """True VALIDATIONS times, evenly, the last one at the end."""
    return (update + 1) * VALIDATIONS // updates > update * VALIDATIONS // updates


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
