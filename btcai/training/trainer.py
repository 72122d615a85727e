"""Training one network on one task by PPO, after prediction, keeping the latest weights that validate no worse."""

import copy
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from btcai.agent.exploration import after_gain
from btcai.agent.head_gradient import head_gradient
from btcai.agent.kickstart import Kickstart, teacher_probabilities
from btcai.agent.ppo import (
    Evaluate,
    Evaluation,
    Experience,
    Losses,
    ValueScale,
    Weights,
    autograd_gradient,
    gae,
    ppo_update,
    rescale_value_layer,
)
from btcai.agent.rollout import Rollout, intended_exposure_frac, without_surprise
from btcai.agent.shards import Shards, shards
from btcai.agent.task import Stretches, Task
from btcai.config import PpoConfig
from btcai.market.reward import TERMS
from btcai.models.actor_critic import ActorCritic
from btcai.schema import Action, Float32Array, FloatArray
from btcai.training.experience import (
    counted,
    drawn_stretches,
    explored,
    trajectory_memory,
    with_earlier,
)
from btcai.training.health import BlewUp, collapse, fault
from btcai.training.phase import Memory, Row, is_due, make_optimizer, set_rates, survivable
from btcai.training.play import (
    EncodedPath,
    Played,
    choose_hold_bias,
    collect,
    encode_validation,
    forecast_worth,
    is_worse,
    standardise_signals,
)
from btcai.training.pretraining import prediction_loss, pretrain
from btcai.training.resume import Checkpoints, Live

__all__ = ["Row", "pretrain", "train_ppo"]

VALUE_RATE = 0.1  # weight of the newest update in the mean and spread of value targets
LEAST_VALUE_STD = 0.1  # of the reward unit: where all is worth the same, less would make gradients of noise


def train_ppo(
    model: ActorCritic,
    task: Task,
    config: PpoConfig,
    updates: int,
    rng: np.random.Generator,
    checkpoints: Checkpoints | None = None,
    kickstart: Kickstart | None = None,
) -> Iterator[Row]:
    """PPO; afterwards `model` holds averaged weights: the latest not worse than the best by a standard error.

    Yields one row per update: losses, mean reward and its named terms, and valid_* where they were measured. Kills and
    explosions are survived as phase.survivable says.
    """
    _take_out_threshold(model)
    optimizer = make_optimizer(model, config.encoder_rate_share)
    encoder_learns = config.encoder_every > 0
    average = copy.deepcopy(model)
    unit = float(model.value_std)
    first = ValueScale(mean=float(model.value_mean), std=unit, least_std=LEAST_VALUE_STD * unit)
    earlier = trajectory_memory(model, config)
    live = Live(
        modules={"model": model, "average": average, **earlier}, optimizers={"adam": optimizer},
        generators={"sampling": rng},
    )  # fmt: skip
    with shards() as workers:
        if not encoder_learns:  # else every collection does
            standardise_signals(model, task, workers)
        model.forecast_worth.fill_(forecast_worth(model, task, workers))
        _copy_buffers(average, model)
        facts = {"scale": asdict(first), "best": None, "parts": None, "rate": 1.0, "explore": 1.0, "familiar": None}
        memory = Memory(kept=copy.deepcopy(model.state_dict()), facts=facts)
        first_read = encode_validation(model, task, workers)
        surprises = [path.surprise for path in first_read]

        def collected(of: Task, stretches: Stretches, temperature: float = 1.0) -> Played:
            return collect(
                model, of, stretches, config.agents, rng, workers, rescale=encoder_learns, temperature=temperature
            )

        def step(update: int, rate_share: float) -> Row:
            scale = ValueScale(**memory.facts["scale"])
            rate = memory.facts["rate"] * rate_at(update, updates, config)
            set_rates(optimizer, rate_share * rate, config.weight_decay)
            drawn = drawn_stretches(task, config, memory.facts["parts"], update, rng)
            stretches = drawn.stretches
            if update == 0 and scale.std == 1.0:  # a head that has met no reward yet
                with torch.no_grad():
                    for network in (model, average):
                        network.head.policy.bias[Action.HOLD] += config.first_hold_logit
                at_full_cost, _ = _paid(task, config, collected(task, stretches))
                unit = reward_unit(at_full_cost, task.bucket.discount)
                scale = replace(scale, std=unit, least_std=LEAST_VALUE_STD * unit)
                model.value_std.fill_(scale.std)
            weights = _weights(config, kickstart, update, updates, memory.facts["explore"])
            played = collected(with_cost_share(task, update, updates, config), stretches, weights.temperature)
            rollout = played.rollout
            reward, surprise_share = _paid(task, config, played)
            experience, scale = _experience(model, average, scale, task, rollout, reward, config)
            memory.facts["scale"] = asdict(scale)
            experience, memory.facts["parts"] = counted(experience, drawn, update)
            if kickstart is not None and weights.teacher > 0:
                said = teacher_probabilities(kickstart.teacher, task, stretches, rollout.observation[:, :, :-1])
                experience = replace(experience, teacher=said)
            seen, experience = with_earlier(
                earlier, played, reward, experience, model.head, config, scale, task.bucket.discount, update, rng
            )
            experience, memory.facts["familiar"] = explored(experience, config, seen[0], played.latent, memory.facts)
            done = _update(model, task, config, stretches, seen, experience, weights, optimizer, update, rng, workers)
            for losses in done.values():
                _refuse_unsound(losses, model)
            if config.adaptive_rate and update >= config.warm_up_updates:
                moved = next(iter(done.values())).last_kl
                memory.facts["rate"] = controlled_rate(memory.facts["rate"], moved, config.target_kl)
            _average_weights(average, model, min(config.average_decay, (1 + update) / (4 + update)))
            row = {
                **_row(done, kickstarted=experience.teacher is not None),
                "reward": float(rollout.reward.mean()),
                **_terms(rollout),
            }
            row |= {"surprise_share": surprise_share}
            if is_due(update, updates):
                paths = encode_validation(average, task, workers) if encoder_learns else first_read
                row |= _validated(average, task, config, paths, surprises, memory, workers)
            return row

        yield from survivable(step, live, memory, updates, checkpoints)
    model.load_state_dict(memory.kept)


