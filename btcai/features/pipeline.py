"""Grid bars -> MarketData: 32 dimensionless causal features and the mask, float32; row t knowable when bar t closed.

| columns | unit | what |
|---|---|---|
| return_1, _3, _12, _36, _72, _288, _2016 | sigma * sqrt(h) | log return since h bars ago |
| log_sigma | log of log return | log(sigma), unclipped; sigma: std of one-bar log returns, 288 bars |
| vol_ratio_12_288, _72_288, _288_2016 | log ratio | short over long volatility |
| parkinson_ratio_72 | log ratio | volatility from the bars' ranges, 72 bars, over sigma |
| rsi_14 | -1 .. 1 | Cutler's RSI (simple means), / 50 - 1 |
| range_position_288, _2016 | -1 .. 1 | close between the lowest low and the highest high |
| bollinger_20, bollinger_144 | std | close from its mean |
| body | -1 .. 1 | (close - open) / (high - low), 0 where the range is 0 |
| upper_wick | 0 .. 1 | (high - max(open, close)) / (high - low); the lower wick is 1 - abs(body) - upper_wick |
| bar_range | log ratio | (high - low) / close over sigma, the range floored at 1e-5 of the close |
| volume_ratio_1_288, _12_288, _288_2016 | log ratio | mean volumes, each plus 1 % of the 2016-bar mean |
| imbalance_12, imbalance_72 | -1 .. 1 | volume of rising less volume of falling bars, share of all volume |
| drawdown_288, drawdown_2016 | sigma * sqrt(h) | log of close over the highest high, <= 0 |
| autocorrelation_288 | -1 .. 1 | of one-bar log returns, lag 1 |
| hour_sin, hour_cos | -1 .. 1 | place of the close in the UTC day |
| weekday_sin, weekday_cos | -1 .. 1 | place of the close in the week, Monday 00:00 UTC = 0 |
| mask | 0 or 1 | 1 where the bar is present |

Missing bars: their row is 0 but for log_sigma, which is log(sigma) carried on, so that a forecast has its unit there.
Windows run over grid rows and use the bars that are there; a return counts from the oldest known close of its h bars.
Where less than half a window is known, or nothing traded in it, a feature is undefined and 0. Rows before WARMUP_BARS
are never used.
"""

from dataclasses import replace

import numpy as np

from btcai.errors import DataError
from btcai.features import indicators
from btcai.schema import BAR_NS, Bars, BoolArray, FloatArray, IntArray, MarketData

WARMUP_BARS = 2016
"""Row t of the features depends on rows t - WARMUP_BARS .. t and on nothing else."""

VOLATILITY_FLOOR = 1e-5
"""Of every volatility and range before its log: a tenth of a basis point."""

TYPICAL_SIGMA = 1e-3
"""sigma where neither half of 288 nor half of 2016 bars is known; 32 % a year."""

VOLUME_EPS = 0.01
"""Added to both sides of a volume ratio, in 2016-bar means: a bar without volume reads about log(0.01)."""

RETURN_BARS = (1, 3, 12, 36, 72, 288, 2016)
SIGMA_BARS = 288
DAY_SECONDS = 86_400
MONDAY_SECONDS = 4 * DAY_SECONDS  # 1970-01-01 was a Thursday

FEATURE_NAMES = (
    *(f"return_{bars}" for bars in RETURN_BARS),
    "log_sigma",
    "vol_ratio_12_288",
    "vol_ratio_72_288",
    "vol_ratio_288_2016",
    "parkinson_ratio_72",
    "rsi_14",
    "range_position_288",
    "range_position_2016",
    "bollinger_20",
    "bollinger_144",
    "body",
    "upper_wick",
    "bar_range",
    "volume_ratio_1_288",
    "volume_ratio_12_288",
    "volume_ratio_288_2016",
    "imbalance_12",
    "imbalance_72",
    "drawdown_288",
    "drawdown_2016",
    "autocorrelation_288",
    "hour_sin",
    "hour_cos",
    "weekday_sin",
    "weekday_cos",
    "mask",
)

