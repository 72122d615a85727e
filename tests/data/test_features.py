"""Features: the table, every formula against a second reading of it, missing bars, and what is refused."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feature_bars import MONDAY_NS, PRICES, column, walk, without

from btcai.errors import DataError
from btcai.features.columns import TYPICAL_SIGMA
from btcai.features.pipeline import build_market, rows_of
from btcai.features.table import FEATURE_NAMES, FEATURES, WARMUP_BARS, columns_of, markdown
from btcai.schema import Bars


def test_there_are_48_features_and_the_mask() -> None:
    data = build_market(walk(300, seed=1))
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 49
    assert FEATURE_NAMES[-1] == "mask"
    assert data.features.shape == (300, 49)
    assert data.features.dtype == np.float32
    assert (data.feature_names, data.warmup_bars) == (FEATURE_NAMES, WARMUP_BARS)
    assert max(feature.warmup_bars for feature in FEATURES) == WARMUP_BARS
    families = {feature.family for feature in FEATURES}
    assert sum(len(FEATURES[columns_of(family)]) for family in families) == 49


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
        "parkinson_std_72": math.log(math.sqrt((log_range.iloc[-72:] ** 2).mean() / math.log(16)) / volatility[72]),
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
        if window == 2016:
            want["drawdown_2016"] = math.log(last["close"] / top) / (sigma * math.sqrt(2016))
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
    value = close * volume
    vwap = value.iloc[-288:].sum() / volume.iloc[-288:].sum()
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
        "vwap_twap_288": math.log(vwap / day["close"].mean()) / (sigma * math.sqrt(288)),
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
    above, below = bars.close.copy(), bars.close.copy()
    above[40], below[41] = 2 * bars.high[40], bars.low[41] / 2
    for unsound in (above, below):
        with pytest.raises(DataError, match=r"0 < low <= open, close <= high, .*; 1 break that, .* see: btcai stage"):
            build_market(replace(bars, close=unsound))
    with pytest.raises(DataError, match="row 7 came after 600000000000"):
        build_market(Bars(**{k: np.delete(getattr(bars, k), 7) for k in bars.__dataclass_fields__}))
    with pytest.raises(DataError, match="at least one present bar"):
        build_market(without(bars, np.ones(100, np.bool_)))
