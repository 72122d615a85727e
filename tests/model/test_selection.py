"""The stem: features that are selected by gates, and half of its width made of products."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning_tasks import LEVEL, fresh_model, settings, task_from_returns

from btcai.models.stem import PatchStem
from btcai.training.trainer import pretrain

N_FEATURES = 6


@pytest.mark.parametrize("patch_bars", [1, 2, 10, 28])
def test_at_first_every_feature_passes_as_it_is(patch_bars: int) -> None:
    stem = PatchStem(patch_bars, N_FEATURES, 16)
    assert stem.gates().tolist() == [1.0] * N_FEATURES
    assert stem.importance().tolist() == pytest.approx([1 / N_FEATURES] * N_FEATURES)


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_what_one_feature_gains_the_others_lose(seed: int, spread: float) -> None:
    torch.manual_seed(seed)
    stem = PatchStem(1, N_FEATURES, 16)
    torch.nn.init.normal_(stem.relevance, std=spread)
    assert (stem.importance()[stem.relevance.argsort()].diff() >= 0).all()
    assert stem.importance().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert stem.gates().square().mean().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("patch_bars", [1, 10])
def test_a_feature_that_was_dropped_changes_nothing_and_others_count_by_their_gate(patch_bars: int) -> None:
    torch.manual_seed(0)
    stem = PatchStem(patch_bars, N_FEATURES, 16)
    with torch.no_grad():
        stem.relevance[2] = -20.0
    scaled = torch.randn(2, 5, patch_bars, N_FEATURES)
    other = scaled.clone()
    other[..., 2] = 5.0
    assert torch.equal(stem(scaled), stem(other))
    # the same as a stem without gates that reads what they let through
    plain = PatchStem(patch_bars, N_FEATURES, 16)
    plain.load_state_dict({**stem.state_dict(), "relevance": torch.zeros(N_FEATURES)})
    torch.testing.assert_close(stem(scaled), plain(scaled * stem.gates()))


def test_half_of_the_width_is_linear_and_half_are_products_worked_by_hand() -> None:
    # width 4, features x = 3, y = -2, mask = 1: rows of the map are two straight ones, two left, two right
    stem = PatchStem(1, 3, 4)
    with torch.no_grad():
        stem.embed.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 2]]))
        stem.embed.bias.copy_(torch.tensor([0.5, 0, 0, 0, 0, 0]))
    embedded = stem(torch.tensor([3.0, -2.0, 1.0]).view(1, 1, 1, 3))
    # x + .5, y, x * y, (x + y) * 2 mask
    assert embedded.flatten().tolist() == [3.5, -2.0, -6.0, 2.0]


def test_a_patch_of_many_bars_is_read_through_its_sums() -> None:
    # of 10 bars the blocks end after 2, 5, 8 and 10 of them; two patches with the same sums are one to a fresh stem
    torch.manual_seed(0)
    stem = PatchStem(10, N_FEATURES, 16)
    lengths = (stem.summaries > 0).sum(1)
    assert lengths.sum() == 10
    assert torch.allclose(stem.summaries @ stem.summaries.T, torch.eye(4), atol=1e-6)
    patch = torch.randn(1, 1, 10, N_FEATURES)
    swapped = patch[:, :, [1, 0, *range(2, 10)]]
    torch.testing.assert_close(stem(patch), stem(swapped))
    assert not torch.allclose(stem(patch), stem(patch.flip(2)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_one_feature_that_tells_something_is_by_far_the_most_important(seed: int) -> None:
    # the next return is half signal, in sigmas, among 16 features of noise and the last return
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    signal, rest = rng.standard_normal((2, 20_000))
    returns = LEVEL.sigma_bps / 1e4 * np.r_[0.0, (0.5 * signal + 0.75**0.5 * rest)[:-1]]
    noise = {f"noise_{i}": rng.standard_normal(len(returns)) for i in range(16)}
    task = task_from_returns(returns, {**noise, "signal": signal})
    torch.manual_seed(seed)
    model = fresh_model(task)
    brief = settings().pretrain.model_copy(update={"stretches": 8, "decisions": 128})
    for _ in pretrain(model, task, brief, 150, rng):
        pass
    *others, found, mask = model.stem.importance().tolist()
    assert found > 5 * max(others)
    assert found > 2 * mask  # always 1 here: it helps as a constant does
