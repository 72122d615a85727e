"""Which way the forecasts say the price goes: how often they are right, how surely, and what a trade on it earns."""

from collections.abc import Callable
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np
import pandas as pd

from btcai.evaluation.daily_scores import BPS, Direction, column, mean_of, percentiles
from btcai.evaluation.metrics import NO_SPREAD
from btcai.evaluation.statistics import UNKNOWN, Interval
from btcai.schema import FloatArray, IntArray, MarketData

SURE_FRAC = 0.1
"""Share of the decisions whose direction is called surest: odds beyond this quantile of the earlier ones'."""

LEAST_EARLIER = 100
"""Decisions of the span before any is called sure."""


@dataclass(frozen=True, kw_only=True)
class Called:
    """The direction that the mean of a forecast calls; intervals are of 95 %, UNKNOWN where too few outcomes are apart.

    A break-even cost is the fee a side in bp at which a trade at every decision, held for the horizon, earns nothing:
    half of its mean gross return.
    """

    rises_frac: float
    """Share of forecasts that call a rise."""
    hits_frac: float
    chance_frac: float
    """Hits of forecasts that know nothing and call as many rises."""
    excess_interval: Interval
    """Of hits_frac - chance_frac."""
    p_value: float
    """One-sided, of hits no more than by chance."""
    p_holm: float
    """The same for all horizons and buckets of the span together."""
    break_even_bps: float
    break_even_interval: Interval
    timing_bps: float
    """Of the break-even cost, what does not come from being long or short more often as the market drifts."""
    sure_trades: int
    sure_break_even_bps: float
    """Of the surest tenth of the trades alone, each held against those before it: which they are was known in time."""
    sure_interval: Interval


def directions(data: MarketData, bars: IntArray, horizon_bars: int, mean: FloatArray, std: FloatArray) -> Direction:
    """Of decisions at bars (n,), oldest first, with a predicted mean and standard deviation (n,).

    Orders fill at the open of the bar after the decision, and of the bar after the one the horizon ends with.
    """
    said = np.where(mean == 0.0, np.nan, (mean > 0.0).astype(np.float64))
    last = len(data) - 1
    entry, leave = np.minimum(bars + 1, last), np.minimum(bars + 1 + horizon_bars, last)
    filled = (bars + 1 + horizon_bars <= last) & data.bars.present[entry] & data.bars.present[leave]
    gross = np.full(len(bars), np.nan)
    gross[filled] = BPS * (data.bars.open[leave[filled]] / data.bars.open[entry[filled]] - 1.0)
    moved = data.mark[np.minimum(bars + horizon_bars, last)] > data.mark[bars]
    return Direction(rises=said, rose=moved.astype(np.float64), gross_bps=gross, sure=_sure(np.abs(mean) / std))


def _sure(odds: FloatArray) -> FloatArray:
    """1 where the odds (n,) against an even chance lie beyond SURE_FRAC of all before them, else 0; a tie is not."""
    limit = pd.Series(odds).expanding(LEAST_EARLIER).quantile(1.0 - SURE_FRAC).shift()
    return np.asarray(odds > limit.to_numpy(), np.float64)


def called(total: FloatArray, draws: FloatArray | None) -> Called:
    """From sums of the span (len(COLUMNS),) and of resampled days (R, len(COLUMNS)), None where too few tell."""

    def ends(of: Callable[[FloatArray], FloatArray], share: float = 1.0) -> Interval:
        return UNKNOWN if draws is None else percentiles(share * of(draws))

    def gross(sums: FloatArray) -> FloatArray:
        return mean_of(sums, "gross_bps", "trades")

    def sure(sums: FloatArray) -> FloatArray:
        return mean_of(sums, "sure_gross_bps", "sure_trades")

    excess = float(excess_hits(total))
    chance = chance_of(excess, None if draws is None else excess_hits(draws))
    return Called(
        rises_frac=float(mean_of(total, "rises", "said")),
        hits_frac=float(mean_of(total, "hits", "said")),
        chance_frac=float(chance_hits(total)),
        excess_interval=ends(excess_hits),
        p_value=chance,
        p_holm=chance,
        break_even_bps=float(gross(total)) / 2,
        break_even_interval=ends(gross, 0.5),
        timing_bps=float(timing_bps(total)) / 2,
        sure_trades=int(column(total, "sure_trades")),
        sure_break_even_bps=float(sure(total)) / 2,
        sure_interval=ends(sure, 0.5),
    )


def chance_hits(sums: FloatArray) -> FloatArray:
    """Share of directions that are right where forecasts and outcomes have nothing in common but how often each rises.

    Pesaran and Timmermann 1992, eq. 4.
    """
    forecast, outcome = mean_of(sums, "rises", "said"), mean_of(sums, "rose", "said")
    return forecast * outcome + (1.0 - forecast) * (1.0 - outcome)


def excess_hits(sums: FloatArray) -> FloatArray:
    """Share of directions that were right less that by chance."""
    return mean_of(sums, "hits", "said") - chance_hits(sums)


def timing_bps(sums: FloatArray) -> FloatArray:
    """Mean gross return of a trade less what its share of longs earns whenever they are held.

    Anatolyev and Gerko 2005: a forecast that always says up earns what the market does, and knows nothing.
    """
    held = mean_of(sums, "sides", "trades") * mean_of(sums, "market_bps", "trades")
    return mean_of(sums, "gross_bps", "trades") - held


def chance_of(figure: float, draws: FloatArray | None) -> float:
    """One-sided p-value of a figure that is 0 without skill, by its spread on resampled days; nan where it has none.

    Pesaran and Timmermann's test with the variance of the bootstrap in the place of theirs, which takes outcomes for
    independent. Of 300 forecasts without skill over 125 days it called 5 to 8 % significant at 5 % for horizons up to a
    day, 10 % for 3.5 days, where blocks are few; intervals of 95 % held 0 in 93 to 94 % and in 90 %.
    """
    spread = float(np.std(draws)) if draws is not None and np.isfinite(draws).all() else 0.0
    return 0.5 * erfc(figure / spread / sqrt(2.0)) if spread > NO_SPREAD else float("nan")
