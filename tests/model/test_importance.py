"""Measures of how much a feature matters: by hand, against what a network cannot know, and on a planted signal."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from learning_tasks import fresh_model, settings, small_task
from torch import Tensor

from btcai.agent.shards import shards
from btcai.agent.task import Task, stretches_at
from btcai.features.scaling import CLIP
from btcai.models.actor_critic import ActorCritic
from btcai.schema import TOKENS
from btcai.training.importance import (
    _elsewhere,
    feature_importance,
    integrated_gradients,
    permutation_cost,
    shortest_mean,
    twins,
)
from btcai.training.yardstick import Budget, learn, training_data, yardstick_task
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.trading import yardstick_rules

NAMES = ("return_sigmas", "noise", "mask")


@pytest.fixture(scope="module")
def task() -> Task:
    return small_task(9000)


@pytest.fixture(scope="module")
def model(task: Task) -> ActorCritic:
    """Untrained, but with forecasts that move as much as a trained network's."""
    torch.manual_seed(3)
    agent = fresh_model(task)
    with torch.no_grad():
        agent.forecast.student.weight *= 50.0
        agent.stem.feature_mean.copy_(torch.tensor([0.1, -0.2, 0.0]))
        agent.stem.feature_std.copy_(torch.tensor([1.1, 0.9, 1.0]))
    return agent.eval()


def windows(task: Task, n: int = 6) -> Tensor:
    return torch.from_numpy(stretches_at(task, task.train, np.linspace(200, 8000, n, dtype=np.int64)[:, None]).tokens)


def baseline(model: ActorCritic, tokens: Tensor) -> Tensor:
    """Every feature at the scaler's mean, the mask as it is."""
    return torch.cat([model.stem.feature_mean[:-1].expand_as(tokens[..., :-1]), tokens[..., -1:]], -1)


def test_parts_add_up_to_the_forecast_less_the_baselines(model: ActorCritic, task: Task) -> None:
    tokens = windows(task)
    parts = integrated_gradients(model, tokens)
    with torch.no_grad():
        whole = shortest_mean(model, tokens) - shortest_mean(model, baseline(model, tokens))
    assert whole.abs().max() > 0.05
    assert parts.sum(1).tolist() == pytest.approx(whole.tolist(), abs=2e-4)
    assert parts[:, -1].tolist() == [0.0] * len(tokens)


def test_values_that_the_network_clips_count_as_clipped(model: ActorCritic, task: Task) -> None:
    tokens = windows(task, 2)
    tokens[0, -1, 0, 0] = 40.0
    at_edge = tokens.clone()
    at_edge[0, -1, 0, 0] = float(model.stem.feature_mean[0] + CLIP * model.stem.feature_std[0])
    assert integrated_gradients(model, tokens).tolist() == integrated_gradients(model, at_edge).tolist()


def test_missing_bars_say_nothing(model: ActorCritic, task: Task) -> None:
    tokens = windows(task, 2)
    tokens[0, 100:120, :, -1] = 0.0
    other = tokens.clone()
    other[0, 100:120, :, :-1] = 3.0
    assert integrated_gradients(model, tokens).tolist() == integrated_gradients(model, other).tolist()


@dataclass
class Product:
    """A network whose forecast is the product of the newest bar's first two features."""

    def __post_init__(self) -> None:
        self.stem = SimpleNamespace(feature_mean=torch.tensor([1.0, 0.0, 0.0]), feature_std=torch.ones(3))

    def encode(self, tokens: Tensor) -> SimpleNamespace:
        said = tokens[:, -1, -1, 0] * tokens[:, -1, -1, 1]
        return SimpleNamespace(location=said[:, None, None].expand(-1, 1, 2))


def test_parts_of_a_product_by_hand() -> None:
    """From (1, 0) to (3, 2) along (1 + 2a, 2a): the first earns 2 times the mean of 2a, the second 2 times that of
    1 + 2a: 2 and 4, in all 3 * 2 - 1 * 0."""
    tokens = torch.zeros(1, TOKENS, 1, 3)
    tokens[0, -1, 0] = torch.tensor([3.0, 2.0, 1.0])
    parts = integrated_gradients(Product(), tokens)  # type: ignore[arg-type]
    assert parts[0].tolist() == pytest.approx([2.0, 4.0, 0.0], abs=1e-5)