def _validated(
    average: ActorCritic,
    task: Task,
    config: PpoConfig,
    paths: list[EncodedPath],
    surprises: list[FloatArray],
    memory: Memory,
    workers: Shards,
) -> Row:
    """How the averaged network validates; kept in memory where it is not worse than the best by a standard error."""
    validation, score, bias = choose_hold_bias(average, task, paths, surprises, config.surprise_control, workers)
    best = memory.facts["best"]
    if best is None or not is_worse(score, np.array(best)):  # of equals the latest: it has learned most
        memory.kept = copy.deepcopy(average.state_dict())
        memory.kept["head.policy.bias"][Action.HOLD] += bias
        memory.kept["hold_bias"].fill_(bias)
        memory.kept["collapsed"].fill_(collapse(asdict(validation)) is not None)
    if best is not None:
        gained = is_worse(np.array(best), score)
        memory.facts["explore"] = after_gain(memory.facts["explore"], gained=gained)
    if best is None or score.sum() > np.sum(best):
        memory.facts["best"] = score.tolist()
    figures = {f"valid_{name}": value for name, value in asdict(validation).items()}
    return figures | {"valid_expected_score": float(score.sum()), "valid_hold_bias": bias}


@torch.no_grad()
def _take_out_threshold(model: ActorCritic) -> None:
    """Of an earlier training: what was chosen for trading greedily is not what to explore with."""
    model.head.policy.bias[Action.HOLD] -= model.hold_bias
    model.hold_bias.zero_()


def _weights(config: PpoConfig, kickstart: Kickstart | None, update: int, updates: int, explore: float) -> Weights:
    """Of the parts of the loss at an update."""
    return Weights(
        clip=config.clip,
        value=config.value_coef,
        entropy=entropy_at(update, updates, config),
        auxiliary=config.prediction_coef,
        teacher=kickstart.weight_at(update, updates) if kickstart is not None else 0.0,
        temperature=temperature_at(update, updates, config, explore),
    )


def _update(
    model: ActorCritic,
    task: Task,
    config: PpoConfig,
    stretches: Stretches,
    seen: tuple[Tensor, Float32Array],
    experience: Experience,
    weights: Weights,
    optimizer: torch.optim.Optimizer,
    update: int,
    rng: np.random.Generator,
    workers: Shards,
) -> dict[str, Losses]:
    """Epochs of the head on what the rollout encoded and, where the encoder's turn has come, of the whole network.

    seen: what the head read at the decisions of `experience`, of the market (S, K, Z) and of accounts (S, G, K, A).
    """
    latent, observation = seen
    phases = {}
    if config.head_epochs:
        of_head = head_gradient(model.head, latent, observation, experience, weights, workers)
        phases["head"] = (of_head, list(model.head.parameters()), config.head_epochs, config.head_minibatches)
    if config.encoder_every and (update + 1) % config.encoder_every == 0:
        everything = list(model.parameters())
        evaluate = _evaluator(model, task, stretches, torch.from_numpy(observation))
        of_all = autograd_gradient(evaluate, everything, experience, weights, workers)
        phases["encoder"] = (of_all, everything, config.encoder_epochs, config.encoder_minibatches)
    return {
        name: ppo_update(
            gradient, parameters, optimizer, len(experience.action), epochs, minibatches, config.target_kl,
            config.grad_clip, rng,
        )
        for name, (gradient, parameters, epochs, minibatches) in phases.items()
    }  # fmt: skip


def _row(done: dict[str, Losses], *, kickstarted: bool) -> Row:
    """The figures of the last phase, and how many epochs each had."""
    figures = asdict(list(done.values())[-1])
    del figures["epochs"], figures["last_kl"]
    if not kickstarted:
        del figures["teacher_kl"]
    if "encoder" not in done:
        del figures["auxiliary"]  # the head alone predicts nothing
    return figures | {f"{name}_epochs": done[name].epochs if name in done else 0.0 for name in ("head", "encoder")}


