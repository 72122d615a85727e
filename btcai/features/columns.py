"""The formulas, compiled: one function a family writes its columns in the order of the table, nan where undefined.

out (columns of the family, rows) float32; all other arrays (rows,), row for row, or as said. `table.py` has each
column's name, formula, unit and source.
"""

import math

import numpy as np

from btcai.compiled import compiled, inlined
from btcai.features.leaves import VARIANCE_RATIO_BARS
from btcai.schema import BARS_PER_DAY, BoolArray, Float32Array, FloatArray, IntArray

VOLATILITY_FLOOR = 1e-5
"""Of every volatility and range before its log: a tenth of a basis point."""

TYPICAL_SIGMA = 1e-3
"""sigma where neither half of 288 nor half of 2016 bars is known; 32 % a year."""

VOLUME_EPS = 0.01
"""Added to both sides of a volume ratio, in 2016-bar means: a bar without volume reads about log(0.01)."""

RETURN_BARS = (1, 3, 12, 36, 72, 288, 2016)
SECOND_NS = 1_000_000_000
HOUR_SECONDS = 3_600
DAY_SECONDS = 24 * HOUR_SECONDS
BARS_PER_WEEK = 7 * BARS_PER_DAY
MONDAY_SECONDS = 4 * DAY_SECONDS  # 1970-01-01 was a Thursday
CYCLES_SECONDS = (DAY_SECONDS, 7 * DAY_SECONDS, 8 * HOUR_SECONDS)  # the last: of funding


@inlined
def _ratio(numerator: float, denominator: float, at_zero: float) -> float:
    """numerator / denominator for a denominator >= 0; `at_zero` where it is 0, nan where either is nan."""
    return at_zero if denominator == 0.0 and not np.isnan(numerator) else numerator / denominator


@inlined
def _floored(volatility: float) -> float:
    return VOLATILITY_FLOOR if volatility < VOLATILITY_FLOOR else volatility  # nan stays nan


@inlined
def _log_volumes(above: float, below: float, week: float) -> float:
    """log ratio of two mean volumes, each plus 1 % of the week's mean; nan where nothing traded in the week."""
    return math.log((above + VOLUME_EPS * week) / (below + VOLUME_EPS * week)) if week > 0.0 else np.nan


def volatility_of(mean: FloatArray, mean_square: FloatArray) -> FloatArray:
    """Population standard deviation of one-bar log returns from their two moments."""
    return np.sqrt(np.maximum(mean_square - mean * mean, 0.0))


def choose_sigma(day: FloatArray, week: FloatArray) -> FloatArray:
    """The volatility of 288 bars, after long gaps that of 2016, then a typical one; never below the floor."""
    volatility = np.where(np.isnan(day), week, day)
    return np.where(np.isnan(volatility), TYPICAL_SIGMA, np.maximum(volatility, VOLATILITY_FLOOR))


@compiled
def returns(out: Float32Array, log_close: FloatArray, known_from: IntArray, sigma: FloatArray) -> None:
    """log_close and known_from (n,) start with the warm-up before the rows of `out`."""
    first = len(log_close) - out.shape[1]
    for j in range(len(RETURN_BARS)):
        root = math.sqrt(RETURN_BARS[j])
        for i in range(out.shape[1]):
            since = known_from[max(first + i - RETURN_BARS[j], 0)]
            known = since <= first + i
            out[j, i] = (log_close[first + i] - log_close[since]) / (sigma[i] * root) if known else np.nan


