"""The stem: features that are selected by gates, and half of its width made of products."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning_tasks import fresh_model, settings, task_from_returns

from btcai.models.stem import PatchStem
from btcai.schema import FloatArray
from btcai.training.trainer import pretrain

N_FEATURES = 6
SIGMA = 20e-4


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
    assert stem.importance().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert stem.gates().square().mean().item() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(stem.importance().argsort(), stem.relevance.argsort())


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


def importance_after(updates: int, signal: FloatArray, returns: FloatArray, seed: int) -> FloatArray:
    """(F,) after a short pretraining by the shipped settings on a signal among 16 noise features."""
    rng = np.random.default_rng(seed)
    noise = {f"noise_{i}": rng.standard_normal(len(returns)) for i in range(16)}
    before, after = dict(list(noise.items())[:8]), dict(list(noise.items())[8:])
    task = task_from_returns(returns, {**before, "signal": signal, **after})
    torch.manual_seed(seed)
    model = fresh_model(task, settings().model)
    for _ in pretrain(model, task, settings().pretrain, updates, rng):
        pass
    return model.stem.importance().detach().numpy().astype(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_one_feature_that_tells_something_is_by_far_the_most_important(seed: int) -> None:
    # the next return is .5 signal + noise in sigmas
    torch.set_num_threads(1)
    rng = np.random.default_rng((seed, 1))
    signal, noise = rng.standard_normal((2, 20_000))
    returns = SIGMA * np.r_[0.0, (0.5 * signal + 0.75**0.5 * noise)[:-1]]
    importance = importance_after(40, signal, returns, seed)
    print(importance)
    rest = np.delete(importance, 9)  # after the return and eight of noise
    assert importance[9] > 5 * rest.max()
