"""The decision threshold: what is traded is the likeliest action, so how likely a trade must be is fitted."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from learning_tasks import fresh_model, settings, small_task, task_from_returns

from btcai.agent.ppo import ValueScale
from btcai.agent.rollout import intended_exposure_frac, without_surprise
from btcai.agent.shards import shards
from btcai.agent.task import Task, clock_decisions, forecast_targets, spread_bars, stretches_at
from btcai.models.actor_critic import ActorCritic
from btcai.schema import Action, FloatArray
from btcai.training import trainer
from btcai.training.play import (
    BLOCKS,
    HOLD_BIASES,
    LOTS,
    SCALED_ON,
    Validation,
    choose_hold_bias,
    encode_validation,
    forecast_worth,
    is_worse,
    play,
    standardise_signals,
    validate,
)
from btcai.training.trainer import train_ppo

HEAD_ALONE = settings().ppo.model_copy(
    update={
        "stretches": 2,
        "decisions": 128,
        "agents": 2,
        "encoder_every": 0,
        "head_minibatches": 1,
        "encoder_minibatches": 1,
    }
)


def hesitant(task: Task, forecast_sigmas: float = 0.0) -> ActorCritic:
    """Buys with probability .3 at every flat decision, whatever it sees, and never sells."""
    model = fresh_model(task)
    with torch.no_grad():
        for parameter in (*model.head.parameters(), *model.forecast.parameters()):
            parameter.zero_()
        model.head.policy.bias.copy_(torch.tensor([np.log(0.7), np.log(0.3), -50.0, -50.0]))
        model.forecast.student.bias[0] = forecast_sigmas
    return model


def chosen(model: ActorCritic, task: Task, share: float) -> tuple[Validation, float, float]:
    """How the chosen addition to HOLD's logit validates, its score without a share of the surprises, and itself."""
    with shards() as workers:
        paths = encode_validation(model, task, workers)
        surprises = [path.surprise for path in paths]
        validation, parts, bias = choose_hold_bias(model, task, paths, surprises, share, workers)
    assert len(parts) == BLOCKS
    return validation, float(parts.sum()), bias


def noise_of_mean(drift_sigmas: float, n: int = 1500) -> FloatArray:
    """Returns (n,) whose last 500 have exactly this mean."""
    noise = np.random.default_rng(0).standard_normal(n)
    return (noise - noise[-500:].mean() + drift_sigmas) * SIGMA


SIGMA = small_task(10).bars.sigma[0] / 0.01


def test_a_hesitant_buyer_of_a_rising_market_is_made_to_buy() -> None:
    task = task_from_returns(np.full(1500, 10e-4), {})
    model = hesitant(task)
    held = play(model, task, clock_decisions(task, task.valid, 0)).observation[0, 0, 1:, LOTS]
    assert held.max() == 0.0  # its likeliest action is to wait for ever
    validation, score, bias = chosen(model, task, share=0.0)
    # .7 exp(-.5) = .42 still waits, .7 exp(-1) = .26 < .3 buys; so do lower ones, and the smallest change is taken
    assert bias == -1.0
    assert score == pytest.approx(validation.score)
    assert score > 0
    assert validation.orders == 1


def test_a_falling_market_is_left_to_a_hesitant_buyer() -> None:
    task = task_from_returns(np.full(1500, -1e-4), {})
    validation, score, bias = chosen(hesitant(task), task, share=0.0)
    assert bias == 0.0
    assert score == validation.score == validation.orders == 0.0


@pytest.mark.parametrize(
    ("happened", "forecast", "bias"),
    [
        (0.05, 0.0, 0.0),  # it rose by luck: nobody knew, so buying only costs
        (-0.05, 0.05, -1.0),  # it fell by bad luck, and the forecast is right on average
        (0.05, -0.05, 0.0),
    ],
)
def test_luck_in_the_validation_span_does_not_choose_the_threshold(
    happened: float, forecast: float, bias: float
) -> None:
    task = task_from_returns(noise_of_mean(happened), {}, cost_bps=5.0)
    model = hesitant(task, forecast)
    assert chosen(model, task, share=0.0)[2] == (-1.0 if happened > 0 else 0.0)
    assert chosen(model, task, share=1.0)[2] == bias


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_threshold_is_the_one_with_the_best_score_without_surprises(share: float) -> None:
    task = small_task(n_bars=1500)
    torch.manual_seed(1)
    model = fresh_model(task)
    with torch.no_grad():
        model.head.policy.weight.normal_(std=0.5)
        model.head.policy.bias[Action.HOLD] += 2.0
        model.forecast.student.weight.normal_(std=0.1)
    bars = clock_decisions(task, task.valid, 0)
    with torch.no_grad():
        forecast = model.encode(torch.from_numpy(stretches_at(task, task.valid, bars[None]).tokens)).location[0, :, 0]
    price_return = np.log(task.bars.mark[bars[:-1] + 1] / task.bars.mark[bars[:-1]])
    surprise = price_return - forecast[:-1].numpy() * task.bars.sigma[bars[:-1]]
    scores, validations = [], []
    for bias in HOLD_BIASES:
        with torch.no_grad():
            model.head.policy.bias[Action.HOLD] += bias
            rollout = play(model, task, bars)
            validations.append(validate(model, task))
            model.head.policy.bias[Action.HOLD] -= bias
        exposure = intended_exposure_frac(rollout, task.rules.max_lots)
        scores.append(without_surprise(rollout.reward, exposure, surprise[None], share)[0].sum())
    assert len(set(scores)) > 3  # the thresholds differ
    validation, score, bias = chosen(model, task, share)
    best = int(np.argmax(scores))
    assert bias == HOLD_BIASES[best]
    assert score == pytest.approx(scores[best], rel=1e-5)
    assert asdict(validation) == pytest.approx(asdict(validations[best]))


