"""Handing a trunk over, and sharing one: shares worked by hand."""

import pytest
import torch
from learning_tasks import settings

from btcai.agent.kickstart import Kickstart
from btcai.agent.transfer import adapt_horizons, at_full_cost, blend_trunk, gives_policy, hand_over, mean_trunk
from btcai.config import ModelConfig, TransferConfig
from btcai.models.actor_critic import ActorCritic
from btcai.schema import ACCOUNT_FEATURES

CONFIG = ModelConfig(width=16, attention_heads=2, hidden=16, latent=16)
N_FEATURES = 6
TEACHER_BARS, STUDENT_BARS = (1, 3, 12, 36), (2, 12, 72, 288)


NOTHING = TransferConfig(
    selection=False,
    stem=False,
    alpha=0.0,
    forecasts=False,
    policy=False,
    kickstart=0.0,
    kickstart_frac=0.5,
)


def handed_over(teacher: ActorCritic, student: ActorCritic, **given: float) -> Kickstart | None:
    """Without what is given: stem and selection."""
    config = NOTHING.model_copy(update={"selection": True, "stem": True, **given})
    return hand_over(teacher, student, config, TEACHER_BARS, STUDENT_BARS)


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


def test_with_all_of_it_off_only_the_scaler_travels() -> None:
    teacher, student, fresh = network(1), network(2, patch_bars=2), network(2, patch_bars=2)
    assert hand_over(teacher, student, NOTHING, TEACHER_BARS, STUDENT_BARS) is None
    changed = [
        name for name, weight in student.state_dict().items() if not torch.equal(weight, fresh.state_dict()[name])
    ]
    assert changed == ["stem.feature_mean", "stem.feature_std"]


@pytest.mark.parametrize("given", [{"selection"}, {"stem"}])
def test_the_selection_and_the_map_of_a_patch_travel_apart(given: set[str]) -> None:
    teacher, student, fresh = network(1), network(2), network(2)
    handed_over(teacher, student, alpha=0.0, selection="selection" in given, stem="stem" in given)
    assert torch.equal(student.stem.relevance, (teacher if "selection" in given else fresh).stem.relevance)
    assert torch.allclose(student.stem.embed.weight, (teacher if "stem" in given else fresh).stem.embed.weight)


@pytest.mark.parametrize("collapsed", [False, True])
def test_a_policy_that_collapsed_is_not_handed_over(collapsed: bool) -> None:
    teacher, student, fresh = network(1), network(2), network(2)
    teacher.collapsed.fill_(collapsed)
    kickstart = handed_over(teacher, student, alpha=0.8, policy=True, kickstart=1.0)
    assert (kickstart is None) == collapsed
    given = [
        torch.equal(own, first) for own, first in zip(student.head.parameters(), fresh.head.parameters(), strict=True)
    ]
    assert all(given) == collapsed
    assert gives_policy(teacher, NOTHING.model_copy(update={"policy": True})) == (not collapsed)


def test_who_trades_already_meets_full_costs() -> None:
    ramp = settings().ppo.model_copy(update={"cost_ramp_frac": 0.5})
    assert at_full_cost(ramp) == ramp.model_copy(update={"cost_ramp_frac": 0.0})


def test_a_kickstart_is_made_where_it_is_asked_for() -> None:
    teacher = network(1)
    assert handed_over(teacher, network(2), alpha=0.8) is None
    kickstart = handed_over(teacher, network(2), alpha=0.8, kickstart=2.0, kickstart_frac=0.25)
    assert kickstart is not None
    assert kickstart.teacher is teacher
    assert [kickstart.weight_at(update, 40) for update in (0, 5, 10, 39)] == [2.0, 1.0, 0.0, 0.0]


def test_whole_share_copies_the_trunk_exactly_and_keeps_the_teacher() -> None:
    teacher, student = network(1), network(2, patch_bars=2)
    before = trunk(teacher)
    handed_over(teacher, student, alpha=1.0)
    assert all(torch.equal(weight, before[name]) for name, weight in student.trunk.state_dict().items())
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.trunk.state_dict().items())


def test_no_share_leaves_the_trunk_fresh() -> None:
    teacher, student = network(1), network(2, patch_bars=2)
    fresh = trunk(student)
    handed_over(teacher, student, alpha=0.0)
    assert all(torch.equal(weight, fresh[name]) for name, weight in student.trunk.state_dict().items())


def test_four_fifths_are_the_teachers() -> None:
    teacher, student = filled(2.0), filled(-1.0)
    handed_over(teacher, student, alpha=0.8)
    assert is_everywhere(student, 0.8 * 2.0 - 0.2)


