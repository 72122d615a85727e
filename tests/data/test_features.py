"""Features: against row-by-row formulas, against the future, against another start of the history."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feature_bars import MONDAY_NS, PRICES, real_bars, walk, without
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.errors import DataError
from btcai.features import pipeline
from btcai.features.columns import TYPICAL_SIGMA
from btcai.features.pipeline import build_market, rows_of
from btcai.features.table import FEATURE_NAMES, FEATURES, WARMUP_BARS, columns_of, markdown
from btcai.schema import Bars, MarketData


def column(data: MarketData, name: str) -> np.ndarray:
    return data.features[:, data.feature_names.index(name)]


def assert_same_bits(left: MarketData, right: MarketData, rows: slice, right_rows: slice) -> None:
    np.testing.assert_array_equal(left.features[rows].view(np.int32), right.features[right_rows].view(np.int32))
    np.testing.assert_array_equal(left.sigma[rows], right.sigma[right_rows])
    np.testing.assert_array_equal(left.mark[rows], right.mark[right_rows])


# --- the feature table -------------------------------------------------------------------------------------------


def test_there_are_49_features_and_the_mask() -> None:
    data = build_market(walk(300, seed=1))
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 50
    assert FEATURE_NAMES[-1] == "mask"
    assert data.features.shape == (300, 50)
    assert data.features.dtype == np.float32
    assert (data.feature_names, data.warmup_bars) == (FEATURE_NAMES, WARMUP_BARS)
    assert max(feature.warmup_bars for feature in FEATURES) == WARMUP_BARS
    families = {feature.family for feature in FEATURES}
    assert sum(len(FEATURES[columns_of(family)]) for family in families) == 50


def test_the_features_page_is_what_the_table_prints(root: Path) -> None:
    assert (root / "docs" / "features.md").read_text(encoding="utf-8") == markdown()


def test_every_feature_of_a_row_equals_a_second_reading_of_its_definition() -> None:
    bars = walk(2600, seed=2, missing=0.05)
    data = build_market(bars)
    for row in np.flatnonzero(bars.present)[[-1, -7, -40, -250, -500]]:
        want = _definition(bars, int(row))
        for name, value in want.items():
            assert column(data, name)[row] == pytest.approx(value, rel=2e-5, abs=2e-5), (name, row)
        assert set(want) == set(FEATURE_NAMES)


def _definition(bars: Bars, t: int) -> dict[str, float]:
    """Feature values at a present row t > 2016 as one would write them for a single row, with pandas and loops."""
    frame = pd.DataFrame({name: getattr(bars, name) for name in (*PRICES, "volume")}).iloc[: t + 1]
    frame.loc[~bars.present[: t + 1], "volume"] = np.nan
    log_close = np.log(frame["close"])
    returns = log_close.diff()
    log_range = np.log(frame["high"]) - np.log(frame["low"])
    last = frame.iloc[-1]
    volatility = {window: returns.iloc[-window:].std(ddof=0) for window in (12, 72, 288, 2016)}
    sigma = volatility[288]
    mean_volume = {window: frame["volume"].iloc[-window:].mean() for window in (1, 12, 288, 2016)}
    eps = 0.01 * mean_volume[2016]
    extent = last["high"] - last["low"]
    change = frame["close"].diff().iloc[-14:].dropna()
    pairs = pd.DataFrame({"now": returns, "before": returns.shift(1)}).iloc[-288:].dropna()
    moment = pd.Timestamp(int(bars.close_ts_ns[t]), tz="UTC")
    day = 2 * math.pi * (moment.hour * 60 + moment.minute) / 1440
    week = 2 * math.pi * (moment.weekday() * 1440 + moment.hour * 60 + moment.minute) / 10080
    want = {
        "log_sigma": math.log(sigma),
        "vol_ratio_12_288": math.log(volatility[12] / sigma),
        "vol_ratio_72_288": math.log(volatility[72] / sigma),
        "vol_ratio_288_2016": math.log(sigma / volatility[2016]),
        "parkinson_ratio_72": math.log(math.sqrt((log_range.iloc[-72:] ** 2).mean() / math.log(16)) / sigma),
        "rsi_14": (change.clip(lower=0).sum() - (-change).clip(lower=0).sum()) / change.abs().sum(),
        "body": (last["close"] - last["open"]) / extent if extent else 0.0,
        "upper_wick": (last["high"] - max(last["close"], last["open"])) / extent if extent else 0.0,
        "bar_range": math.log(max(extent / last["close"], 1e-5) / sigma),
        "volume_ratio_1_288": math.log((mean_volume[1] + eps) / (mean_volume[288] + eps)),
        "volume_ratio_12_288": math.log((mean_volume[12] + eps) / (mean_volume[288] + eps)),
        "volume_ratio_288_2016": math.log((mean_volume[288] + eps) / (mean_volume[2016] + eps)),
        "autocorrelation_288": 2 * (pairs["now"] * pairs["before"]).sum() / (pairs**2).to_numpy().sum(),
        "hour_sin": math.sin(day),
        "hour_cos": math.cos(day),
        "weekday_sin": math.sin(week),
        "weekday_cos": math.cos(week),
        "mask": 1.0,
    }
    for horizon in (1, 3, 12, 36, 72, 288, 2016):
        since = log_close.iloc[-horizon - 1 :].dropna().iloc[0]
        want[f"return_{horizon}"] = (log_close.iloc[-1] - since) / (sigma * math.sqrt(horizon))
    for window in (288, 2016):
        top, bottom = frame["high"].iloc[-window:].max(), frame["low"].iloc[-window:].min()
        want[f"range_position_{window}"] = 2 * (last["close"] - bottom) / (top - bottom) - 1
        want[f"drawdown_{window}"] = math.log(last["close"] / top) / (sigma * math.sqrt(window))
    for window in (20, 144):
        closes = frame["close"].iloc[-window:]
        want[f"bollinger_{window}"] = (last["close"] - closes.mean()) / closes.std(ddof=0)
    for window in (12, 72):
        part = frame.iloc[-window:]
        signed = (part["volume"] * np.sign(part["close"] - part["open"])).sum()
        want[f"imbalance_{window}"] = signed / part["volume"].sum()
    return want | _newer_definitions(frame, returns, sigma, moment)


def _newer_definitions(frame: pd.DataFrame, returns: pd.Series, sigma: float, moment: pd.Timestamp) -> dict[str, float]:
    day, close, volume = frame.iloc[-288:], frame["close"], frame["volume"]
    pairs = pd.DataFrame({"now": returns, "before": returns.shift(1)})
    day_pairs = pairs.iloc[-288:].dropna()
    product_72 = (pairs["now"] * pairs["before"]).iloc[-72:].mean()
    r = returns.iloc[-288:].dropna()
    located = volume * ((2 * close - frame["high"] - frame["low"]) / (frame["high"] - frame["low"])).fillna(0.0)
    typical = (frame["high"] + frame["low"] + close) / 3
    vwap = (typical * volume).iloc[-288:].mean() / volume.iloc[-288:].mean()
    value = close * volume
    eps = 0.01 * value.iloc[-2016:].mean()
    illiquid = {n: returns.abs().iloc[-n:].mean() / (value.iloc[-n:].mean() + eps) for n in (72, 2016)}
    slow = (np.log(close) - np.log(close.shift(12))).iloc[-288:]
    high2, low2 = (frame["high"].rolling(2, 2).max(), frame["low"].rolling(2, 2).min())
    beta = (np.log(frame["high"] / frame["low"]) ** 2).rolling(2, 2).sum()
    k = 3 - 2 * math.sqrt(2)
    alpha = (np.sqrt(2 * beta) - np.sqrt(beta)) / k - np.sqrt(np.log(high2 / low2) ** 2 / k)
    spread = (2 * (np.exp(alpha) - 1) / (1 + np.exp(alpha))).clip(lower=0)
    funding = 2 * math.pi * ((moment.hour * 60 + moment.minute) % 480) / 480
    want = {
        "jump_288": 1 - math.pi * day_pairs.prod(axis=1).abs().sum() / (day_pairs**2).to_numpy().sum(),
        "signed_variance_288": (r[r > 0].pow(2).sum() - r[r < 0].pow(2).sum()) / r.pow(2).sum(),
        "money_flow_72": located.iloc[-72:].sum() / volume.iloc[-72:].sum(),
        "volume_move_288": np.corrcoef(volume[r.index], r.abs())[0, 1],
        "vwap_288": math.log(close.iloc[-1] / vwap) / (sigma * math.sqrt(288)),
        "roll_72": 2 * math.sqrt(max(0.0, -product_72)) / sigma,
        "corwin_schultz_288": spread.iloc[-288:].mean() / sigma,
        "illiquidity_72_2016": math.log(illiquid[72] / illiquid[2016]),
        "variance_ratio_12_288": 0.5 * math.log((slow**2).mean() / 12 / (r**2).mean()),
        "range_ratio_288": math.log(math.log(day["high"].max() / day["low"].min()) / math.sqrt(288) / sigma),
        "funding_sin": math.sin(funding),
        "funding_cos": math.cos(funding),
    }
    for window in (72, 288, 2016):
        known = close.iloc[-window:].dropna()
        want[f"trend_{window}"] = np.corrcoef(known.index, known)[0, 1]
    for window in (72, 288):
        want[f"efficiency_{window}"] = abs(returns.iloc[-window:].sum()) / returns.iloc[-window:].abs().sum()
    return want


def test_calendar_of_a_known_moment() -> None:
    data = build_market(walk(3, seed=3, first_close_ts_ns=MONDAY_NS + 6 * 3_600_000_000_000))  # Monday 06:00
    assert column(data, "hour_sin")[0] == pytest.approx(1)
    assert column(data, "funding_cos")[0] == pytest.approx(0, abs=1e-6)
    assert column(data, "funding_sin")[0] == pytest.approx(-1)  # three quarters of the 8 hours from 00:00 to 08:00
    assert column(data, "weekday_sin")[0] == pytest.approx(math.sin(2 * math.pi / 28))
    assert column(data, "weekday_cos")[0] == pytest.approx(math.cos(2 * math.pi / 28))


def test_log_sigma_holds_the_log_of_sigma_on_every_row() -> None:
    data = build_market(walk(1500, seed=4, missing=0.3))
    np.testing.assert_allclose(column(data, "log_sigma"), np.log(data.sigma), rtol=1e-6, atol=0)


def test_a_market_that_never_moves_nor_trades_has_floored_sigma_and_finite_features() -> None:
    n = 2500
    price = np.full(n, 60_000.0)
    bars = replace(walk(n, 0), open=price, high=price, low=price, close=price, volume=np.zeros(n))
    data = build_market(bars)
    assert (data.sigma[300:] == 1e-5).all()
    assert np.isfinite(data.features).all()
    still = [name for name in FEATURE_NAMES if not name.startswith(("log_sigma", "hour", "weekday", "funding", "mask"))]
    assert all(column(data, name)[-1] == 0 for name in still)


def test_missing_bars_are_zero_rows_with_a_mark_a_sigma_and_its_log() -> None:
    bars = without(walk(900, seed=5), np.isin(np.arange(900), [600, 601, 602]))
    data = build_market(bars)
    others = [name != "log_sigma" for name in FEATURE_NAMES]
    assert (data.features[600:603, others] == 0).all()
    assert (data.mark[600:603] == bars.close[599]).all()
    returns = np.diff(np.log(bars.close))  # returns[t - 1] is that of row t
    assert data.sigma[602] == pytest.approx(np.nanstd(returns[602 - 288 : 602]), rel=1e-9)
    assert data.features[603, -1] == 1
    assert column(data, "return_1")[603] == 0  # the bar before is not known
    assert column(data, "return_12")[603] != 0


def test_return_over_a_gap_counts_from_the_oldest_close_known_inside_the_horizon() -> None:
    bars = without(walk(900, seed=6), np.isin(np.arange(900), [590, 591]))
    data = build_market(bars)
    want = math.log(bars.close[602] / bars.close[592]) / (data.sigma[602] * math.sqrt(12))  # 602 - 12 is missing
    assert column(data, "return_12")[602] == pytest.approx(want, rel=1e-6)


def test_after_a_week_without_bars_sigma_is_the_typical_one_until_half_a_window_is_known() -> None:
    n = 5000
    bars = without(walk(n, seed=7), (np.arange(n) >= 2100) & (np.arange(n) < 4200))
    data = build_market(bars)
    assert (data.sigma[4116:4200] == TYPICAL_SIGMA).all()  # no bar of the last week is known
    assert (data.sigma[4200:4344] == TYPICAL_SIGMA).all()  # 144 returns are known from row 4344 on
    assert data.sigma[4344] == pytest.approx(np.diff(np.log(bars.close[4200:4345])).std(), rel=1e-9)
    assert np.isfinite(data.features).all()


def test_a_slice_that_starts_inside_a_gap_has_no_mark_before_its_first_bar() -> None:
    bars = rows_of(without(walk(400, seed=8), np.isin(np.arange(400), [100, 101, 102])), slice(101, None))
    data = build_market(bars)
    assert np.isnan(data.mark[:2]).all()
    assert np.isfinite(data.mark[2:]).all()
    assert (data.sigma > 0).all()
    assert (data.features[:2, -1] == 0).all()


def test_bars_that_would_poison_windows_are_refused_with_their_stamp() -> None:
    bars = walk(100, seed=9)
    close = bars.close.copy()
    close[40] = 0.0
    with pytest.raises(DataError, match="2024-01-01T03:25:00 UTC"):
        build_market(replace(bars, close=close))
    with pytest.raises(DataError, match="row 7 came after 600000000000"):
        build_market(Bars(**{k: np.delete(getattr(bars, k), 7) for k in bars.__dataclass_fields__}))
    with pytest.raises(DataError, match="at least one present bar"):
        build_market(without(bars, np.ones(100, np.bool_)))


# --- time --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean() -> MarketData:
    return build_market(walk(2600, seed=10, missing=0.03))


def poisoned(bars: Bars, cut: int, kind: str, seed: int) -> Bars:
    """Rows after `cut` overwritten with garbage."""
    after = np.arange(len(bars)) > cut
    if kind == "missing":
        return without(bars, after)
    if kind == "no volume":
        return replace(bars, volume=np.where(after, 0.0, bars.volume))
    other = walk(len(bars), seed)
    garbage = {name: np.where(after, 1000 * getattr(other, name), getattr(bars, name)) for name in PRICES}
    return replace(bars, **garbage, volume=np.where(after, 1e9, bars.volume), present=bars.present | after)


@settings(max_examples=40)
@given(
    cut=st.integers(0, 2598), kind=st.sampled_from(["missing", "no volume", "prices x 1000"]), seed=st.integers(0, 99)
)
def test_garbage_after_a_cut_changes_no_bit_before_it(clean: MarketData, cut: int, kind: str, seed: int) -> None:
    data = build_market(poisoned(clean.bars, cut, kind, seed))
    assert_same_bits(data, clean, slice(0, cut + 1), slice(0, cut + 1))


@settings(max_examples=20)
@given(stop=st.integers(1, 2600))
def test_features_of_a_prefix_are_the_prefix_of_the_features(clean: MarketData, stop: int) -> None:
    assert_same_bits(build_market(rows_of(clean.bars, slice(0, stop))), clean, slice(0, stop), slice(0, stop))


def shaken(bars: Bars, row: int) -> Bars:
    """Another price range, close and volume in one row."""
    here = np.arange(len(bars)) == row
    factor = {"high": 2.0, "low": 0.5, "close": 1.5, "volume": 7.0}
    return replace(bars, **{k: np.where(here, v * getattr(bars, k) + 1.0, getattr(bars, k)) for k, v in factor.items()})


def test_every_feature_reads_its_stated_warm_up_and_nothing_before_it() -> None:
    bars = walk(2100, seed=11)
    base = build_market(bars).features
    rows = (2050, 2063, 2077, 2091)
    for place, feature in enumerate(FEATURES):
        if feature.family in ("calendar", "mask"):
            continue  # these read no price
        changed = []
        for row in rows:
            before = build_market(shaken(bars, row - feature.warmup_bars - 1)).features
            assert before[row, place] == base[row, place], feature.name
            oldest = build_market(shaken(bars, row - feature.warmup_bars)).features
            changed.append(oldest[row, place] != base[row, place])
        assert any(changed), feature.name


def test_another_start_of_the_history_gives_the_same_bits_after_the_warm_up() -> None:
    bars = walk(9000, seed=12, missing=0.02)
    bars = without(bars, (np.arange(9000) > 5000) & (np.arange(9000) <= 5300))  # a day's outage
    whole = build_market(bars)
    volatile = int(np.argmax(whole.sigma[:6000]))
    inside_gaps = [int(row) for row in np.flatnonzero(~bars.present)[[3, 60]]]
    for start in (1, 255, 1000, volatile, 3200, 5150, 5301, 6900, *inside_gaps):
        part = build_market(rows_of(bars, slice(start, None)))
        assert_same_bits(part, whole, slice(WARMUP_BARS, None), slice(start + WARMUP_BARS, None))


def test_chunks_and_threads_change_no_bit(clean: MarketData, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows, threads in ((100, 1), (311, 3)):
        monkeypatch.setattr(pipeline, "CHUNK_ROWS", rows)
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        assert_same_bits(build_market(clean.bars), clean, slice(None), slice(None))


# --- what must not matter, and what must hold ---------------------------------------------------------------------


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


@pytest.mark.real
@pytest.mark.slow
def test_real_bars_give_the_same_bits_from_any_start(real_bars_path: Path) -> None:
    bars = real_bars(real_bars_path)
    whole = build_market(bars)
    assert np.isfinite(whole.features).all()
    gap = int(np.flatnonzero(~bars.present)[0])
    volatile = int(np.argmax(whole.sigma))
    for start in (1, gap - 1000, gap + 3, volatile - 2000, volatile, len(bars) - 7000):
        part = build_market(rows_of(bars, slice(start, start + 7000)))
        assert_same_bits(part, whole, slice(WARMUP_BARS, None), slice(start + WARMUP_BARS, start + 7000))
    # Measured facts of this market: about 54 % a year on the mean, slight reversal from bar to bar.
    settled = bars.present & (np.arange(len(bars)) >= WARMUP_BARS)
    assert 0.40 < np.sqrt((whole.sigma[settled] ** 2).mean() * 105_120) < 0.70
    assert -0.06 < column(whole, "autocorrelation_288")[settled].mean() < 0.0
    assert np.abs(column(whole, "return_288")[settled]).max() < 20
    correlation = np.abs(np.corrcoef(whole.features[settled][:, :-1].T)) - np.eye(len(FEATURE_NAMES) - 1)
    assert correlation.max() < 0.98
