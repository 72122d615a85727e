"""Handing a trunk over, and sharing one: shares worked by hand."""

import pytest
import torch

from btcai.agent.transfer import blend_trunk, hand_over, mean_trunk
from btcai.config import ModelConfig
from btcai.models.actor_critic import ActorCritic

CONFIG = ModelConfig(width=16, attention_heads=2, hidden=16, latent=16)
N_FEATURES = 6


def network(seed: int, patch_bars: int = 1) -> ActorCritic:
    torch.manual_seed(seed)
    model = ActorCritic(CONFIG, patch_bars, N_FEATURES, 3)
    model.stem.feature_mean.normal_()
    model.stem.feature_std.uniform_(0.5, 2.0)
    torch.nn.init.normal_(model.stem.relevance, std=0.05)
    return model.eval()


def trunk(model: ActorCritic) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.trunk.state_dict().items()}


def filled(value: float) -> ActorCritic:
    """A network whose whole trunk is one number."""
    model = network(0)
    with torch.no_grad():
        for weight in model.trunk.parameters():
            weight.fill_(value)
    return model


def is_everywhere(model: ActorCritic, value: float) -> bool:
    return all(torch.allclose(weight, torch.full_like(weight, value)) for weight in model.trunk.state_dict().values())


def test_whole_share_copies_the_trunk_exactly_and_keeps_the_teacher() -> None:
    teacher, student = network(1), network(2, patch_bars=2)
    before = trunk(teacher)
    hand_over(teacher, student, alpha=1.0)
    assert all(torch.equal(weight, before[name]) for name, weight in student.trunk.state_dict().items())
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.trunk.state_dict().items())


def test_no_share_leaves_the_trunk_fresh() -> None:
    teacher, student = network(1), network(2, patch_bars=2)
    fresh = trunk(student)
    hand_over(teacher, student, alpha=0.0)
    assert all(torch.equal(weight, fresh[name]) for name, weight in student.trunk.state_dict().items())


def test_four_fifths_are_the_teachers() -> None:
    teacher, student = filled(2.0), filled(-1.0)
    hand_over(teacher, student, alpha=0.8)
    assert is_everywhere(student, 0.8 * 2.0 - 0.2)


def test_after_the_hand_over_the_two_trunks_are_not_one() -> None:
    teacher, student = filled(2.0), filled(-1.0)
    hand_over(teacher, student, alpha=1.0)
    with torch.no_grad():
        for weight in student.trunk.parameters():
            weight.add_(1.0)
    assert is_everywhere(teacher, 2.0)


def test_heads_stay_fresh() -> None:
    teacher, student = network(1), network(2)
    heads = ("forecast", "head")
    before = {h: {n: w.clone() for n, w in getattr(student, h).state_dict().items()} for h in heads}
    hand_over(teacher, student, alpha=0.8)
    for h in heads:
        assert all(torch.equal(w, before[h][n]) for n, w in getattr(student, h).state_dict().items())


@pytest.mark.parametrize(("source", "target"), [(1, 2), (2, 10), (10, 28), (28, 2)])
def test_a_constant_market_keeps_its_embedding_and_the_scaler_travels(source: int, target: int) -> None:
    teacher, student = network(1, source), network(2, target)
    hand_over(teacher, student, alpha=0.8)
    assert torch.equal(student.stem.feature_mean, teacher.stem.feature_mean)
    assert torch.equal(student.stem.feature_std, teacher.stem.feature_std)
    assert torch.equal(student.stem.importance(), teacher.stem.importance())  # what was selected travels too
    bar = torch.randn(N_FEATURES)
    bar[-1] = 1.0
    embedded = [
        model.stem(model.stem.scale(bar.expand(1, 1, patch, N_FEATURES)))
        for model, patch in ((teacher, source), (student, target))
    ]
    assert torch.allclose(embedded[0], embedded[1], atol=1e-5)


def test_the_mean_trunk_is_the_mean_of_each_weight() -> None:
    models = [filled(value) for value in (1.0, 2.0, 3.0, 6.0)]
    mean = mean_trunk(models)
    assert set(mean) == set(models[0].trunk.state_dict())
    assert all(torch.allclose(weight, torch.full_like(weight, 3.0)) for weight in mean.values())
    assert [is_everywhere(model, value) for model, value in zip(models, (1.0, 2.0, 3.0, 6.0), strict=True)] == [
        True
    ] * 4


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, -1.0), (0.25, 0.0), (0.5, 1.0), (1.0, 3.0)])
def test_a_blend_takes_that_share_of_the_shared_trunk(alpha: float, expected: float) -> None:
    # (1 - alpha) * -1 + alpha * 3
    model, shared = filled(-1.0), mean_trunk([filled(3.0)])
    blend_trunk(model, shared, alpha)
    assert is_everywhere(model, expected)
    assert all(torch.equal(weight, torch.full_like(weight, 3.0)) for weight in shared.values())


def test_a_blend_touches_the_trunk_alone() -> None:
    model = network(1)
    before = {n: w.clone() for n, w in model.state_dict().items() if not n.startswith("trunk.")}
    blend_trunk(model, mean_trunk([network(2)]), 0.5)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())
