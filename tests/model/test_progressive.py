"""Training a bucket from start to file, and the consolidation that may only improve it."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_fakes import loud_network, market, scaler, splits, tiny_config
from training_fakes import judged_as, read_metrics

from btcai.agent.task import Task
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.models.actor_critic import ActorCritic
from btcai.paths import WEIGHTS
from btcai.report import panels
from btcai.report.curves import read_importance
from btcai.schema import BUCKETS, Span
from btcai.training import importance, phase, progressive, trainer
from btcai.training.checkpoint import load_model, save_model
from btcai.training.convergence import Gain, Standing
from btcai.training.phase import Row
from btcai.training.play import Validation
from btcai.training.progressive import consolidate, make_task, train_bucket

SHORT = splits(Span(2016, 7000), Span(7100, 9900))
LONG = splits(Span(2016, 7900), Span(8000, 13500))  # holds a lookback of the long bucket


@pytest.fixture(autouse=True)
def few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importance is measured on a handful."""
    monkeypatch.setattr(importance, "STRETCHES", 2)
    monkeypatch.setattr(importance, "REPEATS", 1)
    monkeypatch.setattr(importance, "WINDOWS", importance.WINDOWS_AT_ONCE)


def train(
    out: Path,
    bucket_name: str = "scalping",
    seed: int = 7,
    teacher: Path | None = None,
    checkpoints: Path | None = None,
    **profile: int,
) -> Path:
    config = tiny_config(**profile).model_copy(update={"seed": seed})
    train_bucket(market(), SHORT, scaler(), bucket_name, config, teacher, out, checkpoints)
    return out


def importance_of(model: ActorCritic) -> dict[str, Any]:
    shares = dict(zip(market().feature_names, model.stem.importance().tolist(), strict=True))
    assert sum(shares.values()) == pytest.approx(1.0)
    return {name: pytest.approx(share, rel=1e-5) for name, share in shares.items()}


