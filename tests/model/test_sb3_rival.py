"""stable-baselines3 beside our learner: the same market, the same windows, a clock that stops while it is marked."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from learning_tasks import SMALL

from btcai.models.actor_critic import ActorCritic
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.trading import yardstick_data

pytest.importorskip("stable_baselines3")
from bench.references import sb3_rival
from bench.references.sb3_market import PositionEnvs, windows
from bench.references.sb3_network import OurNetwork
from bench.references.sb3_rival import new_rival, positions_along, train


def envs(seen: np.ndarray[Any, Any], following: np.ndarray[Any, Any], accounts: int = 1) -> PositionEnvs:
    rng = np.random.default_rng(0)
    return PositionEnvs(seen, following, cost_frac=0.1, unit=0.5, n_accounts=accounts, rng=rng)


def test_a_window_ends_at_its_decision_and_the_next_return_pays() -> None:
    patch, n_features = 2, 3
    rows = np.arange(300 * n_features, dtype=np.float32).reshape(300, n_features)  # 150 decisions
    seen = windows(rows, patch)
    assert seen.shape == (150 - 143, 144 * patch * n_features)
    for k in range(len(seen)):
        np.testing.assert_array_equal(seen[k], rows[k * patch : k * patch + 288].ravel())


def test_positions_earn_the_next_return_less_costs_and_the_end_is_a_truncation() -> None:
    market = envs(np.array([[10.0], [11.0], [12.0]], np.float32), np.array([0.3, -0.2, 9.9]))
    market._place[:] = 0
    observation, reward, ended, infos = market.step(np.array([1]))
    assert observation.tolist() == [[11.0, 1.0]]
    assert reward.tolist() == pytest.approx([(0.3 - 0.1) / 0.5])
    assert not ended[0]
    observation, reward, ended, infos = market.step(np.array([0]))
    assert reward.tolist() == pytest.approx([-0.1 / 0.5])  # flat earns nothing, selling costs
    assert ended[0]
    assert infos[0]["TimeLimit.truncated"] is True
    assert infos[0]["terminal_observation"].tolist() == [12.0, 0.0]
    assert observation[0, 0] < 12.0  # it stands somewhere else already
    assert observation[0, 1] == 0.0


def test_greedy_positions_follow_what_the_policy_does_at_its_own_position() -> None:
    def predict(observation: np.ndarray[Any, Any], deterministic: bool) -> tuple[np.ndarray[Any, Any], None]:
        """Buys above 1, sells below -1, holds between."""
        signal, held = observation[:, 0], observation[:, 1]
        return np.where(signal > 1, 1, np.where(signal < -1, 0, held)).astype(np.int64), None

    rival: Any = SimpleNamespace(policy=SimpleNamespace(predict=predict))
    seen = np.array([[0.0], [2.0], [0.0], [-2.0], [0.0]], np.float32)
    assert positions_along(rival, seen).tolist() == [0, 1, 1, 0, 0]


def test_its_extractor_reads_what_our_head_reads() -> None:
    data, _ = yardstick_data(DriftMarket(level=LEVELS["easy"], shown=True), 150, 0)
    seen, n_features = windows(data.features, 1), data.features.shape[1]
    torch.manual_seed(0)
    extractor = OurNetwork(envs(seen, np.zeros(7)).observation_space, SMALL, 1, n_features, 4)  # type: ignore[arg-type]
    ours: ActorCritic = extractor.network
    with torch.no_grad():
        stretch = torch.from_numpy(data.features).reshape(1, 150, 1, n_features)
        together = ours.latent(ours.encode(stretch))[0]
        apart = extractor(torch.from_numpy(np.column_stack([seen, np.full(7, 0.5, np.float32)])))
    torch.testing.assert_close(apart[:, :-1], together, atol=1e-5, rtol=1e-4)
    assert apart[:, -1].tolist() == [0.5] * 7


def test_marking_stops_the_clock_and_the_last_mark_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def perf_counter() -> float:
        """A tenth of a second later at every look: at the start, before every update, after every mark."""
        nonlocal now
        now += 0.1
        return now

    def mark(_: object) -> float:
        nonlocal now
        now += 100.0
        return 0.5

    monkeypatch.setattr(sb3_rival, "time", SimpleNamespace(perf_counter=perf_counter))
    rng = np.random.default_rng(0)
    market = envs(rng.standard_normal((500, 4)).astype(np.float32), rng.standard_normal(500), accounts=8)
    settings = {"n_steps": 4, "batch_size": 32}
    curve, env_steps = train(new_rival(market, 0, **settings), (0.25, 0.45), mark)
    assert [(round(seconds, 6), score) for seconds, score in curve] == [(0.3, 0.5), (0.5, 0.5)]
    # five looks before an update, the last of which ends the training with its first step
    assert env_steps == 8 * (4 * 4 + 1)
