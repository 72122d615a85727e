"""Prioritised stretches: drawn by surprise, paid back to even draws."""

import json

import numpy as np
import pytest
import torch
from learning_tasks import LEVEL, fresh_model, settings, small_task, task_from_returns

from btcai.agent.replay import Parts, draw, parts_of
from btcai.agent.task import Stretches, Task, sample_stretches, stretches_from
from btcai.config import ReplayConfig
from btcai.schema import FloatArray, IntArray, Span
from btcai.training import experience
from btcai.training.trainer import train_ppo

DECISIONS = 128


def config(prioritised: float = 0.5, staleness: float = 0.0, correction: float = 1.0) -> ReplayConfig:
    return settings().ppo.replay.model_copy(
        update={"prioritised": prioritised, "staleness": staleness, "correction": correction}
    )


def known(score: list[float], seen: list[float] | None = None) -> Parts:
    n = len(score)
    seen_at = np.array(seen) if seen else np.zeros(n)
    return Parts(first=100 * np.arange(n), sizes=np.full(n, 100), score=np.array(score), seen=seen_at)


def shares(parts: Parts, of: ReplayConfig, update: int = 10, n: int = 40_000) -> FloatArray:
    """How often each part is drawn."""
    drawn, _, _ = draw(parts, of, update, n, np.random.default_rng(0))
    return np.bincount(drawn, minlength=len(parts.score)) / n


def test_parts_hold_every_start_once() -> None:
    task = small_task(6_000)
    parts = parts_of(task, task.train, DECISIONS)
    starts = np.concatenate(
        [np.arange(first, first + size) for first, size in zip(parts.first, parts.sizes, strict=True)]
    )
    drawn = sample_stretches(task, task.train, 2_000, DECISIONS, np.random.default_rng(0)).bars[:, 0]
    assert len(np.unique(starts)) == len(starts)
    assert starts.min() <= drawn.min() <= drawn.max() <= starts.max()
    assert parts.sizes.min() >= DECISIONS
    assert np.isinf(parts.score).all()


def test_ranks_by_hand() -> None:
    # ranks 2, 1, 3: weights 1/2, 1, 1/3 of 11/6, so 3/11, 6/11, 2/11; half of the draws, the rest evenly
    expected = [3 / 22 + 1 / 6, 6 / 22 + 1 / 6, 2 / 22 + 1 / 6]
    assert shares(known([0.5, 2.0, 0.1]), config()) == pytest.approx(expected, abs=0.01)
    assert shares(known([5.0, 5.0, 5.0]), config()) == pytest.approx(np.full(3, 1 / 3), abs=0.01)


def test_what_was_not_seen_yet_comes_first() -> None:
    found = shares(known([9.0, np.inf, np.inf, 1.0]), config(prioritised=0.9))
    assert found[1] == pytest.approx(found[2], abs=0.01)
    assert found[[1, 2]].sum() == pytest.approx(0.9 * 2 / (2 + 1 / 3 + 1 / 4) + 0.05, abs=0.01)


def test_staleness_draws_by_age_alone_where_it_is_all() -> None:
    # update 10, seen at 10, 8, 4: ages 0, 2, 6
    found = shares(known([9.0, 1.0, 1.0], [10.0, 8.0, 4.0]), config(prioritised=0.9, staleness=1.0))
    assert found == pytest.approx(0.9 * np.array([0.0, 0.25, 0.75]) + 0.1 / 3, abs=0.01)


def test_weights_pay_back_to_even_draws_and_are_bounded() -> None:
    parts, of = known([0.5, 2.0, 0.1, 0.1]), config(prioritised=0.7)
    drawn, starts, weight = draw(parts, of, 10, 100_000, np.random.default_rng(1))
    assert weight.mean() == pytest.approx(1.0, abs=0.02)
    assert weight.max() <= 1 / 0.3 + 1e-9
    figure = np.array([1.0, 10.0, 100.0, 1000.0])  # of each part; evenly its mean is 277.75
    assert np.mean(weight * figure[drawn]) == pytest.approx(277.75, rel=0.03)
    assert np.all((starts >= parts.first[drawn]) & (starts < parts.first[drawn] + 100))
    uncorrected = draw(parts, config(correction=0.0), 10, 10, np.random.default_rng(1))[2]
    assert uncorrected.tolist() == [1.0] * 10


def test_a_visit_is_remembered_through_json() -> None:
    parts = known([np.inf] * 4).visited(np.array([1, 3, 3]), np.array([0.2, 0.7, 0.1]), 5)  # one of them twice
    again = known([0.0] * 4).with_facts(json.loads(json.dumps(parts.as_facts())))
    assert again.score.tolist() == [np.inf, 0.2, np.inf, 0.7]
    assert again.seen.tolist() == [0.0, 5.0, 0.0, 5.0]


@pytest.mark.parametrize("prioritised", [0.0, 0.5])
def test_training_with_it_is_the_same_bits_for_the_same_seed(prioritised: float) -> None:
    ppo = settings().ppo
    brief = ppo.model_copy(
        update={
            "stretches": 4, "decisions": DECISIONS, "agents": 2, "head_minibatches": 1, "encoder_minibatches": 1,
            "replay": ppo.replay.model_copy(update={"prioritised": prioritised}),
        }
    )  # fmt: skip
    task, found = small_task(6_000), []
    for _ in range(2):
        torch.manual_seed(0)
        model = fresh_model(task)
        rows = list(train_ppo(model, task, brief, 6, np.random.default_rng(1)))
        found.append((rows, [weight.tolist() for weight in model.state_dict().values()]))
    assert found[0] == found[1]


def test_parts_that_surprise_are_come_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = settings().ppo
    brief = ppo.model_copy(
        update={
            "stretches": 4, "decisions": DECISIONS, "agents": 2, "head_minibatches": 1, "encoder_minibatches": 1,
            "surprise_control": 0.0, "replay": config(prioritised=0.9),
        }
    )  # fmt: skip
    returns = np.random.default_rng(2).standard_normal(6_000) * LEVEL.sigma_bps / 1e4
    returns[2_000:2_600] *= 15.0
    task = task_from_returns(returns, {"noise": np.zeros(6_000)})
    begun: list[int] = []

    def noted(task: Task, span: Span, starts: IntArray, decisions: int) -> Stretches:
        begun.extend(starts.tolist())
        return stretches_from(task, span, starts, decisions)

    monkeypatch.setattr(experience, "stretches_from", noted)
    torch.manual_seed(0)
    model = fresh_model(task)
    with torch.no_grad():
        model.head.policy.bias[1:] += 1.0
    list(train_ppo(model, task, brief, 40, np.random.default_rng(1)))
    late = np.array(begun[80:])  # after every part was seen
    reach = (late > 2_000 - DECISIONS) & (late < 2_600)  # some of the wild bars are in the stretch
    assert reach.mean() > 1.5 * (600 + DECISIONS) / np.ptp(begun)
