"""The gymnasium environment: its contract, and that its numbers are the kernel's."""

import doctest
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from market_world import FREE, Trader, make_market

from btcai.envs import trading_env as env_module
from btcai.envs.scenario import Scenario
from btcai.envs.trading_env import TradingEnv
from btcai.envs.vector_env import TradingVectorEnv
from btcai.errors import ConfigError, DataError
from btcai.features.scaling import Scaler, fit_scaler
from btcai.market.reward import TERMS
from btcai.market.rules import Rules
from btcai.params import load_config
from btcai.schema import Action, MarketData, Span

N_BARS = 600


@pytest.fixture(scope="module")
def data() -> MarketData:
    rng = np.random.default_rng(3)
    return make_market(100 * np.exp(np.cumsum(rng.normal(0, 0.004, N_BARS))), sigma=0.004)


def make_env(
    data: MarketData, rules: Rules = FREE, span: Span | None = None, render_mode: str | None = None, **options: Any
) -> TradingEnv:
    scaler = fit_scaler(data.features, Span(0, len(data)) if span is None else Span(max(0, span.first), span.stop))
    scenario = Scenario(data, span or Span(0, len(data)), rules, scaler, **options)
    return TradingEnv(scenario, render_mode=render_mode)


@pytest.mark.filterwarnings("ignore:.*not using the environment registry:UserWarning")
def test_environment_keeps_the_gymnasium_contract(data: MarketData) -> None:
    check_env(make_env(data, episode_decisions=50), skip_render_check=True)


@pytest.mark.slow
def test_example_of_the_docstring_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    examples = doctest.DocTestFinder(recurse=False).find(TradingEnv)
    results = doctest.DocTestRunner().run(examples[0])
    assert (results.attempted, results.failed) == (14, 0)


def test_docstring_names_every_rule_observation_and_term() -> None:
    text = TradingEnv.__doc__ or ""
    missing = [name for name in (*TERMS, *env_module.ACCOUNT_FEATURES) if f"| {name} |" not in text]
    factors = ("tier_maker_factor", "tier_taker_factor")
    missing += [
        name for name in Rules._fields if name not in text and not name.startswith("w_") and name not in factors
    ]
    assert missing == []


def test_every_number_is_the_kernels(data: MarketData) -> None:
    rules = FREE._replace(half_spread_frac=1e-4, stop_loss_frac=0.01, w_win_rate=0.5, w_drawdown=0.3)
    env = make_env(data, rules, size_frac=0.2)
    observation, info = env.reset(seed=1)
    assert info["bar"] == 143
    trader = Trader(data, rules, 100_000.0)
    trader.t = 143
    rng = np.random.default_rng(2)
    truncated = False
    while not truncated:
        np.testing.assert_array_equal(observation["account"], np.array(list(trader.seen().values()), np.float32))
        action = int(rng.integers(4))
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated) == trader.decide(action, 0.2)
        assert info["reward_terms"] == dict(zip(TERMS, trader.terms.tolist(), strict=True))
        assert info["bar"] == trader.t
    assert info["bar"] == N_BARS - 1
    assert info["costs_usdt"] > 0


def test_info_of_a_short_swap_that_paid_funding_after_a_deposit() -> None:
    # Deposit of 1,000 at the first midnight after the start; at its 08:00 a short of a quarter of the equity pays 1 %.
    midnight, settlement = 288, 288 + 95
    market = make_market([100.0] * 500, funding={settlement: -0.01})
    rules = FREE._replace(perpetual=True, allow_short=True, transfer_every_days=1, transfer_usdt=1_000.0, compound=True)
    env = make_env(market, rules, size_frac=0.25, equity_usdt=7_000.0)
    env.reset(options={"start_bar": midnight - 1})
    env.step(Action.HOLD)
    *_, info = env.step(Action.SELL)
    assert info["transferred_usdt"] == 0.0  # the first bar of a walk begins no day
    env.reset(options={"start_bar": midnight - 3})
    for action in (Action.HOLD, Action.HOLD, Action.HOLD, Action.SELL):
        *_, info = env.step(action)
    assert (info["transferred_usdt"], info["n_lots"], info["equity_usdt"]) == (1_000.0, 1, 8_000.0)
    assert info["exposure_frac"] == pytest.approx(-0.25)
    while info["bar"] < settlement:
        *_, info = env.step(Action.HOLD)
    assert info["funding_usdt"] == pytest.approx(20.0)  # 1 % of 2,000
    assert info["costs_usdt"] == pytest.approx(20.0)
    assert info["equity_usdt"] == pytest.approx(7_980.0)


