"""Teaching the encoder by prediction: the next returns, of which every decision time carries some."""

import copy
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from btcai.agent.horizons import is_stormy, leaning, skill_of
from btcai.agent.shards import SHARDS, Shards, shards
from btcai.agent.task import Stretches, Task, clock_decisions, sample_stretches, spread_bars
from btcai.config import PretrainConfig
from btcai.models.actor_critic import ActorCritic, Encoding
from btcai.models.heads import TARGET_CLIP, forecast_loss
from btcai.schema import BoolArray, Float32Array, FloatArray, IntArray
from btcai.training.health import BlewUp, fault
from btcai.training.phase import Memory, Row, is_due, make_optimizer, say_kept, set_rates, survivable
from btcai.training.play import AT_ONCE, decision_chunks, encode_chunk
from btcai.training.resume import Checkpoints, Live

HELD_OUT = 128  # decision times of each stretch that judges the forecasts
JUDGED_ON = 256  # stretches of the validation span: of fewer, chance prefers weights of before the last, small steps
RATE_POWER = 2  # the rate falls as this power of what is left: a step's noise hides a weak signal until steps are small


def pretrain(
    model: ActorCritic,
    task: Task,
    config: PretrainConfig,
    updates: int,
    rng: np.random.Generator,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Row]:
    """Teach the encoder the next returns; afterwards `model` holds the weights with the least validation loss.

    Yields one row per update: forecast_loss, and valid_forecast_loss where it was measured. Kills and explosions are
    survived as phase.survivable says.
    """
    if updates == 0:
        return
    optimizer, parameters = make_optimizer(model), list(model.parameters())
    live = Live(modules={"model": model}, optimizers={"adam": optimizer}, generators={"sampling": rng})
    with shards() as workers:
        facts = {"best": forecast_error(model, task, workers), "leans": None, "kept_update": 0}
        memory = Memory(kept=copy.deepcopy(model.state_dict()), facts=facts)

        def step(update: int, rate_share: float) -> Row:
            rate = config.learning_rate * (1 - update / updates) ** RATE_POWER
            set_rates(optimizer, rate_share * rate, decay_at(update, updates, config))
            batch = sample_stretches(task, task.train, config.stretches, config.decisions, rng)
            leans = memory.facts["leans"]
            parts = [
                partial(part_loss, model, task, batch.part(rows), leans)
                for rows in np.split(np.arange(config.stretches), SHARDS)
            ]
            loss = float(workers.gradients(parameters, parts))
            grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, 1.0))
            optimizer.step()
            if reason := fault({"forecast": loss}, grad_norm, model):
                raise BlewUp(reason)
            row = {"forecast_loss": loss, "grad_norm": grad_norm}
            if is_due(update, updates):
                error = row["valid_forecast_loss"] = forecast_error(model, task, workers)
                if config.horizon_skill:
                    memory.facts["leans"] = leaning(_skill(model, task, workers), config.horizon_skill).tolist()
                if error < memory.facts["best"]:
                    memory.facts["best"], memory.kept = error, copy.deepcopy(model.state_dict())
                    memory.facts["kept_update"] = update + 1
            return row

        yield from survivable(step, live, memory, updates, checkpoints)
        model.load_state_dict(memory.kept)
        say_kept("prediction", memory.facts["kept_update"], updates)
        _centre(model, task, workers)


def decay_at(update: int, updates: int, config: PretrainConfig) -> float:
    """The weight decay, rising from near zero over the first decay_rise_frac of the updates.

    A weak signal passes several small maps in a row and grows more slowly than a full decay takes from each: with it
    from the start two of seven seeds never found the weakest of the yardstick's signals at 28 bars a token, and with
    half of it the noise that stayed cost .8 % of the profit of an interaction (LOG.md, 2026-11-29).
    """
    return config.weight_decay * min(1.0, (update + 1) / max(1.0, config.decay_rise_frac * updates))


