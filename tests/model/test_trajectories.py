"""Trajectories of earlier updates: kept, drawn by surprise, and learned from as today's policy would have them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learning_tasks import fresh_model, settings, small_task
from torch import Tensor

from btcai.agent.head_gradient import head_gradient
from btcai.agent.ppo import Experience, Gradient, Losses, ValueScale, Weights, gae
from btcai.agent.shards import shards
from btcai.agent.trajectories import Trajectories, TrajectoryMemory, looked_at_again, together, v_trace
from btcai.config import PpoConfig
from btcai.models.heads import ActorCriticHead
from btcai.schema import ACCOUNT_FEATURES, CAN_BUY, CAN_SELL
from btcai.training import trainer
from btcai.training.trainer import train_ppo

S, G, M, Z = 2, 3, 6, 5
SCALE = ValueScale(mean=0.2, std=2.0)


def made(seed: int, head: ActorCriticHead) -> Trajectories:
    """What a policy that is this head's did."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    observation = torch.from_numpy(rng.random((S, G, M, len(ACCOUNT_FEATURES))).astype(np.float32))
    observation[..., [CAN_BUY, CAN_SELL]] = 1.0
    latent = torch.randn(S, M, Z, generator=generator)
    with torch.no_grad():
        logits, _ = head.act(head.market(latent).unsqueeze(1), observation)
    log_prob = logits[:, :, :-1].log_softmax(-1)
    action = torch.multinomial(log_prob.exp().flatten(0, -2), 1, generator=generator).view(S, G, M - 1)
    return Trajectories(
        latent=latent,
        observation=observation,
        action=action,
        logp=log_prob.gather(-1, action.unsqueeze(-1)).squeeze(-1),
        reward=torch.from_numpy(rng.standard_normal((S, G, M - 1))),
        terminated=torch.from_numpy(rng.random((S, G, M - 1)) < 0.2),
    )


def head(seed: int = 0) -> ActorCriticHead:
    torch.manual_seed(seed)
    found = ActorCriticHead(Z, 8)
    with torch.no_grad():
        found.policy.weight.normal_()
    return found


def by_definition(reward: Tensor, value: Tensor, ended: Tensor, rho: Tensor, discount: float, lam: float) -> Tensor:
    """Equation 1 of arXiv 1802.01561, one state at a time: a sum over what follows."""
    target = value[:-1].clone()
    for s in range(len(reward)):
        weight = 1.0
        for t in range(s, len(reward)):
            going_on = 0.0 if ended[t] else discount
            target[s] += weight * rho[t] * (reward[t] + going_on * value[t + 1] - value[t])
            weight *= going_on * lam * rho[t]
    return target


def test_v_trace_is_its_sum_over_what_follows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        reward, rho = (torch.from_numpy(rng.random(9)) for _ in range(2))
        value, ended = torch.from_numpy(rng.standard_normal(10)), torch.from_numpy(rng.random(9) < 0.2)
        found = v_trace(reward, value, ended, rho, 0.9, 0.8)
        assert torch.allclose(found, by_definition(reward, value, ended, rho, 0.9, 0.8))


def test_on_policy_its_targets_are_those_of_generalised_advantages() -> None:
    policy = head()
    kept = made(1, policy)
    again = looked_at_again(policy, kept, SCALE, 0.95, 0.9, self_imitation=False)
    assert torch.allclose(again.logp, kept.logp, atol=1e-5)
    with torch.no_grad():
        _, said = policy.act(policy.market(kept.latent).unsqueeze(1), kept.observation)
    value = SCALE.restore(said.double().numpy())
    ended = kept.terminated.numpy()
    advantage, target = gae(
        kept.reward.numpy(), value[..., :-1], value[..., 1:], ended, np.zeros_like(ended), 0.95, 0.9
    )
    assert np.allclose(again.value_target.numpy(), SCALE.normalise(target), atol=1e-5)
    assert np.allclose(again.advantage.numpy(), advantage, atol=1e-4)


def test_what_the_policy_would_hardly_do_any_more_counts_for_little() -> None:
    old, now = head(0), head(1)
    kept = made(1, old)
    kept = replace(kept, logp=kept.logp + 5.0)  # it was far likelier then
    again = looked_at_again(now, kept, SCALE, 0.95, 0.9, self_imitation=False)
    fresh = looked_at_again(now, replace(kept, logp=again.logp), SCALE, 0.95, 0.9, self_imitation=False)
    assert again.advantage.abs().mean() < 0.2 * fresh.advantage.abs().mean()
    assert torch.equal(again.logp, fresh.logp)  # ratios start at 1 either way
    likelier = looked_at_again(now, replace(kept, logp=again.logp - 5.0), SCALE, 0.95, 0.9, self_imitation=False)
    assert torch.allclose(likelier.advantage, fresh.advantage)  # weights are cut at 1