def test_market_half_is_the_scaled_lookback_up_to_the_decision() -> None:
    rows = np.random.default_rng(0).normal(3, 4, (500, 2)).astype(np.float32)
    rows[:, 1] = 1
    data = make_market([100.0] * 500)
    data.features[:] = rows
    span = Span(100, 500)
    env = make_env(data, span=span)
    observation, info = env.reset()
    assert info["bar"] == 100 + 143
    scaler = fit_scaler(rows, span)
    expected = np.clip((rows[100:244] - scaler.mean) / scaler.std, -5, 5)
    np.testing.assert_array_equal(observation["market"], expected)
    np.testing.assert_array_equal(data.features, rows)


def test_missing_bar_is_a_row_of_zeros() -> None:
    gappy = make_market([100.0] * 200, missing=[50])
    scaler = Scaler(mean=np.array([7, 0], np.float32), std=np.ones(2, np.float32))
    observation, _ = TradingEnv(Scenario(gappy, Span(0, 200), FREE, scaler)).reset()
    assert observation["market"][50].tolist() == [0.0, 0.0]
    assert observation["market"][51].tolist() == [-5.0, 1.0]


def test_same_seed_gives_the_same_bits_and_another_seed_others(data: MarketData) -> None:
    transfers = FREE._replace(transfer_daily_probability=1.0, transfer_max_frac=0.5)

    def episode(seed: int, global_seed: int) -> list[float]:
        np.random.seed(global_seed)  # noqa: NPY002 (it is what must not matter)
        env = make_env(data, transfers, episode_decisions=300)
        out = [float(env.reset(seed=seed)[1]["bar"])]
        for action in np.random.default_rng(0).integers(0, 4, 300):
            _, reward, _, _, info = env.step(action)
            out += [reward, info["transferred_usdt"]]
        return out

    assert episode(5, 1) == episode(5, 2)
    first, other = episode(5, 1), episode(6, 1)
    assert first[0] != other[0]
    assert first[-1] != other[-1]


def test_episodes_after_a_seed_go_on_from_it(data: MarketData) -> None:
    envs = [make_env(data, episode_decisions=40) for _ in range(2)]
    first, second = ([env.reset(seed=9)[1]["bar"], env.reset()[1]["bar"], env.reset()[1]["bar"]] for env in envs)
    assert first == second
    assert len(set(first)) > 1


def test_episode_is_truncated_and_not_terminated_at_its_length(data: MarketData) -> None:
    env = make_env(data, episode_decisions=3)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_random_starts_leave_room_for_the_whole_episode(data: MarketData) -> None:
    env = make_env(data, span=Span(0, 150), episode_decisions=4)
    env.reset(seed=0)
    starts = {env.reset()[1]["bar"] for _ in range(40)}
    assert starts == {143, 144, 145}  # the last of four periods ends with the span, at bar 149


def test_last_reward_lies_inside_the_span(data: MarketData) -> None:
    env = make_env(data, FREE._replace(patch_bars=2), span=Span(0, 300))
    env.reset(options={"start_bar": 295})
    assert env.step(0)[3] is False  # paid to bar 297, and the next one to bar 299
    _, _, _, truncated, info = env.step(0)
    assert truncated is True
    assert info["bar"] == 299


