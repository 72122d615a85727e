"""Features: against row-by-row formulas, against the future, against another start of the history."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.errors import DataError
from btcai.features.pipeline import FEATURE_NAMES, TYPICAL_SIGMA, WARMUP_BARS, build_market
from btcai.schema import BAR_NS, Bars, MarketData

MONDAY_NS = 1_704_067_200_000_000_000  # 2024-01-01 00:00 UTC
PRICES = ("open", "high", "low", "close")


def walk(n_bars: int, seed: int, missing: float = 0.0, first_close_ts_ns: int = MONDAY_NS + BAR_NS) -> Bars:
    """A random walk with volatile stretches, flat bars, bars without volume and, if asked, missing bars."""
    rng = np.random.default_rng(seed)
    swing = np.where(rng.random(n_bars // 50 + 1) < 0.2, 0.01, 0.001).repeat(50)[:n_bars]
    close = 40_000 * np.exp(np.cumsum(swing * rng.standard_t(4, n_bars)))
    open_ = np.concatenate(([40_000.0], close[:-1]))
    flat = rng.random(n_bars) < 0.02
    close = np.where(flat, open_, close)
    high = np.maximum(open_, close) * (1 + np.where(flat, 0, swing * rng.random(n_bars)))
    low = np.minimum(open_, close) * (1 - np.where(flat, 0, swing * rng.random(n_bars)))
    volume = np.where(rng.random(n_bars) < 0.02, 0.0, rng.lognormal(3, 1, n_bars))
    bars = Bars(
        close_ts_ns=first_close_ts_ns + BAR_NS * np.arange(n_bars),
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        present=np.ones(n_bars, np.bool_),
    )
    return without(bars, (rng.random(n_bars) < missing) & (np.arange(n_bars) > 0))


def without(bars: Bars, rows: np.ndarray) -> Bars:
    blank = {name: np.where(rows, np.nan, getattr(bars, name)) for name in PRICES}
    return replace(bars, **blank, volume=np.where(rows, 0.0, bars.volume), present=bars.present & ~rows)


def rows_of(bars: Bars, first: int, stop: int | None = None) -> Bars:
    return Bars(**{name: getattr(bars, name)[first:stop] for name in ("close_ts_ns", *PRICES, "volume", "present")})


def column(data: MarketData, name: str) -> np.ndarray:
    return data.features[:, data.feature_names.index(name)]


def assert_same_bits(left: MarketData, right: MarketData, rows: slice, right_rows: slice) -> None:
    np.testing.assert_array_equal(left.features[rows].view(np.int32), right.features[right_rows].view(np.int32))
    np.testing.assert_array_equal(left.sigma[rows], right.sigma[right_rows])
    np.testing.assert_array_equal(left.mark[rows], right.mark[right_rows])


# --- the feature table -------------------------------------------------------------------------------------------


def test_there_are_32_features_and_the_mask() -> None:
    data = build_market(walk(300, seed=1))
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 33
    assert FEATURE_NAMES[-1] == "mask"
    assert data.features.shape == (300, 33)
    assert data.features.dtype == np.float32
    assert (data.feature_names, data.warmup_bars) == (FEATURE_NAMES, WARMUP_BARS)


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
    return want


def test_calendar_of_a_known_moment() -> None:
    data = build_market(walk(3, seed=3, first_close_ts_ns=MONDAY_NS + 6 * 3_600_000_000_000))  # Monday 06:00
    assert column(data, "hour_sin")[0] == pytest.approx(1)
    assert column(data, "weekday_sin")[0] == pytest.approx(math.sin(2 * math.pi / 28))
    assert column(data, "weekday_cos")[0] == pytest.approx(math.cos(2 * math.pi / 28))


def test_log_sigma_holds_the_log_of_sigma_on_every_present_bar() -> None:
    bars = walk(1500, seed=4, missing=0.3)
    data = build_market(bars)
    np.testing.assert_allclose(
        column(data, "log_sigma")[bars.present], np.log(data.sigma[bars.present]), rtol=1e-6, atol=0
    )


def test_a_market_that_never_moves_nor_trades_has_floored_sigma_and_finite_features() -> None:
    n = 2500
    price = np.full(n, 60_000.0)
    bars = replace(walk(n, 0), open=price, high=price, low=price, close=price, volume=np.zeros(n))
    data = build_market(bars)
    assert (data.sigma[300:] == 1e-5).all()
    assert np.isfinite(data.features).all()
    still = [name for name in FEATURE_NAMES if not name.startswith(("log_sigma", "hour", "weekday", "mask"))]
    assert all(column(data, name)[-1] == 0 for name in still)


def test_missing_bars_are_zero_rows_that_carry_mark_sigma_and_its_log() -> None:
    bars = without(walk(900, seed=5), np.isin(np.arange(900), [600, 601, 602]))
    data = build_market(bars)
    others = [name != "log_sigma" for name in FEATURE_NAMES]
    assert (data.features[600:603, others] == 0).all()
    assert (column(data, "log_sigma")[600:603] == column(data, "log_sigma")[599]).all()
    assert (data.mark[600:603] == bars.close[599]).all()
    assert (data.sigma[600:603] == data.sigma[599]).all()
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
    assert data.sigma[4199] == data.sigma[2099]
    assert (data.sigma[4200:4344] == TYPICAL_SIGMA).all()  # 144 returns are known from row 4344 on
    assert data.sigma[4344] == pytest.approx(np.diff(np.log(bars.close[4200:4345])).std(), rel=1e-9)
    assert np.isfinite(data.features).all()


def test_a_slice_that_starts_inside_a_gap_has_no_mark_before_its_first_bar() -> None:
    bars = rows_of(without(walk(400, seed=8), np.isin(np.arange(400), [100, 101, 102])), 101)
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
    assert_same_bits(build_market(rows_of(clean.bars, 0, stop)), clean, slice(0, stop), slice(0, stop))


def test_a_row_depends_on_exactly_the_warm_up_before_it() -> None:
    bars = walk(2100, seed=11)
    base = build_market(bars).features[2050]
    for row, changed in ((2050 - WARMUP_BARS - 1, False), (2050 - WARMUP_BARS, True)):
        close = bars.close.copy()
        close[row] = bars.low[row] * 0.999
        other = build_market(replace(bars, close=close)).features[2050]
        assert (not np.array_equal(base, other)) == changed


def test_another_start_of_the_history_gives_the_same_bits_after_the_warm_up() -> None:
    bars = walk(9000, seed=12, missing=0.02)
    bars = without(bars, (np.arange(9000) > 5000) & (np.arange(9000) <= 5300))  # a day's outage
    whole = build_market(bars)
    volatile = int(np.argmax(whole.sigma[:6000]))
    inside_gaps = [int(row) for row in np.flatnonzero(~bars.present)[[3, 60]]]
    for start in (1, 255, 1000, volatile, 5150, 5301, 6900, *inside_gaps):
        part = build_market(rows_of(bars, start))
        settled = slice(WARMUP_BARS + (300 if start > 2700 else 0), None)  # past a gap's carried sigma
        np.testing.assert_array_equal(part.features[WARMUP_BARS:], whole.features[start + WARMUP_BARS :])
        np.testing.assert_array_equal(part.sigma[settled], whole.sigma[start:][settled])
        np.testing.assert_array_equal(part.mark[settled], whole.mark[start:][settled])


@pytest.mark.real
def test_real_bars_give_the_same_bits_from_any_start(real_bars_path: Path) -> None:
    bars = _real_bars(real_bars_path)
    whole = build_market(bars)
    assert np.isfinite(whole.features).all()
    gap = int(np.flatnonzero(~bars.present)[0])
    volatile = int(np.argmax(whole.sigma))
    for start in (1, gap - 1000, gap + 3, volatile - 2000, volatile, len(bars) - 7000):
        part = build_market(rows_of(bars, start, start + 7000))
        assert_same_bits(part, whole, slice(WARMUP_BARS, None), slice(start + WARMUP_BARS, start + 7000))
    # Measured facts of this market: about 54 % a year on the mean, slight reversal from bar to bar.
    settled = bars.present & (np.arange(len(bars)) >= WARMUP_BARS)
    assert 0.40 < np.sqrt((whole.sigma[settled] ** 2).mean() * 105_120) < 0.70
    assert -0.06 < column(whole, "autocorrelation_288")[settled].mean() < 0.0
    assert np.abs(column(whole, "return_288")[settled]).max() < 20


def _real_bars(path: Path) -> Bars:
    frame = pd.read_parquet(path)
    close_ts_ns = frame["timestamp"].astype("datetime64[ns, UTC]").astype(np.int64).to_numpy() + BAR_NS
    row = (close_ts_ns - close_ts_ns[0]) // BAR_NS
    present = np.zeros(row[-1] + 1, np.bool_)
    present[row] = True
    table = {name: np.full(len(present), np.nan) for name in PRICES} | {"volume": np.zeros(len(present))}
    for name, values in table.items():
        values[row] = frame[name].to_numpy()
    return Bars(close_ts_ns=close_ts_ns[0] + BAR_NS * np.arange(len(present)), present=present, **table)
