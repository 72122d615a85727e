"""The market itself: its spans in time, its stylised facts; and what every strategy made of each fold of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from btcai.evaluation.result import label
from btcai.evaluation.rows import Row
from btcai.evaluation.stress import StressRow
from btcai.features.splits import Splits
from btcai.pictures import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    SOFT,
    axis_label,
    blank,
    canvas,
    date_axis,
    days,
    heat_map,
    legend_below,
    line_key,
    patch_keys,
    plain,
    thousands,
)
from btcai.report.formats import percent, ratio
from btcai.schema import BAR_NS, BARS_PER_DAY, FloatArray, MarketData, SealedSpan, Span
from btcai.simulator.facts import Fact, autocorrelation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = {
    "train": "#E3ECF3",
    "validation": "#F6E8C9",
    "test, folds numbered": "#DCEFE6",
    "sealed": "#E4E4E4",
}
_POINTS = 2000
_LAGS_MOST = 60
_SIZES = 10_000
"""Returns that the Student-t is fitted to, evenly spread: enough for its degrees, and quick."""


def spans_figure(data: MarketData, splits: Splits, title: str) -> "Figure":
    """The price up to the sealed span over the spans in time. data: unsealed; the grid says when later rows close."""
    figure, axes = canvas(title, height=3.0)
    bars = np.unique(np.linspace(0, len(data) - 1, min(_POINTS, len(data))).astype(np.int64))
    price = np.asarray(data.mark[bars])
    axes.plot(days(np.asarray(data.bars.close_ts_ns[bars])), price, color=INK, linewidth=0.9, zorder=3)
    spans: tuple[Span | SealedSpan, ...] = (splits.train, splits.valid, splits.test, splits.sealed)
    for name, span in zip(_SHADES, spans, strict=True):
        first, last = _ends(data, span)
        hatch = "///" if name.startswith("sealed") else None
        axes.axvspan(first, last, facecolor=_SHADES[name], edgecolor="#BBBBBB", hatch=hatch, linewidth=0, zorder=0)
    for number, fold in enumerate(splits.folds, start=1):
        first, last = _ends(data, fold)
        axes.axvline(first, color="#7FB79D", linewidth=0.8, zorder=1)
        axes.annotate(
            f"{number}", ((first + last) / 2, 0.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8,
            color=SOFT,
        )  # fmt: skip
    axes.set_yscale("log")
    _round_prices(axes, float(np.nanmin(price)), float(np.nanmax(price)))
    axes.margins(x=0.0)
    axis_label(axes, y="price, USDT (log scale)", x="UTC")
    date_axis(axes)
    keys = patch_keys(_SHADES)
    legend_below(figure, [*keys, *patch_keys({"purge and embargo: in no span": "#FFFFFF"})])
    return figure


def _ends(data: MarketData, span: Span | SealedSpan) -> tuple[float, float]:
    first, last = days(int(data.bars.close_ts_ns[0]) + BAR_NS * np.array([span.first, span.stop - 1], np.int64))
    return float(first), float(last)


def _round_prices(axes: "Axes", low: float, high: float) -> None:
    """Levels such as 20,000 and 30,000 in place of powers of ten."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    levels = np.asarray(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    if high > 3.0 * low:
        levels = np.outer(10.0 ** np.arange(-2, 8), [1.0, 2.0, 5.0]).ravel()
    axes.yaxis.set_major_locator(FixedLocator([float(level) for level in levels if level > 0]))
    axes.yaxis.set_minor_locator(NullLocator())
    thousands(axes)
    axes.set_ylim(low * (low / high) ** 0.08, high * (high / low) ** 0.05)


def folds_figure(rows: Sequence[Row], heads: Sequence[str], title: str) -> "Figure":
    """Net return of every strategy in every fold as a heat map; heads: what each fold is called."""
    gains = np.array([row.fold_returns for row in rows]).reshape(len(rows), len(heads))
    figure, axes = canvas(title, height=1.3 + 0.33 * len(rows))
    texts = [[percent(gain) for gain in row.fold_returns] for row in rows]
    heat_map(axes, gains, texts, [label(row.strategy) for row in rows], heads)
    axes.axhline(sum(row.is_bucket for row in rows) - 0.5, color=INK, linewidth=1.2)
    axis_label(axes, x="net return after costs within the fold; violet: a loss, orange: a gain")
    return figure


def stress_figure(rows: Sequence[StressRow], title: str) -> "Figure":
    """Net return of every strategy in every scenario, and how unfamiliar each bucket's network found it."""
    scenarios = list(dict.fromkeys(row.scenario for row in rows))
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    found = {(row.scenario, row.strategy): row for row in rows}
    figure = blank(title, 1.5 + 0.36 * len(scenarios))
    left, right = figure.subplots(1, 2, width_ratios=(len(strategies), len(strategies) - 1))
    gains = np.array([[found[one, name].net_return for name in strategies] for one in scenarios])
    texts = [[percent(float(gain)) for gain in row] for row in gains]
    heat_map(left, gains, texts, [name.replace("_", " ") for name in scenarios], [_broken(name) for name in strategies])
    axis_label(left, x="net return after costs")
    seen = [name for name in strategies if np.isfinite(found[scenarios[0], name].unfamiliarity)]
    strange = np.array([[found[one, name].unfamiliarity for name in seen] for one in scenarios])
    shown = [[ratio(float(value)) for value in row] for row in strange]
    heat_map(right, strange, shown, [""] * len(scenarios), [_broken(name) for name in seen], signed=False)
    axis_label(right, x="unfamiliarity, .99 quantile of decisions (validation span: 1)")
    for axes in (left, right):
        axes.tick_params(labelsize=8.5)
    return figure


