"""How much an update explores: less where it gains, more where the market is unfamiliar."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from learning_tasks import fresh_model, settings, small_task, task_from_returns

from btcai.agent.exploration import LEAST, MOST, RATE, Familiar, after_gain
from btcai.agent.task import Stretches
from btcai.config import PpoConfig
from btcai.schema import IntArray
from btcai.training import experience, trainer
from btcai.training.phase import Row
from btcai.training.schedules import temperature_at
from btcai.training.trainer import train_ppo


def test_gains_halve_the_bonus_and_looks_without_bring_it_back() -> None:
    factors = [1.0]
    for gained in (True, True, True, True, False, False, False, False):
        factors.append(after_gain(factors[-1], gained=gained))
    assert factors == [1.0, 0.5, 0.25, LEAST, LEAST, 0.25, 0.5, 1.0, 1.0]


def test_distance_is_in_standard_deviations_of_what_is_known() -> None:
    torch.manual_seed(0)
    latent = torch.randn(8, 400, 6) * torch.tensor([1.0, 2.0, 3.0, 0.1, 5.0, 1.0]) + 4.0
    known = Familiar.of(latent)
    assert float(known.distance(latent).mean()) == pytest.approx(1.0, abs=0.03)  # but for what is cut
    shifted = latent.clone()
    shifted[3] += torch.tensor(known.variance).sqrt().float()  # one standard deviation further in everything: 1 + 1
    found = known.distance(shifted)
    assert float(found[3]) == pytest.approx(2.0, abs=0.25)
    assert torch.equal(found[:3], known.distance(latent)[:3])
    assert float(known.distance(shifted + 1e3).max()) == MOST


def test_what_is_seen_again_and_again_becomes_familiar() -> None:
    torch.manual_seed(0)
    known, other = Familiar.of(torch.randn(4, 500, 3)), torch.randn(4, 500, 3) + 2.0
    first = known.distance(other)
    step = known.with_more(other)
    # mean: a tenth of the way; variance: .9 * (1 + .1 * 4) + .1 * 1, by the law of total variance
    assert step.mean == pytest.approx(known.mean + RATE * (Familiar.of(other).mean - known.mean))
    assert step.variance == pytest.approx(np.full(3, 0.9 * 1.4 + 0.1), rel=0.1)
    for _ in range(40):
        known = Familiar.from_facts(json.loads(json.dumps(known.with_more(other).as_facts())))
    assert float(first.min()) > 2.0
    assert known.distance(other).numpy() == pytest.approx(np.ones(4), abs=0.15)


def by(what: str, coef: float = 0.5) -> PpoConfig:
    brief = {"stretches": 4, "decisions": 128, "agents": 2, "head_minibatches": 1, "encoder_minibatches": 1}
    return settings().ppo.model_copy(update={**brief, "entropy_coef": coef, "entropy_frac": 1.0, "entropy_by": what})


def entropies(config: PpoConfig, updates: int = 12) -> list[float]:
    torch.manual_seed(0)
    task = small_task(6_000)
    return [row["entropy"] for row in train_ppo(fresh_model(task), task, config, updates, np.random.default_rng(1))]


@pytest.mark.slow
def test_each_way_explores_by_itself_and_without_a_bonus_they_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "is_worse", lambda parts, best: True)  # every look gains over the one before
    found = {what: entropies(by(what)) for what in ("time", "gain", "unfamiliarity")}
    assert found["gain"][:6] == found["time"][:6]  # the first look at the validation span has nothing to compare
    assert len({tuple(found[what]) for what in found}) == 3
    assert entropies(by("unfamiliarity")) == found["unfamiliarity"]
    none = [entropies(by(what, coef=0.0)) for what in ("time", "gain", "unfamiliarity")]
    assert none[0] == none[1] == none[2]


def test_the_temperature_falls_to_one_and_by_gain_faster() -> None:
    config = by("time").model_copy(update={"temperature": 3.0, "entropy_frac": 0.5})
    assert [temperature_at(update, 8, config, 0.25) for update in (0, 1, 2, 4, 7)] == [3.0, 2.5, 2.0, 1.0, 1.0]
    by_gain = config.model_copy(update={"entropy_by": "gain"})
    assert [temperature_at(update, 8, by_gain, 0.25) for update in (0, 2, 4)] == [1.5, 1.25, 1.0]


@pytest.mark.parametrize("encoder_every", [0, 1])
def test_a_hot_policy_is_learned_from_as_it_acted(encoder_every: int) -> None:
    config = by("time", coef=0.0).model_copy(
        update={"temperature": 3.0, "head_epochs": 1 - encoder_every, "encoder_every": encoder_every}
    )
    hot, cold = (_first(config.model_copy(update={"temperature": value})) for value in (3.0, 1.0))
    assert hot["kl"] == pytest.approx(0.0, abs=1e-6)  # one pass over all: the ratios are still those of acting
    assert hot["clip_frac"] == 0.0
    assert hot["entropy"] > cold["entropy"] + 0.1


def _first(config: PpoConfig) -> Row:
    torch.manual_seed(0)
    task = small_task(6_000)
    model = fresh_model(task)
    with torch.no_grad():
        model.head.policy.weight.mul_(100.0)  # a policy with preferences
    return next(iter(train_ppo(model, task, config, 4, np.random.default_rng(1))))


def test_a_storm_is_what_training_finds_unfamiliar(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[torch.Tensor] = []
    begun: list[IntArray] = []
    real, drawn = Familiar.distance, experience.sample_stretches

    def drawing(*args: Any) -> Stretches:
        found = drawn(*args)
        begun.append(found.bars[:, 0])
        return found

    monkeypatch.setattr(experience, "sample_stretches", drawing)

    def noted(self: Familiar, latent: torch.Tensor) -> torch.Tensor:
        told.append(real(self, latent))
        return told[-1]

    monkeypatch.setattr(Familiar, "distance", noted)
    rng = np.random.default_rng(2)
    returns = rng.standard_normal(6_000) * 0.001
    returns[3_000:3_600] *= 8.0  # a storm
    task = task_from_returns(returns, {"noise": rng.standard_normal(6_000)})
    torch.manual_seed(0)
    list(train_ppo(fresh_model(task), task, by("unfamiliarity"), 30, np.random.default_rng(1)))
    distances, bars = torch.cat(told).numpy(), np.concatenate(begun)
    in_storm = (bars + 128 > 3_000) & (bars < 3_600)
    assert distances[in_storm].mean() > 1.2 * distances[~in_storm].mean()
