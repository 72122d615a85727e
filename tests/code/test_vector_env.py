"""The vector environment: gymnasium's own loop over single environments, bit for bit."""

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from market_wild import wild_market, wild_rules
from market_world import FREE, make_market

from btcai.envs.scenario import Scenario
from btcai.envs.trading_env import TradingEnv
from btcai.envs.vector_env import TradingVectorEnv
from btcai.errors import ConfigError, DataError
from btcai.features.scaling import fit_scaler
from btcai.market.rules import Rules
from btcai.schema import MarketData, Span

N_ENVS = 3
SQUEEZE = FREE._replace(max_lots=1, perpetual=True, allow_short=True, compound=True)
FULL = SQUEEZE._replace(
    taker_fee_frac=0.001,
    maker_fee_frac=-0.0002,
    tier_usdt=(1e5, 1e6, 1e7, 1e8),
    tier_taker_factor=(0.9, 0.8, 0.7, 0.6),
    half_spread_frac=0.0005,
    impact_coef=1.0,
    max_volume_share=0.2,
    lot_step_btc=0.1,
    tick_usdt=0.5,
    min_notional_usdt=5.0,
    latency_bars=1,
    maker_bars=1,
    missing_funding_frac=0.001,
    maintenance_frac=0.05,
    transfer_every_days=1,
    transfer_usdt=-1_000.0,
    transfer_daily_probability=0.5,
    transfer_max_frac=0.3,
    max_lots=4,
    stop_loss_frac=0.3,
    take_profit_frac=0.4,
    max_exposure_frac=0.9,
    daily_loss_halt_frac=0.6,
    drawdown_halt_frac=0.95,
    cool_down_bars=2,
    w_cost=0.1,
    w_drawdown=0.2,
    w_win_rate=0.3,
    w_bonus=0.4,
    w_goal=0.5,
)


def scenario_of(data: MarketData, rules: Rules, **options: Any) -> Scenario:
    span = Span(0, len(data))
    return Scenario(data, span, rules, fit_scaler(data.features, span), **options)


def both(scenario: Scenario) -> tuple[TradingVectorEnv, SyncVectorEnv[Any, Any]]:
    ours = TradingVectorEnv(scenario, N_ENVS)
    theirs: SyncVectorEnv[Any, Any] = SyncVectorEnv([lambda: TradingEnv(scenario)] * N_ENVS)
    return ours, theirs