def test_a_forecast_is_worth_its_slope_on_returns_and_nothing_where_it_has_no_skill() -> None:
    # returns have a mean of about .1 sigma: a forecast of .2 is worth half, .05 no more than itself, -.1 nothing
    task = task_from_returns(noise_of_mean(0.1), {}, cost_bps=5.0)
    bars = clock_decisions(task, task.valid, 0)
    target, known = forecast_targets(task, task.valid, bars)
    mean = float(target[known[:, 0], 0].mean())
    assert mean == pytest.approx(0.1, abs=0.02)
    for said, worth in ((0.2, mean / 0.2), (0.05, 1.0), (-0.1, 0.0), (0.0, 0.0)):
        with shards() as workers:
            assert forecast_worth(hesitant(task, said), task, workers) == pytest.approx(worth, rel=1e-3)


def test_every_candidate_is_judged_by_the_same_forecast() -> None:
    # nothing happened; a model that promises much is not better for it than one that promises nothing
    task = task_from_returns(noise_of_mean(0.0), {}, cost_bps=5.0)
    honest, boasting = hesitant(task, 0.0), hesitant(task, 0.1)
    with shards() as workers:
        surprises = [path.surprise for path in encode_validation(honest, task, workers)]
        judged = [
            choose_hold_bias(model, task, encode_validation(model, task, workers), surprises, 1.0, workers)
            for model in (honest, boasting)
        ]
    assert judged[0][1].tolist() == judged[1][1].tolist()
    assert judged[0][2] == judged[1][2] == 0.0
    assert chosen(boasting, task, share=1.0)[1] > 0.0  # by its own it would be


def test_a_threshold_is_for_trading_alone_so_further_training_begins_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = small_task(3000)
    model = fresh_model(task)
    config = HEAD_ALONE.model_copy(update={"learning_rate": 1e-12})
    validation = validate(model, task)
    for bias in (-1.5, -3.0):
        monkeypatch.setattr(trainer, "choose_hold_bias", lambda *_, bias=bias: (validation, np.zeros(BLOCKS), bias))
        list(train_ppo(model, task, config, 1, np.random.default_rng(0)))
        assert model.head.policy.bias[Action.HOLD].item() == pytest.approx(config.first_hold_logit + bias, abs=1e-6)
        assert float(model.hold_bias) == bias


def test_a_score_is_worse_by_more_than_the_chance_in_it() -> None:
    # differences -1, -3: standard deviation sqrt 2, standard error of their sum 2, and the sum is -4
    best = np.array([5.0, 5.0])
    assert is_worse(np.array([4.0, 2.0]), best)
    # 1, -3: sum -2, standard error sqrt(8 * 2) = 4
    assert not is_worse(np.array([6.0, 2.0]), best)
    assert not is_worse(best, best)
    assert not is_worse(best + 1.0, best)


def test_what_the_head_reads_keeps_its_scale_while_the_encoder_stays_as_it_is() -> None:
    task = small_task(3000)
    model = fresh_model(task)
    torch.nn.init.normal_(model.forecast.student.weight)
    with shards() as workers:
        standardise_signals(model, task, workers)
        bars = spread_bars(task, task.train, *SCALED_ON)
        read = torch.cat([path.latent for path in encode_validation(model, task, workers)], 1)
    scale = model.forecast_mean.clone(), model.forecast_std.clone()
    with torch.no_grad():
        encoding = model.encode(torch.from_numpy(stretches_at(task, task.train, bars).tokens))
        location = encoding.location.flatten(0, 1)
    np.testing.assert_allclose(scale[0][: location.shape[1]], location.mean(0), atol=1e-5)
    np.testing.assert_allclose(scale[1][: location.shape[1]], location.std(0), rtol=1e-4)
    list(train_ppo(model, task, HEAD_ALONE, 2, np.random.default_rng(0)))
    assert torch.equal(model.forecast_mean, scale[0])
    assert torch.equal(model.forecast_std, scale[1])
    with shards() as workers:
        again = torch.cat([path.latent for path in encode_validation(model, task, workers)], 1)
    assert torch.equal(read, again)


def test_what_the_head_reads_is_scaled_anew_where_the_encoder_learns() -> None:
    task = small_task(3000)
    model = fresh_model(task)
    with shards() as workers:
        standardise_signals(model, task, workers)
    scale = model.forecast_std.clone()
    list(train_ppo(model, task, HEAD_ALONE.model_copy(update={"encoder_every": 1}), 2, np.random.default_rng(0)))
    assert not torch.equal(model.forecast_std, scale)


def test_the_least_spread_of_values_is_a_share_of_the_first_rewards_in_every_phase(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the last phase's spread it would sink from phase to phase."""
    task, least, updated = small_task(3000), [], ValueScale.updated

    def seen(scale: ValueScale, value_target: FloatArray, rate: float) -> ValueScale:
        least.append(scale.least_std)
        return updated(scale, value_target, rate)

    monkeypatch.setattr(ValueScale, "updated", seen)
    model, rng = fresh_model(task), np.random.default_rng(0)
    assert float(model.reward_unit) == 0.0
    for _ in range(3):
        list(train_ppo(model, task, HEAD_ALONE, 1, rng))
        assert float(model.reward_unit) == pytest.approx(10 * least[0])
    assert least == pytest.approx([least[0]] * 3)
    assert float(model.value_std) != pytest.approx(10 * least[0], rel=0.05)
