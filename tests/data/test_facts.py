"""Stylised facts against series whose figures are known, and against arch and statsmodels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from arch.unitroot import VarianceRatio
from statsmodels.tsa.stattools import acf

from btcai.data.frame import BAR_MS, make_frame
from btcai.data.sources import read_bars
from btcai.errors import DataError
from btcai.schema import BARS_PER_YEAR, FloatArray
from btcai.simulator.bars import DEFAULT_BARS, DEFAULT_SEED, simulate_bars
from btcai.simulator.facts import BANDS, LEAST_BARS, Fact, autocorrelation, stylised_facts

N = LEAST_BARS + 1


def market(log_close: FloatArray, slots: FloatArray | None = None) -> pd.DataFrame:
    slot = np.arange(len(log_close)) if slots is None else slots
    close = 30_000.0 * np.exp(log_close)
    return make_frame(slot * BAR_MS, np.column_stack([close, close, close, close, np.ones(len(close))]))


def figures(bars: pd.DataFrame) -> dict[str, float]:
    return {fact.name: fact.value for fact in stylised_facts(bars)}


def test_autocorrelation_by_hand() -> None:
    """+1, -1, +1, ...: against itself -1 one step on, 1 two steps on; pairs with an unknown half do not count."""
    series = np.resize([1.0, -1.0], 1000)
    assert [autocorrelation(series, lag) for lag in (1, 2)] == pytest.approx([-1.0, 1.0], abs=1e-9)
    series[500] = np.nan
    assert [autocorrelation(series, lag) for lag in (1, 2)] == pytest.approx([-1.0, 1.0], abs=1e-2)


SAWTOOTH = np.array([0.0, 0.01, 0.0, 0.02])  # returns +1, -1, +2, -2 %


def test_a_price_that_jumps_up_and_down() -> None:
    """Mean square 2.5, mean fourth power 8.5; neighbours' products -1, -2, -4, -2; sizes 1, 1, 2, 2 about 1.5; twelve
    returns add up to nothing, three to 2, -1, 1, -2."""
    found = figures(market(np.resize(SAWTOOTH, N)))
    assert found["volatility"] == pytest.approx(0.01 * np.sqrt(2.5 * BARS_PER_YEAR), rel=1e-3)
    assert found["excess_kurtosis"] == pytest.approx(8.5 / 2.5**2 - 3.0, abs=1e-3)
    assert found["skew"] == pytest.approx(0.0, abs=1e-3)
    assert found["autocorrelation_1"] == pytest.approx(-9 / 10, abs=1e-3)
    assert found["size_autocorrelation_1"] == pytest.approx(0.0, abs=1e-3)
    assert found["size_autocorrelation_12"] == pytest.approx(1.0, abs=1e-3)
    assert found["variance_ratio_12"] == pytest.approx(0.0, abs=1e-9)
    assert found["variance_ratio_3"] == pytest.approx(1 / 3, abs=1e-3)


def test_figures_agree_with_arch_and_statsmodels() -> None:
    rng = np.random.default_rng(5)
    returns = 0.001 * rng.standard_t(4, N) * np.exp(0.5 * np.sin(np.arange(N) / 900))
    returns[1:] -= 0.1 * returns[:-1]
    log_close = np.cumsum(returns)
    found = figures(market(log_close))
    steps = np.diff(log_close)
    for name, series in (("autocorrelation", steps), ("size_autocorrelation", np.abs(steps))):
        oracle = acf(series, nlags=2016, fft=True)
        for lag in (1, 12, 288, 2016):
            assert found[f"{name}_{lag}"] == pytest.approx(oracle[lag] * len(steps) / (len(steps) - lag), abs=3e-3)
    for bars in (3, 12, 48, 144, 288):
        oracle = VarianceRatio(log_close, lags=bars, trend="c", debiased=False, overlap=True).vr
        assert found[f"variance_ratio_{bars}"] == pytest.approx(oracle, rel=0.02)


def test_ranges_and_volume_by_hand() -> None:
    """Highs 2 % above lows; volume 1, e, 1, e: a spread of half, against itself one bar on; sizes 1, 1, 2, 2."""
    bars = market(np.resize(SAWTOOTH, N))
    bars["high"] = bars["low"] * np.exp(0.02)
    bars["volume"] = np.resize([1.0, np.e, 1.0, np.e], N)
    found = figures(bars)
    assert found["range_ratio"] == pytest.approx(0.02 / np.sqrt(4 * np.log(2)) / (0.01 * np.sqrt(2.5)), rel=1e-3)
    assert found["volume_spread"] == pytest.approx(0.5, abs=1e-3)
    assert found["volume_autocorrelation_1"] == pytest.approx(-1.0, abs=1e-3)
    assert found["volume_autocorrelation_12"] == pytest.approx(1.0, abs=1e-3)
    assert found["volume_size_correlation"] == pytest.approx(0.0, abs=1e-3)
    bars["volume"] = np.resize([1.0, 1.0, np.e, np.e], N)  # the bar after which size doubles is the first with more
    assert figures(bars)["volume_size_correlation"] == pytest.approx(0.0, abs=1e-3)
    bars["volume"] = np.resize([np.e, 1.0, 1.0, np.e], N)  # that of bar t beside the move into it: 2, 1, 1, 2
    assert figures(bars)["volume_size_correlation"] == pytest.approx(1.0, abs=1e-3)


def test_volume_that_never_changes_and_bars_without_any_have_no_figures() -> None:
    silent = market(np.resize(SAWTOOTH, N))
    silent["volume"] = 0.0
    for bars in (silent, market(np.resize(SAWTOOTH, N))):
        found = figures(bars)
        assert np.isnan([value for name, value in found.items() if name.startswith("volume_")]).all()
        assert np.isfinite([value for name, value in found.items() if not name.startswith("volume")]).sum() == 17


def test_no_return_spans_a_gap() -> None:
    log_close = np.resize(SAWTOOTH, N + 100)
    keep = np.ones(N + 100, dtype=bool)
    keep[5000:5100] = False
    log_close[5100:] += 3.0  # while nobody looked
    found = figures(market(log_close[keep], np.arange(N + 100)[keep]))
    assert found["volatility"] == pytest.approx(0.01 * np.sqrt(2.5 * BARS_PER_YEAR), rel=1e-3)
    assert found["autocorrelation_1"] == pytest.approx(-9 / 10, abs=1e-3)


def test_too_few_bars_are_refused() -> None:
    with pytest.raises(DataError, match="at least 20,160 bars, was 100; take more"):
        stylised_facts(market(np.zeros(100)))
    with pytest.raises(DataError, match="a price that moves, it never does"):
        stylised_facts(market(np.zeros(N)))


@pytest.fixture(scope="module")
def default_facts() -> dict[str, Fact]:
    return {fact.name: fact for fact in stylised_facts(simulate_bars(DEFAULT_BARS, DEFAULT_SEED))}


@pytest.mark.parametrize("name", BANDS)
def test_the_default_market_passes_for_bitcoin_by_every_fact(default_facts: dict[str, Fact], name: str) -> None:
    assert default_facts[name].holds, default_facts[name]


@pytest.mark.real
def test_bitcoin_lies_in_its_own_bands(real_bars_path: Path) -> None:
    facts = stylised_facts(read_bars(real_bars_path))
    assert [fact for fact in facts if not fact.holds] == []
