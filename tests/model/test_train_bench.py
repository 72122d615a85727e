"""`btcai bench train`: what is counted, and a small run of every part."""

from pathlib import Path

import numpy as np
import pytest
import torch
from learning_tasks import SMALL, settings

from bench import train, train_runs
from bench.harness import as_json
from bench.learn_budget import Updates
from bench.line import Line
from bench.stopwatch import Stopwatch
from bench.train_runs import Trainings, yardstick_subject
from btcai.config import Config

TINY = train.Size(
    train_decisions=8_000,
    seconds=0.3,
    pilots=(1, 2),
    rival_steps=(1, 2),
    env_steps=(10**4, 10**5),
    memory_updates=1,
    memory_bars=150_000,
)


@pytest.fixture(autouse=True)
def torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "set_up_torch", lambda _: torch.set_num_threads(1))


@pytest.fixture
def small() -> Config:
    return settings().model_copy(update={"model": SMALL})


@pytest.mark.slow
def test_decision_times_passes_and_steps_are_counted_once_each(small: Config) -> None:
    found = train_runs.train(yardstick_subject(small, 8_000), small, Updates(pretrain=2, ppo=3))
    pretrain, ppo = small.pretrain.stretches * small.pretrain.decisions, small.ppo.stretches * small.ppo.decisions
    assert found.distinct == 2 * pretrain + 3 * ppo
    assert found.passes == pytest.approx(2 * pretrain + found.encoder_epochs * 3 * ppo)
    walked = small.ppo.agents * (small.ppo.decisions - 1) * small.ppo.stretches  # the last time only bootstraps
    assert found.account_decisions == found.env_steps == 3 * walked
    assert 0 < found.ppo_seconds < found.seconds


def measured(part: str, root: Path, config: Config) -> list[Line]:
    found = list(train.lines(Stopwatch(1, patience_s=0), config, root, (part,), TINY))
    assert all(as_json(line) for line in found)
    return found


@pytest.mark.slow
def test_speed_on_the_yardstick_stands_beside_the_rival(tmp_path: Path, small: Config) -> None:
    found = {line.name.split(": ")[1]: line for line in measured("yardstick", tmp_path, small)}
    assert list(found) == [
        "distinct decision times", "encoder passes", "encoder passes while it is trained", "env steps"
    ]  # fmt: skip
    assert found["encoder passes"].value <= found["encoder passes while it is trained"].value
    assert found["encoder passes while it is trained"].goal is None
    assert found["env steps"].goal == "value >= 300,000"
    assert found["distinct decision times"].ratio is not None
    facts = found["env steps"].more
    assert facts["encoder_epochs"] == 0.0  # of PPO: prediction alone trains the encoder
    assert 1 <= facts["head_epochs"] <= small.ppo.head_epochs  # type: ignore[operator]
    assert facts["parameters"] > 1_000  # type: ignore[operator]


@pytest.mark.slow
def test_the_cost_of_a_step_is_held_against_that_of_the_first(tmp_path: Path, small: Config) -> None:
    (line,) = measured("steps", tmp_path, small)
    assert line.goal == "ratio <= 1.1"
    assert line.value == pytest.approx(line.more["ns_at_1e5"])
    assert line.more["ns_of_the_reference_before"] == line.more["ns_at_1e4"]
    both = line.more["ns_of_the_reference_before"], line.more["ns_of_the_reference_after"]
    assert line.reference_value == pytest.approx(sum(both) / 2)  # type: ignore[arg-type]
    assert line.more["updates"] == 10  # the fewest, for 100,000 env steps are made in less
    assert 0 < line.more["updates_that_validate"] < 10  # type: ignore[operator]


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(root: Path, small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTCAI_REAL_DATA", raising=False)
    line = train._memory("scalping", root, TINY)
    assert line.name == "peak memory, scalping, 150,000 bars"
    assert line.value is not None
    assert 0.2 < line.value < 3


def test_the_first_run_finds_the_pace_and_the_others_fill_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Updates] = []

    def fake(subject: object, config: object, updates: Updates) -> train_runs.Counts:
        made.append(updates)
        seconds = 0.1 * (updates.pretrain + updates.ppo)
        return train_runs.Counts(
            distinct=10.0 * updates.ppo, passes=20.0, env_steps=1.0, account_decisions=1.0, seconds=seconds,
            met=10.0 * updates.ppo, ppo_seconds=seconds / 2, encoder_seconds=seconds / 2, encoder_epochs=1.0,
            head_epochs=4.0,
        )  # fmt: skip

    monkeypatch.setattr(train_runs, "train", fake)
    monkeypatch.setattr(train_runs, "PRETRAIN_SHARE", 0.25)
    runs = Trainings(yardstick_subject(settings(), 2_000), settings(), 20.1, (2, 4))
    assert runs.run() == 0.0
    assert len(made) == 4  # a warm-up and three pilots
    # .97 * 20.1 = 19.5 s at .1 s an update: 48 of prediction in a quarter of them, 146 of PPO in the 14.7 s left
    assert runs.run() == 1460.0
    assert made[-1] == Updates(pretrain=48, ppo=146)
    assert runs.median(lambda done: done.head_epochs) == 4.0
    assert np.isfinite(runs.parameters)
