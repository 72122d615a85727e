"""Advantages, losses and updates against numbers worked by hand."""

import math
from dataclasses import asdict, replace
from itertools import chain

import numpy as np
import pytest
import torch
from gym_ppo import PLAIN, update
from hypothesis import given
from hypothesis import strategies as st

from btcai.agent.ppo import (
    Evaluation,
    Experience,
    Losses,
    ValueScale,
    clipped_policy_loss,
    gae,
    rescale_value_layer,
)
from btcai.models.heads import forecast_loss
from btcai.schema import QUANTILE_LEVELS

# three steps, discount and lambda .5 each; the last NEXT_VALUE bootstraps the end of the data
REWARD, VALUE, NEXT_VALUE = np.array([1.0, 0.0, 2.0]), np.array([2.0, 3.0, 1.0]), np.array([3.0, 1.0, 4.0])
NEVER = np.zeros(3, bool)
AT_STEP_1 = np.array([False, True, False])


def test_gae_of_three_steps_worked_by_hand() -> None:
    # deltas 1 + .5 * 3 - 2 = .5; 0 + .5 * 1 - 3 = -2.5; 2 + .5 * 4 - 1 = 3
    # advantages backwards: 3; -2.5 + .25 * 3 = -1.75; .5 + .25 * -1.75 = .0625
    advantage, target = gae(REWARD, VALUE, NEXT_VALUE, NEVER, NEVER, discount=0.5, lam=0.5)
    assert advantage.tolist() == [0.0625, -1.75, 3.0]
    assert target.tolist() == [2.0625, 1.25, 4.0]


def test_a_terminated_step_stops_bootstrap_and_trace() -> None:
    # step 1 ends in ruin: its delta is 0 - 3 = -3, without .5 * 1; the step before it still feels it
    advantage, _ = gae(REWARD, VALUE, NEXT_VALUE, AT_STEP_1, NEVER, discount=0.5, lam=0.5)
    assert advantage.tolist() == [0.5 + 0.25 * -3.0, -3.0, 3.0]


def test_a_truncated_step_bootstraps_with_its_final_observation_and_stops_the_trace() -> None:
    # the final observation of step 1 is worth 10, the next episode's first (VALUE[2] = 1) has no say:
    # delta 0 + .5 * 10 - 3 = 2; no later delta reaches it; the step before it gets .5 + .25 * 2 = 1
    next_value = np.array([3.0, 10.0, 4.0])
    advantage, target = gae(REWARD, VALUE, next_value, NEVER, AT_STEP_1, discount=0.5, lam=0.5)
    assert advantage.tolist() == [1.0, 2.0, 3.0]
    assert target.tolist() == [3.0, 5.0, 4.0]


def test_a_step_that_is_terminated_at_the_time_limit_is_terminated() -> None:
    both, _ = gae(REWARD, VALUE, NEXT_VALUE, AT_STEP_1, AT_STEP_1, discount=0.5, lam=0.5)
    terminated, _ = gae(REWARD, VALUE, NEXT_VALUE, AT_STEP_1, NEVER, discount=0.5, lam=0.5)
    assert both.tolist() == terminated.tolist()


def test_the_end_of_data_bootstraps_marked_or_not() -> None:
    # truncation: the value after the last step counts in full
    for truncated in (False, True):
        advantage, _ = gae(
            np.array([1.0]), np.array([0.0]), np.array([10.0]), np.array([False]), np.array([truncated]), 0.9, 0.95
        )
        assert advantage.tolist() == [10.0]


@given(st.integers(0, 2**31), st.floats(0, 0.99), st.floats(0, 1))
def test_gae_equals_the_sum_over_later_deltas_of_the_episode(seed: int, discount: float, lam: float) -> None:
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, 2, 7))
    terminated, truncated = rng.random((2, 2, 7)) < 0.2
    advantage, _ = gae(reward, value, next_value, terminated, truncated, discount, lam)
    for i, k in np.ndindex(2, 7):
        total = 0.0
        for j in range(k, 7):
            bootstrap = 0.0 if terminated[i, j] else next_value[i, j]
            total += (discount * lam) ** (j - k) * (reward[i, j] + discount * bootstrap - value[i, j])
            if terminated[i, j] or truncated[i, j]:
                break
        assert advantage[i, k] == pytest.approx(total, abs=1e-12)


def test_the_first_targets_are_the_value_scale_and_later_ones_move_it() -> None:
    # 1 and 5: mean 3, standard deviation 2
    first = ValueScale().updated(np.array([1.0, 5.0]), rate=0.25)
    assert (first.mean, first.std, first.updates) == (3.0, 2.0, 1)
    # 7 and 7 weigh one half, as the second of two: of 1, 5, 7, 7 the mean is 5 and the variance (16 + 0 + 4 + 4) / 4
    second = first.updated(np.array([7.0, 7.0]), rate=0.25)
    assert (second.mean, second.std) == (5.0, pytest.approx(6.0**0.5))
    # from the fourth on a new one weighs a quarter: 5 + (9 - 5) / 4; .75 * 6 + .25 * 0 + .75 * .25 * 16
    later = replace(second, updates=9).updated(np.array([9.0]), rate=0.25)
    assert (later.mean, later.std) == (6.0, pytest.approx(7.5**0.5))