Columns = dict[str, FloatArray]


def build_market(bars: Bars) -> MarketData:
    """Features (T, 33) float32, mark and sigma (T,) of grid bars.

    mark is nan on rows before the first present bar (a slice may start inside a gap; such rows lie in the warm-up).
    sigma is carried over missing rows.
    """
    _check(bars)
    known = _known(bars)
    returns = indicators.changes(np.log(known.close))
    volatility = {
        window: std for window, (_, std) in indicators.window_mean_std(returns, (12, 72, SIGMA_BARS, 2016)).items()
    }
    sigma = _sigma(volatility)
    columns = (
        _return_columns(known, returns, sigma)
        | _volatility_columns(known, volatility, sigma)
        | _position_columns(known, sigma)
        | _candle_columns(known, sigma)
        | _volume_columns(known)
        | _calendar_columns(bars.close_ts_ns)
        | {"mask": np.ones(len(bars))}
    )
    features = np.zeros((len(bars), len(FEATURE_NAMES)), np.float32)
    for index, name in enumerate(FEATURE_NAMES):
        defined = bars.present & ~np.isnan(columns[name])
        features[defined, index] = columns[name][defined]
    carried = _carried(sigma, bars.present, TYPICAL_SIGMA)
    features[:, FEATURE_NAMES.index("log_sigma")] = np.log(carried)
    return MarketData(
        bars=bars,
        mark=_carried(bars.close, bars.present, np.nan),
        sigma=carried,
        features=features,
        feature_names=FEATURE_NAMES,
        warmup_bars=WARMUP_BARS,
    )


def _check(bars: Bars) -> None:
    """Refuse what would turn into wrong features in silence."""
    if not bars.present.any():
        raise DataError(f"features need at least one present bar, was none of {len(bars)}; fetch bars with: btcai data")
    steps = np.diff(bars.close_ts_ns)
    if (steps != BAR_NS).any():
        row = int(np.argmax(steps != BAR_NS)) + 1
        raise DataError(f"bars must follow in steps of {BAR_NS} ns, row {row} came after {steps[row - 1]}; use to_grid")
    prices = np.stack((bars.open, bars.high, bars.low, bars.close))
    sound = (np.isfinite(prices) & (prices > 0)).all(axis=0) & np.isfinite(bars.volume) & (bars.volume >= 0)
    if (broken := bars.present & ~sound).any():
        stamp = np.datetime64(int(bars.close_ts_ns[np.argmax(broken)]), "ns").astype("datetime64[s]")
        raise DataError(
            f"present bars need finite prices > 0 and volume >= 0; {int(broken.sum())} break that, the first closed at"
            f" {stamp} UTC; see: btcai stage validate"
        )


def _known(bars: Bars) -> Bars:
    """The same bars with nan in every price and volume of a missing row, which no window then reads."""
    unknown = ~bars.present
    names = ("open", "high", "low", "close", "volume")
    blank = {name: np.where(unknown, np.nan, getattr(bars, name)) for name in names}
    return replace(bars, **blank)


def _sigma(volatility: dict[int, FloatArray]) -> FloatArray:
    """Standard deviation of one-bar log returns over 288 bars, after long gaps over 2016, then a typical value."""
    sigma = np.where(np.isnan(volatility[SIGMA_BARS]), volatility[2016], volatility[SIGMA_BARS])
    return np.maximum(np.where(np.isnan(sigma), TYPICAL_SIGMA, sigma), VOLATILITY_FLOOR)


def _carried(values: FloatArray, present: BoolArray, before: float) -> FloatArray:
    """values (T,) of the last present row at or before t; `before` where there is none."""
    last = np.maximum.accumulate(np.where(present, np.arange(len(values)), -1))
    return np.where(last >= 0, values[last], before)