def test_ruin_terminates() -> None:
    crash = make_market([100.0] * 150 + [5.0] * 10)
    env = make_env(crash, FREE._replace(max_lots=1))
    env.reset(options={"start_bar": 146})
    env.step(1)
    env.step(0)
    assert env.step(0)[2] is True


def test_short_that_gaps_beyond_its_equity_ends_below_zero_and_inside_the_space() -> None:
    squeeze = make_market([100.0] * 150 + [400.0] * 10, missing=[149])
    env = make_env(squeeze, FREE._replace(max_lots=1, perpetual=True, allow_short=True))
    env.reset(options={"start_bar": 146})
    env.step(Action.SELL)
    assert [env.step(Action.HOLD)[2] for _ in range(2)] == [False, False]
    observation, _, terminated, _, info = env.step(Action.HOLD)
    assert terminated is True
    assert info["equity_usdt"] == pytest.approx(-200_000.0)
    assert env.observation_space.contains(observation)


def test_sizes_and_leave_may_differ_by_bar(data: MarketData) -> None:
    allowed = np.ones(len(data), bool)
    allowed[143] = False
    size = np.full(len(data), 0.1)
    size[144] = 0.3
    env = make_env(data, size_frac=size, entry_allowed=allowed)
    env.reset()
    assert env.step(1)[4]["n_lots"] == 0
    assert env.step(1)[4]["exposure_frac"] == pytest.approx(0.3, abs=0.01)


def test_many_environments_of_a_scenario_share_its_arrays(data: MarketData) -> None:
    scenario = make_env(data).scenario
    envs = [TradingEnv(scenario) for _ in range(3)]
    assert all(env.scenario.bars is scenario.bars for env in envs)


@pytest.mark.parametrize("copied", [lambda env: pickle.loads(pickle.dumps(env)), deepcopy])
def test_copy_of_an_environment_goes_on_as_it_does(
    data: MarketData, copied: Callable[[TradingEnv], TradingEnv]
) -> None:
    env = make_env(data, episode_decisions=50)
    env.reset(seed=3)
    env.step(Action.BUY)
    twin = copied(env)
    for action in (Action.HOLD, Action.SELL, Action.BUY):
        ours, theirs = env.step(action), twin.step(action)
        assert ours[1:] == theirs[1:]
        for name in ("market", "account"):
            np.testing.assert_array_equal(ours[0][name], theirs[0][name])


def test_pickle_of_a_scenario_holds_its_rows_once_and_no_lookback(data: MarketData) -> None:
    # 600 bars of 2 features are 4.8 kB; their 457 lookbacks of 144 bars would be 526 kB
    scenario = make_env(data).scenario
    scenario.market_windows(np.array([143, 144]))
    per_bar = (*scenario.bars, scenario.close_ts_ns, scenario.size_frac, scenario.entry_allowed)
    held = N_BARS * data.features.shape[1] * 4 + sum(values.nbytes for values in per_bar)
    assert len(pickle.dumps(scenario)) < 1.2 * held


def test_spaces_of_two_environments_sample_each_by_its_own_seed(data: MarketData) -> None:
    scenario = make_env(data).scenario
    for make in (TradingEnv, lambda shared: TradingVectorEnv(shared, 2)):
        one, other = make(scenario), make(scenario)
        for env in (one, other):
            env.action_space.seed(0)
            env.observation_space.seed(0)
        drawn = [(one.action_space.sample().tolist(), other.action_space.sample().tolist()) for _ in range(20)]
        assert all(ours == theirs for ours, theirs in drawn)
        assert len({str(ours) for ours, _ in drawn}) > 1
        market, same = (env.observation_space.sample()["market"] for env in (one, other))
        np.testing.assert_array_equal(market, same)


def test_steps_before_and_after_an_episode_are_refused(data: MarketData) -> None:
    env = make_env(data, episode_decisions=1)
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.step(0)
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.walk()
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.step(0)