def test_targets_that_never_vary_keep_the_least_scale() -> None:
    scale = ValueScale(least_std=0.5).updated(np.full(9, 4.0), rate=0.1)
    assert (scale.mean, scale.std) == (4.0, 0.5)
    assert scale.normalise(np.array([5.0])).tolist() == [2.0]
    assert scale.restore(np.array([2.0])).tolist() == [5.0]


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_the_value_scale_is_that_of_all_targets_while_they_are_few(seed: int, updates: int) -> None:
    targets = np.random.default_rng(seed).normal(3.0, 2.0, (updates, 50))
    scale = ValueScale()
    for batch in targets:
        scale = scale.updated(batch, rate=1e-3)
    assert scale.mean == pytest.approx(targets.mean())
    assert scale.std == pytest.approx(targets.std())


@given(st.integers(0, 2**31), st.floats(-50, 50), st.floats(0.01, 100))
def test_predictions_do_not_move_when_the_value_scale_does(seed: int, mean: float, std: float) -> None:
    torch.manual_seed(seed)
    layer, inputs = torch.nn.Linear(4, 1).double(), torch.randn(20, 4).double()
    old, new = ValueScale(mean=2.0, std=3.0), ValueScale(mean=mean, std=std)
    before = old.restore(layer(inputs).detach().numpy())
    rescale_value_layer(layer, old, new)
    np.testing.assert_allclose(new.restore(layer(inputs).detach().numpy()), before, rtol=1e-9, atol=1e-9)


def test_clipped_loss_of_three_samples_worked_by_hand() -> None:
    # ratios 2 (A = 1, clipped to 1.2), .5 (A = -1, clipped to .8), 1.1 (A = 2): surrogates 1.2, -.8, 2.2; mean .8667
    ratio = torch.tensor([2.0, 0.5, 1.1])
    loss, kl, clipped = clipped_policy_loss(ratio.log(), torch.zeros(3), torch.tensor([1.0, -1.0, 2.0]), clip=0.2)
    assert loss.item() == pytest.approx(-(1.2 - 0.8 + 2.2) / 3, abs=1e-6)
    # k3: mean of ratio - 1 - log(ratio)
    by_hand = ((2 - 1 - math.log(2)) + (0.5 - 1 - math.log(0.5)) + (1.1 - 1 - math.log(1.1))) / 3
    assert kl.item() == pytest.approx(by_hand, abs=1e-6)
    assert clipped.item() == pytest.approx(2 / 3)


