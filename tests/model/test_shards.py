"""Work in shards: the same bits on one thread and on two, the whole batch's gradient, and errors that are heard."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch
from learning_tasks import fresh_model, small_task
from torch import Tensor, nn

from btcai.agent.shards import SHARDS, Part, shards
from btcai.agent.task import Stretches, Task, sample_stretches
from btcai.models.actor_critic import ActorCritic
from btcai.models.heads import forecast_loss
from btcai.training.play import Played, collect


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def prepared() -> tuple[Task, ActorCritic, Stretches]:
    """Eight stretches whose outcomes are all known."""
    task = small_task(n_bars=3000)
    torch.manual_seed(0)
    stretches = sample_stretches(task, task.train, 8, 128, np.random.default_rng(0))
    assert stretches.known.all()
    return task, fresh_model(task), stretches


def loss_of(model: ActorCritic, task: Task, stretches: Stretches) -> tuple[Tensor, Tensor]:
    said = model.encode(torch.from_numpy(stretches.tokens), banded=True)
    target, known = torch.from_numpy(stretches.target), torch.from_numpy(stretches.known)
    weight = torch.from_numpy(task.horizon_weight)
    loss = forecast_loss(said.location, said.log_scale, said.degrees, said.quantiles, target, known, weight)
    loss = loss + said.trunk.square().mean()
    return loss, loss.detach()


def in_shards(threads: int) -> tuple[ActorCritic, Tensor]:
    task, model, stretches = prepared()
    parts = [partial(loss_of, model, task, stretches.part(rows)) for rows in np.split(np.arange(8), SHARDS)]
    with shards(threads) as workers:
        return model, workers.gradients(list(model.parameters()), parts)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_gradients_have_the_same_bits_on_one_thread_and_on_two() -> None:
    (first, loss), (second, other) = in_shards(1), in_shards(2)
    assert torch.equal(loss, other)
    found, again = gradients(first), gradients(second)
    assert found.keys() == again.keys()
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_shards_have_the_gradient_and_the_loss_of_the_whole_batch() -> None:
    model, loss = in_shards(2)
    task, whole, stretches = prepared()
    expected, _ = loss_of(whole, task, stretches)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    found, reference = gradients(model), gradients(whole)
    assert found.keys() == reference.keys()
    length = torch.cat([gradient.flatten() for gradient in reference.values()]).norm()
    assert all((found[name] - reference[name]).abs().max() < 1e-6 * length for name in found)


def test_accounts_walk_the_same_on_one_thread_and_on_two() -> None:
    found: list[Played] = []
    for threads in (1, 2):
        task, model, stretches = prepared()
        with shards(threads) as workers:
            found.append(collect(model, task, stretches, 3, np.random.default_rng(5), workers, rescale=False))
    first, second = found
    assert np.array_equal(first.surprise, second.surprise)
    for field in fields(first.rollout):
        assert np.array_equal(getattr(first.rollout, field.name), getattr(second.rollout, field.name)), field.name
    assert (first.rollout.action[:4] != first.rollout.action[4:]).any()  # the halves draw from streams of their own


def both(part: Callable[[float], tuple[Tensor, Tensor]]) -> list[Part]:
    return [partial(part, 1.0), partial(part, 3.0)]


def test_what_one_shard_alone_depends_on_counts_half() -> None:
    # losses x and 3 x + 6 y: gradients (1 + 3) / 2 and 6 / 2; z is read by neither
    x, y, z = (nn.Parameter(torch.tensor(1.0)) for _ in range(3))
    z.grad = torch.tensor(9.0)  # of an earlier step

    def part(factor: float) -> tuple[Tensor, Tensor]:
        loss = factor * x + (6.0 * y if factor > 1 else 0.0)
        return loss, torch.stack([loss.detach(), torch.tensor(factor)])

    with shards(2) as workers:
        figures = workers.gradients([x, y, z], both(part))
    assert (x.grad, y.grad, z.grad) == (2.0, 3.0, None)
    assert figures.tolist() == [(1.0 + 9.0) / 2, 2.0]


def test_results_come_in_the_order_of_the_parts() -> None:
    with shards(2) as workers:
        assert workers.map(lambda part: part**2, range(7)) == [k**2 for k in range(7)]


def test_threads_compute_on_one_core_each() -> None:
    with shards(9) as workers:
        assert workers.map(lambda _: torch.get_num_threads(), range(8)) == [1] * 8


@pytest.mark.parametrize("threads", [1, 2])
def test_a_shard_that_fails_is_heard(threads: int) -> None:
    def part(factor: float) -> tuple[Tensor, Tensor]:
        raise FloatingPointError(f"shard {factor}")

    with pytest.raises(FloatingPointError, match=r"shard 1\.0"), shards(threads) as workers:
        workers.gradients([], both(part))
