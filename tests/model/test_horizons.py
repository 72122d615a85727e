"""Dynamic horizons: which ones are forecast with skill, in which regime, and what they count then."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learning_tasks import fresh_model, settings, small_task

from btcai.agent.horizons import CALM, STORMY, is_stormy, leaning, skill_of
from btcai.agent.task import Task, sample_stretches
from btcai.schema import BoolArray
from btcai.training import pretraining
from btcai.training.pretraining import prediction_loss, pretrain


def test_leaning_by_hand() -> None:
    # skills .3 and .1 of two horizons: 3/4 and 1/4, times two, half of it: 1.25 and .75; below zero counts nothing
    found = leaning(np.array([[0.3, 0.1], [0.2, -0.4]]), 0.5)
    assert found == pytest.approx(np.array([[1.25, 0.75], [1.5, 0.5]]))
    assert leaning(np.array([[0.3, 0.1], [-0.2, -0.4]]), 1.0) == pytest.approx(np.array([[1.5, 0.5], [1.0, 1.0]]))
    assert leaning(np.array([[0.3, 0.1], [0.0, 0.4]]), 0.0) == pytest.approx(np.ones((2, 2)))


def test_skill_is_told_by_regime_from_what_is_known() -> None:
    rng = np.random.default_rng(0)
    said = rng.standard_normal((4_000, 2)).astype(np.float32)
    stormy = rng.random(4_000) < 0.3
    target = rng.standard_normal((4_000, 2)).astype(np.float32)
    target[stormy, 1] = said[stormy, 1]  # the second horizon is foreseen in storms alone
    known = np.ones((4_000, 2), bool)
    once = np.ones(2)
    found = skill_of(said, target, known, stormy, overlap=once)
    assert found[STORMY, 1] == pytest.approx(1.0 - stormy.sum() ** -0.5)
    assert np.abs(found[[CALM, CALM, STORMY], [0, 1, 0]]).max() < 0.05
    shared = skill_of(said, target, known, stormy, overlap=np.array([1.0, 300.0]))  # a quarter of 1,200 outcomes
    assert shared[STORMY, 1] == pytest.approx(1.0 - (300 / stormy.sum()) ** 0.5)
    known[:, 1] = False
    assert skill_of(said, target, known, stormy, overlap=once)[:, 1].tolist() == [0.0, 0.0]
    assert skill_of(np.zeros_like(said), target, ~known, stormy, overlap=once).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_bar_is_stormy_above_the_median_of_the_training_span() -> None:
    task = small_task(3_000)
    sigma = task.bars.sigma
    sigma[:] = 1.0
    sigma[:100] = 3.0
    sigma[task.train.stop :] = 2.0
    bars = np.array([[50, 150], [task.train.stop + 5, 200]])
    assert is_stormy(task, bars).tolist() == [[True, False], [True, False]]


def test_the_loss_counts_horizons_as_they_lean() -> None:
    torch.manual_seed(0)
    task = stormy_later(4_000)
    model = fresh_model(task)
    part = sample_stretches(task, task.train, 4, 128, np.random.default_rng(1))
    with torch.no_grad():
        encoding = model.read(part.tokens)
    plain = float(prediction_loss(task, encoding, part))
    even = [[1.0] * len(task.target_bars)] * 2
    assert float(prediction_loss(task, encoding, part, even)) == pytest.approx(plain, rel=1e-6)
    third = [[0.0, 0.0, 4.0, 0.0], [1.0] * 4]  # in calm markets the third target alone, which counts as much as all did
    found = float(prediction_loss(task, encoding, part, third))
    calm, weight = ~is_stormy(task, part.bars), task.horizon_weight

    def of(which: BoolArray) -> float:
        return float(prediction_loss(task, encoding, replace(part, known=part.known & which)))

    in_calm = of(calm[..., None] & (np.arange(4) == 2))
    in_storms = of(~calm[..., None])
    shares = np.array([(part.known & calm[..., None])[..., 2].sum() * weight.sum(), 0.0])
    shares[1] = ((part.known & ~calm[..., None]) * weight).sum()
    assert found == pytest.approx(float(shares @ [in_calm, in_storms] / shares.sum()), rel=1e-4)
    assert found != pytest.approx(plain, rel=1e-3)


def stormy_later(n_bars: int) -> Task:
    """Noise whose volatility rises all the time."""
    task = small_task(n_bars)
    task.bars.sigma[:] = np.linspace(0.5, 1.5, n_bars) * task.bars.sigma
    return task


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_prediction_leans_to_horizons_with_skill_where_that_is_asked(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "HELD_OUT", 8)
    skill = np.array([[0.1, 0.0, 0.0, 0.3], [0.0, 0.2, 0.0, 0.0]])
    monkeypatch.setattr(pretraining, "skill_of", lambda *_, overlap: skill[:, : len(overlap)])
    config = settings().pretrain.model_copy(update={"stretches": 2, "decisions": 128, "horizon_skill": share})
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        task = stormy_later(4_000)
        model = fresh_model(task)
        rows = list(pretrain(model, task, config, 12, np.random.default_rng(1)))
        found.append(([row["forecast_loss"] for row in rows], [w.tolist() for w in model.state_dict().values()]))
    assert found[0] == found[1]
    if share:
        even = config.model_copy(update={"horizon_skill": 0.0})
        torch.manual_seed(0)
        rows = list(pretrain(fresh_model(task), task, even, 12, np.random.default_rng(1)))
        losses = [row["forecast_loss"] for row in rows]
        assert losses[:3] == found[0][0][:3]  # before the first look at the validation span
        assert losses[3:] != found[0][0][3:]