def _refuse_unsound(losses: Losses, model: ActorCritic) -> None:
    named = {"policy": losses.policy, "value": losses.value, "auxiliary": losses.auxiliary, "kl": losses.kl}
    if reason := fault(named, losses.grad_norm, model):
        raise BlewUp(reason)


def rate_at(update: int, updates: int, config: PpoConfig) -> float:
    """The learning rate: rising over the first warm_up_updates, falling to zero over all of them.

    Adam divides by a gradient's own size, so its first steps are whole ones wherever chance points. Without the rise a
    policy could be certain after the first update (entropy below .001) of what it never tried otherwise, and one in
    four stayed out of a market whose next return was shown, or sold at once whatever it had bought; neither a bound on
    the KL of a minibatch nor an entropy bonus helped (LOG.md, 2026-11-28).
    """
    return config.learning_rate * min(1.0, (update + 1) / max(1, config.warm_up_updates)) * (1 - update / updates)


def controlled_rate(rate: float, kl: float, target_kl: float) -> float:
    """The next update's factor of the learning rate, .1 to 3, from this one's and the KL of its last epoch.

    As Schulman et al. 2017 (arXiv 1707.06347, section 4) adapt their penalty: half as much again where an update moved
    the policy by less than two thirds of the target, a third less where by more than half as much again.
    """
    if kl > 1.5 * target_kl:
        return max(0.1, rate / 1.5)
    return min(3.0, 1.5 * rate) if kl < target_kl / 1.5 else rate


def entropy_at(update: int, updates: int, config: PpoConfig) -> float:
    """The entropy coefficient, falling to zero over the first entropy_frac of the updates.

    With a bonus left a policy prefers to trade with a small probability at each decision: as good when sampled, but its
    likeliest action, which is what is traded, is to wait.
    """
    return config.entropy_coef * _left(update, updates, config)


def temperature_at(update: int, updates: int, config: PpoConfig, explore: float) -> float:
    """The policy's temperature, falling to 1 over the first entropy_frac of the updates; explore: by gain, its share.

    A policy that was sampled from and judged at the same temperature: its probability ratios are those of PPO.
    """
    share = explore if config.entropy_by == "gain" else 1.0
    return 1.0 + (config.temperature - 1.0) * share * _left(update, updates, config)


def _left(update: int, updates: int, config: PpoConfig) -> float:
    """Of exploration, 1 .. 0."""
    return max(0.0, 1 - update / max(1.0, config.entropy_frac * updates))


def with_cost_share(task: Task, update: int, updates: int, config: PpoConfig) -> Task:
    """The task with its trading costs scaled from 0 up to 1 over the first cost_ramp_frac of the updates.

    At full cost from the start every random trade loses, and the policy learns to stay flat before it can read.
    """
    ramp = config.cost_ramp_frac * updates
    share = min(1.0, update / ramp) if ramp else 1.0
    costs = ("taker_fee_frac", "maker_fee_frac", "half_spread_frac", "impact_coef")
    rules = task.rules._replace(**{name: share * getattr(task.rules, name) for name in costs})
    return replace(task, rules=rules)


def _paid(task: Task, config: PpoConfig, played: Played) -> tuple[FloatArray, float]:
    """The rewards that are learned from, (S, G, K), and the share of the variance that surprises had in them."""
    exposure = intended_exposure_frac(played.rollout, task.rules.max_lots)
    return without_surprise(played.rollout.reward, exposure, played.surprise, config.surprise_control)


def reward_unit(reward: FloatArray, discount: float) -> float:
    """Scale that makes value targets of order one, from steps of this mean and variance; 1e-8 at least.

    Root mean square of the discounted sum of independent rewards: var / (1 - discount^2) + (mean / (1 - discount))^2.
    """
    square = reward.var() / (1 - discount**2) + (reward.mean() / (1 - discount)) ** 2
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


def _evaluator(model: ActorCritic, task: Task, stretches: Stretches, observation: Tensor) -> Evaluate:
    """What the network says of whole stretches: each decision time is encoded once for all the agents on it."""

    def evaluate(index: Tensor) -> Evaluation:
        part = stretches.part(index.numpy())
        encoding = model.read(part.tokens, banded=True)
        projected = model.head.market(model.latent(encoding.cpu())[:, :-1]).unsqueeze(1)
        logits, value = model.head.act(projected, observation[index])
        return Evaluation(logits=logits, value=value, auxiliary=prediction_loss(task, encoding, part))

    return evaluate


def _terms(rollout: Rollout) -> Row:
    return {f"reward_{name}": float(rollout.terms[..., k].mean()) for k, name in enumerate(TERMS)}


@torch.no_grad()
def _average_weights(average: ActorCritic, model: ActorCritic, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model; buffers (scales, calibration) are copied."""
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    _copy_buffers(average, model)


def _copy_buffers(to: ActorCritic, model: ActorCritic) -> None:
    for copied, buffer in zip(to.buffers(), model.buffers(), strict=True):
        copied.copy_(buffer)