def _return_columns(bars: Bars, returns: FloatArray, sigma: FloatArray) -> Columns:
    log_close = np.log(bars.close)
    since = indicators.window_oldest(log_close, [horizon + 1 for horizon in RETURN_BARS])
    columns = {
        f"return_{horizon}": (log_close - since[horizon + 1]) / (sigma * np.sqrt(horizon)) for horizon in RETURN_BARS
    }
    return columns | {"autocorrelation_288": indicators.autocorrelation(returns, (288,))[288]}


def _volatility_columns(bars: Bars, volatility: dict[int, FloatArray], sigma: FloatArray) -> Columns:
    floored = {window: np.log(np.maximum(std, VOLATILITY_FLOOR)) for window, std in volatility.items()}
    parkinson = indicators.parkinson(bars.high, bars.low, (72,))[72]
    return {
        "log_sigma": np.log(sigma),
        "vol_ratio_12_288": floored[12] - floored[288],
        "vol_ratio_72_288": floored[72] - floored[288],
        "vol_ratio_288_2016": floored[288] - floored[2016],
        "parkinson_ratio_72": np.log(np.maximum(parkinson, VOLATILITY_FLOOR) / sigma),
    }


def _position_columns(bars: Bars, sigma: FloatArray) -> Columns:
    rsi = indicators.rsi(bars.close, (14,))
    position = indicators.range_position(bars.high, bars.low, bars.close, (288, 2016))
    bollinger = indicators.bollinger_z(bars.close, (20, 144))
    highest = indicators.window_max(bars.high, (288, 2016))
    return {
        **{f"rsi_{window}": value / 50.0 - 1.0 for window, value in rsi.items()},
        **{f"range_position_{window}": value for window, value in position.items()},
        **{f"bollinger_{window}": value for window, value in bollinger.items()},
        **{
            f"drawdown_{window}": np.log(bars.close / top) / (sigma * np.sqrt(window))
            for window, top in highest.items()
        },
    }


def _candle_columns(bars: Bars, sigma: FloatArray) -> Columns:
    extent = bars.high - bars.low
    return {
        "body": indicators.ratio(bars.close - bars.open, extent),
        "upper_wick": indicators.ratio(bars.high - np.maximum(bars.open, bars.close), extent),
        "bar_range": np.log(np.maximum(extent / bars.close, VOLATILITY_FLOOR) / sigma),
    }


def _volume_columns(bars: Bars) -> Columns:
    mean = indicators.window_mean(bars.volume, (12, 288, 2016)) | {1: bars.volume}
    signed = indicators.window_mean(bars.volume * np.sign(bars.close - bars.open), (12, 72))
    total = indicators.window_mean(bars.volume, (12, 72))
    padding = VOLUME_EPS * np.where(mean[2016] > 0, mean[2016], np.nan)
    return {
        "volume_ratio_1_288": np.log((mean[1] + padding) / (mean[288] + padding)),
        "volume_ratio_12_288": np.log((mean[12] + padding) / (mean[288] + padding)),
        "volume_ratio_288_2016": np.log((mean[288] + padding) / (mean[2016] + padding)),
        "imbalance_12": indicators.ratio(signed[12], total[12]),
        "imbalance_72": indicators.ratio(signed[72], total[72]),
    }


def _calendar_columns(close_ts_ns: IntArray) -> Columns:
    seconds = close_ts_ns // 1_000_000_000
    day = 2.0 * np.pi * (seconds % DAY_SECONDS) / DAY_SECONDS
    week = 2.0 * np.pi * ((seconds - MONDAY_SECONDS) % (7 * DAY_SECONDS)) / (7 * DAY_SECONDS)
    return {
        "hour_sin": np.sin(day),
        "hour_cos": np.cos(day),
        "weekday_sin": np.sin(week),
        "weekday_cos": np.cos(week),
    }
