"""The controls of `btcai bench learn`: the oracle is the best there is, and skill is seen only where there is some."""

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning_tasks import settings

from bench import learn_controls
from bench.learn_controls import LeakedMarket, ShuffledMarket, skill_z
from btcai.yardstick.drift import LEVELS, DriftMarket


@given(seed=st.integers(0, 10**6), cost_bps=st.floats(0.0, 60.0))
def test_the_oracle_of_the_leak_is_the_best_of_all_positions(seed: int, cost_bps: float) -> None:
    market = LeakedMarket(cost_bps=cost_bps)
    paths = market.simulate(8, 1, seed)
    every = np.array(list(product((0.0, 1.0), repeat=8)))
    paid = every @ paths.expected[0] - cost_bps / 1e4 * np.abs(np.diff(every, prepend=0.0)).sum(1)
    found = market.optimal_positions(paths)[0]
    turnover = np.abs(np.diff(found, prepend=0.0)).sum()
    assert found @ paths.expected[0] - cost_bps / 1e4 * turnover == pytest.approx(paid.max(), abs=1e-12)
    np.testing.assert_array_equal(paths.expected[0, :-1], paths.bar_returns[0, 1:])  # what is paid is what happens


def test_knowing_the_next_return_is_worth_something() -> None:
    # at no cost every positive return of a normal law of 30 bp is earned: 30 / sqrt(2 pi) a decision
    assert LeakedMarket(cost_bps=0.0).optimum_bps == pytest.approx(30 / (2 * np.pi) ** 0.5, rel=0.02)


def test_shuffled_returns_are_the_level_in_another_order() -> None:
    shuffled = ShuffledMarket().simulate(5_000, 1, 3)
    level = DriftMarket(level=learn_controls.LEVEL, shown=False).simulate(5_000, 1, 3)
    np.testing.assert_allclose(np.sort(shuffled.bar_returns), np.sort(level.bar_returns))
    np.testing.assert_array_equal(shuffled.expected[0, :-1], shuffled.bar_returns[0, 1:])


class Momentum:
    """Would rather buy after the last bars rose."""

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens

    def latent(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, :, 0, :1].cumsum(1).diff(n=1, dim=1).unfold(1, 143, 1).mean(-1)

    def head(self, latent: torch.Tensor, account: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.cat([torch.zeros_like(latent), latent], 1), None


class AlwaysLong(Momentum):
    """Would rather buy, whatever it sees."""

    def latent(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(super().latent(tokens))


def test_a_preference_that_never_changes_has_no_skill_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn_controls, "play", lambda *_: SimpleNamespace(observation=np.zeros((1, 1, 2, 9))))
    bucket, agent = settings().buckets["scalping"], AlwaysLong()
    assert math.isnan(skill_z(agent, ShuffledMarket(), bucket, range(2), 1_000))  # type: ignore[arg-type]


def test_skill_is_seen_where_there_is_a_drift_and_not_in_shuffled_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn_controls, "play", lambda *_: SimpleNamespace(observation=np.zeros((1, 1, 2, 9))))
    bucket, agent = settings().buckets["scalping"], Momentum()
    drift = DriftMarket(level=LEVELS["easy"], shown=False)
    assert skill_z(agent, drift, bucket, range(1), 10_000) > 8  # type: ignore[arg-type]
    assert abs(skill_z(agent, ShuffledMarket(), bucket, range(1), 10_000)) < 3  # type: ignore[arg-type]