def same(ours: Any, theirs: Any) -> None:
    """Equal bit for bit: types, shapes, keys, nan where nan."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, tuple):
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def walk_both(scenario: Scenario, seed: int, steps: int) -> dict[str, int]:
    """Compare reset and `steps` steps of random actions; counts what happened on the way."""
    ours, theirs = both(scenario)
    same(ours.reset(seed=seed), theirs.reset(seed=seed))
    rng = np.random.default_rng(seed)
    seen = {"terminated": 0, "truncated": 0, "begun": 0}
    ended = np.zeros(N_ENVS, bool)
    for _ in range(steps):
        actions = rng.integers(0, 4, N_ENVS)
        result = ours.step(actions)
        same(result, theirs.step(actions))
        assert ours.observation_space.contains(result[0])
        seen["begun"] += int(ended.sum())
        seen["terminated"] += int(result[2].sum())
        seen["truncated"] += int(result[3].sum())
        ended = result[2] | result[3]
    return seen


@pytest.mark.slow
@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(rules=wild_rules, seed=st.integers(0, 2**32 - N_ENVS))
def test_any_rules_any_seed_equal_gymnasiums_loop(rules: Rules, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_bars = 144 * rules.patch_bars + 80
    sizes = np.where(rng.random(n_bars) < 0.2, 0.0, rng.uniform(0.05, 1.0, n_bars))
    scenario = scenario_of(
        wild_market(rng, n_bars),
        rules,
        episode_decisions=int(rng.integers(5, 25)),
        size_frac=sizes,
        entry_allowed=rng.random(n_bars) < 0.8,
    )
    seen = walk_both(scenario, seed, steps=60)
    assert seen["begun"] > 0


@pytest.mark.parametrize(("rules", "ruined"), [(SQUEEZE, 5), (FULL, 0)], ids=["free", "full"])
def test_ruin_truncation_and_new_episodes_equal_gymnasiums_loop(rules: Rules, ruined: int) -> None:
    rng = np.random.default_rng(5)
    prices = 100 * np.exp(np.cumsum(rng.normal(0, 0.3, 700)))
    missing = (1 + np.flatnonzero(rng.random(699) < 0.1)).tolist()
    funding = {bar: float(rng.choice([0.01, -0.01, np.nan])) for bar in range(0, 700, 10)}
    market = make_market(prices, volume=1e4, missing=missing, funding=funding)
    scenario = scenario_of(market, rules._replace(patch_bars=2), episode_decisions=20, size_frac=0.9)
    seen = walk_both(scenario, seed=11, steps=250)
    assert seen["terminated"] >= ruined
    assert seen["truncated"] > 2
    assert seen["begun"] > 10


def test_every_account_truncated_at_once_leaves_only_resets() -> None:
    scenario = scenario_of(make_market([100.0] * 160), FREE, episode_decisions=2)
    env = TradingVectorEnv(scenario, N_ENVS)
    env.reset(seed=0)
    env.step(np.ones(N_ENVS, np.int64))
    assert env.step(np.ones(N_ENVS, np.int64))[3].all()
    _, reward, terminated, truncated, infos = env.step(np.ones(N_ENVS, np.int64))
    assert "reward_terms" not in infos
    assert reward.tolist() == [0.0] * N_ENVS
    assert infos["n_lots"].tolist() == [0] * N_ENVS
    assert not (terminated | truncated).any()


def test_seeds_may_be_a_list_and_later_episodes_go_on_from_them() -> None:
    scenario = scenario_of(make_market([100.0] * 300), FREE, episode_decisions=4)
    ours, theirs = both(scenario)
    same(ours.reset(seed=[5, 9, 5]), theirs.reset(seed=[5, 9, 5]))
    again = [env.reset()[1]["bar"].tolist() for env in (ours, ours, theirs, theirs)]
    assert again[:2] == again[2:]
    assert again[0] != again[1]
    assert again[0][0] == again[0][2]
    assert [rng.random() for rng in ours.np_random] == [rng.random() for rng in theirs.np_random]


def test_start_bar_and_reset_mask_are_gymnasiums() -> None:
    scenario = scenario_of(make_market([100.0 + i for i in range(300)]), FREE)
    ours, theirs = both(scenario)
    same(ours.reset(seed=1), theirs.reset(seed=1))
    same(ours.step(np.array([1, 1, 1])), theirs.step(np.array([1, 1, 1])))
    mask = np.array([False, True, False])
    options = {"start_bar": 200, "reset_mask": mask}
    same(ours.reset(options=dict(options)), theirs.reset(options=dict(options)))
    same(ours.step(np.array([1, 1, 2])), theirs.step(np.array([1, 1, 2])))


def test_observations_of_one_step_do_not_change_in_the_next() -> None:
    env = TradingVectorEnv(scenario_of(make_market([100.0 + i for i in range(300)]), FREE), N_ENVS)
    before, _ = env.reset(seed=1)
    kept = {name: values.copy() for name, values in before.items()}
    env.step(np.array([1, 1, 1]))
    same(before, kept)


def test_a_reset_that_is_refused_begins_nothing() -> None:
    env = TradingVectorEnv(scenario_of(make_market([100.0] * 200), FREE), N_ENVS)
    with pytest.raises(DataError, match="start_bar"):
        env.reset(seed=0, options={"start_bar": 7})
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(N_ENVS, np.int64))


def test_global_random_state_is_neither_read_nor_touched() -> None:
    scenario = scenario_of(make_market([100.0] * 300), FREE, episode_decisions=4)

    def bars(global_seed: int) -> list[int]:
        np.random.seed(global_seed)  # noqa: NPY002 (it is what must not matter)
        state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
        env = TradingVectorEnv(scenario, 8)
        out = env.reset(seed=3)[1]["bar"].tolist()
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # type: ignore[index]  # noqa: NPY002
        return list(out)

    assert bars(1) == bars(2)


def test_mode_is_declared_and_gymnasiums_wrapper_counts_episodes_with_it() -> None:
    scenario = scenario_of(make_market([100.0 + i for i in range(300)]), FREE._replace(max_lots=1), episode_decisions=5)
    env = TradingVectorEnv(scenario, N_ENVS)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    counted = RecordEpisodeStatistics(env)
    counted.reset(seed=0)
    totals = np.zeros(N_ENVS)
    for _ in range(5):
        _, reward, _, truncated, infos = counted.step(np.ones(N_ENVS, np.int64))
        totals += reward
    assert truncated.all()
    assert infos["episode"]["l"].tolist() == [5] * N_ENVS
    np.testing.assert_allclose(infos["episode"]["r"], totals)
    assert (totals > 0).all()


def test_what_cannot_be_is_refused_in_one_line() -> None:
    scenario = scenario_of(make_market([100.0] * 200), FREE)
    with pytest.raises(ConfigError, match="num_envs must be >= 1, was 0"):
        TradingVectorEnv(scenario, 0)
    env = TradingVectorEnv(scenario, N_ENVS)
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.step(np.zeros(N_ENVS, np.int64))
    env.reset(seed=0)
    for actions in ([0, 1], [0, 1, 4], [0, 1, -1], [0, 1, 0.5], [0, 1, np.nan]):
        with pytest.raises(DataError, match=r"actions must be 3 numbers 0 \.\. 3"):
            env.step(np.array(actions))
    with pytest.raises(ValueError, match="one per account, 3, were 2"):
        env.reset(seed=[1, 2])
    with pytest.raises(DataError, match=r"reset_mask must be \(3,\) bool"):
        env.reset(options={"reset_mask": np.zeros(N_ENVS, bool)})
    with pytest.raises(DataError, match=r"start_bar must be 143 \.\. 198, was 7"):
        env.reset(options={"start_bar": 7})