def test_after_the_hand_over_the_two_trunks_are_not_one() -> None:
    teacher, student = filled(2.0), filled(-1.0)
    handed_over(teacher, student, alpha=1.0)
    with torch.no_grad():
        for weight in student.trunk.parameters():
            weight.add_(1.0)
    assert is_everywhere(teacher, 2.0)


@pytest.mark.parametrize("given", [{"forecast"}, {"head"}, {"forecast", "head"}, set[str]()])
def test_heads_stay_fresh_unless_they_are_handed_over(given: set[str]) -> None:
    teacher, student = network(1), network(2)
    for parameter in (*teacher.forecast.parameters(), *teacher.head.parameters()):
        torch.nn.init.normal_(parameter)  # biases begin at zero in every network
    heads = ("forecast", "head")
    before = {h: {n: w.clone() for n, w in getattr(student, h).state_dict().items()} for h in heads}
    handed_over(teacher, student, alpha=0.8, forecasts="forecast" in given, policy="head" in given)
    for h in heads:
        same = [torch.equal(w, before[h][n]) for n, w in getattr(student, h).state_dict().items()]
        assert not any(same) if h in given else all(same)


def test_a_policy_that_is_handed_over_says_and_values_what_the_teacher_did() -> None:
    teacher, student = network(1), network(2)
    teacher.value_mean.fill_(0.3)
    teacher.value_std.fill_(2.5)
    teacher.reward_unit.fill_(3.0)
    teacher.hold_bias.fill_(-1.5)
    handed_over(teacher, student, alpha=0.0, policy=True)
    latent = torch.randn(5, teacher.head.market.in_features)
    account = torch.randn(5, len(ACCOUNT_FEATURES))
    for said, taught in zip(student.head(latent, account), teacher.head(latent, account), strict=True):
        assert torch.equal(said, taught)
    assert (float(student.value_mean), float(student.value_std)) == (pytest.approx(0.3), pytest.approx(2.5))
    assert float(student.reward_unit) == pytest.approx(3.0 * 2**0.5)  # decides every 2 bars, the teacher every bar
    assert float(student.hold_bias) == -1.5


def test_forecasts_are_those_of_the_teacher_between_its_horizons_in_proportion_of_their_logarithms() -> None:
    # student's 2, 12, 72, 288 bars: log 2 / log 3 = .631 of the way from 1 to 3; 12 is the teacher's third horizon;
    # beyond 36 its last
    teacher, student = network(1).forecast, network(2).forecast
    for layer in (teacher.student, teacher.steps, student.student, student.steps):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    adapt_horizons(teacher, student, TEACHER_BARS, STUDENT_BARS)
    latent = torch.randn(2, 7, CONFIG.latent)
    taught = {name: layer(latent) for name, layer in (("student", teacher.student), ("steps", teacher.steps))}
    said = {name: layer(latent) for name, layer in (("student", student.student), ("steps", student.steps))}
    of_teacher = taught["student"].unflatten(-1, (3, 4)), taught["steps"].unflatten(-1, (4, -1)).transpose(-1, -2)
    of_student = said["student"].unflatten(-1, (3, 4)), said["steps"].unflatten(-1, (4, -1)).transpose(-1, -2)
    for given, found in zip(of_teacher, of_student, strict=True):
        between = 0.36907 * given[..., 0] + 0.63093 * given[..., 1]
        assert torch.allclose(found[..., 0], between, atol=1e-4)
        assert torch.allclose(found[..., 1], given[..., 2], atol=1e-5)
        assert torch.allclose(found[..., 2], given[..., 3], atol=1e-5)
        assert torch.allclose(found[..., 3], given[..., 3], atol=1e-5)


def test_the_same_horizons_keep_their_forecasts_and_longer_teachers_teach_shorter_ones() -> None:
    teacher, same, shorter = network(1).forecast, network(2).forecast, network(3).forecast
    adapt_horizons(teacher, same, STUDENT_BARS, STUDENT_BARS)
    for name, weight in same.state_dict().items():
        assert torch.allclose(weight, teacher.state_dict()[name])
    adapt_horizons(teacher, shorter, STUDENT_BARS, TEACHER_BARS)  # 1 bar is below the teacher's shortest, 2
    assert torch.equal(shorter.student.weight[0], teacher.student.weight[0])


@pytest.mark.parametrize(("source", "target"), [(1, 2), (2, 10), (10, 28), (28, 2)])
def test_a_constant_market_keeps_its_embedding_and_the_scaler_travels(source: int, target: int) -> None:
    teacher, student = network(1, source), network(2, target)
    handed_over(teacher, student, alpha=0.8)
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
