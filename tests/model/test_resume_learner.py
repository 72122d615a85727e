"""The learner goes on to the bit after it stopped, and comes back from what a bad piece of market did to it."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learning_tasks import SMALL, fresh_model, settings, small_task

from btcai.agent.kickstart import Kickstart
from btcai.agent.task import Stretches, Task, sample_stretches
from btcai.models.actor_critic import ActorCritic
from btcai.training import experience, phase, pretraining, trainer
from btcai.training.health import TrainingError
from btcai.training.phase import Row
from btcai.training.resume import Checkpoints

UPDATES = 5
CONFIG = settings()
PREDICTION = CONFIG.pretrain.model_copy(update={"stretches": 2, "decisions": 128})
PPO = CONFIG.ppo.model_copy(
    update={"stretches": 2, "encoder_every": 2, "encoder_minibatches": 1, "head_minibatches": 1, "agents": 2}
)
HEAD_ALONE = PPO.model_copy(update={"encoder_every": 0})
PRIORITISED = HEAD_ALONE.model_copy(
    update={
        "replay": CONFIG.ppo.replay.model_copy(update={"prioritised": 0.8}), "adaptive_rate": True, "warm_up_updates": 1
    }
)  # fmt: skip
AGAIN = HEAD_ALONE.model_copy(
    update={"replay": CONFIG.ppo.replay.model_copy(update={"trajectories": 2, "max_age_updates": 2})}
)
EXPLORING = {
    by: HEAD_ALONE.model_copy(update={"entropy_coef": 0.5, "entropy_frac": 1.0, "entropy_by": by, "temperature": 2.0})
    for by in ("gain", "unfamiliarity")
}
CONFIGS = {
    "prediction": PREDICTION,
    "prediction by skill": PREDICTION.model_copy(update={"horizon_skill": 0.9}),
    "ppo": PPO,
    "ppo, head alone": HEAD_ALONE,
    "prioritised, controlled": PRIORITISED,
    "kickstarted": HEAD_ALONE,
    "trajectories": AGAIN,
    "by gain": EXPLORING["gain"],
    "by unfamiliarity": EXPLORING["unfamiliarity"],
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, two validations a phase, a checkpoint at every other update."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    monkeypatch.setattr(phase, "LEAST_APART", 2)
    monkeypatch.setattr(phase, "VALIDATIONS", 2)
    monkeypatch.setattr(pretraining, "HELD_OUT", 8)


class Run:
    """A fresh learner and its rows in one phase."""

    def __init__(self, name: str, store: Checkpoints | None = None) -> None:
        torch.manual_seed(3)
        task = small_task(3000)
        self.model = ActorCritic(SMALL, task.patch_bars, task.features.shape[1], len(task.bucket.horizons_bars))
        self.rng = np.random.default_rng(5)
        train: Any = trainer.pretrain if name.startswith("prediction") else trainer.train_ppo
        taught: Any = {"kickstart": Kickstart(teacher=fresh_model(task), weight=1.0, frac=1.0)}
        more = taught if name == "kickstarted" else {}
        self.rows: Iterator[Row] = train(self.model, task, CONFIGS[name], UPDATES, self.rng, store, **more)

    def end(self) -> tuple[list[Row], bytes, dict[str, Any]]:
        """Rows, weights and generator at the end."""
        rows = list(self.rows)
        weights = b"".join(weight.numpy().tobytes() for weight in self.model.state_dict().values())
        return rows, weights, dict(self.rng.bit_generator.state)


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(folder=tmp_path / "checkpoints", key="this run")


BRIEFLY = ("prediction", "ppo", "ppo, head alone")
"""What the fast tests go on with."""


@pytest.mark.parametrize(
    "name", [*BRIEFLY, *(pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS if name not in BRIEFLY)]
)
def test_a_phase_that_stopped_goes_on_to_the_bit(store: Checkpoints, name: str) -> None:
    undisturbed = Run(name).end()
    list(islice(Run(name, store).rows, 3))
    assert Run(name, store).end() == undisturbed
    assert Run(name, store).end() == undisturbed  # a phase that has ended is not trained again
    assert [row["update"] for row in undisturbed[0]] == [1, 2, 3, 4, 5]


def bad_draws(monkeypatch: pytest.MonkeyPatch, *bad: int) -> None:
    """The so manieth draws of stretches (from 0) hold a feature that is not a number."""
    drawn = iter(range(10_000))

    def draw(task: Task, *args: Any) -> Stretches:
        stretches = sample_stretches(task, *args)
        if next(drawn) in bad:
            stretches.tokens[0, 150, 0, 0] = np.nan
        return stretches

    for module in (pretraining, experience):
        monkeypatch.setattr(module, "sample_stretches", draw)


@pytest.mark.parametrize(
    ("name", "loss"), [("prediction", "forecast"), ("ppo", "policy"), ("ppo, head alone", "policy")]
)
def test_an_update_on_what_is_not_a_number_is_rolled_back_and_told(
    name: str, loss: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad_draws(monkeypatch, 3)
    run = Run(name)
    with caplog.at_level(logging.WARNING):
        rows, *_ = run.end()
    assert [row["update"] for row in rows] == [1, 2, 3, 3, 4, 5]
    assert (rows[3]["rolled_back_from"], rows[3]["rate_share"]) == (4, 0.5)
    assert caplog.messages == [
        f"update 4 of 5 blew up: the {loss} loss is nan; back to update 2 at half the learning rate, rollback 1 of 3"
    ]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert all(weight.isfinite().all() for weight in run.model.state_dict().values())


def test_a_first_update_that_blew_up_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    bad_draws(monkeypatch, 0)
    run = Run("ppo")
    rows, *_ = run.end()
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["rolled_back_from"] == 1
    assert all(weight.isfinite().all() for weight in run.model.state_dict().values())


def test_a_gradient_that_exploded_is_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def exploding(parameters: Any, limit: float, clip: Any = torch.nn.utils.clip_grad_norm_) -> torch.Tensor:
        norm: torch.Tensor = clip(parameters, limit)
        return norm * 1e9 if next(calls) == 1 else norm

    calls = iter(range(100))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", exploding)
    rows, *_ = Run("prediction").end()
    assert [(row["update"], row.get("rolled_back_from")) for row in rows[:3]] == [(1, None), (1, 2), (2, None)]


def test_a_market_that_always_blows_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bad_draws(monkeypatch, *range(100))
    with pytest.raises(
        TrainingError, match=r"blew up 4 times, now at update 1 of 5: the forecast loss is nan; look at"
    ):
        Run("prediction").end()
