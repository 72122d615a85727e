"""How unlike the training span a market is to a network: a distance worked by hand, an ensemble, a market far off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from export_fakes import loud_network, market, scaler, splits, tiny_config
from learning_tasks import settings
from torch import Tensor

from btcai.models.actor_critic import LEAST_SPREAD, ActorCritic, Encoding
from btcai.schema import Span
from btcai.training.calibrating import FAR_QUANTILE, calibrate
from btcai.training.play import forecasts
from btcai.training.progressive import make_task

SPANS = splits(Span(2016, 7000), Span(7100, 9900))


def reading(latent: Tensor) -> Encoding:
    """An encoding of which the trunk's latents (n, Z) alone matter."""
    rows, nothing = latent[None], torch.zeros(1, len(latent), 1)
    return Encoding(trunk=rows, gates=nothing, location=nothing, log_scale=nothing, degrees=nothing, quantiles=nothing)


def network(latent: int) -> ActorCritic:
    config = settings().model.model_copy(update={"latent": latent})
    return ActorCritic(config, 1, 3, 3)


def test_the_distance_is_in_standard_deviations_of_each_direction() -> None:
    model = network(8)
    spread = torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    corners = torch.cat([torch.diag(spread), -torch.diag(spread)]) * 8**0.5  # variance spread ** 2, no covariance
    model.note_usual(corners + 3.0)
    least = LEAST_SPREAD * float(spread.square().mean()) * 16 / 15  # of the sample variance, 16 / 15 of the variance
    one_away = torch.full((1, 8), 3.0)
    one_away[0, 0] += 2.0
    found = model.unfamiliarity(reading(torch.cat([torch.full((1, 8), 3.0), one_away])))[0]
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found[1] == pytest.approx((4.0 / (4.0 * 16 / 15 + least) / 8) ** 0.5, rel=1e-5)


def test_along_the_training_span_the_mean_square_is_one() -> None:
    torch.manual_seed(0)
    rows = torch.randn(4000, 16) @ torch.randn(16, 16)
    model = network(16)
    model.note_usual(rows)
    assert float(model.unfamiliarity(reading(rows)).square().mean()) == pytest.approx(1.0, abs=0.2)


def test_a_latent_that_never_moves_is_not_everything() -> None:
    torch.manual_seed(0)
    rows = torch.randn(4000, 16)
    rows[:, 3] = 0.7
    model = network(16)
    model.note_usual(rows)
    moved = rows.clone()
    moved[:, 3] += 0.01
    assert torch.isfinite(model.unfamiliarity(reading(moved))).all()
    assert float(model.unfamiliarity(reading(moved)).mean()) < 1.1


def test_it_is_what_an_ensemble_of_last_layers_disagrees_by() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(300, 16)) @ rng.normal(size=(16, 16))
    asked = 3 * rng.normal(size=(40, 16)) @ rng.normal(size=(16, 16))
    weights = rng.normal(size=16)
    said = []
    for _ in range(2000):  # last layers fitted by least squares on other draws of the noise
        outcome = rows @ weights + rng.normal(size=300)
        slope, *_ = np.linalg.lstsq(rows - rows.mean(0), outcome - outcome.mean(), rcond=None)
        said.append((asked - rows.mean(0)) @ slope)
    model = network(16)
    model.note_usual(torch.from_numpy(rows).float())
    model.usual_root.copy_(torch.from_numpy(_inverse_root(np.cov(rows.T))))  # least squares has no least spread
    found = model.unfamiliarity(reading(torch.from_numpy(asked).float()))[0].double().numpy()
    ratio = np.std(said, axis=0) / found
    assert ratio == pytest.approx(np.full(40, ratio.mean()), rel=0.08)


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    size, axes = np.linalg.eigh(covariance)
    return axes @ np.diag(size**-0.5) @ axes.T


def test_one_time_in_a_hundred_of_the_validation_span_is_beyond_one() -> None:
    config = tiny_config()
    model = loud_network(config, "scalping")
    model.stem.feature_mean.copy_(torch.from_numpy(scaler().mean))
    task = make_task(market(), SPANS, "scalping", config)
    calibrate(model, task)
    seen = forecasts(model, task, task.valid)
    assert float((seen.unfamiliarity > 1).mean()) == pytest.approx(1 - FAR_QUANTILE, abs=0.002)


def test_what_comes_after_the_validation_span_decides_nothing() -> None:
    config = tiny_config()
    wild = market().features.copy()
    wild[SPANS.valid.stop :] *= 30.0
    found = []
    for data in (market(), replace(market(), features=wild)):
        model = loud_network(config, "scalping")
        calibrate(model, make_task(data, SPANS, "scalping", config))
        found.append([model.usual_mean, model.usual_root, model.usual_far])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("times", [3.0, 10.0])
def test_a_market_far_from_the_training_span_is_unfamiliar(times: float) -> None:
    config = tiny_config()
    model = loud_network(config, "scalping")
    task = make_task(market(), SPANS, "scalping", config)
    calibrate(model, task)
    usual = forecasts(model, task, task.valid).unfamiliarity
    wild = market().features.copy()
    middle = wild[SPANS.train.first : SPANS.train.stop].mean(0)
    wild[:, :-1] = middle[:-1] + times * (wild[:, :-1] - middle[:-1])
    seen = forecasts(model, make_task(replace(market(), features=wild), SPANS, "scalping", config), task.valid)
    assert np.median(seen.unfamiliarity) > 1.5 * np.median(usual)