def test_what_the_gates_shut_out_costs_and_moves_nothing(task: Task) -> None:
    torch.manual_seed(3)
    agent = fresh_model(task)
    with torch.no_grad():
        agent.forecast.student.weight *= 50.0
        agent.stem.relevance.copy_(torch.tensor([0.0, -20.0, 0.0]))
    found = feature_importance(agent.eval(), task, task.train, NAMES, seed=1).set_index("feature")
    assert found["gates"]["noise"] == pytest.approx(0.0, abs=1e-12)
    assert found["permutation"]["noise"] == 0.0
    assert found["integrated_gradients"]["noise"] == 0.0
    assert found["permutation"]["return_sigmas"] != 0.0
    assert found["integrated_gradients"]["return_sigmas"] > 0.0
    assert found["permutation"]["mask"] == 0.0


def test_a_feature_that_never_changes_costs_nothing(model: ActorCritic, task: Task) -> None:
    features = task.features.copy()
    features[:, 1] = 0.7
    still = replace(task, features=features)
    with shards() as workers:
        cost, error = permutation_cost(model, still, still.train, np.random.default_rng(0), workers)
    assert (cost[1], error[1]) == (0.0, 0.0)
    assert cost[0] != 0.0
    assert error[0] > 0.0


def test_the_same_seed_gives_the_same_bits_and_the_features_stay_as_they_were(model: ActorCritic, task: Task) -> None:
    before = task.features.copy()
    one, again = (feature_importance(model, task, task.train, NAMES, seed=4) for _ in range(2))
    pd.testing.assert_frame_equal(one, again, check_exact=True)
    assert one["feature"].tolist() == list(NAMES)
    assert one["gates"].sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(task.features, before)


@pytest.mark.parametrize("n", [2, 3, 32])
def test_no_stretch_keeps_its_own_column(n: int) -> None:
    for seed in range(20):
        order = _elsewhere(n, np.random.default_rng(seed))
        assert sorted(order.tolist()) == list(range(n))
        assert (order != np.arange(n)).all()


def test_a_twin_is_the_feature_that_tells_most_of_another() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.standard_normal((2, 5000))
    table = np.stack([one, -2.0 * one + 0.1 * other, other, np.full(5000, 3.0), np.ones(5000)], 1).astype(np.float32)
    twin, correlation = twins(table)
    assert twin[:2].tolist() == [1, 0]
    assert correlation[0] == pytest.approx(np.corrcoef(table[:, 0], table[:, 1])[0, 1], abs=1e-6)
    assert correlation[3] == correlation[4] == 0.0


@pytest.mark.slow
def test_a_planted_signal_comes_out_first_by_all_three_measures() -> None:
    """A market whose next return one of 19 features tells, learned by prediction."""
    shipped, level = settings(), DriftMarket(level=LEVELS["easy"], shown=True)
    budget = Budget(train_decisions=100_000, pretrain_updates=60, ppo_updates=1)
    data, bucket = training_data(level, budget, seed=1), shipped.buckets["scalping"]
    agent = learn(
        level, seed=1, budget=budget, bucket=bucket, model=shipped.model, pretrain_config=shipped.pretrain,
        ppo=shipped.ppo, data=data,
    )  # fmt: skip
    task = yardstick_task(data, yardstick_rules(level.cost_bps), bucket, len(data) // 10)
    found = feature_importance(agent, task, task.valid, data.feature_names, seed=1).set_index("feature")
    assert len(found) > 15
    for measure in ("gates", "permutation", "integrated_gradients"):
        assert found[measure].idxmax() == "drift", measure
    assert found["permutation"]["drift"] > 5 * found["permutation_error"]["drift"]
    noise = found[found.index.str.startswith("noise")]
    assert noise["permutation"].abs().max() < 0.02 * found["permutation"]["drift"]