def test_clipped_samples_give_no_gradient() -> None:
    logp = torch.tensor([0.5, 0.05], requires_grad=True)  # ratios 1.65 (past the clip) and 1.05
    loss, _, _ = clipped_policy_loss(logp, torch.zeros(2), torch.ones(2), clip=0.2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logp.grad is not None
    assert logp.grad[0].item() == 0.0
    assert logp.grad[1].item() == pytest.approx(-math.exp(0.05) / 2, rel=1e-5)


class Table(torch.nn.Module):
    """Two logits, a value and the parameter of an auxiliary loss (x - 1)^2, the same for every row; all start at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = torch.nn.Parameter(torch.zeros(4))
        self.drawn: list[list[int]] = []

    def forward(self, index: torch.Tensor) -> Evaluation:
        self.drawn.append(sorted(index.tolist()))
        logits, (value, other) = self.numbers[:2], self.numbers[2:]
        n = len(index)
        return Evaluation(logits=logits.expand(n, 2), value=value.expand(n), auxiliary=(other - 1).square())


def updated(rows: int = 2, entropy_coef: float = 0.0, **settings: float) -> tuple[Table, Losses]:
    """One update by gradient descent of rate 1; rows take turns at action 0 (advantage 1) and 1 (-1), values are 3."""
    table = Table()
    config = PLAIN.model_copy(
        update={
            "encoder_epochs": 1,
            "encoder_minibatches": 1,
            "value_coef": 0.5,
            "prediction_coef": 0.5,
            "grad_clip": 9.0,
            **settings,
        }
    )
    optimizer = torch.optim.SGD(table.parameters(), lr=1.0)
    rng = np.random.default_rng(0)
    return table, update(table, table, optimizer, experience_of(rows), config, entropy_coef, rng)


def experience_of(rows: int) -> Experience:
    action = torch.arange(rows) % 2
    return Experience(
        action=action,
        logp=torch.full((rows,), math.log(0.5)),
        advantage=1.0 - 2.0 * action,
        value_target=torch.full((rows,), 3.0),
    )


def test_one_step_of_an_update_worked_by_hand() -> None:
    # normalised advantages +-1 / sqrt 2; d policy / d logit 0 = -(.5 + .5) / (2 sqrt 2), and its opposite for logit 1;
    # value: .5 * (0 - 3) = -1.5; auxiliary: .5 * 2 * (0 - 1) = -1; length sqrt(2 / 8 + 2.25 + 1)
    table, losses = updated()
    assert table.numbers.tolist() == pytest.approx([0.125**0.5, -(0.125**0.5), 1.5, 1.0])
    expected = {
        "policy": 0,
        "value": 4.5,
        "entropy": math.log(2),
        "auxiliary": 1,
        "kl": 0,
        "clip_frac": 0,
        "teacher_kl": 0,
    }
    assert asdict(losses) == pytest.approx({**expected, "grad_norm": 3.5**0.5, "epochs": 1, "last_kl": 0}, abs=1e-6)


def test_a_long_gradient_is_clipped_to_its_limit() -> None:
    table, losses = updated(grad_clip=0.5)
    assert table.numbers.norm().item() == pytest.approx(0.5, rel=1e-5)
    assert losses.grad_norm == pytest.approx(3.5**0.5)


def test_an_entropy_bonus_pulls_a_second_epoch_back_to_even() -> None:
    # the first epoch starts even, where entropy has no slope; the second one feels it
    plain, _ = updated(encoder_epochs=2)
    pulled, _ = updated(encoder_epochs=2, entropy_coef=0.5)
    assert 0 < pulled.numbers[0].item() < plain.numbers[0].item()


def test_minibatches_draw_every_row_once_an_epoch_in_a_new_order() -> None:
    table, losses = updated(rows=12, encoder_epochs=2, encoder_minibatches=3)
    first, second = table.drawn[:6], table.drawn[6:]
    assert [len(rows) for rows in table.drawn] == [2] * 12  # each minibatch of four in two shards
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(12))
    assert first != second
    assert losses.epochs == 2


def test_an_update_of_some_parameters_leaves_the_others_where_they_are() -> None:
    # as an update of the head alone does after one of everything, whose last gradient is still there
    table, other = Table(), torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([*table.parameters(), other], lr=1.0)
    other.grad = torch.tensor(5.0)
    config = PLAIN.model_copy(update={"encoder_minibatches": 1})
    update(table, table, optimizer, experience_of(2), config, 0.0, np.random.default_rng(0))
    assert table.numbers[2].item() != 0.0
    assert other.item() == 1.0


def test_an_update_stops_after_the_epoch_whose_kl_is_too_much() -> None:
    # the first epoch is judged before it has moved (KL 0), the second one sees where the first went
    _, losses = updated(encoder_epochs=9, target_kl=1e-3)
    assert losses.epochs == 2
    assert losses.kl > 1e-3 / 2


def test_rows_that_cannot_be_split_evenly_are_refused() -> None:
    for minibatches in (5, 4):  # the second one into minibatches of three, which no two shards share evenly
        with pytest.raises(ValueError, match=rf"multiple of 2 \* minibatches, were 12 / {minibatches}"):
            updated(rows=12, encoder_minibatches=minibatches)


def test_forecast_loss_of_one_outcome_worked_by_hand() -> None:
    # Student-t with 5 degrees at 0, scale 1, outcome 1: density Gamma(3) / (Gamma(2.5) sqrt(5 pi)) * (1 + 1/5)^-3
    density = math.gamma(3) / (math.gamma(2.5) * math.sqrt(5 * math.pi)) * 1.2**-3
    # every quantile predicted 0: pinball of level q is q * 1; their mean is .5
    loss = loss_of_zeros(torch.ones(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool), torch.ones(1))
    assert loss == pytest.approx(-math.log(density) + 0.5, abs=1e-6)


def test_unknown_outcomes_do_not_count() -> None:
    target = torch.tensor([1.0, 1e9]).view(1, 2, 1)
    both = loss_of_zeros(target, torch.tensor([True, False]).view(1, 2, 1), torch.ones(1))
    assert both == pytest.approx(loss_of_zeros(target[:, :1], torch.ones(1, 1, 1, dtype=torch.bool), torch.ones(1)))


def test_a_horizon_counts_by_its_weight() -> None:
    # one outcome of each horizon, weights 3 and 1: a mean with those weights, whatever their sum
    target, known = torch.tensor([1.0, -2.0]).view(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool)
    near, far = (loss_of_zeros(target[..., k : k + 1], known[..., k : k + 1], torch.ones(1)) for k in (0, 1))
    assert loss_of_zeros(target, known, torch.tensor([3.0, 1.0])) == pytest.approx((3 * near + far) / 4)
    assert loss_of_zeros(target, known, torch.tensor([0.3, 0.1])) == pytest.approx((3 * near + far) / 4)


def loss_of_zeros(target: torch.Tensor, known: torch.Tensor, weight: torch.Tensor) -> float:
    """Of forecasts that say 0 with scale 1 and 5 degrees of freedom, and of quantiles that are all 0."""
    zero = torch.zeros_like(target)
    quantiles = torch.zeros(*target.shape, len(QUANTILE_LEVELS))
    return forecast_loss(zero, zero, zero + 5, quantiles, target, known, weight).item()
