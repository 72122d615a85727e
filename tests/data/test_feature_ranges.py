"""Features: finite, in their stated range, free of units, and none of them nearly another or a sum of others."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from feature_bars import PRICES, column, real_bars, walk, without
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.data.store import to_grid
from btcai.features.pipeline import build_market
from btcai.features.table import FEATURE_NAMES, FEATURES, WARMUP_BARS
from btcai.schema import BARS_PER_YEAR, MarketData
from btcai.simulator.bars import simulate_bars


@pytest.fixture(scope="module")
def clean() -> MarketData:
    return build_market(walk(2600, seed=10, missing=0.03))


@settings(max_examples=15)
@given(price=st.floats(1e-6, 1e6), amount=st.floats(1e-6, 1e6))
def test_another_currency_or_unit_of_volume_changes_no_feature(clean: MarketData, price: float, amount: float) -> None:
    bars = clean.bars
    scaled = replace(bars, **{k: price * getattr(bars, k) for k in PRICES}, volume=amount * bars.volume)
    np.testing.assert_allclose(build_market(scaled).features, clean.features, rtol=1e-4, atol=1e-4)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    missing=st.sampled_from([0.0, 0.1, 0.6, 0.95]),
    flat=st.floats(0, 1),
    quiet=st.floats(0, 1),
    wild=st.sampled_from([1.0, 3.0]),
)
def test_features_are_finite_and_in_their_stated_range_on_any_sound_bars(
    seed: int, missing: float, flat: float, quiet: float, wild: float
) -> None:
    bars = walk(2400, seed, missing)
    rng = np.random.default_rng(seed)
    still = rng.random(2400) < flat
    level = np.where(still, 100.0, bars.close**wild)
    bars = replace(
        bars,
        open=np.where(still, level, bars.open**wild),
        high=np.where(still, level, bars.high**wild),
        low=np.where(still, level, bars.low**wild),
        close=level,
        volume=np.where(rng.random(2400) < quiet, 0.0, 1e-9 * bars.volume),
    )
    bars = without(bars, ~bars.present)
    data = build_market(bars)
    assert np.isfinite(data.features).all()
    assert (data.sigma > 0).all()
    for feature in FEATURES:
        values = column(data, feature.name)[bars.present]
        if feature.unit == "-1 .. 1":
            assert (np.abs(values) <= 1 + 1e-6).all(), feature.name
        elif feature.unit == "0 .. 1":
            assert ((values >= 0) & (values <= 1 + 1e-6)).all(), feature.name
    assert (column(data, "drawdown_2016") <= 0).all()
    assert (column(data, "jump_288") <= 1).all()
    assert (column(data, "jump_288") >= 1 - math.pi / 2 - 1e-6).all()


def test_absurd_but_sound_bars_give_finite_features() -> None:
    """A volume whose square and worth, and a high over low, that no float64 holds."""
    bars = walk(4300, seed=13)
    volume, low = bars.volume.copy(), bars.low.copy()
    volume[2100], low[2200] = 1.7e308, 1e-320
    data = build_market(replace(bars, volume=volume, low=low))
    assert np.isfinite(data.features).all()
    assert column(data, "parkinson_std_72")[2200] == 0  # of a range that is infinite
    calm = build_market(bars)
    np.testing.assert_array_equal(data.features[-1], calm.features[-1])  # gone with the longest window
    np.testing.assert_array_equal(data.sigma, calm.sigma)


def assert_none_is_redundant(data: MarketData, pair: float, regression: float) -> None:
    """|correlation| of any two, and R^2 of any one on all the others, once warm."""
    settled = data.bars.present & (np.arange(len(data)) >= WARMUP_BARS)
    correlation = np.corrcoef(data.features[settled][:, :-1].T.astype(np.float64))
    twins = [(FEATURE_NAMES[i], FEATURE_NAMES[j]) for i, j in np.argwhere(np.triu(np.abs(correlation) >= pair, 1))]
    assert not twins
    r_squared = 1 - 1 / np.diag(np.linalg.inv(correlation))
    near = [(FEATURE_NAMES[i], r_squared[i]) for i in np.flatnonzero(r_squared >= regression)]
    assert not near


def test_no_feature_of_simulated_bars_is_nearly_another_or_a_sum_of_others() -> None:
    assert_none_is_redundant(build_market(to_grid(simulate_bars(40_000, seed=7))), pair=0.94, regression=0.96)


@pytest.mark.real
@pytest.mark.slow
def test_real_bars_are_finite_of_known_size_and_no_feature_is_redundant(real_bars_path: Path) -> None:
    data = build_market(real_bars(real_bars_path))
    assert np.isfinite(data.features).all()
    settled = data.bars.present & (np.arange(len(data)) >= WARMUP_BARS)
    # Measured facts of this market: about 54 % a year on the mean, slight reversal from bar to bar.
    assert 0.40 < np.sqrt((data.sigma[settled] ** 2).mean() * BARS_PER_YEAR) < 0.70
    assert -0.06 < column(data, "autocorrelation_288")[settled].mean() < 0.0
    assert np.abs(column(data, "return_288")[settled]).max() < 20
    assert_none_is_redundant(data, pair=0.92, regression=0.95)
