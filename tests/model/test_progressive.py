"""Training a bucket from start to file, and the consolidation that may only improve it."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_fakes import loud_network, market, scaler, splits, tiny_config

from btcai.agent.task import Task
from btcai.errors import ArtifactError
from btcai.models.actor_critic import ActorCritic
from btcai.schema import BUCKETS, Span
from btcai.training import progressive
from btcai.training.checkpoint import WEIGHTS, load_model, save_model
from btcai.training.play import Validation
from btcai.training.progressive import consolidate, train_bucket

SHORT = splits(Span(2016, 7000), Span(7100, 9900))
LONG = splits(Span(2016, 7900), Span(8000, 13500))  # holds a lookback of the long bucket


def not_a_number(constant: str) -> None:
    raise AssertionError(f"{constant} is not strict JSON")


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"), parse_constant=not_a_number)
    return found


def train(out: Path, bucket_name: str = "scalping", seed: int = 7, teacher: Path | None = None, **profile: int) -> Path:
    config = tiny_config(**profile).model_copy(update={"seed": seed})
    train_bucket(market(), SHORT, scaler(), bucket_name, config, teacher, out)
    return out


@pytest.mark.slow
def test_training_writes_the_network_its_metrics_and_its_curves(tmp_path: Path) -> None:
    folder = train(tmp_path / "scalping")
    assert sorted(path.name for path in folder.iterdir()) == ["curves.csv", "metrics.json", WEIGHTS]
    metrics = read(folder)
    assert metrics["pretrain_updates"] == metrics["ppo_updates"] == 2
    # prediction: 2 updates of 4 x 128; PPO: 2 of 4 x 256, each walked by 2 accounts over 255 transitions of one bar
    assert metrics["decision_times"] == 2 * 4 * 128 + 2 * 4 * 256
    assert metrics["env_steps"] == 2 * 4 * 2 * 255
    assert {"valid_score", "valid_coverage_90_raw_h1", "valid_ic_h3"} <= set(metrics)
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], row["update"]) for row in rows] == [
        (f"scalping: {phase}", str(update)) for phase in ("prediction", "PPO") for update in (1, 2)
    ]
    model = load_model(folder, "scalping", tiny_config())
    assert np.array_equal(model.stem.feature_mean.numpy(), scaler().mean)
    assert np.array_equal(model.stem.feature_std.numpy(), scaler().std)
    assert float(model.value_std) != 1.0
    assert not torch.equal(model.quantile_offset, torch.zeros_like(model.quantile_offset))  # calibrated


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        (train(tmp_path / name, seed=seed) / WEIGHTS).read_bytes()
        for name, seed in (("first", 7), ("again", 7), ("other", 8))
    )
    assert first == again
    assert first != other


def test_the_next_bucket_starts_from_its_teacher(tmp_path: Path) -> None:
    config = tiny_config(pretrain_updates=0, ppo_updates=1)
    teacher = loud_network(config, "scalping")
    with torch.no_grad():
        for weight in teacher.trunk.parameters():
            weight.fill_(0.5)
    save_model(teacher, tmp_path / "scalping")
    out = train(tmp_path / "short", "short", teacher=tmp_path / "scalping", pretrain_updates=0, ppo_updates=1)
    student = load_model(out, "short", config)
    # 0.8 * 0.5 + 0.2 * fresh (|fresh| <= 1), moved by one update of at most a few 1e-3: near 0.4
    centre = torch.cat([weight.flatten() for weight in student.trunk.state_dict().values()]).median()
    assert float(centre) == pytest.approx(0.4, abs=0.03)


def test_a_missing_teacher_names_the_stage_that_trains_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="btcai run"):
        train(tmp_path / "short", "short", teacher=tmp_path / "scalping")
    assert not (tmp_path / "short").exists()


def test_consolidation_keeps_a_bucket_whose_candidate_validates_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(consolidate_updates=1)
    for seed, name in enumerate(BUCKETS):
        save_model(loud_network(config, name, seed=seed), tmp_path / "trained" / name)
    before = {name: load_model(tmp_path / "trained" / name, name, config) for name in BUCKETS}
    judged: dict[int, int] = {}
    data = market(14_000)

    def scored(model: ActorCritic, task: Task) -> Validation:
        """0 before; then only the candidate of `short` (patch of 2 bars) is better."""
        seen = judged[task.patch_bars] = judged.get(task.patch_bars, 0) + 1
        score = 0.0 if seen == 1 else 1.0 if task.patch_bars == 2 else -1.0
        return Validation(score=score, net_profit=0.0, exposure_frac=0.0, orders=0.0)

    def one_step(model: ActorCritic, task: Task, *_: object) -> list[dict[str, float]]:
        with torch.no_grad():
            model.head.policy.bias.add_(1.0)
        return [{"reward": 0.0}]

    monkeypatch.setattr(progressive, "validate", scored)
    monkeypatch.setattr(progressive, "train_ppo", one_step)
    results = consolidate(data, LONG, scaler(), config, tmp_path / "trained", tmp_path / "out")
    assert judged == {1: 2, 2: 2, 10: 2, 28: 2}
    assert {name: results[name]["rounds_kept"] for name in BUCKETS} == {
        "scalping": 0.0, "short": 1.0, "medium": 0.0, "long": 0.0
    }  # fmt: skip
    assert {name: read(tmp_path / "out" / name)["valid_score"] for name in BUCKETS} == {
        "scalping": 0.0, "short": 1.0, "medium": 0.0, "long": 0.0
    }  # fmt: skip
    for name in BUCKETS:
        judged_model = load_model(tmp_path / "out" / name, name, config)
        same = [
            torch.equal(weight, before[name].get_parameter(parameter))
            for parameter, weight in judged_model.named_parameters()
        ]
        assert all(same) == (name != "short")
    # half of its own trunk and half of the four's mean
    own = before["short"].trunk.mix.weight
    mean = torch.stack([before[name].trunk.mix.weight for name in BUCKETS]).mean(0)
    mixed = load_model(tmp_path / "out" / "short", "short", config).trunk.mix.weight
    assert torch.allclose(mixed, 0.5 * own + 0.5 * mean, atol=1e-6)


def test_without_consolidation_the_trained_networks_are_judged(tmp_path: Path) -> None:
    config = tiny_config(consolidate_updates=0)
    for name in BUCKETS:
        save_model(loud_network(config, name), tmp_path / "trained" / name)
    results = consolidate(market(14_000), LONG, scaler(), config, tmp_path / "trained", tmp_path / "out")
    for name in BUCKETS:
        assert results[name]["rounds_kept"] == 0.0
        assert results[name]["valid_score"] == results[name]["valid_score_before"]
        with (tmp_path / "out" / name / "curves.csv").open(encoding="utf-8") as file:
            assert file.read().splitlines() == ["phase,update"]
