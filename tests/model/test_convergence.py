"""Whether training gained anything: by hand, on networks that are known to be better, and on chance alone."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from learning_tasks import fresh_model, settings, small_task
from scipy import stats

from btcai.agent.shards import shards
from btcai.schema import Action, Span
from btcai.training.convergence import Gain, Standing, gain, n_blocks, standing, surprises
from btcai.training.play import BLOCKS, validate
from btcai.training.pretraining import AT_ONCE, JUDGED_ON, forecast_error, forecast_errors


def worth(errors: list[float], scores: list[float]) -> Standing:
    return Standing(forecast_error=np.array(errors), score=np.array(scores))


def test_a_gain_by_hand() -> None:
    # losses lower by .1, .2, .3: mean .2, standard error .1 / sqrt(3), t = 3.464 with 2 degrees of freedom: p = .0371
    found = gain(worth([1.0, 1.0, 1.0], [5.0, 5.0, 5.0]), worth([0.9, 0.8, 0.7], [4.0, 5.0, 6.0]))
    assert (found.forecast, found.score) == (pytest.approx(0.2), pytest.approx(0.0))
    assert found.forecast_p == pytest.approx(0.0371, abs=1e-4)
    assert found.score_p == pytest.approx(0.5)
    assert found.is_significant(0.9)  # .0371 < .05
    assert not found.is_significant(0.95)  # not < .025: two figures are looked at


@pytest.mark.parametrize(("change", "p"), [(0.0, math.nan), (-0.1, 1.0), (0.1, 0.0)])
def test_differences_without_spread_are_certain(change: float, p: float) -> None:
    found = gain(worth([1.0] * 3, [0.0] * 3), worth([1.0] * 3, [change] * 3))
    assert math.isnan(found.forecast_p)
    assert found.score_p == pytest.approx(p, nan_ok=True)


@pytest.mark.slow
def test_chance_alone_is_told_from_a_gain_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(2_000):
        before, after = (Standing(forecast_error=e, score=s) for e, s in rng.normal(size=(2, 2, 32)))
        told += gain(before, after).is_significant(0.95)
    # at most 5 %: 2,000 draws, 99.9 % of the binomial
    assert told <= stats.binom.ppf(0.999, 2_000, 0.05)
    assert told >= stats.binom.ppf(0.001, 2_000, 0.04)


def test_level_is_of_both_figures_together() -> None:
    assert Gain(forecast=0.0, forecast_p=0.5, score=1.0, score_p=0.024).is_significant(0.95)
    assert Gain(forecast=1.0, forecast_p=0.049, score=0.0, score_p=math.nan).is_significant(0.95)  # the only one
    assert not Gain(forecast=0.0, forecast_p=math.nan, score=0.0, score_p=math.nan).is_significant(0.95)
    assert not Gain(forecast=0.0, forecast_p=0.5, score=1.0, score_p=0.026).is_significant(0.95)


def test_what_gains_in_one_and_surely_loses_in_the_other_is_no_gain() -> None:
    assert Gain(forecast=1.0, forecast_p=0.001, score=-1.0, score_p=0.97).is_significant(0.95)
    assert not Gain(forecast=1.0, forecast_p=0.001, score=-1.0, score_p=0.98).is_significant(0.95)
    assert not Gain(forecast=-1.0, forecast_p=0.99, score=1.0, score_p=0.0).is_significant(0.95)


@pytest.mark.parametrize(
    ("patch", "longest", "valid_bars", "blocks"),
    [
        (1, 36, 36_000, BLOCKS),
        (2, 288, 36_000, BLOCKS),
        (10, 2016, 36_000, 5),
        (28, 8064, 36_000, 2),
        (1, 36, 1_000, 3),
    ],
)
def test_blocks_are_twice_as_long_as_what_judges_them(patch: int, longest: int, valid_bars: int, blocks: int) -> None:
    # 128 decisions of 10 bars and 2,016 more are 3,296: 36,000 hold five of twice that
    task = small_task(2_000)
    bucket = task.bucket.model_copy(update={"patch_bars": patch, "horizons_bars": (longest,)})
    assert n_blocks(replace(task, bucket=bucket, valid=Span(0, valid_bars))) == blocks


@pytest.mark.slow
def test_a_standing_is_what_the_network_is_worth_on_the_validation_span() -> None:
    torch.manual_seed(0)
    task = small_task(8_000)
    model = fresh_model(task)
    with torch.no_grad():
        model.head.policy.weight.normal_()
    found = standing(model, task, surprises(model, task), 0.0)
    with shards() as workers:
        assert found.forecast_error.mean() == pytest.approx(forecast_error(model, task, workers))
        assert len(forecast_errors(model, task, workers)) == JUDGED_ON // AT_ONCE
    assert len(found.score) == len(found.forecast_error) == 2
    assert found.score.sum() == pytest.approx(validate(model, task).score)  # no surprise taken out: as it was played


def test_a_forecast_that_knows_less_and_a_policy_that_only_pays_are_no_gain() -> None:
    torch.manual_seed(0)
    task = small_task(30_000)
    task = replace(task, train=Span(0, 10_000), valid=Span(10_000, 30_000))
    model = fresh_model(task)
    worse, waiting = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        worse.forecast.student.bias[0] += 0.5
        for parameter in (*worse.head.parameters(), *waiting.head.parameters()):
            parameter.zero_()
        worse.head.policy.bias[Action.BUY] = worse.head.policy.bias[Action.SELL] = 1.0  # in and out for ever
        waiting.head.policy.bias[Action.HOLD] = 1.0
    missed = surprises(model, task)
    of = {name: standing(one, task, missed, 1.0) for name, one in (("worse", worse), ("waiting", waiting))}
    assert not gain(of["waiting"], of["worse"]).is_significant(0.95)
    assert gain(of["worse"], of["waiting"]).is_significant(0.95)
    assert gain(of["worse"], of["waiting"]).score > 0
    assert settings().convergence.level == 0.95