@compiled
def volatility(
    out: Float32Array,
    sigma: FloatArray,
    hour: FloatArray,
    six_hours: FloatArray,
    day: FloatArray,
    week: FloatArray,
    range_square_72: FloatArray,
    magnitude_288: FloatArray,
    scale_288: FloatArray,
    signed_square_288: FloatArray,
    square_288: FloatArray,
) -> None:
    """hour, six_hours, day, week: volatility over 12, 72, 288, 2016 bars."""
    for i in range(out.shape[1]):
        steady = _floored(day[i])
        parkinson = math.sqrt(range_square_72[i] / (4.0 * math.log(2.0)))
        out[0, i] = math.log(sigma[i])
        out[1, i] = math.log(_floored(hour[i]) / steady)
        out[2, i] = math.log(_floored(six_hours[i]) / steady)
        out[3, i] = math.log(steady / _floored(week[i]))
        out[4, i] = math.log(_floored(parkinson) / _floored(six_hours[i]))
        out[5, i] = 1.0 - 0.5 * math.pi * _ratio(magnitude_288[i], scale_288[i], 2.0 / math.pi)
        out[6, i] = _ratio(signed_square_288[i], square_288[i], 0.0)


@compiled
def ranges(
    out: Float32Array,
    sigma: FloatArray,
    open_: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    day: tuple[FloatArray, FloatArray],
    week: tuple[FloatArray, FloatArray],
) -> None:
    """day, week: (highest high, lowest low) over 288 and 2016 bars."""
    for i in range(out.shape[1]):
        extent = high[i] - low[i]
        out[0, i] = _ratio(2.0 * close[i] - day[0][i] - day[1][i], day[0][i] - day[1][i], 0.0)
        out[1, i] = _ratio(2.0 * close[i] - week[0][i] - week[1][i], week[0][i] - week[1][i], 0.0)
        out[2, i] = math.log(close[i] / week[0][i]) / (sigma[i] * math.sqrt(2016.0))
        out[3, i] = _ratio(close[i] - open_[i], extent, 0.0)
        out[4, i] = _ratio(high[i] - max(open_[i], close[i]), extent, 0.0)
        out[5, i] = math.log(_floored(extent / close[i]) / sigma[i])


@compiled
def volumes(
    out: Float32Array,
    sigma: FloatArray,
    bar: FloatArray,
    hour: FloatArray,
    day: FloatArray,
    week: FloatArray,
    signed_12: FloatArray,
    signed_72: FloatArray,
    located_72: FloatArray,
    mean_72: FloatArray,
    correlation_288: FloatArray,
    close_288: FloatArray,
    value_288: FloatArray,
) -> None:
    """bar, hour, day, week: mean volume over 1, 12, 288, 2016 bars; close: mean close; value: mean USDT traded."""
    for i in range(out.shape[1]):
        out[0, i] = _log_volumes(bar[i], day[i], week[i])
        out[1, i] = _log_volumes(hour[i], day[i], week[i])
        out[2, i] = _log_volumes(day[i], week[i], week[i])
        out[3, i] = _ratio(signed_12[i], hour[i], 0.0)
        out[4, i] = _ratio(signed_72[i], mean_72[i], 0.0)
        out[5, i] = _ratio(located_72[i], mean_72[i], 0.0)
        out[6, i] = correlation_288[i]
        paid = value_288[i] / day[i] if day[i] > 0.0 else np.nan
        out[7, i] = math.log(paid / close_288[i]) / (sigma[i] * math.sqrt(288.0))


@compiled
def correlation_of(x: FloatArray, x2: FloatArray, y: FloatArray, y2: FloatArray, xy: FloatArray) -> FloatArray:
    """Correlation of x and y from the means of x, x^2, y, y^2, x y; 0 where either stays the same."""
    result = np.empty(len(x))
    for i in range(len(x)):
        variance_x, variance_y = x2[i] - x[i] * x[i], y2[i] - y[i] * y[i]
        if variance_x > 1e-12 * x2[i] and variance_y > 1e-12 * y2[i]:  # below, rounding
            value = (xy[i] - x[i] * y[i]) / math.sqrt(variance_x * variance_y)
            result[i] = min(1.0, max(-1.0, value))
        else:
            result[i] = np.nan if np.isnan(x[i]) else 0.0
    return result