@pytest.mark.parametrize("action", [1, np.int64(1), np.array(1), np.uint8(1), Action.BUY])
def test_whole_number_of_any_kind_is_an_action(data: MarketData, action: Any) -> None:
    env = make_env(data)
    env.reset(seed=0, options={"start_bar": 143})
    env.step(action)
    assert env.step(Action.HOLD)[4]["n_lots"] == 1


@pytest.mark.parametrize("action", [4, -1, 0.5, float("nan"), "buy", None, True])
def test_action_out_of_range_is_refused(data: MarketData, action: Any) -> None:
    env = make_env(data)
    env.reset(seed=0)
    with pytest.raises(DataError, match=rf"an action must be 0 \.\. 3, was {action}"):
        env.step(action)


def test_start_outside_the_span_is_refused(data: MarketData) -> None:
    with pytest.raises(DataError, match=r"start_bar must be 143 \.\. 598, was 142"):
        make_env(data).reset(options={"start_bar": 142})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"span": Span(0, 144)}, DataError, r"needs 145 bars .* the span has 144"),
        ({"episode_decisions": 458}, DataError, r"458 decisions needs 602 bars .* the span has 600"),
        ({"span": Span(-1, 400)}, DataError, r"must lie in the data's 600 bars, was -1 \.\. 399"),
        ({"span": Span(0, 601)}, DataError, r"must lie in the data's 600 bars, was 0 \.\. 600"),
        ({"episode_decisions": 0}, ConfigError, "episode_decisions must be >= 1, was 0"),
        ({"equity_usdt": 0.0}, ConfigError, "equity_usdt must be a positive number, was 0"),
        ({"equity_usdt": float("nan")}, ConfigError, "equity_usdt must be a positive number, was nan"),
        ({"size_frac": np.ones(5)}, DataError, r"one number or one per bar \(600,\), was of shape \(5,\)"),
        ({"size_frac": -0.1}, DataError, "size_frac must be a share >= 0, was -0.1 at bar 143"),
        ({"size_frac": np.full(600, np.nan)}, DataError, "size_frac must be a share >= 0, was nan at bar 143"),
        ({"entry_allowed": np.ones(5, bool)}, DataError, r"one bool per bar \(600,\), was bool of shape \(5,\)"),
        ({"entry_allowed": np.ones(600)}, DataError, r"one bool per bar \(600,\), was float64 of shape \(600,\)"),
        ({"rules": FREE._replace(max_lots=0)}, ConfigError, "rules.max_lots must be >= 1, was 0"),
        ({"rules": FREE._replace(patch_bars=0)}, ConfigError, "rules.patch_bars must be >= 1, was 0"),
        ({"rules": FREE._replace(allow_short=True)}, ConfigError, "allow_short needs rules.perpetual"),
        ({"render_mode": "human"}, ConfigError, "render_mode must be None or rgb_array, was human"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_line(
    data: MarketData, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        make_env(data, **options)
    assert "\n" not in str(refused.value)


def test_markets_that_do_not_fit_are_refused_in_one_line() -> None:
    data = make_market([100.0] * 200)
    scaler = fit_scaler(data.features, Span(0, 200))
    three = Scaler(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32))
    with pytest.raises(DataError, match="scaler must have the data's 2 features, has 3"):
        Scenario(data, Span(0, 200), FREE, three)
    data.features[7, 0] = np.nan
    with pytest.raises(DataError, match="features must be finite, zero was nan at bar 7"):
        Scenario(data, Span(0, 200), FREE, scaler)
    data.mark[3] = np.nan
    with pytest.raises(DataError, match="mark must be positive throughout the span, was nan at bar 3"):
        Scenario(data, Span(0, 200), FREE, scaler)


def test_unknown_bucket_is_refused(data: MarketData, root: Path) -> None:
    config = load_config(root / "params.yaml")
    with pytest.raises(ConfigError, match="bucket must be one of scalping, short, medium, long, was swing"):
        Scenario.from_config(config, "swing", data)
