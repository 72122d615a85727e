"""Events of a simulated market: each does what it says to the bars it says, and nothing to the others."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.data.checks import check_bars, check_spacing
from btcai.data.frame import BAR_MS, parts
from btcai.errors import DataError
from btcai.schema import BARS_PER_DAY, FloatArray
from btcai.simulator.bars import simulate_bars
from btcai.simulator.events import (
    Event,
    FlashCrash,
    Forces,
    FundingSpike,
    Gap,
    Halt,
    LiquidityDrought,
    NewsJump,
    Range,
    Trend,
    VolatilitySpike,
    forces_of,
)
from btcai.simulator.funding import BASE_FRAC, simulate_funding
from btcai.simulator.scenarios import SCENARIOS, scenario

N = 10 * BARS_PER_DAY
SEED = 11


@pytest.fixture(scope="module")
def calm() -> pd.DataFrame:
    return simulate_bars(N, SEED)


def with_events(*events: Event) -> pd.DataFrame:
    return simulate_bars(N, SEED, events=events)


def close(bars: pd.DataFrame) -> FloatArray:
    return bars["close"].to_numpy()


ONE_OF_EACH: tuple[Event, ...] = (
    NewsJump(start_bar=500, move_frac=-0.03),
    VolatilitySpike(start_bar=500),
    FlashCrash(start_bar=500),
    LiquidityDrought(start_bar=500),
    Halt(start_bar=500),
    Gap(start_bar=500),
    FundingSpike(start_bar=500),
    Trend(start_bar=500, n_bars=400, total_frac=0.2),
    Range(start_bar=500, n_bars=400),
)


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_before_it_begins_an_event_changes_nothing(calm: pd.DataFrame, event: Event) -> None:
    pd.testing.assert_frame_equal(with_events(event).head(500), calm.head(500))


@given(st.permutations(ONE_OF_EACH))
def test_events_compose_in_any_order(order: list[Event]) -> None:
    one, other = forces_of(ONE_OF_EACH, 1200), forces_of(order, 1200)
    for name in Forces.__dataclass_fields__:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-11)


def test_a_flash_crash_falls_by_its_depth_and_wins_its_share_back() -> None:
    """12 % down in 3 bars, then 60 % of that back in 24: 1 -> .88 -> .952."""
    price = np.cumprod(1.0 + forces_of([FlashCrash(start_bar=10)], 60).push_frac)
    assert price[9] == 1.0
    assert price[12] == pytest.approx(0.88, abs=1e-9)
    assert price[12:].min() == price[12]
    assert price[36] == pytest.approx(0.952, abs=1e-9)
    assert price[-1] == price[36]


def test_what_an_event_does_to_the_price_raises_no_volatility_of_its_own(calm: pd.DataFrame) -> None:
    """Ten pushes of 3 % without excitement: every bar moves by as much as without them, and by 3 % more."""
    pushes = [NewsJump(start_bar=start, move_frac=0.03, excitement=1.0) for start in range(500, 600, 10)]
    ratio = close(with_events(*pushes)) / close(calm)
    np.testing.assert_allclose(ratio[500:600:10], 1.03 ** np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(ratio[600:], 1.03**10, rtol=1e-5)


def test_a_trend_goes_as_far_as_it_says() -> None:
    price = np.cumprod(1.0 + forces_of([Trend(start_bar=5, n_bars=100, total_frac=-0.4)], 200).push_frac)
    assert (price[4], price[-1]) == (1.0, pytest.approx(0.6, abs=1e-9))
    assert price[104] == price[-1]


def test_a_spike_halves_every_half_life_and_two_multiply() -> None:
    one = forces_of([VolatilitySpike(start_bar=2, scale=5.0, half_life_bars=10.0)], 40)
    assert one.sigma_scale[[1, 2, 12, 22]].tolist() == [1.0, 5.0, 3.0, 2.0]
    assert one.volume_scale.tolist() == one.sigma_scale.tolist()
    two = forces_of([VolatilitySpike(start_bar=2, scale=5.0, half_life_bars=10.0)] * 2, 40)
    assert two.sigma_scale[[1, 2, 12]].tolist() == [1.0, 25.0, 9.0]


def test_news_moves_the_price_within_one_bar(calm: pd.DataFrame) -> None:
    quiet = NewsJump(start_bar=700, move_frac=0.05, excitement=1.0)
    moved = close(with_events(quiet)) / close(calm)
    assert moved[699] == 1.0
    assert moved[700] == pytest.approx(1.05, abs=1e-5)


def test_a_drought_leaves_prices_and_takes_volume(calm: pd.DataFrame) -> None:
    dry = with_events(LiquidityDrought(start_bar=100, n_bars=50, volume_scale=0.1))
    prices = ["open", "high", "low", "close"]
    pd.testing.assert_frame_equal(dry[prices], calm[prices])
    ratio = dry["volume"].to_numpy() / calm["volume"].to_numpy()
    assert (ratio[:100] == 1.0).all()
    assert (ratio[150:] == 1.0).all()
    np.testing.assert_allclose(dry["volume"][100:150], 0.1 * calm["volume"][100:150], atol=1e-5)


def test_a_halt_shows_the_last_price_and_reopens_where_the_world_has_gone(calm: pd.DataFrame) -> None:
    halted = with_events(Halt(start_bar=300, n_bars=12))
    inside = halted.iloc[300:312]
    assert (inside[["open", "high", "low", "close"]] == calm["close"].iloc[299]).all(axis=None)
    assert (inside["volume"] == 0.0).all()
    assert abs(halted["open"].iloc[312] - calm["close"].iloc[311]) < 0.0101
    pd.testing.assert_frame_equal(halted.iloc[313:], calm.iloc[313:])
    assert halted["close"].iloc[312] == calm["close"].iloc[312]


def test_a_gap_has_no_bars_and_the_others_are_as_they_were(calm: pd.DataFrame) -> None:
    gap = with_events(Gap(start_bar=300, n_bars=16))
    pd.testing.assert_frame_equal(gap, calm.drop(index=range(300, 316)).reset_index(drop=True))


def test_a_range_keeps_the_price_near_where_it_began(calm: pd.DataFrame) -> None:
    ranged = close(with_events(Range(start_bar=288, n_bars=N - 288, half_life_bars=36.0)))[288:]
    free = close(calm)[288:]
    anchor = close(calm)[287]
    assert np.abs(ranged / anchor - 1.0).max() < 0.5 * np.abs(free / anchor - 1.0).max()


def test_two_ranges_that_follow_each_other_begin_anew() -> None:
    path = scenario("ranges", N, 3)
    pull = forces_of(path, N).pull
    assert all(pull[event.start_bar - 1] == 0.0 for event in path if event.start_bar)


def test_a_funding_spike_is_added_at_the_settlements_it_spans(calm: pd.DataFrame) -> None:
    forces = forces_of([FundingSpike(start_bar=0, n_bars=288, rate_frac=0.002)], N)
    times, plain = simulate_funding(calm, SEED, np.zeros(N))
    same_times, spiked = simulate_funding(calm, SEED, forces.funding_frac)
    assert times.tolist() == same_times.tolist()
    assert (times % (8 * 3_600_000) == 0).all()
    np.testing.assert_allclose((spiked - plain)[:3], 0.002, atol=1e-15)
    assert not (spiked - plain)[3:].any()
    assert np.abs(plain - BASE_FRAC).max() < 0.005


def test_a_settlement_inside_a_gap_is_missing() -> None:
    bars = with_events(Gap(start_bar=90, n_bars=20))  # bar 95 closes at 08:00
    times, _ = simulate_funding(bars, SEED, np.zeros(N))
    assert len(times) == 3 * 10 - 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_makes_a_market_that_could_be_imported(name: str) -> None:
    n_bars = 90 * BARS_PER_DAY
    bars = simulate_bars(n_bars, SEED, events=scenario(name, n_bars, SEED))
    stamps, values = parts(bars)
    check_bars(name, stamps, values, int(stamps[-1]) + BAR_MS)
    check_spacing(stamps, lambda row: name)
    assert scenario(name, n_bars, SEED) == scenario(name, n_bars, SEED)
    assert scenario(name, n_bars, SEED)
    assert scenario(name, n_bars, SEED) != scenario(name, n_bars, SEED + 1)


def test_the_collapse_loses_more_than_half_in_a_year() -> None:
    n_bars = 365 * BARS_PER_DAY
    price = np.cumprod(1.0 + forces_of(scenario("collapse", n_bars, SEED), n_bars).push_frac)
    assert 0.25 < price[-1] < 0.5


def test_what_is_not_there_and_what_began_before_is_named() -> None:
    with pytest.raises(DataError, match=r"a scenario must be one of news, .* was doom; choose one: --scenario"):
        scenario("doom", N, 1)
    with pytest.raises(DataError, match="an event must begin at bar 0 or later, was Halt"):
        forces_of([replace(Halt(start_bar=0), start_bar=-1)], N)


def test_an_event_after_the_end_does_nothing(calm: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(with_events(*(replace(event, start_bar=N + 5) for event in ONE_OF_EACH)), calm)  # type: ignore[type-var]