def test_self_imitation_learns_from_what_went_better_alone() -> None:
    policy = head()
    kept = made(1, policy)
    plain = looked_at_again(policy, kept, SCALE, 0.95, 0.9, self_imitation=False)
    better = looked_at_again(policy, kept, SCALE, 0.95, 0.9, self_imitation=True)
    assert (plain.advantage < 0).any()
    assert torch.equal(better.advantage, plain.advantage.clamp(min=0.0))
    with torch.no_grad():
        _, said = policy.act(policy.market(kept.latent).unsqueeze(1), kept.observation)
    assert torch.allclose(better.value_target, torch.maximum(plain.value_target, said[..., :-1]), atol=1e-5)


def test_the_oldest_gives_way_and_places_are_drawn_by_priority() -> None:
    memory, policy = TrajectoryMemory(2, S, G, M, Z), head()
    assert len(memory.draw(2, np.random.default_rng(0))) == 0
    for update, priority in ((0, [9.0, 9.0]), (1, [1.0, 3.0]), (2, [0.0, 4.0])):
        memory.keep(update, made(update, policy), torch.tensor(priority))
    assert memory.made.tolist() == [2, 2, 1, 1]
    rng = np.random.default_rng(0)
    first = np.bincount([memory.draw(1, rng)[0] for _ in range(8_000)], minlength=4) / 8_000
    assert first == pytest.approx([0.0, 0.5, 0.125, 0.375], abs=0.02)
    assert sorted(memory.draw(4, rng)) == [1, 2, 3]  # none twice, and none without a priority
    again = memory.at(np.array([3, 0]))
    assert torch.equal(again.latent[0], made(1, policy).latent[1])
    assert torch.equal(again.action[1], made(2, policy).action[0])


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_both_stand_one_after_the_other(weighted: bool) -> None:
    one, two = (looked_at_again(head(), made(seed, head()), SCALE, 0.95, 0.9, self_imitation=False) for seed in (1, 2))
    new = replace(one, weight=torch.tensor([0.5, 1.5])) if weighted else one
    both: Experience = together(new, two)
    assert torch.equal(both.action, torch.cat([one.action, two.action]))
    assert both.normalised
    ours, old = both.advantage.split(S)
    if not weighted:
        assert (float(ours.mean()), float(ours.std())) == (pytest.approx(0.0, abs=1e-6), pytest.approx(1.0, abs=1e-5))
    assert torch.allclose(old * two.advantage.std(), two.advantage, atol=1e-5)  # not moved: nothing stays nothing
    assert (both.weight is None) == (not weighted)
    if both.weight is not None:
        assert both.weight.tolist() == [0.5, 1.5, 1.0, 1.0]


def with_trajectories(n: int, *, imitate: bool = False) -> PpoConfig:
    ppo = settings().ppo
    replay = ppo.replay.model_copy(update={"trajectories": n, "max_age_updates": 3, "self_imitation": imitate})
    brief = {"stretches": 4, "decisions": 128, "agents": 2, "head_minibatches": 1, "encoder_minibatches": 1}
    return ppo.model_copy(update={**brief, "replay": replay})


def test_training_learns_from_them_from_the_update_on_that_has_enough() -> None:
    task, found, six = small_task(6_000), [], with_trajectories(6)
    for config in (with_trajectories(0), six, with_trajectories(6, imitate=True), six):
        torch.manual_seed(0)
        model = fresh_model(task)
        found.append([row["policy"] for row in train_ppo(model, task, config, 6, np.random.default_rng(1))])
    without, again, imitating, twice = found
    assert again == twice
    assert without[0] == again[0] == imitating[0]  # nothing earlier
    assert len({tuple(one) for one in (without, again, imitating)}) == 3


def test_an_update_has_as_many_rows_more_as_are_asked_for_once_there_are_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[int] = []
    real = trainer.ppo_update

    def noted(gradient: Gradient, parameters: Any, optimizer: Any, n_rows: int, *rest: Any) -> Losses:
        rows.append(n_rows)
        return real(gradient, parameters, optimizer, n_rows, *rest)

    monkeypatch.setattr(trainer, "ppo_update", noted)
    task = small_task(6_000)
    list(train_ppo(fresh_model(task), task, with_trajectories(6), 5, np.random.default_rng(1)))
    assert rows == [4, 4, 10, 10, 10]  # of 4 stretches an update: 0, 4, then 8 and more are kept


def test_an_old_row_that_counts_nothing_moves_no_policy() -> None:
    policy = head()
    kept = made(1, policy)
    old = looked_at_again(policy, kept, SCALE, 0.95, 0.9, self_imitation=True)
    nothing = replace(old, advantage=torch.zeros_like(old.advantage), value_target=old.value_target)
    new = looked_at_again(policy, made(2, policy), SCALE, 0.95, 0.9, self_imitation=False)
    both = together(new, nothing)
    latent = torch.cat([made(2, policy).latent, kept.latent])[:, :-1]
    seen = torch.cat([made(2, policy).observation, kept.observation])[:, :, :-1].numpy()
    weights = Weights(clip=0.3, value=0.0, entropy=0.0, auxiliary=0.0)
    with shards() as workers:
        head_gradient(policy, latent, seen, both, weights, workers)(torch.tensor([2, 3]))  # old rows alone
    assert float(policy.policy.weight.grad.abs().max()) == 0.0  # type: ignore[union-attr]