@pytest.mark.slow
def test_training_writes_the_network_its_metrics_and_its_curves(tmp_path: Path) -> None:
    folder = train(tmp_path / "scalping")
    assert sorted(path.name for path in folder.iterdir()) == ["curves.csv", "importance.csv", "metrics.json", WEIGHTS]
    metrics = read_metrics(folder)
    assert metrics["pretrain_updates"] == metrics["ppo_updates"] == 2
    # prediction: 2 updates of 4 x 128; PPO: 2 of 4 stretches, each walked by 2 accounts, a bar a transition
    decisions = tiny_config().ppo.decisions
    assert metrics["decision_times"] == 2 * 4 * 128 + 2 * 4 * decisions
    assert metrics["env_steps"] == 2 * 4 * 2 * (decisions - 1)
    assert {"valid_score", "valid_coverage_90_raw_h1", "valid_ic_h3", "valid_share_hold"} <= set(metrics)
    assert metrics["collapsed"] in (None, "flat", "always long", "one action")
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], row["update"]) for row in rows] == [
        (f"scalping: {phase}", str(update)) for phase in ("prediction", "PPO") for update in (1, 2)
    ]
    assert {column for measure in panels._MEASURES for column in measure.columns} <= rows[0].keys()  # all that is drawn
    model = load_model(folder, "scalping", tiny_config())
    assert read_importance(folder) == importance_of(model)
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


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_leaves_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(phase, "LEAST_APART", 1)
    undisturbed = train(tmp_path / "undisturbed")

    def killed(*arguments: Any) -> Iterator[Row]:
        yield next(trainer.train_ppo(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(progressive, "train_ppo", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "again", checkpoints=tmp_path / "checkpoints")
    monkeypatch.setattr(progressive, "train_ppo", trainer.train_ppo)
    with caplog.at_level("INFO", "btcai.training.phase"):
        again = train(tmp_path / "again", checkpoints=tmp_path / "checkpoints")
    assert [message.split("/")[-1] for message in caplog.messages if "going on" in message] == [
        "prediction: going on after update 2 of 2",
        "ppo: going on after update 1 of 2",
    ]
    for name in (WEIGHTS, "metrics.json", "curves.csv", "importance.csv"):
        assert (again / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_checkpoints_belong_to_one_run_by_settings_bars_and_weights(tmp_path: Path) -> None:
    config = tiny_config()
    task = make_task(market(), SHORT, "scalping", config)
    model = loud_network(config, "scalping")

    def key(config: Config = config, task: Task = task, model: ActorCritic = model, *others: ActorCritic) -> str:
        stored = progressive._checkpoints(tmp_path, "ppo", config, task, [model, *others])
        assert stored is not None
        assert stored.folder == tmp_path / "ppo"
        return stored.key

    features = task.features.copy()
    features[5000, 3] += 1e-6
    others = {
        key(config.model_copy(update={"seed": 8})),
        key(task=replace(task, features=features)),
        key(task=replace(task, train=Span(2016, 6999))),
        key(model=loud_network(config, "scalping", seed=1)),
        key(config, task, model, model),  # a teacher is read too
        key(config, task, model, loud_network(config, "scalping", seed=1)),
    }
    assert len(others) == 6
    assert key() not in others
    assert key() == key(model=loud_network(config, "scalping"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            Gain(forecast=-0.0032, forecast_p=1.0, score=0.0, score_p=float("nan")),
            "forecast loss +0.0032 (worse, p 1), score +0 (unchanged, p -): not kept",
        ),
        (
            Gain(forecast=0.25, forecast_p=0.0001, score=-0.5, score_p=0.7),
            "forecast loss -0.25 (better, p 0.0001), score -0.5 (worse, p 0.7): kept",
        ),
    ],
)
def test_what_a_round_gained_is_told_with_signs_that_mean_what_they_show(
    found: Gain, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progressive, "gain", lambda before, after: found)
    nothing = Standing(forecast_error=np.zeros(4), score=np.zeros(4))
    with caplog.at_level("INFO"):
        progressive._gained(nothing, nothing, tiny_config(), "long: round 2, ")
    assert caplog.messages == [f"long: round 2, {said}"]


def test_the_next_bucket_starts_from_its_teacher(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(pretrain_updates=0, ppo_updates=1)
    teacher = loud_network(config, "scalping")
    with torch.no_grad():
        for weight in teacher.trunk.parameters():
            weight.fill_(0.5)
    save_model(teacher, tmp_path / "scalping")
    with caplog.at_level("INFO"):
        out = train(tmp_path / "short", "short", teacher=tmp_path / "scalping", pretrain_updates=0, ppo_updates=1)
    assert "PPO: keeps the weights of update 1 of 1" in caplog.messages
    student = load_model(out, "short", config)
    # 0.8 * 0.5 + 0.2 * fresh (|fresh| <= 1), moved by one update of at most a few 1e-3: near 0.4
    centre = torch.cat([weight.flatten() for weight in student.trunk.state_dict().values()]).median()
    assert float(centre) == pytest.approx(0.4, abs=0.03)


def test_a_hand_over_knows_both_buckets_horizons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(loud_network(tiny_config(), "scalping"), tmp_path / "scalping")
    told: list[Any] = []
    monkeypatch.setattr(progressive, "hand_over", lambda *given: told.extend(given[2:]))
    train(tmp_path / "short", "short", teacher=tmp_path / "scalping", pretrain_updates=0, ppo_updates=1)
    assert told == [tiny_config().transfer, (1, 3, 12, 36), (2, 12, 72, 288)]


@pytest.mark.slow
def test_what_a_bucket_began_with_is_told(tmp_path: Path) -> None:
    first = read_metrics(train(tmp_path / "scalping"))
    assert first["valid_forecast_loss"] <= first["valid_forecast_loss_fresh"]
    assert "valid_forecast_loss_handed_over" not in first
    second = read_metrics(train(tmp_path / "short", "short", teacher=tmp_path / "scalping"))
    told = [second[f"valid_forecast_loss{part}"] for part in ("", "_fresh", "_handed_over")]
    assert len(set(told)) == 3
    assert told[0] <= told[2]


def test_a_missing_teacher_names_the_stage_that_trains_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="btcai run"):
        train(tmp_path / "short", "short", teacher=tmp_path / "scalping")
    assert not (tmp_path / "short").exists()


def rounds_that_gain(monkeypatch: pytest.MonkeyPatch, *gains: float) -> None:
    """The first round is worth 0; each of the others gains so much over the best before it."""
    worth = iter([0.0, *gains])
    kept = [0.0]

    def standing(*_: object) -> Standing:
        gained = next(worth)
        found = kept[-1] + gained
        if gained > 0:
            kept.append(found)
        return Standing(forecast_error=np.zeros(4), score=np.full(4, found))

    monkeypatch.setattr(progressive, "standing", standing)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "gains", "rounds", "converged"),
    [(1, [], 1, None), (3, [0.0], 2, 1), (3, [1.0, -1.0], 3, 1), (3, [1.0, 1.0], 3, 0), (4, [2.0, 0.0], 3, 1)],
)
def test_a_bucket_is_trained_until_a_round_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, gains: list[float], rounds: int, converged: int | None
) -> None:
    rounds_that_gain(monkeypatch, *gains)
    out = train(tmp_path / "out", rounds=most)
    found = read_metrics(out)
    assert (found["rounds"], found["converged"]) == (rounds, converged)
    assert (found["pretrain_updates"], found["ppo_updates"]) == (2 * rounds, 2 * rounds)
    with (out / "curves.csv").open(encoding="utf-8", newline="") as file:
        phases = list(dict.fromkeys(row["phase"] for row in csv.DictReader(file)))
    first = ["scalping: prediction", "scalping: PPO"]
    later = [f"scalping: round {k}, {part}" for k in range(2, rounds + 1) for part in ("prediction", "PPO")]
    assert phases == first + later


