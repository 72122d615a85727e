"""Superiority over a benchmark: arch as oracle, StepM by brute force, chances that are what they say."""

import numpy as np
import pytest
from arch.bootstrap import SPA, StepM
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.evaluation.resampling import drawn_days
from btcai.evaluation.superiority import superiority

M = 300


def noise(strategies: int, seed: int, days: int = M) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(5, (days, strategies)) * 0.02


def one_by_one(gains: np.ndarray, block_days: float, seed: int, resamples: int) -> list[float]:
    """StepM's p-values by the definition: draw by draw, step by step, without shortcuts."""
    days = np.concatenate(list(drawn_days(len(gains), block_days=block_days, seed=seed, resamples=resamples)))
    means = np.stack([gains[order].mean(axis=0) for order in days])
    error = means.std(axis=0)
    shown = gains.mean(axis=0) / error
    kept = shown >= -((2 * np.log(np.log(len(gains)))) ** 0.5)
    luck = (means - np.where(kept, gains.mean(axis=0), 0.0)) / error
    left, p_values, worst = list(range(gains.shape[1])), [0.0] * gains.shape[1], 0.0
    while left:
        best = max(left, key=lambda candidate: shown[candidate])
        # Hansen's statistic is at least 0, in the sample and in every draw.
        worst = max(worst, float(np.mean(np.maximum(luck[:, left].max(axis=1), 0.0) >= max(shown[best], 0.0))))
        p_values[best] = worst
        left.remove(best)
    return p_values


@pytest.mark.parametrize("seed", range(5))
def test_p_values_are_those_of_the_definition(seed: int) -> None:
    gains = noise(6, seed) + np.linspace(-0.006, 0.003, 6)
    found = superiority(gains, np.zeros(M), seed=seed, resamples=400, block_days=3, scaled=False)
    assert found.candidate_p_values == pytest.approx(one_by_one(gains, 3, seed, 400))
    assert found.p_value == found.candidate_p_values.min()


@pytest.mark.parametrize(("drift", "seed"), [(0.0, 1), (0.001, 2), (0.002, 3), (0.0035, 4)])
def test_arch_finds_the_same(drift: float, seed: int) -> None:
    benchmark, candidates = noise(1, 50 + seed)[:, 0], noise(8, seed)
    candidates[:, 2] += drift
    candidates[:, 5] -= 0.01  # hopeless: without Hansen's correction it would blur the others
    gains = candidates - benchmark[:, None]
    ours = superiority(candidates, benchmark, seed=seed, resamples=4000, block_days=4, scaled=False)
    # arch does not studentise, so it is given what has been studentised.
    studentised = gains / gains.std(axis=0)
    theirs = SPA(np.zeros(M), -studentised, block_size=4, reps=2000, seed=np.random.default_rng(seed))
    theirs.compute()
    # Errors of 4,000 and 2,000 draws, at most .014 together, and the studentising, which knows of no memory there.
    assert ours.p_value == pytest.approx(theirs.pvalues["consistent"], abs=0.045)


@pytest.mark.parametrize("seed", range(6))
def test_arch_finds_the_same_candidates_step_by_step(seed: int) -> None:
    candidates = noise(8, seed)
    candidates[:, [1, 4, 6]] += np.array([0.007, 0.005, 0.004])
    ours = superiority(candidates, np.zeros(M), seed=seed, resamples=4000, block_days=2, scaled=False)
    studentised = candidates / candidates.std(axis=0)
    theirs = StepM(np.zeros(M), -studentised, size=0.05, block_size=2, reps=2000, seed=np.random.default_rng(seed))
    theirs.compute()
    close = np.abs(ours.candidate_p_values - 0.05) < 0.02  # there either may fall on either side
    assert set(np.flatnonzero((ours.candidate_p_values < 0.05) & ~close)) == set(theirs.superior_models) - set(
        np.flatnonzero(close)
    )
    assert ours.candidate_p_values[1] < 0.05


def test_the_same_seed_gives_the_same_bits() -> None:
    first, again, other = (superiority(noise(5, 1), noise(1, 2)[:, 0], seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.candidate_p_values, again.candidate_p_values)
    assert not np.array_equal(first.candidate_p_values, other.candidate_p_values)


def test_the_benchmark_itself_and_cash_beside_cash_are_not_better() -> None:
    market = noise(1, 3)[:, 0]
    twin = superiority(np.stack([market, market], axis=1), market, seed=1)
    assert twin.p_value == 1.0
    assert superiority(np.zeros((M, 2)), np.zeros(M), seed=1).p_value == 1.0
    assert twin.candidate_p_values.tolist() == [1.0, 1.0]


def test_a_larger_position_in_the_benchmark_is_no_better_where_ratios_are_compared() -> None:
    market = noise(1, 4)[:, 0] + 0.006
    assert superiority(market[:, None] * 2.0, market, seed=1).p_value == 1.0
    assert superiority(market[:, None] * 2.0, market, seed=1, scaled=False).p_value < 0.05


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), bad=st.integers(1, 30))
def test_hopeless_candidates_hardly_matter(seed: int, bad: int) -> None:
    good = noise(3, seed)
    hopeless = noise(bad, seed + 1) - 0.02
    found = superiority(np.hstack([good, hopeless]), np.zeros(M), seed=2, block_days=2)
    alone = superiority(good, np.zeros(M), seed=2, block_days=2)
    assert found.candidate_p_values[:3] == pytest.approx(alone.candidate_p_values, abs=0.01)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_neither_the_order_nor_the_size_of_the_candidates_matters(seed: int, scale: float) -> None:
    candidates, order = noise(5, seed), np.random.default_rng(seed).permutation(5)
    first = superiority(candidates, np.zeros(M), seed=3, block_days=2, resamples=200).candidate_p_values
    other = superiority(candidates[:, order] * scale, np.zeros(M), seed=3, block_days=2, resamples=200)
    assert other.candidate_p_values == pytest.approx(first[order])


def test_fewer_than_twenty_days_say_nothing() -> None:
    found = superiority(noise(2, 1, days=19), noise(1, 2, days=19)[:, 0], seed=1)
    assert np.isnan([found.p_value, *found.candidate_p_values]).all()


def test_other_days_than_the_benchmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="must cover the same days, were 300 and 299"):
        superiority(noise(2, 1), noise(1, 2, days=299)[:, 0], seed=1)


@pytest.mark.slow
def test_one_in_twenty_sets_without_skill_seems_superior() -> None:
    rng = np.random.default_rng(23)
    p_values = []
    for seed in range(600):
        market = rng.standard_t(5, (M, 1))
        candidates = 0.7 * market + rng.standard_t(5, (M, 20))
        p_values.append(superiority(candidates, np.zeros(M), seed=seed, resamples=300, block_days=1).p_value)
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.027)  # 3 standard errors of 600
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05)