def _broken(strategy: str) -> str:
    """A column's head in as many lines as words."""
    return label(strategy).replace(" ", "\n").replace("-", "-\n")


def facts_figure(data: MarketData, facts: Sequence[Fact], title: str) -> "Figure":
    """Returns against the normal and Student's t, how long moves remember, every fact in its band. data: unsealed."""
    figure = blank(title, 5.6)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.05))[0]
    upper, lower = left.subplots(2, 1)
    band = right.subplots()
    for axes in (upper, lower, band):
        plain(axes)
        axes.tick_params(labelsize=8)
    returns = bar_returns(data)
    _tails(upper, returns[np.isfinite(returns)])
    _memory(lower, returns)
    _bands(band, facts)
    return figure


def bar_returns(data: MarketData) -> FloatArray:
    """Log returns of closes (T - 1,), nan where either bar is missing."""
    return np.asarray(np.diff(np.log(np.where(data.bars.present, data.bars.close, np.nan))))


def _tails(axes: "Axes", returns: FloatArray) -> None:
    """Density of 5-minute returns in their standard deviations, logarithmic, so that tails show."""
    from scipy.stats import norm, t

    scaled = (returns - returns.mean()) / returns.std()
    edges = np.linspace(-15.0, 15.0, 121)
    density = np.histogram(scaled, edges)[0] / (len(scaled) * (edges[1] - edges[0]))
    middle = (edges[1:] + edges[:-1]) / 2
    seen = density > 0
    axes.plot(middle[seen], density[seen], ".", color=BLUE, markersize=3.5)
    fine = np.linspace(-15.0, 15.0, 301)
    axes.plot(fine, norm.pdf(fine), color=GREY, linewidth=1.1, linestyle="--")
    degrees, location, scale = t.fit(scaled[:: max(1, len(scaled) // _SIZES)])
    axes.plot(fine, t.pdf(fine, degrees, location, scale), color=ORANGE, linewidth=1.3)
    axes.set_yscale("log")
    axes.set_ylim(float(density[seen].min()) / 3, 3.0)
    axes.set_xlim(-15.0, 15.0)
    axis_label(axes, x="5-minute log return, standard deviations", y="density (log scale)")
    _inside(axes, ("seen", BLUE, "."), ("normal", GREY, "--"), (f"Student's t, {degrees:.1f} degrees", ORANGE, "-"))


def _memory(axes: "Axes", returns: FloatArray) -> None:
    """Autocorrelation of returns and of their size over lags from a bar to a week."""
    longest = min(7 * BARS_PER_DAY, len(returns) // 4)
    lags = np.unique(np.geomspace(1, longest, _LAGS_MOST).astype(np.int64))
    chance = 1.96 / np.sqrt(np.isfinite(returns).sum())
    axes.axhspan(-chance, chance, color="#DDDDDD", linewidth=0)
    for series, colour in ((np.abs(returns), BLUE), (returns, ORANGE)):
        remembered = [autocorrelation(series, lag) for lag in lags.tolist()]
        axes.plot(lags, remembered, color=colour, linewidth=1.3, marker=".", markersize=4)
    axes.axhline(0.0, color=INK, linewidth=0.6)
    axes.set_xscale("log")
    named = {1: "5 min", 12: "1 h", 288: "1 d", 2016: "7 d"}
    shown = [lag for lag in named if lag <= longest]
    axes.set_xticks(shown, [named[lag] for lag in shown])
    axes.set_xticks([], minor=True)
    axis_label(axes, x="lag (log scale)", y="autocorrelation")
    _inside(axes, ("size of returns", BLUE, "-"), ("returns", ORANGE, "-"), ("95 % of chance", "#DDDDDD", "-"))


def _bands(axes: "Axes", facts: Sequence[Fact]) -> None:
    """Each figure on its band, all bands drawn as long as each other."""
    axes.axvspan(0.0, 1.0, color="#DCEFE6", linewidth=0)
    for place, fact in enumerate(facts):
        where = (fact.value - fact.least) / (fact.most - fact.least)
        colour, mark = (INK, "o") if fact.holds else (RED, "X")
        if np.isfinite(where):
            axes.plot([np.clip(where, -0.45, 1.45)], [place], mark, color=colour, markersize=5.5)
        told = f"{fact.value:.3g}  ({fact.least:g} .. {fact.most:g})"
        axes.text(1.55, place, told, va="center", fontsize=7.5, color=colour)
    axes.set_yticks(range(len(facts)), [fact.name.replace("_", " ") for fact in facts], fontsize=7.5)
    axes.set_ylim(len(facts) - 0.4, -0.6)
    axes.set_xlim(-0.5, 2.75)
    axes.set_xticks([0.0, 1.0], ["least", "most"])
    axes.grid(visible=False, axis="y")
    axis_label(axes, x="place in the band that Binance's BTC/USDT shows")


def _inside(axes: "Axes", *keys: tuple[str, str, str]) -> None:
    """A small legend in the panel's emptiest corner: (label, colour, line or dot)."""
    handles = [
        line_key(text, color=colour, **({"marker": ".", "linestyle": ""} if line == "." else {"linestyle": line}))
        for text, colour, line in keys
    ]
    axes.legend(handles=handles, fontsize=7.5, labelcolor=INK, loc="upper right", framealpha=0.85, edgecolor="none")