@pytest.mark.slow
def test_a_round_that_gained_nothing_leaves_the_network_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = train(tmp_path / "one", rounds=1)
    rounds_that_gain(monkeypatch, 0.0)
    two = train(tmp_path / "two", rounds=2)
    assert (one / WEIGHTS).read_bytes() == (two / WEIGHTS).read_bytes()
    rounds_that_gain(monkeypatch, 1.0)
    kept = train(tmp_path / "kept", rounds=2)
    assert (one / WEIGHTS).read_bytes() != (kept / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_rounds_that_were_killed_go_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds_that_gain(monkeypatch, 1.0)
    whole = train(tmp_path / "whole", rounds=2)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    rounds_that_gain(monkeypatch, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(progressive, "_gained", killed)  # after the second round's last update
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "again", rounds=2, checkpoints=tmp_path / "kept")
    assert sorted(folder.name for folder in (tmp_path / "kept").iterdir()) == ["round-1", "round-2"]
    rounds_that_gain(monkeypatch, 1.0)
    again = train(tmp_path / "again", rounds=2, checkpoints=tmp_path / "kept")
    assert (whole / WEIGHTS).read_bytes() == (again / WEIGHTS).read_bytes()
    assert (whole / "curves.csv").read_bytes() == (again / "curves.csv").read_bytes()


@pytest.mark.slow
def test_consolidation_keeps_a_bucket_whose_candidate_validates_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(consolidate_pretrain_updates=0, consolidate_ppo_updates=1)
    for seed, name in enumerate(BUCKETS):
        save_model(loud_network(config, name, seed=seed), tmp_path / "trained" / name)
    before = {name: load_model(tmp_path / "trained" / name, name, config) for name in BUCKETS}
    judged: dict[int, int] = {}
    data = market(14_000)

    def worth(model: ActorCritic, task: Task, *_: object) -> Standing:
        """0 before; then only the candidate of `short` (patch of 2 bars) is better."""
        seen = judged[task.patch_bars] = judged.get(task.patch_bars, 0) + 1
        score = 0.0 if seen == 1 else 1.0 if task.patch_bars == 2 else -1.0
        return Standing(forecast_error=np.zeros(4), score=np.full(4, score))

    def scored(model: ActorCritic, task: Task) -> Validation:
        return judged_as(score=1.0 if judged[task.patch_bars] == 2 else 0.0)

    def one_step(model: ActorCritic, task: Task, *_: object) -> list[dict[str, float]]:
        with torch.no_grad():
            model.head.policy.bias.add_(1.0)
            model.stem.relevance[5] += 0.1
        return [{"reward": 0.0}]

    monkeypatch.setattr(progressive, "standing", worth)
    monkeypatch.setattr(progressive, "validate", scored)
    monkeypatch.setattr(progressive, "train_ppo", one_step)
    results = consolidate(data, LONG, scaler(), config, tmp_path / "trained", tmp_path / "out")
    assert judged == {1: 2, 2: 2, 10: 2, 28: 2}
    assert {name: results[name]["rounds_kept"] for name in BUCKETS} == {
        "scalping": 0.0, "short": 1.0, "medium": 0.0, "long": 0.0
    }  # fmt: skip
    assert {name: read_metrics(tmp_path / "out" / name)["valid_score"] for name in BUCKETS} == {
        "scalping": 0.0, "short": 1.0, "medium": 0.0, "long": 0.0
    }  # fmt: skip
    for name in BUCKETS:
        judged_model = load_model(tmp_path / "out" / name, name, config)
        same = [
            torch.equal(weight, before[name].get_parameter(parameter))
            for parameter, weight in judged_model.named_parameters()
        ]
        assert all(same) == (name != "short")
        assert read_importance(tmp_path / "out" / name) == importance_of(judged_model)
        assert (read_importance(tmp_path / "out" / name) == importance_of(before[name])) == (name != "short")
    # half of its own trunk and half of the four's mean
    own = before["short"].trunk.mix.weight
    mean = torch.stack([before[name].trunk.mix.weight for name in BUCKETS]).mean(0)
    mixed = load_model(tmp_path / "out" / "short", "short", config).trunk.mix.weight
    assert torch.allclose(mixed, 0.5 * own + 0.5 * mean, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("gains", "made"), [([0.0], 1), ([1.0, 0.0], 2), ([1.0, 1.0], 3)])
def test_rounds_of_consolidation_end_with_one_that_helps_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gains: list[float], made: int
) -> None:
    config = tiny_config(consolidate_pretrain_updates=0, consolidate_ppo_updates=1)
    config = config.model_copy(update={"consolidate": config.consolidate.model_copy(update={"rounds": 3})})
    for name in BUCKETS:
        save_model(loud_network(config, name), tmp_path / "trained" / name)
    asked: dict[int, int] = {}

    def worth(model: ActorCritic, task: Task, *_: object) -> Standing:
        """`long` gains as told, round by round; the others never do."""
        seen = asked[task.patch_bars] = asked.get(task.patch_bars, -1) + 1
        score = sum([*gains, 1.0][:seen]) if task.patch_bars == 28 else 0.0
        return Standing(forecast_error=np.zeros(4), score=np.full(4, score))

    monkeypatch.setattr(progressive, "standing", worth)
    monkeypatch.setattr(progressive, "train_ppo", lambda *_: [{"reward": 0.0}])
    results = consolidate(market(14_000), LONG, scaler(), config, tmp_path / "trained", tmp_path / "out")
    assert set(asked.values()) == {made}  # once before, and once a round
    assert results["long"]["rounds_kept"] == sum(gain > 0 for gain in [*gains, 1.0][:made])


def test_without_consolidation_the_trained_networks_are_judged(tmp_path: Path) -> None:
    config = tiny_config(consolidate_ppo_updates=0)
    for name in BUCKETS:
        save_model(loud_network(config, name), tmp_path / "trained" / name)
    results = consolidate(market(14_000), LONG, scaler(), config, tmp_path / "trained", tmp_path / "out")
    for name in BUCKETS:
        assert results[name]["rounds_kept"] == 0.0
        assert results[name]["valid_score"] == results[name]["valid_score_before"]
        with (tmp_path / "out" / name / "curves.csv").open(encoding="utf-8") as file:
            assert file.read().splitlines() == ["phase,update"]
