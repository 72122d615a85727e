"""What a teacher on another clock would do in its student's place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learning_tasks import SMALL, fresh_model, settings, small_task
from torch import Tensor

from btcai.agent.kickstart import Kickstart, teacher_probabilities
from btcai.agent.task import Stretches, Task, sample_stretches, stretches_at
from btcai.models.actor_critic import ActorCritic
from btcai.schema import ACCOUNT_FEATURES, CAN_BUY, CAN_SELL, Action, Float32Array
from btcai.training.trainer import train_ppo

BRIEF = settings().ppo.model_copy(
    update={"stretches": 4, "decisions": 128, "agents": 2, "head_minibatches": 1, "encoder_minibatches": 1}
)


def on_clock(task: Task, patch_bars: int) -> Task:
    """The task of a bucket that decides every patch_bars."""
    return replace(
        task,
        bucket=task.bucket.model_copy(update={"patch_bars": patch_bars}),
        rules=task.rules._replace(patch_bars=patch_bars),
    )


def opinionated(task: Task) -> ActorCritic:
    """A network whose policy hangs on what it reads."""
    model = fresh_model(task, SMALL)
    with torch.no_grad():
        model.head.policy.weight.normal_()
    return model


def accounts(stretches: int, decisions: int) -> Float32Array:
    rng = np.random.default_rng(4)
    observation = rng.random((stretches, 3, decisions, len(ACCOUNT_FEATURES))).astype(np.float32)
    observation[..., CAN_BUY], observation[..., CAN_SELL] = 1.0, observation[..., 0] < 0.5
    return observation


def said_at(teacher: ActorCritic, task: Task, bar: int, account: Float32Array) -> Tensor:
    """By the plain form, on the lookback that ends with this bar alone."""
    at = stretches_at(task, task.train, np.array([[bar]]))
    with torch.no_grad():
        latent = teacher.latent(teacher.read(at.tokens))[0, 0]
        return teacher.head(latent, torch.from_numpy(account))[0].softmax(-1)


@pytest.mark.parametrize(
    ("patch", "own", "late"), [(1, 1, [0, 0, 0, 0]), (1, 2, [0, 0, 0, 0]), (2, 10, [0] * 4), (2, 3, [0, 1, 0, 1])]
)
def test_it_reads_its_own_lookback_at_its_latest_decision(patch: int, own: int, late: list[int]) -> None:
    # late: bars from the teacher's latest decision to the student's; every 2 bars against every 3, they meet every 6
    torch.manual_seed(1)
    student = on_clock(small_task(6_000), own)
    teacher = opinionated(on_clock(small_task(6_000), patch))
    stretches = sample_stretches(student, student.train, 2, 128, np.random.default_rng(0))
    observation = accounts(2, 127)
    found = teacher_probabilities(teacher, student, stretches, observation)
    assert found.shape == (2, 3, 127, len(Action))
    for k, bars in [*enumerate(late), (126, late[126 % 2])]:
        expected = said_at(teacher, on_clock(student, patch), stretches.bars[1, k] - bars, observation[1, :, k])
        assert torch.allclose(found[1, :, k], expected, atol=1e-5)
    assert found[..., Action.BUY].std() > 0.01


def test_its_threshold_for_trading_greedily_is_left_out() -> None:
    torch.manual_seed(1)
    task = small_task(3_000)
    teacher, stretches = opinionated(task), sample_stretches(task, task.train, 2, 128, np.random.default_rng(0))
    plain = teacher_probabilities(teacher, task, stretches, accounts(2, 127))
    with torch.no_grad():
        teacher.head.policy.bias[Action.HOLD] -= 1.5
        teacher.hold_bias.fill_(-1.5)
    again = teacher_probabilities(teacher, task, stretches, accounts(2, 127))
    assert torch.allclose(plain, again, atol=1e-6)


def test_a_teacher_that_looks_back_further_is_refused() -> None:
    task = small_task(3_000)
    teacher = opinionated(on_clock(task, 2))
    stretches = sample_stretches(task, task.train, 2, 128, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least as often as its student, was every 2 bars and 1"):
        teacher_probabilities(teacher, task, stretches, accounts(2, 127))


def buys_where(task: Task, model: ActorCritic, stretches: Stretches) -> float:
    """Mean probability to buy of a flat account."""
    observation = np.zeros((len(stretches.bars), 1, 127, len(ACCOUNT_FEATURES)), np.float32)
    observation[..., CAN_BUY] = 1.0
    return float(teacher_probabilities(model, task, stretches, observation)[..., Action.BUY].mean())


@pytest.mark.parametrize("encoder_every", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_student_is_drawn_to_its_teacher_while_the_weight_lasts(encoder_every: int) -> None:
    # on noise nothing else moves it; the teacher buys at once whatever it sees
    torch.manual_seed(1)
    task = small_task(6_000)
    teacher = fresh_model(task)
    with torch.no_grad():
        for parameter in teacher.head.parameters():
            parameter.zero_()
        teacher.head.policy.bias.copy_(torch.tensor([0.0, 3.0, 0.0, 0.0]))
    stretches = sample_stretches(task, task.valid, 2, 128, np.random.default_rng(0))
    config = BRIEF.model_copy(update={"encoder_every": encoder_every, "target_kl": 10.0, "head_epochs": 4})
    bought = []
    for kickstart in (None, Kickstart(teacher=teacher, weight=5.0, frac=1.0)):
        torch.manual_seed(2)
        student = fresh_model(task)
        rows = list(train_ppo(student, task, config, 30, np.random.default_rng(3), kickstart=kickstart))
        assert ("teacher_kl" in rows[0]) == (kickstart is not None)
        bought.append(buys_where(task, student, stretches))
        if kickstart is not None:
            assert rows[25]["teacher_kl"] < 0.5 * rows[0]["teacher_kl"]
    assert bought[0] < 0.5 < bought[1]


def test_after_its_share_of_the_updates_the_teacher_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        "btcai.training.trainer.teacher_probabilities", lambda *given: asked.append(1) or teacher_probabilities(*given)
    )
    task = small_task(6_000)
    kickstart = Kickstart(teacher=opinionated(task), weight=1.0, frac=0.5)
    rows = list(train_ppo(fresh_model(task), task, BRIEF, 8, np.random.default_rng(3), kickstart=kickstart))
    assert ["teacher_kl" in row for row in rows] == [True] * 4 + [False] * 4
    assert len(asked) == 4
