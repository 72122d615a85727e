"""A start shared by buckets and regimes: one trunk, near to all, from the training spans alone."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from export_fakes import market, scaler, splits, tiny_config

from btcai.agent.horizons import is_stormy
from btcai.agent.task import Task
from btcai.config import Config, MetaConfig
from btcai.models.actor_critic import ActorCritic
from btcai.schema import MarketData, Span
from btcai.training import meta
from btcai.training.checkpoint import new_model
from btcai.training.meta import regime_stretches, shared_start
from btcai.training.pretraining import prediction_loss
from btcai.training.progressive import make_task, set_scaler

SPANS = splits(Span(2016, 7000), Span(7100, 9900))
TWO = ("scalping", "short")
META = MetaConfig(rounds=2, inner_updates=2, step=0.5)


def buckets(config: Config, data: MarketData | None = None) -> tuple[dict[str, ActorCritic], dict[str, Task]]:
    torch.manual_seed(0)
    models = {name: new_model(config, name) for name in TWO}
    for model in models.values():
        set_scaler(model, scaler())
    return models, {name: make_task(data or market(), SPANS, name, config) for name in TWO}


def started(given: MetaConfig, data: MarketData | None = None) -> dict[str, ActorCritic]:
    config = tiny_config()
    models, tasks = buckets(config, data)
    shared_start(models, tasks, config.pretrain, given, np.random.default_rng(3))
    return models


@pytest.mark.slow
def test_all_buckets_end_with_one_trunk_and_stems_of_their_own() -> None:
    models = started(META)
    one, other = (models[name].trunk.state_dict() for name in TWO)
    assert all(torch.equal(one[name], other[name]) for name in one)
    before, _ = buckets(tiny_config())
    assert not torch.equal(models["short"].stem.embed.weight, before["short"].stem.embed.weight)
    assert torch.equal(models["short"].head.policy.weight, before["short"].head.policy.weight)


def test_the_same_seed_gives_the_same_bits_and_what_follows_the_training_span_gives_none() -> None:
    features = market().features.copy()
    features[SPANS.train.stop :] *= 30.0
    mark = market().mark.copy()
    mark[SPANS.train.stop :] *= 1.5
    found = [
        started(META, data)["scalping"].state_dict() for data in (None, None, replace(market(), features=features))
    ]
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in other)


def test_a_step_goes_that_share_of_the_way_to_the_mean_of_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    models, tasks = buckets(tiny_config())
    first = models["scalping"].trunk.state_dict()
    for model in models.values():
        model.trunk.load_state_dict(first)
    first = copy.deepcopy(first)

    def moved(model: ActorCritic, *_: object) -> list[ActorCritic]:
        """As if a calm market led to weights higher by 1 and a stormy one by 3."""
        students = [copy.deepcopy(model) for _ in range(2)]
        for student, by in zip(students, (1.0, 3.0), strict=True):
            for weight in student.parameters():
                weight.data += by
        return students

    monkeypatch.setattr(meta, "_both_regimes", moved)
    one = MetaConfig(rounds=1, inner_updates=1, step=0.25)
    shared_start(models, tasks, tiny_config().pretrain, one, np.random.default_rng(0))
    for name, weight in models["short"].trunk.state_dict().items():
        assert torch.allclose(weight, first[name] + 0.25 * 2.0, atol=1e-5)


@pytest.mark.parametrize("stormy", [False, True])
def test_regimes_are_apart(stormy: bool) -> None:
    config = tiny_config()
    _, tasks = buckets(config)
    task, pretrain = tasks["scalping"], config.pretrain
    shares = []
    for seed in range(20):
        found = regime_stretches(task, pretrain, np.random.default_rng(seed), stormy=stormy)
        assert found.bars.shape == (pretrain.stretches, pretrain.decisions)
        assert found.bars.max() < SPANS.train.stop
        shares.append(is_stormy(task, found.bars).mean())
    assert (np.mean(shares) > 0.6) if stormy else (np.mean(shares) < 0.4)


@pytest.mark.slow
def test_it_learns_what_all_have_in_common() -> None:
    config = tiny_config()
    models, tasks = buckets(config)
    fresh = copy.deepcopy(models)
    longer = MetaConfig(rounds=10, inner_updates=4, step=0.5)
    shared_start(models, tasks, config.pretrain, longer, np.random.default_rng(3))
    for name in TWO:
        task = tasks[name]
        batch = regime_stretches(task, config.pretrain, np.random.default_rng(99), stormy=True)
        with torch.no_grad():
            before, after = (
                float(prediction_loss(task, given[name].read(batch.tokens), batch)) for given in (fresh, models)
            )
        assert after < before
