"""Training one network on one task: prediction first, then PPO, keeping what validates best."""

import copy
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from btcai.agent.ppo import Evaluate, Evaluation, Experience, ValueScale, gae, ppo_update, rescale_value_layer
from btcai.agent.rollout import Rollout, intended_exposure_frac, without_surprise
from btcai.agent.shards import SHARDS, shards
from btcai.agent.task import Stretches, Task, sample_stretches, stretches_at
from btcai.config import PpoConfig, PretrainConfig
from btcai.errors import DataError
from btcai.market.reward import TERMS
from btcai.models.actor_critic import ActorCritic, Encoding
from btcai.models.heads import forecast_loss
from btcai.schema import TOKENS, Action, FloatArray
from btcai.training.play import Played, choose_hold_bias, collect, is_worse, validation_surprises

Row = dict[str, float]

HELD_OUT = 128  # decision times of each validation stretch that judges the forecasts
VALIDATIONS = 4  # times a phase of training looks at the validation span
VALUE_RATE = 0.1  # weight of the newest update in the mean and spread of value targets
LEAST_VALUE_STD = 0.1  # of the reward unit: where all is worth the same, less would make gradients of noise


def pretrain(
    model: ActorCritic, task: Task, config: PretrainConfig, updates: int, rng: np.random.Generator
) -> Iterator[Row]:
    """Teach the encoder the next returns; afterwards `model` holds the weights with the least validation loss.

    Yields one row per update: forecast_loss, and valid_forecast_loss where it was measured.
    """
    if updates == 0:
        return
    optimizer, parameters = _optimizer(model, config.weight_decay), list(model.parameters())
    held_out = _held_out(task)
    best, kept = forecast_error(model, task, held_out), copy.deepcopy(model.state_dict())
    with shards() as workers:
        for update in range(updates):
            _set_rate(optimizer, config.learning_rate * (1 - update / updates))
            batch = sample_stretches(task, task.train, config.stretches, config.decisions, rng)
            parts = [
                partial(_forecast_part, model, task, batch.part(rows))
                for rows in np.split(np.arange(config.stretches), SHARDS)
            ]
            row = {"forecast_loss": float(workers.gradients(parameters, parts))}
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if _is_due(update, updates):
                error = row["valid_forecast_loss"] = forecast_error(model, task, held_out)
                if error < best:
                    best, kept = error, copy.deepcopy(model.state_dict())
            yield row
    model.load_state_dict(kept)


def _forecast_part(model: ActorCritic, task: Task, part: Stretches) -> tuple[Tensor, Tensor]:
    loss = _stretch_loss(model, task, part, banded=True)
    return loss, loss.detach()


def train_ppo(
    model: ActorCritic, task: Task, config: PpoConfig, updates: int, rng: np.random.Generator
) -> Iterator[Row]:
    """PPO; afterwards `model` holds the averaged weights that scored best on the validation span.

    Yields one row per update: losses, mean reward and its named terms, and valid_* where they were measured.
    """
    optimizer = _optimizer(model, config.weight_decay, config.encoder_rate_share)
    parameters = list(model.parameters())
    average = copy.deepcopy(model)
    best: FloatArray | None = None
    kept = copy.deepcopy(model.state_dict())
    unit = float(model.value_std)
    scale = ValueScale(mean=float(model.value_mean), std=unit, least_std=LEAST_VALUE_STD * unit)
    surprises = validation_surprises(model, task)
    of_head = config.model_copy(update={"epochs": config.head_epochs, "minibatches": config.head_minibatches})
    with shards() as workers:
        for update in range(updates):
            left = 1 - update / updates
            _set_rate(optimizer, config.learning_rate * left)
            stretches = sample_stretches(task, task.train, config.stretches, config.decisions, rng)
            if update == 0 and scale.std == 1.0:  # a head that has met no reward yet
                with torch.no_grad():
                    for network in (model, average):
                        network.head.policy.bias[Action.HOLD] += config.first_hold_logit
                at_full_cost = collect(model, task, stretches, config.agents, rng, workers)
                unit = reward_unit(at_full_cost.rollout, task.bucket.discount)
                scale = replace(scale, std=unit, least_std=LEAST_VALUE_STD * unit)
                model.value_std.fill_(scale.std)
            played = collect(
                model, with_cost_share(task, update, updates, config), stretches, config.agents, rng, workers
            )
            rollout = played.rollout
            exposure = intended_exposure_frac(rollout, task.rules.max_lots)
            reward, surprise_share = without_surprise(
                rollout.reward, exposure, played.surprise, config.surprise_control
            )
            experience, scale = _experience(model, average, scale, task, rollout, reward, config)
            phases: tuple[tuple[Evaluate, list[torch.nn.Parameter], PpoConfig], ...] = (
                (_head_evaluator(model, played), list(model.head.parameters()), of_head),
                (_evaluator(model, task, stretches, rollout), parameters, config),
            )
            entropy_coef = entropy_at(update, updates, config)
            of_phases = [
                ppo_update(evaluate, learned, optimizer, experience, settings, entropy_coef, rng, workers)
                for evaluate, learned, settings in phases
                if settings.epochs
            ]
            losses = of_phases[-1]
            _average_weights(average, model, min(config.average_decay, (1 + update) / (4 + update)))
            row = {**asdict(losses), "reward": float(rollout.reward.mean()), **_terms(rollout)}
            row |= {"surprise_share": surprise_share, "head_epochs": sum(phase.epochs for phase in of_phases[:-1])}
            if _is_due(update, updates):
                validation, score, bias = choose_hold_bias(average, task, surprises, config.surprise_control)
                row |= {f"valid_{name}": value for name, value in asdict(validation).items()}
                row |= {"valid_expected_score": float(score.sum()), "valid_hold_bias": bias}
                if best is None or not is_worse(score, best):  # of equals the latest: it has learned most
                    kept = copy.deepcopy(average.state_dict())
                    kept["head.policy.bias"][Action.HOLD] += bias
                if best is None or score.sum() > best.sum():
                    best = score
            yield row
    model.load_state_dict(kept)


