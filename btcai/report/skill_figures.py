"""What the forecasts are worth, drawn: coverage quarter by quarter, and CRPS beside the volatility forecast's."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from btcai.evaluation.daily_scores import FORMS
from btcai.evaluation.forecast_skill import QUARTER_LEAST, ForecastSkill, Quarter
from btcai.evaluation.reliability import INTERVAL_FRAC
from btcai.pictures import INK, ORANGE, PURPLE, RED, axis_label, legend_below, line_key, panels, patch_keys
from btcai.report.figures import BUCKET_COLOURS
from btcai.report.formats import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: Mapping[str, Mapping[str, Any]] = {
    "raw": {"color": "#999999", "marker": "x", "markersize": 4.5},
    "static": {"color": ORANGE, "marker": "o", "markersize": 4.5},
    "adaptive": {"color": INK, "marker": "s", "markersize": 4.5},
}
_NAMES = {"raw": "as learned", "static": "calibrated", "adaptive": "adaptive"}
_LOWEST = 0.70
"""Where the coverage axes begin; lower, by steps of 5 %, where a coverage lies below."""


def coverage_figure(skills: Sequence[ForecastSkill], title: str) -> "Figure | None":
    """A column per bucket, a row per horizon; in each the quarters of all spans, all on one scale that holds every
    coverage. None where nothing was judged."""
    buckets = list(dict.fromkeys(one.bucket for one in skills if one.quarters))
    if not buckets:
        return None
    horizons = {name: list(dict.fromkeys(o.horizon_bars for o in skills if o.bucket == name)) for name in buckets}
    depth = max(map(len, horizons.values()))
    lowest = _lowest(skills)
    figure, grid = panels(depth, len(buckets), title, height=1.9)
    for column, bucket in enumerate(buckets):
        for row, axes in enumerate(grid[:, column]):
            if row < len(horizons[bucket]):
                horizon = horizons[bucket][row]
                found = [one for one in skills if (one.bucket, one.horizon_bars) == (bucket, horizon)]
                _quarters(axes, found, lowest)
                few = "" if any(one.is_judged for one in found) else ": too few apart to judge"
                axes.set_title(f"{bucket}, {duration(horizon)}{few}", fontsize=8.5, color=BUCKET_COLOURS[bucket])
            else:
                axes.set_axis_off()
    for axes in grid[:, 0]:
        axis_label(axes, y="inside the\n90 % interval, %")
    keys = [line_key(_NAMES[form], linestyle="", **_STYLES[form]) for form in FORMS]
    keys += [line_key(f"at least {100 * QUARTER_LEAST:.0f} %", color=RED, linewidth=0.9, linestyle="--")]
    legend_below(figure, [*keys, *patch_keys({"where 95 % of right ones lie, by the outcomes apart": "#DDDDDD"})])
    return figure


def _lowest(skills: Sequence[ForecastSkill]) -> float:
    """Where the coverage axes begin, a share."""
    shares = [share for one in skills for quarter in one.quarters for share in quarter.coverage_frac]
    return float(min(_LOWEST, np.floor(20.0 * np.nanmin(shares)) / 20.0))


def _quarters(axes: "Axes", found: Sequence[ForecastSkill], lowest: float) -> None:
    """Of one bucket and horizon: the spans beside each other, a line between them."""
    names, place = [], 0
    for one in found:
        if place:
            axes.axvline(place - 0.5, color=INK, linewidth=0.6, linestyle=":")
        for quarter in one.quarters:
            _quarter(axes, place, quarter, lowest)
            names.append(f"{quarter.name[2:]}\n{one.span[:5]}")
            place += 1
    axes.axhline(100 * INTERVAL_FRAC, color=INK, linewidth=0.7)
    if found and found[0].is_limited:
        axes.axhline(100 * QUARTER_LEAST, color=RED, linewidth=0.9, linestyle="--")
    axes.set_xticks(range(place), names, fontsize=6.5)
    axes.set(xlim=(-0.6, place - 0.4), ylim=(100 * lowest, 101))


def _quarter(axes: "Axes", place: int, quarter: Quarter, lowest: float) -> None:
    low, high = 100 * max(lowest, quarter.low), 100 * quarter.high
    axes.bar(place, high - low, 0.9, bottom=low, color="#DDDDDD", linewidth=0, zorder=1)
    for number, (form, share) in enumerate(zip(FORMS, quarter.coverage_frac, strict=True)):
        axes.plot([place + 0.25 * (number - 1)], [100 * share], linestyle="", clip_on=False, **_STYLES[form])


def crps_figure(skills: Sequence[ForecastSkill], title: str) -> "Figure | None":
    """A panel per span: skill of every judged horizon with its 95 % interval; None where nothing was judged."""
    judged = [one for one in skills if one.is_judged and np.isfinite(one.adaptive.skill)]
    spans = list(dict.fromkeys(one.span for one in judged))
    if not spans:
        return None
    names = list(dict.fromkeys((one.bucket, one.horizon_bars) for one in judged))
    figure, grid = panels(1, len(spans), title, height=0.8 + 0.36 * len(names))
    for column, (axes, span) in enumerate(zip(grid[0], spans, strict=True)):
        axes.grid(False, axis="y")
        axes.axvline(0.0, color=INK, linewidth=0.8)
        for one in judged:
            if one.span == span:
                _skill(axes, len(names) - 1 - names.index((one.bucket, one.horizon_bars)), one)
        labels = [f"{bucket}, {duration(horizon)}" for bucket, horizon in reversed(names)]
        axes.set_yticks(range(len(names)), labels if column == 0 else [""] * len(names))
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_title(f"{span} span", fontsize=9.5, color=INK)
        axis_label(axes, x="CRPS lower than the volatility forecast's, %")
    legend_below(figure, [*(line_key(_NAMES[f], linewidth=1.6, **_STYLES[f]) for f in FORMS), _wide()])
    return figure


def _wide() -> Any:
    return line_key("bar: 95 % interval; left of 0 volatility alone is better", color=PURPLE, linestyle="")


def _skill(axes: "Axes", place: int, one: ForecastSkill) -> None:
    for number, form in enumerate(FORMS):
        found, y = getattr(one, form), place + 0.22 * (1 - number)
        if np.isfinite(found.skill):
            style = _STYLES[form]
            axes.plot([100 * end for end in found.skill_interval], [y, y], color=style["color"], linewidth=1.6)
            axes.plot([100 * found.skill], [y], linestyle="", **style)
