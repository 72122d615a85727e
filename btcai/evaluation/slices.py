"""Where a result was earned: by regime, month, weekday and hour. Every slicing adds up to the whole.

A bar belongs to the regime known when it opens, and to the hour (UTC) and day in which it does.
"""

import numpy as np
import pandas as pd

from btcai.evaluation.metrics import DAY_NS, DAYS_PER_YEAR, exposure_frac, sharpe, utc_days
from btcai.evaluation.result import BacktestResult
from btcai.schema import BAR_NS, BARS_PER_DAY, FloatArray, IntArray, MarketData, Span

TREND_DAYS = 30
TREND_SIGMAS = 0.5
"""Trends are moves of more than this many standard deviations of a random walk: it trends three fifths of the time."""
TRENDS = ("down", "range", "up")
VOLATILITIES = ("calm", "usual", "stormy")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = tuple(f"{hour:02d}" for hour in range(24))
UNKNOWN = "unknown"

SLICE_COLUMNS = (
    "slicing",  # trend, volatility, year, month, weekday, hour
    "part",
    "bars",
    "net_contribution",  # gain in these bars / the start's equity; a slicing's parts add up to the net return
    "sharpe",  # of the days' returns in these bars, annualised as if every day of the year were such; nan: too few
    "trades",  # closed lots that were opened in these bars
    "exposure_frac",
)


def slice_table(result: BacktestResult, data: MarketData, train: Span) -> pd.DataFrame:
    """SLICE_COLUMNS, a row for each part of each slicing that has bars; terciles of volatility are those of `train`."""
    labels = bar_labels(data, result.span, train)
    before = np.concatenate(([result.start_equity_usdt], result.equity_usdt[:-1]))
    bars = labels.assign(
        gain=(result.equity_usdt - before) / result.start_equity_usdt,
        growth=result.equity_usdt / before,
        position_frac=result.position_frac,
        entries=_entries(result),
        day=utc_days(result.close_ts_ns),
    )
    rows = [
        _row(slicing, str(part), own)
        for slicing in labels.columns
        for part, own in bars.groupby(slicing, observed=True, sort=True)
    ]
    return pd.DataFrame(rows, columns=list(SLICE_COLUMNS))


def bar_labels(data: MarketData, span: Span, train: Span) -> pd.DataFrame:
    """What each bar (n,) of the span is called in each slicing."""
    opens_ns = data.bars.close_ts_ns[span.first : span.stop] - BAR_NS
    opens = opens_ns.astype("datetime64[ns]")
    known = np.maximum(np.arange(span.first, span.stop) - 1, 0)  # the bar before has closed when one opens
    trend = trend_sigmas(data.mark)[known]
    trends = np.where(np.isnan(trend), len(TRENDS), np.digitize(trend, (-TREND_SIGMAS, TREND_SIGMAS)))
    return pd.DataFrame(
        {
            "trend": _named(trends, (*TRENDS, UNKNOWN)),
            "volatility": _named(np.digitize(data.sigma[known], _terciles(data, train)), VOLATILITIES),
            "year": opens.astype("datetime64[Y]").astype(str),
            "month": opens.astype("datetime64[M]").astype(str),
            "weekday": _named((opens_ns // DAY_NS + 3) % 7, WEEKDAYS),  # 1970 began on a Thursday
            "hour": _named(opens_ns % DAY_NS * 24 // DAY_NS, HOURS),
        }
    )


def _terciles(data: MarketData, train: Span) -> FloatArray:
    """What a third, and two thirds, of the training span's bars were calmer than."""
    rows = slice(train.first, train.stop)
    return np.quantile(data.sigma[rows][data.bars.present[rows]], (1 / 3, 2 / 3))


def trend_sigmas(mark: FloatArray) -> FloatArray:
    """The log return (T,) of the last TREND_DAYS over the root of its bars' sum of squares; nan before there are such.

    Under a random walk about standard normal.
    """
    n_bars = TREND_DAYS * BARS_PER_DAY
    log_mark = np.log(mark)
    squares = np.cumsum(np.nan_to_num(np.diff(log_mark, prepend=np.nan)) ** 2)
    moved, spread = np.full(len(mark), np.nan), np.full(len(mark), np.nan)
    moved[n_bars:] = log_mark[n_bars:] - log_mark[:-n_bars]
    spread[n_bars:] = np.sqrt(squares[n_bars:] - squares[:-n_bars])
    sigmas: FloatArray = moved / np.maximum(spread, 1e-9)
    return sigmas


def _named(codes: IntArray, names: tuple[str, ...]) -> "pd.Categorical[str]":
    """Names in this order, not the alphabet's."""
    return pd.Categorical.from_codes(codes, pd.Index(names), ordered=True)


def _entries(result: BacktestResult) -> IntArray:
    """How many of the closed lots were opened in each bar (n,)."""
    bars = (result.trades["entry_ts_ns"].to_numpy(np.int64) - result.close_ts_ns[0]) // BAR_NS
    return np.bincount(bars, minlength=len(result.close_ts_ns))


def _row(slicing: str, part: str, bars: pd.DataFrame) -> dict[str, str | int | float]:
    daily = bars.groupby("day")["growth"].prod().to_numpy(np.float64) - 1.0
    return {
        "slicing": slicing,
        "part": part,
        "bars": len(bars),
        "net_contribution": float(bars["gain"].sum()),
        "sharpe": sharpe(daily, DAYS_PER_YEAR),
        "trades": int(bars["entries"].sum()),
        "exposure_frac": exposure_frac(bars["position_frac"].to_numpy(np.float64)),
    }
