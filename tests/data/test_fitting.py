"""Fitting a simulated market to a history: parameters go there and back, seasons are averages, distances fall."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from btcai.data.frame import BAR_MS, parts
from btcai.errors import DataError
from btcai.simulator import fitting
from btcai.simulator.bars import simulate_bars
from btcai.simulator.fitting import fit, trials
from btcai.simulator.parameters import MarketParameters

N = 21_000


def test_what_is_searched_for_goes_to_scales_without_bounds_and_back() -> None:
    there = MarketParameters(regime_scale=(0.4, 1.0, 3.0), reversal=-0.1, jumps_per_bar=0.01, volume_noise=0.9)
    back = fitting._parameters(MarketParameters(), fitting._point(there))
    for name, value in asdict(there).items():
        assert getattr(back, name) == pytest.approx(value, rel=1e-9), name
    wild = fitting._parameters(MarketParameters(), np.full(len(fitting._point(there)), 9.0))
    assert wild.fast_weight + wild.slow_weight < 1.0  # a point anywhere is a market
    assert wild.jumps_per_bar == fitting.MOST_JUMPS


def test_seasons_are_mean_sizes_about_each_full_hour_and_of_each_weekday() -> None:
    """Moves of 1 % in the half hours about 14:00, 2 % on Saturdays else, .5 % at all other times."""
    open_ms = np.arange(28 * 288) * BAR_MS  # from 1970-01-01, a Thursday
    minute, weekday = open_ms // 60_000 % 1440, (open_ms // 86_400_000 + 3) % 7
    size = np.where(np.abs(minute - 840 + 2.5) < 30, 0.01, np.where(weekday == 5, 0.02, 0.005))
    log_close = np.cumsum(size * np.resize([1.0, -1.0], len(size)))
    hours, days = fitting._seasons(open_ms, log_close)
    assert np.mean(hours) == pytest.approx(1.0)
    assert np.mean(days) == pytest.approx(1.0)
    other = (0.005 * 6 + 0.02) / 7
    assert hours[14] / hours[2] == pytest.approx(0.01 / other, rel=0.01)
    assert days[5] / days[0] == pytest.approx((22 * 0.02 + 2 * 0.01) / (22 * 0.005 + 2 * 0.01), rel=0.15)


def test_hours_that_a_history_never_saw_are_as_the_rest() -> None:
    assert fitting._relative(np.array([1.0, 3.0]), np.array([0, 2]), 3) == pytest.approx((0.5, 1.0, 1.5))


def test_a_fit_finds_the_volatility_and_the_volume_that_made_a_history() -> None:
    truth = replace(MarketParameters(), annual_volatility=0.7, mean_volume_btc=700.0, first_price_usdt=100.0)
    history = simulate_bars(N, 1, truth)
    heard: list[int] = []
    found = fit(history, MarketParameters(), (1,), 2, heard.append)  # on the noise of the history itself
    assert found.distance < 0.25 * found.distance_before
    assert found.parameters.first_price_usdt == parts(history)[1][0, 0]
    values = {fact.name: fact.value for fact in found.simulated}
    wanted = {fact.name: fact.value for fact in found.history}
    assert values["volatility"] == pytest.approx(wanted["volatility"], rel=0.05)
    made = simulate_bars(N, 1, found.parameters)
    assert made["volume"].mean() == pytest.approx(history["volume"].mean(), rel=1e-3)
    assert heard == list(range(1, len(heard) + 1))
    assert len(heard) <= trials(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jumps_per_bar": 0.0}, "to begin a fit jumps_per_bar must be above 0, was 0.0; mend it: --parameters"),
        ({"volume_noise": 1.0}, "volume_noise must be between 0 and 1, was 1.0"),
        ({"tide_scale": (0.5, 2.0, 3.0)}, r"tide_scale must be 1 in the middle, was \(0.5, 2.0, 3.0\)"),
        ({"fast_weight": 0.5, "slow_weight": 0.5}, "fast_weight must be less than 1 together with slow_weight"),
        ({"jumps_per_bar": 0.2}, "jumps_per_bar must be at most 0.05, was 0.2"),
    ],
)
def test_where_a_search_cannot_begin_is_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(simulate_bars(500, 1), replace(MarketParameters(), **change), (1,), 1)


def test_a_history_too_short_for_its_facts_is_refused() -> None:
    with pytest.raises(DataError, match="facts of a market need at least 20,160 bars"):
        fit(simulate_bars(500, 1), MarketParameters(), (1,), 1)
