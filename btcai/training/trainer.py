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
from btcai.agent.rollout import Rollout, reward_sensitivity, without_surprise
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
from btcai.training.phase import Memory, Row, is_due, make_optimizer, say_kept, set_rates, survivable
from btcai.training.play import (
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
from btcai.training.schedules import controlled_rate, rate_at, weights_at, with_cost_share

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
    with shards() as workers:
        phase = _PpoPhase(model, task, config, updates, rng, kickstart, workers)
        yield from survivable(phase.update, phase.live, phase.memory, updates, checkpoints)
    model.load_state_dict(phase.memory.kept)
    if updates:
        say_kept("PPO", phase.memory.facts["kept_update"], updates)


class _PpoPhase:
    """A phase of PPO on one task: the networks, what is remembered from update to update, and how one is made."""

    def __init__(
        self,
        model: ActorCritic,
        task: Task,
        config: PpoConfig,
        updates: int,
        rng: np.random.Generator,
        kickstart: Kickstart | None,
        workers: Shards,
    ) -> None:
        self.model, self.task, self.config, self.updates = model, task, config, updates
        self.rng, self.kickstart, self.workers = rng, kickstart, workers
        self.encoder_learns = config.encoder_every > 0
        _take_out_threshold(model)
        self.optimizer = make_optimizer(model, config.encoder_rate_share)
        self.average = copy.deepcopy(model)
        self.earlier = trajectory_memory(model, config)
        self.live = Live(
            modules={"model": model, "average": self.average, **self.earlier},
            optimizers={"adam": self.optimizer},
            generators={"sampling": rng},
        )
        scale = ValueScale(
            mean=float(model.value_mean),
            std=float(model.value_std),
            least_std=LEAST_VALUE_STD * float(model.reward_unit),
        )
        if not self.encoder_learns:  # else every collection does
            standardise_signals(model, task, workers)
        model.forecast_worth.fill_(forecast_worth(model, task, workers))
        _copy_buffers(self.average, model)
        facts = {"scale": asdict(scale), "best": None, "parts": None, "rate": 1.0, "explore": 1.0, "familiar": None}
        facts["kept_update"] = 0
        self.memory = Memory(kept=copy.deepcopy(model.state_dict()), facts=facts)
        self.first_read = encode_validation(model, task, workers)
        self.surprises = [path.surprise for path in self.first_read]

    def update(self, number: int, rate_share: float) -> Row:
        """Stretches drawn and walked, learned from, averaged and, where it is due, validated; as phase.Step."""
        facts, config = self.memory.facts, self.config
        set_rates(
            self.optimizer, rate_share * (facts["rate"] * rate_at(number, self.updates, config)), config.weight_decay
        )
        drawn = drawn_stretches(self.task, config, facts["parts"], number, self.rng)
        scale = ValueScale(**facts["scale"])
        if not self.model.reward_unit:  # a head that has met no reward yet
            scale = self._meet_reward(drawn.stretches, scale)
        weights = weights_at(number, self.updates, config, self.kickstart, facts["explore"])
        at_cost = with_cost_share(self.task, number, self.updates, config)
        played = self._collect(at_cost, drawn.stretches, weights.temperature)
        reward, surprise_share = _paid(self.task, config, played)
        experience, scale = self._experience(scale, played.rollout, reward)
        facts["scale"] = asdict(scale)
        experience, facts["parts"] = counted(experience, drawn, number)
        experience = self._taught(experience, weights, drawn.stretches, played.rollout)
        seen, experience = with_earlier(
            self.earlier, played, reward, experience, self.model.head, config, scale, self.task.bucket.discount, number,
            self.rng,
        )  # fmt: skip
        experience, facts["familiar"] = explored(experience, config, seen[0], played.latent, facts)
        done = self._learn(number, drawn.stretches, seen, experience, weights)
        _average_weights(self.average, self.model, min(config.average_decay, (1 + number) / (4 + number)))
        row = {
            **_losses(done, kickstarted=experience.teacher is not None),
            "reward": float(played.rollout.reward.mean()),
            **_terms(played.rollout),
            "surprise_share": surprise_share,
        }
        return row | self._validated(number) if is_due(number, self.updates) else row

    def _collect(self, task: Task, stretches: Stretches, temperature: float = 1.0) -> Played:
        agents, rescale = self.config.agents, self.encoder_learns
        return collect(
            self.model, task, stretches, agents, self.rng, self.workers, rescale=rescale, temperature=temperature
        )

    def _meet_reward(self, stretches: Stretches, scale: ValueScale) -> ValueScale:
        """A fresh head's first logit of HOLD, and the unit of its values, from rewards at full cost."""
        with torch.no_grad():
            for network in (self.model, self.average):
                network.head.policy.bias[Action.HOLD] += self.config.first_hold_logit
        reward, _ = _paid(self.task, self.config, self._collect(self.task, stretches))
        unit = reward_unit(reward, self.task.bucket.discount)
        self.model.reward_unit.fill_(unit)
        return replace(scale, std=unit, least_std=LEAST_VALUE_STD * unit)

    def _experience(self, scale: ValueScale, rollout: Rollout, reward: FloatArray) -> tuple[Experience, ValueScale]:
        """S stretches, G agents, K = M - 1 transitions: every tensor (S, G, K). Value layers move to the new scale."""
        value = scale.restore(rollout.value.astype(np.float64))
        advantage, value_target = gae(
            reward,
            value[..., :-1],
            value[..., 1:],
            rollout.terminated,
            np.zeros_like(rollout.terminated),  # only the end of the data truncates
            self.task.bucket.discount,
            self.config.gae_lambda,
        )
        updated = scale.updated(value_target, VALUE_RATE)
        for network in (self.model, self.average):
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

    def _taught(self, experience: Experience, weights: Weights, stretches: Stretches, rollout: Rollout) -> Experience:
        """With what the teacher says at every decision, as long as that counts."""
        if self.kickstart is None or weights.teacher <= 0:
            return experience
        said = teacher_probabilities(self.kickstart.teacher, self.task, stretches, rollout.observation[:, :, :-1])
        return replace(experience, teacher=said)

    def _learn(
        self,
        number: int,
        stretches: Stretches,
        seen: tuple[Tensor, Float32Array],
        experience: Experience,
        weights: Weights,
    ) -> dict[str, Losses]:
        """Epochs of the head on what the rollout encoded and, where the encoder's turn has come, of the whole network.

        seen: what the head read at the decisions of `experience`, of the market (S, K, Z) and of accounts (S, G, K, A).
        BlewUp where the network is not sound afterwards.
        """
        latent, observation = seen
        model, config = self.model, self.config
        phases = {}
        if config.head_epochs:
            of_head = head_gradient(model.head, latent, observation, experience, weights, self.workers)
            phases["head"] = (of_head, list(model.head.parameters()), config.head_epochs, config.head_minibatches)
        if self.encoder_learns and (number + 1) % config.encoder_every == 0:
            everything = list(model.parameters())
            evaluate = self._evaluator(stretches, torch.from_numpy(observation))
            of_all = autograd_gradient(evaluate, everything, experience, weights, self.workers)
            phases["encoder"] = (of_all, everything, config.encoder_epochs, config.encoder_minibatches)
        done = {
            name: ppo_update(
                gradient, parameters, self.optimizer, len(experience.action), epochs, minibatches, config.target_kl,
                config.grad_clip, self.rng,
            )
            for name, (gradient, parameters, epochs, minibatches) in phases.items()
        }  # fmt: skip
        for losses in done.values():
            _refuse_unsound(losses, model)
        if config.adaptive_rate and number >= config.warm_up_updates:
            facts, moved = self.memory.facts, next(iter(done.values())).last_kl
            facts["rate"] = controlled_rate(facts["rate"], moved, config.target_kl)
        return done

    def _evaluator(self, stretches: Stretches, observation: Tensor) -> Evaluate:
        """What the network says of whole stretches: each decision time is encoded once for all the agents on it."""
        model, task = self.model, self.task

        def evaluate(index: Tensor) -> Evaluation:
            part = stretches.part(index.numpy())
            encoding = model.read(part.tokens, banded=True)
            projected = model.head.market(model.latent(encoding.cpu())[:, :-1]).unsqueeze(1)
            logits, value = model.head.act(projected, observation[index])
            return Evaluation(logits=logits, value=value, auxiliary=prediction_loss(task, encoding, part))

        return evaluate

    def _validated(self, number: int) -> Row:
        """How the averaged network validates; kept where it is not worse than the best by a standard error."""
        memory, average = self.memory, self.average
        paths = encode_validation(average, self.task, self.workers) if self.encoder_learns else self.first_read
        validation, score, bias = choose_hold_bias(
            average, self.task, paths, self.surprises, self.config.surprise_control, self.workers
        )
        best = memory.facts["best"]
        if best is None or not is_worse(score, np.array(best)):  # of equals the latest: it has learned most
            memory.kept, memory.facts["kept_update"] = copy.deepcopy(average.state_dict()), number + 1
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


def _paid(task: Task, config: PpoConfig, played: Played) -> tuple[FloatArray, float]:
    """The rewards that are learned from, (S, G, K), and the share of the variance that surprises had in them."""
    exposure = reward_sensitivity(played.rollout, task.rules)
    return without_surprise(played.rollout.reward, exposure, played.surprise, config.surprise_control)


def reward_unit(reward: FloatArray, discount: float) -> float:
    """Scale that makes value targets of order one, from steps of this mean and variance; 1e-8 at least.

    Root mean square of the discounted sum of independent rewards: var / (1 - discount^2) + (mean / (1 - discount))^2.
    """
    square = reward.var() / (1 - discount**2) + (reward.mean() / (1 - discount)) ** 2
    return float(max(np.sqrt(square), 1e-8))


def _losses(done: dict[str, Losses], *, kickstarted: bool) -> Row:
    """The figures of the last phase, and how many epochs each had."""
    figures = asdict(list(done.values())[-1])
    del figures["epochs"], figures["last_kl"]
    if not kickstarted:
        del figures["teacher_kl"]
    if "encoder" not in done:
        del figures["auxiliary"]  # the head alone predicts nothing
    return figures | {f"{name}_epochs": done[name].epochs if name in done else 0.0 for name in ("head", "encoder")}


def _terms(rollout: Rollout) -> Row:
    return {f"reward_{name}": float(rollout.terms[..., k].mean()) for k, name in enumerate(TERMS)}


def _refuse_unsound(losses: Losses, model: ActorCritic) -> None:
    named = {"policy": losses.policy, "value": losses.value, "auxiliary": losses.auxiliary, "kl": losses.kl}
    if reason := fault(named, losses.grad_norm, model):
        raise BlewUp(reason)


@torch.no_grad()
def _average_weights(average: ActorCritic, model: ActorCritic, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model; buffers (scales, calibration) are copied."""
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    _copy_buffers(average, model)


def _copy_buffers(to: ActorCritic, model: ActorCritic) -> None:
    for copied, buffer in zip(to.buffers(), model.buffers(), strict=True):
        copied.copy_(buffer)
