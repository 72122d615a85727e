"""Combinatorially symmetric cross-validation: by hand, by brute force, on noise and on a true edge."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from btcai.evaluation.metrics import sharpe
from btcai.evaluation.overfitting import overfitting


def noise(days: int, strategies: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.01, (days, strategies))


def swing(*means: float) -> np.ndarray:
    """20 days per mean, one above and one below it in turn."""
    return np.concatenate([np.tile([mean + 0.01, mean - 0.01], 10) for mean in means])


def test_two_halves_by_hand() -> None:
    first, second = swing(0.002, -0.001), swing(0.001, 0.003)
    # The first is best on the first half and last of two on the other: rank 1 of 2, 1/3, log odds -ln 2; it loses
    # there. The second is best on the second half and last on the first, where it gains.
    found = overfitting(np.stack([first, second], axis=1), blocks=2)
    assert found.logits == pytest.approx([-np.log(2), -np.log(2)])
    assert (found.probability, found.loss_probability) == (1.0, 0.5)


def test_the_better_on_every_day_is_never_overfitted() -> None:
    better = np.stack([swing(0.002, 0.001), swing(0.001, 0.0)], axis=1)
    found = overfitting(better, blocks=2)
    assert found.logits == pytest.approx([np.log(2), np.log(2)])
    assert (found.probability, found.loss_probability) == (0.0, 0.0)


def test_copies_share_their_rank() -> None:
    one = swing(0.002, 0.001)
    found = overfitting(np.stack([one, one, one], axis=1), blocks=2)
    assert found.logits == pytest.approx([0.0, 0.0])


def by_brute_force(returns: np.ndarray, blocks: int) -> tuple[list[float], list[float]]:
    """The definition, one way to halve after another."""
    first = np.linspace(0, len(returns), blocks, endpoint=False).astype(int)
    pieces = np.split(np.arange(len(returns)), first[1:])
    logits, ratios = [], []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([pieces[block] for block in chosen])
        outside = np.setdiff1d(np.arange(len(returns)), inside)
        best = int(np.argmax([sharpe(one, 1) for one in returns[inside].T]))
        scores = [sharpe(one, 1) for one in returns[outside].T]
        share = rankdata(scores)[best] / (len(scores) + 1)
        logits.append(float(np.log(share / (1 - share))))
        ratios.append(scores[best])
    return logits, ratios


@pytest.mark.parametrize(("days", "strategies", "blocks"), [(60, 2, 2), (61, 7, 6), (203, 5, 4), (90, 30, 6)])
def test_as_the_definition_says_it_slowly(days: int, strategies: int, blocks: int) -> None:
    returns = noise(days, strategies, seed=days) + 0.001 * np.arange(strategies)
    logits, ratios = by_brute_force(returns, blocks)
    found = overfitting(returns, blocks=blocks)
    assert np.sort(found.logits) == pytest.approx(np.sort(logits))
    assert found.probability == np.mean(np.array(logits) <= 0)
    assert found.loss_probability == np.mean(np.array(ratios) < 0)


def test_noise_is_overfitted_half_the_time_and_a_true_edge_never() -> None:
    of_noise = [overfitting(noise(182, 50, seed), blocks=8).probability for seed in range(60)]
    assert np.mean(of_noise) == pytest.approx(0.5, abs=0.08)
    edge = noise(730, 50, 1)
    edge[:, 7] += 0.003
    found = overfitting(edge)
    assert found.probability < 0.001
    assert found.loss_probability < 0.001
    assert len(found.logits) == 12_870


def test_strategies_fitted_to_one_half_are_caught() -> None:
    """Each gains on half of the blocks of its own and loses as much on the others."""
    signs = np.array([[1 if block in chosen else -1 for chosen in combinations(range(8), 4)] for block in range(8)])
    found = overfitting(noise(160, 70, 3) + 0.01 * np.repeat(signs, 20, axis=0), blocks=8)
    assert found.probability > 0.95
    assert found.loss_probability > 0.95


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_order_and_size_of_the_strategies_do_not_matter(seed: int) -> None:
    returns = noise(80, 6, seed)
    order = np.random.default_rng(seed).permutation(6)
    scaled = returns[:, order] * np.arange(1, 7)
    assert np.sort(overfitting(scaled, blocks=4).logits) == pytest.approx(
        np.sort(overfitting(returns, blocks=4).logits)
    )


def test_cash_among_the_strategies_counts_as_a_ratio_of_zero() -> None:
    with_cash = np.stack([swing(-0.001, -0.002), np.zeros(40)], axis=1)
    assert overfitting(with_cash, blocks=2).probability == 0.0


@pytest.mark.parametrize("returns", [noise(39, 5, 1), noise(100, 1, 1), noise(100, 0, 1)])
def test_insufficient_data_is_nan(returns: np.ndarray) -> None:
    found = overfitting(returns, blocks=4)
    assert np.isnan([found.probability, found.loss_probability]).all()
    assert len(found.logits) == 0


@pytest.mark.parametrize("blocks", [0, 3, -2])
def test_blocks_that_cannot_be_halved_are_refused(blocks: int) -> None:
    with pytest.raises(ValueError, match=f"blocks must be an even number, 2 or more, was {blocks}"):
        overfitting(noise(100, 3, 1), blocks=blocks)