@compiled
def momentum(
    out: Float32Array,
    rise_14: FloatArray,
    change_14: FloatArray,
    move_72: FloatArray,
    size_72: FloatArray,
    move_288: FloatArray,
    size_288: FloatArray,
) -> None:
    for i in range(out.shape[1]):
        out[0, i] = 2.0 * _ratio(rise_14[i], change_14[i], 0.5) - 1.0
        out[1, i] = _ratio(abs(move_72[i]), size_72[i], 0.0)
        out[2, i] = _ratio(abs(move_288[i]), size_288[i], 0.0)


@compiled
def reversion(
    out: Float32Array,
    close: FloatArray,
    band_20: tuple[FloatArray, FloatArray],
    band_144: tuple[FloatArray, FloatArray],
) -> None:
    """band: (mean, standard deviation) of the closes."""
    for i in range(out.shape[1]):
        out[0, i] = _ratio(close[i] - band_20[0][i], band_20[1][i], 0.0)
        out[1, i] = _ratio(close[i] - band_144[0][i], band_144[1][i], 0.0)


@compiled
def microstructure(
    out: Float32Array,
    sigma: FloatArray,
    product_72: FloatArray,
    spread_288: FloatArray,
    size_72: FloatArray,
    size_2016: FloatArray,
    value_72: FloatArray,
    value_2016: FloatArray,
) -> None:
    """product: mean r[t] r[t-1]; size: mean |r|; value: mean USDT traded."""
    for i in range(out.shape[1]):
        out[0, i] = 2.0 * math.sqrt(0.0 if product_72[i] > 0.0 else -product_72[i]) / sigma[i]
        out[1, i] = spread_288[i] / sigma[i]
        traded = _log_volumes(value_72[i], value_2016[i], value_2016[i])
        out[2, i] = math.log(_floored(size_72[i]) / _floored(size_2016[i])) - traded


@compiled
def regime(
    out: Float32Array,
    sigma: FloatArray,
    product_288: FloatArray,
    scale_288: FloatArray,
    square_12_288: FloatArray,
    square_288: FloatArray,
    highest_288: FloatArray,
    lowest_288: FloatArray,
) -> None:
    for i in range(out.shape[1]):
        out[0, i] = _ratio(product_288[i], scale_288[i], 0.0)
        slow = math.sqrt(square_12_288[i] / VARIANCE_RATIO_BARS)
        out[1, i] = math.log(_floored(slow) / _floored(math.sqrt(square_288[i])))
        out[2, i] = math.log(_floored(math.log(highest_288[i] / lowest_288[i]) / math.sqrt(288.0)) / sigma[i])


@compiled
def calendar(out: Float32Array, close_ts_ns: IntArray) -> None:
    for i in range(min(out.shape[1], BARS_PER_WEEK)):
        seconds = close_ts_ns[i] // SECOND_NS - MONDAY_SECONDS
        for j in range(len(CYCLES_SECONDS)):
            angle = 2.0 * math.pi * (seconds % CYCLES_SECONDS[j]) / CYCLES_SECONDS[j]
            out[2 * j, i], out[2 * j + 1, i] = math.sin(angle), math.cos(angle)
    for i in range(BARS_PER_WEEK, out.shape[1]):
        for j in range(len(out)):
            out[j, i] = out[j, i - BARS_PER_WEEK]


@compiled
def settle(features: Float32Array, table: Float32Array, present: BoolArray, log_sigma: int) -> None:
    """Write features (rows, F) from table (F, rows) and the mask, its last column.

    Features undefined or beyond float32, and all but log_sigma where the bar is missing, become 0.
    """
    mask = len(table) - 1
    for i in range(len(features)):
        for j in range(mask):
            value = table[j, i]
            features[i, j] = value if np.isfinite(value) else np.float32(0.0)
        features[i, mask] = 1.0
        if not present[i]:
            features[i] = 0.0
            features[i, log_sigma] = table[log_sigma, i]
