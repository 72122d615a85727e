"""One horizon's forecasts scored day by day, and how sure a ratio of such sums is.

Decisions come more often than a horizon ends, so that outcomes overlap and neighbours tell the same. Scores are
therefore summed by the UTC day of the decision, and days are drawn in blocks that are longer than a horizon.
"""

from math import ceil
from typing import NamedTuple

import numpy as np

from btcai.evaluation.metrics import MIN_PERIODS
from btcai.evaluation.resampling import block_length, drawn_days
from btcai.evaluation.statistics import LEVEL, UNKNOWN, Interval
from btcai.schema import BARS_PER_DAY, FloatArray, IntArray

RESAMPLES = 4_000
FORMS = ("raw", "static", "adaptive")
"""Of the quantiles: as learned, with the static calibration, with the adaptive one."""

BPS = 1e4


class Direction(NamedTuple):
    """What n forecasts of a direction and their outcomes hold, (n,) each; nan where there is no such trade."""

    rises: FloatArray
    """1 or 0 as a rise or a fall was forecast; nan where neither was."""
    rose: FloatArray
    """1 or 0"""
    gross_bps: FloatArray
    """Simple return from the open after the decision to the open after the horizon, before costs."""
    sure: FloatArray
    """1 for the forecasts whose odds of a rise are furthest from even, else 0."""


COLUMNS = (
    *FORMS,
    "rival",  # these four are CRPS
    "outcomes",
    "said",  # a direction
    "rises",
    "rose",
    "hits",
    "trades",
    "sides",  # +1 bought, -1 sold
    "market_bps",
    "gross_bps",
    "sure_trades",
    "sure_gross_bps",
)
"""Of a table of sums."""


def daily_sums(days: IntArray, crps: FloatArray, direction: Direction) -> FloatArray:
    """Days (n,) from 0 and CRPS (n, len(FORMS) + 1) of each outcome -> COLUMNS summed by day, (m, len(COLUMNS))."""
    said = np.isfinite(direction.rises)
    side = np.where(said, 2.0 * np.nan_to_num(direction.rises) - 1.0, 0.0)
    trade = said & np.isfinite(direction.gross_bps)
    market = np.where(trade, np.nan_to_num(direction.gross_bps), 0.0)
    columns = (
        *crps.T,
        np.ones(len(days)),
        said,
        np.nan_to_num(direction.rises),
        direction.rose * said,
        said * (direction.rises == direction.rose),
        trade,
        side * trade,
        market,
        side * market,
        trade * direction.sure,
        side * market * direction.sure,
    )
    m = int(days.max()) + 1 if len(days) else 0
    return np.stack([np.bincount(days, weights=column, minlength=m) for column in columns], axis=1)


def resampled_sums(sums: FloatArray, horizon_bars: int, *, seed: int, resamples: int = RESAMPLES) -> FloatArray | None:
    """COLUMNS (resamples, len(COLUMNS)) of daily sums (m, len(COLUMNS)) drawn anew; None below MIN_PERIODS days.

    Blocks are as long as the days' scores and profits ask for, and three times as long as outcomes overlap at least: a
    mean of m outcomes that share all but a step with the next one has its variance to 10 % then.
    """
    if len(sums) < MIN_PERIODS:
        return None
    overlap = ceil(horizon_bars / BARS_PER_DAY)
    asked = block_length(np.stack([sums[:, 1] - sums[:, 3], sums[:, COLUMNS.index("gross_bps")]], axis=1))
    block = min(max(asked, 3 * overlap), len(sums))
    m, drawn = len(sums), []
    for days in drawn_days(m, block_days=block, seed=seed, resamples=resamples):
        places = days + m * np.arange(len(days))[:, None]
        times = np.bincount(places.ravel(), minlength=m * len(days)).reshape(len(days), m)
        drawn.append(times @ sums)
    return np.concatenate(drawn)


def column(sums: FloatArray, name: str) -> FloatArray:
    """One of COLUMNS of sums (..., len(COLUMNS))."""
    return np.asarray(sums[..., COLUMNS.index(name)])


def mean_of(sums: FloatArray, total: str, count: str) -> FloatArray:
    """The one over the other; nan where nothing was counted."""
    counted = column(sums, count)
    return np.asarray(
        np.divide(column(sums, total), counted, out=np.full(np.shape(counted), np.nan), where=counted > 0)
    )


def skill(sums: FloatArray, form: str) -> FloatArray:
    """1 - CRPS / that of the rival: above 0 the forecasts say more than volatility does."""
    return np.asarray(1.0 - mean_of(sums, form, "rival"))


def percentiles(draws: FloatArray | None) -> Interval:
    """Percentile interval of a figure on resampled days; UNKNOWN without draws or where too many are undefined."""
    if draws is None:
        return UNKNOWN
    known = draws[np.isfinite(draws)]
    if len(known) < len(draws) / 2:
        return UNKNOWN
    low, high = np.quantile(known, [(1.0 - LEVEL) / 2, (1.0 + LEVEL) / 2])
    return Interval(float(low), float(high))