def _optimizer(model: ActorCritic, decay: float, encoder_share: float = 1.0) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101) of what multiplies inputs in linear maps.

    Rates are set at every update, by `_set_rate`; `encoder_share` is that of everything before the head.
    """
    linear = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)}
    head = {id(parameter) for parameter in model.head.parameters()}
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        groups.setdefault((id(parameter) in linear, id(parameter) in head), []).append(parameter)
    settings = [
        {"params": found, "weight_decay": decay * is_linear, "share": 1.0 if in_head else encoder_share}
        for (is_linear, in_head), found in groups.items()
    ]
    return torch.optim.AdamW(settings, eps=1e-5, fused=True)


@torch.no_grad()
def forecast_error(model: ActorCritic, task: Task, held_out: Stretches) -> float:
    """The prediction loss on held-out stretches."""
    return float(_stretch_loss(model, task, held_out))


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


def _experience(
    model: ActorCritic,
    average: ActorCritic,
    scale: ValueScale,
    task: Task,
    rollout: Rollout,
    reward: FloatArray,
    config: PpoConfig,
) -> tuple[Experience, ValueScale]:
    """S stretches, G agents, K = M - 1 transitions: every tensor (S, G, K)."""
    value = scale.restore(rollout.value.astype(np.float64))
    advantage, value_target = gae(
        reward,
        value[..., :-1],
        value[..., 1:],
        rollout.terminated,
        np.zeros_like(rollout.terminated),  # only the end of the data truncates
        task.bucket.discount,
        config.gae_lambda,
    )
    updated = scale.updated(value_target, VALUE_RATE)
    for network in (model, average):
        rescale_value_layer(network.head.value, scale, updated)
        network.value_mean.fill_(updated.mean)
        network.value_std.fill_(updated.std)
    experience = Experience(
        action=torch.from_numpy(rollout.action),
        logp=torch.from_numpy(rollout.logp),
        advantage=torch.from_numpy(advantage.astype(np.float32)),
        value_target=torch.from_numpy(updated.normalise(value_target).astype(np.float32)),
    )
    return experience, updated


def _head_evaluator(model: ActorCritic, played: Played) -> Evaluate:
    """What the head says of whole stretches as the rollout encoded them."""
    observation = torch.from_numpy(played.rollout.observation[:, :, :-1])

    def evaluate(index: Tensor) -> Evaluation:
        projected = model.head.market(played.latent[index, :-1]).unsqueeze(1)
        logits, value = model.head.act(projected, observation[index])
        return Evaluation(logits=logits, value=value, auxiliary=torch.zeros(()))

    return evaluate


def _evaluator(model: ActorCritic, task: Task, stretches: Stretches, rollout: Rollout) -> Evaluate:
    """What the network says of whole stretches: each decision time is encoded once for all the agents on it."""
    observation = torch.from_numpy(rollout.observation[:, :, :-1])

    def evaluate(index: Tensor) -> Evaluation:
        part = stretches.part(index.numpy())
        encoding = model.encode(torch.from_numpy(part.tokens), banded=True)
        projected = model.head.market(model.latent(encoding)[:, :-1]).unsqueeze(1)
        logits, value = model.head.act(projected, observation[index])
        return Evaluation(logits=logits, value=value, auxiliary=_forecast_loss(task, encoding, part))

    return evaluate


def _stretch_loss(model: ActorCritic, task: Task, batch: Stretches, *, banded: bool = False) -> Tensor:
    return _forecast_loss(task, model.encode(torch.from_numpy(batch.tokens), banded=banded), batch)


def _forecast_loss(task: Task, encoding: Encoding, part: Stretches) -> Tensor:
    return forecast_loss(
        encoding.location, encoding.log_scale, encoding.degrees, encoding.quantiles,
        torch.from_numpy(part.target), torch.from_numpy(part.known), torch.from_numpy(task.horizon_weight),
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
        group["lr"] = rate * group["share"]
