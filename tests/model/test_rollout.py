"""The compiled walk: the same head as torch, the same market as the kernel, honest sampling."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learning_tasks import SMALL, fresh_model, played, small_task

from btcai.agent.head_weights import head_weights
from btcai.agent.rollout import LEAST_GAIN, Rollout, _restart, randomise_accounts, walk
from btcai.agent.task import Task, clock_decisions, forecast_targets, sample_stretches, stretches_at
from btcai.market.account import (
    CASH,
    DAY,
    EQUITY,
    HELD_BTC,
    LOT_ENTRY_PRICE,
    N_ACCOUNT,
    N_LOTS,
    SEED,
    START_EQUITY,
    new_accounts,
    open_lots,
)
from btcai.market.reward import TERMS
from btcai.schema import TOKENS, FloatArray, IntArray, Span
from btcai.training.health import TrainingError
from btcai.training.play import play, validate


def walked_blind(
    task: Task,
    bars: IntArray,
    logits: FloatArray,
    agents: int,
    rng: np.random.Generator | None,
    size_frac: float = 0.5,
) -> Rollout:
    """A walk along bars (S, M) of accounts with the same logits (4,) at every decision, whatever they see."""
    model = fresh_model(task)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
        model.head.policy.bias.copy_(torch.from_numpy(logits))
    nothing, ones = np.zeros((*bars.shape, SMALL.hidden), np.float32), np.ones(bars.shape)
    return walk(task, bars, nothing, head_weights(model.head), size_frac * ones, ones > 0, agents, rng)


def test_the_compiled_head_is_the_torch_head() -> None:
    task = small_task(n_bars=2000)
    torch.manual_seed(0)
    model = fresh_model(task)
    torch.nn.init.normal_(model.head.policy.weight, std=0.5)
    rng = np.random.default_rng(0)
    stretches = sample_stretches(task, task.train, 4, 128, rng)
    rollout = played(model, task, stretches, 8, rng).rollout
    with torch.no_grad():
        latent = model.latent(model.encode(torch.from_numpy(stretches.tokens), banded=True))
        observation = torch.from_numpy(rollout.observation)
        logits, value = model.head.act(model.head.market(latent).unsqueeze(1), observation)
    logp = logits[:, :, :-1].log_softmax(-1).gather(-1, torch.from_numpy(rollout.action).unsqueeze(-1)).squeeze(-1)
    assert np.abs(logp.numpy() - rollout.logp).max() < 1e-4
    assert np.abs(value.numpy() - rollout.value).max() < 1e-4


def test_sampling_follows_the_probabilities() -> None:
    # a constant head: logits log(.7) hold, log(.3) buy on flat accounts; first actions of 20,000 flat-or-not accounts
    task = small_task(n_bars=1000)
    rng = np.random.default_rng(0)
    bars = rng.integers(200, 400, (40, 1)) + np.arange(2)
    rollout = walked_blind(task, bars, np.log([0.7, 0.3, 0.1, 0.1]), 500, rng)
    flat = rollout.observation[..., 0, 1] == 0
    assert rollout.action[..., 0][flat].mean() == pytest.approx(0.3, abs=0.02)


def test_greedy_play_starts_flat_and_repeats_itself() -> None:
    task = small_task(n_bars=2000)
    torch.manual_seed(0)
    model = fresh_model(task)
    decisions = clock_decisions(task, task.valid, 0)
    first, second = play(model, task, decisions), play(model, task, decisions)
    assert first.observation[0, 0, 0, 0] == 1.0  # all cash
    assert np.array_equal(first.reward, second.reward)


def test_reward_is_the_weighted_sum_of_its_terms() -> None:
    task = small_task(n_bars=2000)
    model = fresh_model(task)
    rng = np.random.default_rng(0)
    rollout = played(model, task, sample_stretches(task, task.train, 4, 128, rng), 4, rng).rollout
    weights = np.array([getattr(task.rules, f"w_{name}") for name in TERMS])
    assert np.abs(rollout.terms @ weights - rollout.reward).max() < 1e-12


def test_a_stretch_never_reads_or_earns_outside_its_span() -> None:
    task = small_task(n_bars=3000)
    span = Span(700, 1100)
    stretches = sample_stretches(task, span, 200, 64, np.random.default_rng(0))
    assert stretches.bars.min() - TOKENS + 1 >= span.first
    assert stretches.bars.max() + task.patch_bars <= span.stop - 1
    assert stretches.bars.min() == span.first + TOKENS - 1  # and every start is met


def test_targets_that_end_outside_the_span_are_unknown() -> None:
    task = small_task(n_bars=3000)
    # the next decision is 1 bar away, the horizons end after 3, 12 and 36; the span's last bar is 999
    target, known = forecast_targets(task, Span(0, 1000), np.array([[900, 996, 998, 999]]))
    assert known[0].tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False], [False] * 4]
    for k, bars in enumerate((1, 3, 12, 36)):
        by_hand = np.log(task.bars.mark[900 + bars] / task.bars.mark[900]) / (task.bars.sigma[900] * bars**0.5)
        assert target[0, 0, k] == pytest.approx(by_hand, rel=1e-5)


def test_tokens_of_a_decision_end_at_its_bar() -> None:
    task = small_task(n_bars=3000)
    stretches = stretches_at(task, task.train, np.array([[700, 701, 702]]))
    assert np.array_equal(stretches.tokens[0, TOKENS - 1 : TOKENS + 2, 0], task.features[700:703])


def test_a_ruined_account_begins_again() -> None:
    task = small_task(n_bars=1000)
    for prices in (task.bars.open, task.bars.high, task.bars.low, task.bars.mark):
        prices[500:] /= 50  # in place: columns of another layout would compile the walk anew
    task = replace(task, rules=task.rules._replace(compound=True))
    always_buy = np.array([0.0, 50.0, -50.0, -50.0])
    rollout = walked_blind(task, np.arange(480, 520)[None], always_buy, 1, None, size_frac=0.999)
    ruined = np.flatnonzero(rollout.terminated[0, 0])
    assert ruined.tolist() == [19]  # the decision at 499 steps over bar 500
    assert rollout.observation[0, 0, 20, 0] == 1.0


def test_an_account_that_begins_again_is_a_new_one_but_for_its_day_and_its_seed() -> None:
    ruined, fresh = np.full(N_ACCOUNT, 7.0), new_accounts(1, 3, 500.0)[0][0]
    _restart(ruined, 500.0)
    fresh[[DAY, SEED]] = 7.0
    assert np.array_equal(ruined, fresh)


def test_a_past_of_a_goal_that_cannot_be_half_lost_is_no_ruin() -> None:
    """At a goal of 400 % half of it below the start would be less than nothing."""
    task = small_task(n_bars=1000)
    task = replace(task, rules=task.rules._replace(goal_frac=4.0, compound=True))
    account, lots = new_accounts(400, task.rules.max_lots, 1e5)
    randomise_accounts(account, lots, task, np.full(400, 500), np.full(400, 0.2), np.random.default_rng(3))
    gain = account[:, EQUITY] / account[:, START_EQUITY]
    assert gain.min() == pytest.approx(LEAST_GAIN)
    assert gain.max() > 4.0
    holds = walked_blind(task, np.array([[500, 501]]), np.array([9.0, 0.0, 0.0, 0.0]), 400, np.random.default_rng(3))
    assert not holds.terminated.any()


def test_what_is_not_finite_in_the_market_half_is_not_in_values_and_log_probabilities() -> None:
    task = small_task(n_bars=1000)
    bars = np.array([[500, 501, 502]])
    model = fresh_model(task)
    nothing, ones = np.full((1, 3, SMALL.hidden), np.nan, np.float32), np.ones((1, 3))
    for rng in (None, np.random.default_rng(0)):
        found = walk(task, bars, nothing, head_weights(model.head), ones, ones > 0, 2, rng)
        assert np.isnan(found.value).all()
        assert np.isnan(found.logp).all()


def test_a_network_that_is_not_finite_does_not_validate_as_one_that_holds() -> None:
    task = small_task(n_bars=2000)
    model = fresh_model(task)
    with torch.no_grad():
        model.trunk.state_dict()["convolution.weight"][0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"must be finite, was not at \d+ of \d+ decisions; .*btcai stage validate"):
        validate(model, task)


def test_a_past_is_free_of_lots_that_are_nothing_and_of_lots_beyond_their_stop_or_target() -> None:
    task = small_task(n_bars=1000)
    rules = task.rules._replace(
        perpetual=True, allow_short=True, max_lots=4, stop_loss_frac=0.03, take_profit_frac=0.02
    )
    task = replace(task, rules=rules)
    n, rng = 400, np.random.default_rng(3)
    bar, sizes = np.full(n, 500), np.where(np.arange(n) % 2, 0.2, 0.0)
    account, lots = new_accounts(n, 4, 1e5)
    randomise_accounts(account, lots, task, bar, sizes, rng)
    assert not account[::2, N_LOTS].any()  # a size of nothing
    held = account[:, HELD_BTC]
    assert (held > 0).sum() > 25
    assert (held < 0).sum() > 25
    mark = task.bars.mark[500]
    np.testing.assert_allclose(account[:, CASH] + held * mark, 1e5)
    for i in np.flatnonzero(account[:, N_LOTS]):
        entries = open_lots(account[i], lots[i])[:, LOT_ENTRY_PRICE]
        gain = np.sign(held[i]) * (mark / entries - 1)
        assert (gain > -0.03).all()
        assert (gain < 0.02).all()
