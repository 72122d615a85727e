"""What was forecast at a few decisions beside what happened, and how sure the forecasts were where it was acted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from btcai.config import BucketConfig, SizingConfig
from btcai.evaluation.metrics import utc_days
from btcai.evaluation.reliability import sigma_of
from btcai.evaluation.result import BacktestResult
from btcai.pictures import (
    BLUE,
    INK,
    ORANGE,
    PURPLE,
    RED,
    axis_label,
    corner,
    date_axis,
    legend_below,
    line_key,
    panels,
    patch_keys,
)
from btcai.report.figures import BUCKET_COLOURS, bucket_head
from btcai.report.formats import percent
from btcai.schema import BARS_PER_DAY, QUANTILE_LEVELS, Action, FloatArray, IntArray, MarketData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FANS = 3
"""Decisions of each bucket that are shown, evenly spread over the span."""
_PAIRS = ((0, 6, 0.18), (1, 5, 0.30), (2, 4, 0.45))
"""Places of two quantiles in QUANTILE_LEVELS, and how dark the band between them is."""
_MEDIAN = QUANTILE_LEVELS.index(0.5)
_POINTS = 600
_ACTIONS: Mapping[Action, tuple[str, str]] = {
    Action.HOLD: ("hold", "#9A9A9A"),
    Action.BUY: ("buy", BLUE),
    Action.SELL: ("sell", ORANGE),
    Action.CLOSE_ALL: ("close all", RED),
}
_DOUBTS = {"uncertainty": INK, "unfamiliarity": PURPLE}


def fan_figure(
    results: Mapping[str, BacktestResult], data: MarketData, buckets: Mapping[str, BucketConfig], title: str
) -> "Figure | None":
    """A row per bucket that forecasts, FANS of its decisions beside each other; None where none does."""
    shown = {name: result for name, result in results.items() if result.encoded is not None and len(result.decisions)}
    if not shown:
        return None
    figure, grid = panels(len(shown), FANS, title, height=2.1)
    for row, (bucket, result) in enumerate(shown.items()):
        horizons = np.asarray(buckets[bucket].horizons_bars)
        for axes, d in zip(grid[row], fanned_decisions(result, int(horizons[-1])), strict=False):
            _fan(axes, result, data, horizons, int(d), BUCKET_COLOURS[bucket])
        for axes in grid[row][min(FANS, len(result.decisions)) :]:
            axes.set_axis_off()
        axis_label(grid[row, 0], y=f"{bucket}\nprice change, %")
    shades = {
        f"{percent(QUANTILE_LEVELS[high] - QUANTILE_LEVELS[low], 0)} interval": alpha for low, high, alpha in _PAIRS
    }
    keys = patch_keys({label: _grey(alpha) for label, alpha in shades.items()})
    keys += [
        line_key("median", color="#777777", linewidth=1.4, linestyle="--"),
        line_key("price", color=INK, linewidth=1.0),
        line_key("outcome inside the 90 % interval", marker="o", color=INK, linestyle="", markersize=5),
        line_key("outside", marker="X", color=PURPLE, linestyle="", markersize=7),
    ]
    legend_below(figure, keys)
    return figure


def fanned_decisions(result: BacktestResult, longest_bars: int) -> IntArray:
    """Places among the decisions of up to FANS evenly spread ones, whose longest horizon ends inside the span where
    any does."""
    whole = np.flatnonzero(result.decisions + longest_bars < result.span.stop)
    among = whole if len(whole) else np.arange(len(result.decisions))
    n = min(FANS, len(among))
    return np.asarray(among[(len(among) * (2 * np.arange(n) + 1)) // (2 * n)], np.int64)


def _fan(axes: "Axes", result: BacktestResult, data: MarketData, horizons: IntArray, d: int, colour: str) -> None:
    """Price against the decision's, before and after it, over the quantiles; straight from one horizon to the next."""
    assert result.encoded is not None
    at, longest = int(result.decisions[d]), int(horizons[-1])
    unit_bars, unit = (BARS_PER_DAY, "days") if longest >= 3 * BARS_PER_DAY else (BARS_PER_DAY // 24, "hours")
    quantiles = np.vstack([np.zeros(len(QUANTILE_LEVELS)), np.expm1(result.encoded.quantiles[d].astype(np.float64))])
    when = np.concatenate([[0], horizons]) / unit_bars
    for low, high, alpha in _PAIRS:
        axes.fill_between(
            when, 100 * quantiles[:, low], 100 * quantiles[:, high], color=colour, alpha=alpha, linewidth=0, zorder=1
        )
    axes.plot(when, 100 * quantiles[:, _MEDIAN], color=colour, linewidth=1.4, linestyle="--", zorder=2)
    first, last = max(0, at - longest // 2), min(at + longest, result.span.stop - 1)
    bars = np.unique(np.linspace(first, last, min(_POINTS, last - first + 1)).astype(np.int64))
    change = 100 * (np.asarray(data.mark[bars]) / float(data.mark[at]) - 1.0)
    axes.plot((bars - at) / unit_bars, change, color=INK, linewidth=0.9, zorder=3)
    axes.axvline(0.0, color=INK, linewidth=0.8, linestyle=":", zorder=2)
    _outcomes(axes, at, horizons, 100 * quantiles[1:], data, result.span.stop, unit_bars)
    closed = np.datetime64(int(data.bars.close_ts_ns[at]), "ns").astype("datetime64[m]")
    axes.set_title(str(closed).replace("T", " "), fontsize=8.5, color=INK)
    axis_label(axes, x=f"{unit} from the decision")


def _outcomes(
    axes: "Axes", at: int, horizons: IntArray, quantiles: FloatArray, data: MarketData, stop: int, unit_bars: int
) -> None:
    """A mark where each horizon ended, another one where it fell outside the outer quantiles."""
    for horizon, forecast in zip(horizons.tolist(), quantiles, strict=True):
        if at + horizon < stop:
            change = 100 * (float(data.mark[at + horizon]) / float(data.mark[at]) - 1.0)
            inside = forecast[0] <= change <= forecast[-1]
            mark, colour, size = ("o", INK, 4.5) if inside else ("X", PURPLE, 7.0)
            axes.plot([horizon / unit_bars], [change], mark, color=colour, markersize=size, zorder=5)


def _grey(alpha: float) -> str:
    """The grey of a band as dark as alpha."""
    return f"#{round(255 - 150 * alpha):02x}" + f"{round(255 - 150 * alpha):02x}" * 2


def uncertainty_of(result: BacktestResult, data: MarketData, horizon_bars: int) -> FloatArray:
    """Predicted standard deviation (D,) over sigma * sqrt(horizon): what sizing.max_uncertainty is held against."""
    assert result.encoded is not None
    unit = sigma_of(data, result.decisions, np.array([horizon_bars]))[:, 0]
    return np.asarray(result.encoded.std[:, 0].astype(np.float64) / unit)


def refused_entries(result: BacktestResult, uncertainty: FloatArray, sizing: SizingConfig) -> tuple[int, int]:
    """(entries that sizing refused for doubt, entries that the policy wanted): BUY at a decision."""
    assert result.encoded is not None
    wanted = result.actions == Action.BUY
    in_doubt = (uncertainty > sizing.max_uncertainty) | (result.encoded.unfamiliarity > sizing.max_unfamiliarity)
    return int((wanted & in_doubt).sum()), int(wanted.sum())


def doubt_figure(
    results: Mapping[str, BacktestResult],
    data: MarketData,
    buckets: Mapping[str, BucketConfig],
    sizing: SizingConfig,
    title: str,
) -> "Figure | None":
    """A column per bucket: both doubts by action, and both over time in shares of their limits."""
    shown = {name: result for name, result in results.items() if result.encoded is not None and len(result.decisions)}
    if not shown:
        return None
    figure, grid = panels(3, len(shown), title, height=2.0)
    limits = {"uncertainty": sizing.max_uncertainty, "unfamiliarity": sizing.max_unfamiliarity}
    for column, (bucket, result) in enumerate(shown.items()):
        assert result.encoded is not None
        uncertainty = uncertainty_of(result, data, buckets[bucket].horizons_bars[0])
        doubts = {"uncertainty": uncertainty, "unfamiliarity": result.encoded.unfamiliarity.astype(np.float64)}
        bucket_head(grid[0, column], bucket)
        for row, (name, values) in enumerate(doubts.items()):
            near = _by_action(grid[row, column], values, result.actions, limits[name])
            axis_label(grid[row, column], x=name if near else f"{name} (limit: {limits[name]:g})")
        refused, wanted = refused_entries(result, uncertainty, sizing)
        corner(grid[0, column], f"{refused:,} of {wanted:,}\nentries refused" if wanted else "no entry wanted")
        _over_time(grid[2, column], doubts, limits, np.asarray(data.bars.close_ts_ns)[result.decisions])
    axis_label(grid[0, 0], y="of the action's\ndecisions, %")
    axis_label(grid[1, 0], y="of the action's\ndecisions, %")
    axis_label(grid[2, 0], y="median of the day,\n% of its limit")
    keys = [line_key(name, color=colour, linewidth=1.6) for name, colour in _ACTIONS.values()]
    keys += [line_key(f"{name} over time", color=colour, linewidth=1.2) for name, colour in _DOUBTS.items()]
    keys.append(line_key("limit: no lot is opened beyond", color=RED, linewidth=1.0, linestyle="--"))
    legend_below(figure, keys)
    return figure


def _by_action(axes: "Axes", values: FloatArray, actions: IntArray, limit: float) -> bool:
    """How the doubt was spread over the decisions of each action; whether the limit is near enough to be drawn."""
    known = np.isfinite(values)
    if not known.any():
        return False
    low, high = float(values[known].min()), float(values[known].max())
    edges = np.linspace(low, max(high, low + 1e-3 * max(1.0, abs(low))), 31)
    for action, (_, colour) in _ACTIONS.items():
        chosen = values[known & (actions == action)]
        if len(chosen):
            share = 100 * np.histogram(chosen, edges)[0] / len(chosen)
            axes.stairs(share, edges, color=colour, linewidth=1.6)
    near = limit <= 1.5 * high
    if near:
        axes.axvline(limit, color=RED, linewidth=1.0, linestyle="--")
    axes.set_ylim(bottom=0.0)
    return near


def _over_time(
    axes: "Axes", doubts: Mapping[str, FloatArray], limits: Mapping[str, float], close_ts_ns: IntArray
) -> None:
    """Median of each UTC day, in % of the limit."""
    by = utc_days(close_ts_ns)
    for name, values in doubts.items():
        median = pd.Series(100 * values / limits[name]).groupby(by).median()
        axes.plot(median.index.to_numpy() + 0.5, median.to_numpy(), color=_DOUBTS[name], linewidth=1.1)
    axes.axhline(100.0, color=RED, linewidth=1.0, linestyle="--")
    axes.set_ylim(bottom=0.0)
    date_axis(axes, maxticks=5)
    axis_label(axes, x="UTC")