def part_loss(
    model: ActorCritic, task: Task, part: Stretches, leans: list[list[float]] | None = None
) -> tuple[Tensor, Tensor]:
    """prediction_loss of a part of an update's stretches, as Shards.gradients takes it: with gradients, and without."""
    loss = prediction_loss(task, model.read(part.tokens, banded=True), part, leans)
    return loss, loss.detach()


def _skill(model: ActorCritic, task: Task, workers: Shards) -> FloatArray:
    """On the validation span, by regime and horizon: (2, 1 + H)."""

    def told(bars: IntArray) -> tuple[Float32Array, Float32Array, BoolArray, BoolArray]:
        encoding, part = encode_chunk(model, task, bars, task.valid)
        target = np.clip(part.target[0], -TARGET_CLIP, TARGET_CLIP)
        return encoding.location[0].numpy(), target, part.known[0], is_stormy(task, bars[0])

    chunks = decision_chunks(clock_decisions(task, task.valid, 0))
    told_all = (np.concatenate(column) for column in zip(*workers.map(told, chunks), strict=True))
    return skill_of(*told_all, overlap=np.maximum(1.0, task.target_bars / task.patch_bars))


@torch.no_grad()
def _centre(model: ActorCritic, task: Task, workers: Shards) -> None:
    """Shift forecasts so that their mean over the training span is that of the returns.

    A gradient step leaves the mean wrong by more than most of what a weak signal moves it, and a forecast that is too
    low everywhere pays for staying out. Over the whole span, every return to the next decision once: the mean of 65,536
    of the yardstick is uncertain by .12 bps, and one seed of five that drew .3 lost 4 % of its profit (LOG.md,
    2026-11-29).
    """
    chunks = decision_chunks(clock_decisions(task, task.train, 0))
    missed, known = (sum(parts) for parts in zip(*workers.map(partial(_missed, model, task), chunks), strict=True))
    location = model.forecast.student.bias[: len(task.target_bars)]
    location += (missed / known.clamp(min=1)).to(location)


def _missed(model: ActorCritic, task: Task, bars: IntArray) -> tuple[Tensor, Tensor]:
    """Returns less their forecasts at bars (S, M), summed, and how many the training span knows, both (1 + H,)."""
    encoding, part = encode_chunk(model, task, bars, task.train)
    target, known = torch.from_numpy(part.target).clamp(-TARGET_CLIP, TARGET_CLIP), torch.from_numpy(part.known)
    return ((target - encoding.location).double() * known).sum((0, 1)), known.sum((0, 1))


def forecast_error(model: ActorCritic, task: Task, workers: Shards) -> float:
    """The prediction loss on the validation span, the same stretches every time: the mean of forecast_errors."""
    return float(np.mean(forecast_errors(model, task, workers)))


def forecast_errors(model: ActorCritic, task: Task, workers: Shards) -> FloatArray:
    """The prediction loss on stretches spread evenly over the validation span, in time, by groups of AT_ONCE."""

    def error(bars: IntArray) -> float:
        return float(prediction_loss(task, *encode_chunk(model, task, bars, task.valid)))

    bars = np.split(spread_bars(task, task.valid, JUDGED_ON, HELD_OUT), JUDGED_ON // AT_ONCE)
    return np.array(workers.map(error, bars))


def prediction_loss(task: Task, encoding: Encoding, part: Stretches, leans: list[list[float]] | None = None) -> Tensor:
    """Of what was encoded at a part's decision times, with gradients; on the CPU, wherever that was.

    leans: what horizons count beside their weight, by regime, as horizons.leaning gives it; evenly without.
    """
    device, weight = encoding.location.device, task.horizon_weight
    if leans is not None:
        regime = is_stormy(task, part.bars).astype(np.int64)
        by_regime = weight * np.array(leans)
        by_regime *= weight.sum() / by_regime.sum(1, keepdims=True)  # a regime counts as much as it did
        weight = np.asarray(by_regime[regime], np.float32)
    outcome = (torch.from_numpy(array).to(device) for array in (part.target, part.known, weight))
    said = encoding.location, encoding.log_scale, encoding.degrees, encoding.quantiles
    return forecast_loss(*said, *outcome).cpu()
