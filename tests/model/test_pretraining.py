"""What prediction leaves behind: forecasts whose mean is that of the returns, learned from the training span alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learning_tasks import fresh_model, settings, small_task, task_from_returns

from btcai.agent.shards import shards
from btcai.agent.task import Task, clock_decisions, spread_bars, stretches_at
from btcai.config import PretrainConfig
from btcai.models.actor_critic import ActorCritic
from btcai.models.heads import TARGET_CLIP
from btcai.schema import TOKENS
from btcai.training import pretraining
from btcai.training.pretraining import forecast_error, prediction_loss, pretrain
from btcai.yardstick.trading import yardstick_rules

PREDICTION = settings().pretrain.model_copy(update={"stretches": 2, "decisions": 128})


def taught(task: Task, updates: int = 2, config: PretrainConfig = PREDICTION) -> ActorCritic:
    torch.manual_seed(1)
    model = fresh_model(task)
    list(pretrain(model, task, config, updates, np.random.default_rng(2)))
    return model


def mean_missed(model: ActorCritic, task: Task) -> torch.Tensor:
    """Of every target, the mean over all decision times of the training span at the first phase of the patch."""
    part = stretches_at(task, task.train, clock_decisions(task, task.train, 0)[None])
    with torch.no_grad():
        said = model.encode(torch.from_numpy(part.tokens)).location
    known, target = torch.from_numpy(part.known), torch.from_numpy(part.target).clamp(-TARGET_CLIP, TARGET_CLIP)
    return ((target - said) * known).sum((0, 1)) / known.sum((0, 1))


@pytest.mark.parametrize("patch_bars", [1, 10])
def test_forecasts_are_right_on_average_over_the_whole_training_span(
    patch_bars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # returns with a mean of .3 sigma, of which two updates learn next to nothing; none of them counts twice
    rng = np.random.default_rng(4)
    task = task_from_returns(8e-4 * (0.3 + rng.standard_normal(7000)), {}, valid_bars=3000)
    horizons = tuple(patch_bars * patches for patches in (3, 12, 36))
    bucket = task.bucket.model_copy(update={"patch_bars": patch_bars, "horizons_bars": horizons})
    task = replace(task, rules=yardstick_rules(5.0, patch_bars), bucket=bucket)
    assert mean_missed(taught(task), task).abs().max() < 1e-4
    monkeypatch.setattr(pretraining, "_centre", lambda *_: None)
    assert mean_missed(taught(task), task).abs().max() > 0.1


@pytest.mark.parametrize(
    ("errors", "kept"),
    [([1.0, 0.9, 0.8], "of update 2 of 2"), ([1.0, 0.9, 1.1], "of update 1 of 2"),
     ([1.0, 1.1, 1.2], "it began with: none of 2 updates validated better")],
)  # fmt: skip
def test_a_phase_tells_which_weights_it_keeps(
    errors: list[float], kept: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = iter(errors)  # before the first update, then after each
    monkeypatch.setattr(pretraining, "forecast_error", lambda *_: next(found))
    monkeypatch.setattr(pretraining, "_centre", lambda *_: None)
    with caplog.at_level("INFO"):
        taught(small_task(3000))
    assert caplog.messages == [f"prediction: keeps the weights {kept}"]


def test_centring_moves_the_forecasts_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    task = small_task(3000)
    centred = taught(task)
    monkeypatch.setattr(pretraining, "_centre", lambda *_: None)
    other = taught(task)
    horizons = len(task.target_bars)
    for (name, weight), left in zip(centred.state_dict().items(), other.state_dict().values(), strict=True):
        if name == "forecast.student.bias":
            assert not torch.equal(weight[:horizons], left[:horizons])
            weight, left = weight[horizons:], left[horizons:]  # log scales and degrees
        assert torch.equal(weight, left)


def test_what_happens_after_the_training_span_moves_no_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    # validation may choose between weights, so here it sees none better
    monkeypatch.setattr(pretraining, "forecast_error", lambda *_: 1.0)
    task = small_task(3000)
    features, mark = task.features.copy(), task.bars.mark.copy()
    features[task.train.stop :] += 1.0
    mark[task.train.stop :] *= 1.5
    otherwise = replace(task, features=features, bars=task.bars._replace(mark=mark))
    one, two = taught(task), taught(otherwise)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_the_rate_falls_as_the_square_of_what_is_left_and_the_decay_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    # four updates: (4/4)^2, (3/4)^2, (2/4)^2, (1/4)^2; the decay over the first half of them
    rates: list[float] = []
    decays: list[float] = []

    def note(_: object, rate: float, decay: float) -> None:
        rates.append(rate / PREDICTION.learning_rate)
        decays.append(decay)

    monkeypatch.setattr(pretraining, "set_rates", note)
    config = PREDICTION.model_copy(update={"weight_decay": 3.0, "decay_rise_frac": 0.5})
    taught(small_task(3000), updates=4, config=config)
    assert rates == pytest.approx([1.0, 0.5625, 0.25, 0.0625])
    assert decays == pytest.approx([1.5, 3.0, 3.0, 3.0])
    assert pretraining.decay_at(0, 4, config.model_copy(update={"decay_rise_frac": 0.0})) == 3.0


def test_forecasts_are_judged_on_every_decision_of_a_short_validation_span_and_by_its_loss() -> None:
    # chance in a part of the span had picked weights of before the last, small steps
    task = small_task(3000)
    bars = spread_bars(task, task.valid, pretraining.JUDGED_ON, pretraining.HELD_OUT)
    first, last = bars.min(), bars.max()
    assert set(bars.ravel()) == set(range(first, last + 1))
    assert (first, last) == (task.valid.first + TOKENS - 1, task.valid.stop - 2)
    model = fresh_model(task)
    with torch.no_grad():
        part = stretches_at(task, task.valid, bars)
        whole = float(prediction_loss(task, model.encode(torch.from_numpy(part.tokens)), part))
    with shards() as workers:
        assert forecast_error(model, task, workers) == pytest.approx(whole, rel=1e-4)
