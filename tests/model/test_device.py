"""The encoder on another device than the head, as on a machine with a GPU.

torch's lazy backend is a second device that every CPU build has: it computes on the CPU, and nearly all of its
operations refuse tensors that were left there. Where there is a GPU the same is asked of it.
"""

from typing import Any

import numpy as np
import pytest
import torch
from learning_tasks import fresh_model, settings, small_task
from torch import Tensor

from btcai.agent.task import Task
from btcai.errors import ConfigError
from btcai.models.actor_critic import ActorCritic
from btcai.training import play, pretraining
from btcai.training.calibrating import calibrate
from btcai.training.progressive import train_bucket
from btcai.training.trainer import pretrain, train_ppo

PREDICTION = settings().pretrain.model_copy(update={"stretches": 2, "decisions": 128})
JOINT = settings().ppo.model_copy(
    update={
        "stretches": 2,
        "decisions": 128,
        "agents": 2,
        "encoder_every": 1,
        "head_epochs": 1,
        "head_minibatches": 1,
        "encoder_minibatches": 1,
    }
)


CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"))


@pytest.fixture(scope="module")
def backend() -> str:
    import torch._lazy.ts_backend

    torch._lazy.ts_backend.init()  # type: ignore[no-untyped-call]
    return "lazy"


@pytest.fixture(params=["lazy", CUDA])
def other_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The lazy one with ways to take tensors apart in place of its own, whose pieces it does not take back, and an
    optimizer whose steps are not fused, which it does not know."""
    if request.param == "cuda":
        return "cuda"
    backend: str = request.getfixturevalue("backend")

    def split(tensor: Tensor, sizes: list[int], dim: int = 0) -> list[Tensor]:
        ends = np.cumsum(sizes).tolist()
        return [tensor.narrow(dim, end - size, size) for end, size in zip(ends, sizes, strict=True)]

    def chunk(tensor: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
        return split(tensor, [tensor.shape[dim] // chunks] * chunks, dim)

    def unbind(tensor: Tensor, dim: int = 0) -> list[Tensor]:
        return [tensor.select(dim, k) for k in range(tensor.shape[dim])]

    monkeypatch.setattr(torch, "split", split)
    monkeypatch.setattr(Tensor, "chunk", chunk)
    monkeypatch.setattr(Tensor, "unbind", unbind)
    adam = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, eps, fused: adam(groups, eps=eps, fused=not fused))
    return backend


def trained(task: Task, device: str) -> tuple[ActorCritic, list[dict[str, float]]]:
    torch.manual_seed(1)
    model, rng = fresh_model(task), np.random.default_rng(2)
    with model.encoder_on(device):
        rows = list(pretrain(model, task, PREDICTION, 1, rng))
        calibrate(model, task)
        rows += train_ppo(model, task, JOINT, 1, rng)
    return model, rows


@pytest.mark.slow
def test_an_encoder_on_another_device_learns_the_same(other_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUDGED_ON", "HELD_OUT"):  # the lazy device is slow
        monkeypatch.setattr(pretraining, name, 8)
    monkeypatch.setattr(play, "SCALED_ON", (8, 8))
    task = small_task(2000)
    here, rows_here = trained(task, "cpu")
    there, rows_there = trained(task, other_device)
    for row, other in zip(rows_here, rows_there, strict=True):
        assert other == pytest.approx(row, rel=0.02, abs=1e-3)
    for (name, weight), other in zip(here.state_dict().items(), there.state_dict().values(), strict=True):
        assert other.device.type == "cpu", name  # it comes back: saved, validated and exported from there
        # A step of Adam is as large for a gradient that rounding makes: weights differ by up to a step of each phase.
        torch.testing.assert_close(other, weight, rtol=0.01, atol=0.03, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.slow
def test_gradients_go_back_through_what_the_head_reads(other_device: str) -> None:
    task = small_task(3000)

    def of_head(device: str) -> Tensor:
        torch.manual_seed(1)
        model = fresh_model(task)
        tokens = task.features[: 150 * task.patch_bars].reshape(1, 150, task.patch_bars, -1)
        with model.encoder_on(device):
            model.head.market(model.latent(model.read(tokens).cpu())).sum().backward()
            gradient = model.trunk.mix.weight.grad
            assert gradient is not None
            assert gradient.device.type == device
            found = gradient.cpu()
        assert model.trunk.mix.weight.device.type == "cpu"
        return found

    assert of_head("cpu").abs().max() > 0
    torch.testing.assert_close(of_head(other_device), of_head("cpu"), rtol=1e-4, atol=1e-5)


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = settings().model_copy(update={"device": "cuda"})
    unread: Any = None
    with pytest.raises(ConfigError, match=r"device must be cpu where torch finds no CUDA device.*TORCH_INDEX"):
        train_bucket(unread, unread, unread, "scalping", config, None, unread)


@pytest.mark.slow
def test_an_encoder_comes_back_from_a_training_that_fails(other_device: str) -> None:
    model = fresh_model(small_task(3000))

    def train() -> None:
        with model.encoder_on(other_device):
            assert model.stem.relevance.device.type == other_device
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        train()
    assert {weight.device.type for weight in model.state_dict().values()} == {"cpu"}
