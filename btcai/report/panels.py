"""The report's small multiples: how each bucket learned, and whether its forecasts mean what they say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from btcai.evaluation.reliability import Reliability
from btcai.pictures import BLUE, INK, RED, SOFT, axis_label, legend_below, line_key, panels, patch_keys, say
from btcai.report.figures import BUCKET_COLOURS, bucket_head
from btcai.report.formats import duration, percent
from btcai.schema import QUANTILE_LEVELS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: Mapping[str, Mapping[str, Any]] = {
    "training span": {"color": "#777777", "linewidth": 1.0},
    "validation span": {"color": BLUE, "linewidth": 1.4, "marker": "o", "markersize": 3.2},
    "net return after costs, validation span": {
        "color": RED,
        "linewidth": 1.4,
        "linestyle": "--",
        "marker": "s",
        "markersize": 2.8,
    },
}
_FORMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "raw": ("as learned", {"color": "#999999", "linewidth": 1.0, "linestyle": ":", "marker": "x", "markersize": 3.5}),
    "static": ("calibrated, as in the bundle", {"linewidth": 1.4, "marker": "o", "markersize": 4}),
    "adaptive": ("adaptive", {"color": INK, "linewidth": 1.0, "marker": "s", "markersize": 2.2}),
}
"""Form of the quantiles -> its name, and how it is drawn; one without a colour takes the bucket's."""
_SHADES = {"prediction": "#FFFFFF", "PPO": "#F1F1ED", "consolidation": "#DCDCD4"}


@dataclass(frozen=True, kw_only=True)
class _Measure:
    """One row of panels: its axis, and which column of the curves is drawn as which of _LINES."""

    axis: str
    columns: Mapping[str, str]
    log: bool = False


_MEASURES = (
    _Measure(
        axis="forecast loss",
        columns={
            "forecast_loss": "training span",
            "auxiliary": "training span",
            "valid_forecast_loss": "validation span",
        },
    ),
    _Measure(
        axis="score, log return",
        columns={"valid_score": "validation span", "valid_net_profit": "net return after costs, validation span"},
    ),
    _Measure(axis="entropy, nats", columns={"entropy": "training span"}),
    _Measure(axis="KL an update, nats", columns={"kl": "training span"}, log=True),
)


def training_figure(curves: Mapping[str, pd.DataFrame], title: str) -> "Figure":
    """A column per bucket, a row per measure, over the updates of all phases (curves.read_curves)."""
    figure, grid = panels(len(_MEASURES), len(curves), title, height=2.0, sharex="col")
    for column, (bucket, rows) in enumerate(curves.items()):
        bucket_head(grid[0, column], bucket)
        for row, measure in enumerate(_MEASURES):
            _curve(grid[row, column], rows, measure)
        axis_label(grid[-1, column], x="update")
    for row, measure in enumerate(_MEASURES):
        axis_label(grid[row, 0], y=measure.axis)
    legend_below(figure, [*_line_keys(), *patch_keys(_SHADES)])
    return figure


def _curve(axes: "Axes", rows: pd.DataFrame, measure: _Measure) -> None:
    """One measure of one bucket, a line per phase; says so where nothing was measured."""
    _shade(axes, rows)
    drawn = 0
    for _, first, last in _phases(rows):
        phase = rows.iloc[first - 1 : last]
        for column in phase.columns.intersection(list(measure.columns)):
            values = phase[column].dropna()
            values = values[values > 0] if measure.log else values
            axes.plot(values.index.to_numpy() + 1, values.to_numpy(), **_LINES[measure.columns[column]])
            drawn += len(values)
    if not drawn:
        axes.set_yticks([])
        say(axes, "not measured")
    elif measure.log:
        axes.set_yscale("log")
    else:
        _leave_out_spikes(axes)


def _leave_out_spikes(axes: "Axes") -> None:
    """One update in hundreds far above the rest would leave nothing else to be seen: it goes out at the top."""
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    low, high = (float(np.nanquantile(values, share)) for share in (0.0, 0.99))
    if float(np.nanmax(values)) > high + 2 * (high - low) > low:
        axes.set_ylim(top=high + 0.3 * (high - low))


def _shade(axes: "Axes", rows: pd.DataFrame) -> None:
    for phase, first, last in _phases(rows):
        kind = next((kind for kind in ("consolidation", "PPO") if kind in phase), "prediction")
        axes.axvspan(first - 0.5, last + 0.5, color=_SHADES[kind], linewidth=0, zorder=0)
    axes.set_xlim(0.5, max(1, len(rows)) + 0.5)


def _phases(rows: pd.DataFrame) -> Iterator[tuple[str, int, int]]:
    """(phase, first update, last update), counted over all phases."""
    starts = np.flatnonzero(rows["phase"].ne(rows["phase"].shift()))
    for start, stop in pairwise([*starts.tolist(), len(rows)]):
        yield str(rows["phase"].iloc[start]), start + 1, stop


def calibration_figure(forecasts: Mapping[str, tuple[Reliability, ...]], title: str) -> "Figure":
    """A column per bucket, a row per horizon: share of outcomes below each predicted quantile beside its level."""
    depth = max(map(len, forecasts.values()))
    figure, grid = panels(depth, len(forecasts), title, height=2.35, sharex="col")
    for column, (bucket, horizons) in enumerate(forecasts.items()):
        bucket_head(grid[0, column], bucket)
        for row in range(depth):
            if row < len(horizons):
                _reliability(grid[row, column], horizons[row], BUCKET_COLOURS[bucket])
            else:
                grid[row, column].set_axis_off()
    for axes in grid[-1]:
        axis_label(axes, x="level of the quantile")
    for axes in grid[:, 0]:
        axis_label(axes, y="outcomes below it")
    legend_below(figure, _band_keys())
    return figure


def _reliability(axes: "Axes", found: Reliability, colour: str) -> None:
    levels = np.asarray(QUANTILE_LEVELS)
    # The ends of the band at levels 0 and 1, where every share is known.
    axes.fill_between([0, *levels, 1], [0, *found.low, 1], [0, *found.high, 1], color="#DDDDDD", linewidth=0, zorder=1)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--", zorder=2)
    alpha = 1.0 if found.is_judged else 0.45
    for form, (_, style) in _FORMS.items():
        observed = getattr(found, form).observed
        if np.isfinite(observed).all():
            axes.plot(levels, observed, alpha=alpha, zorder=3, **{"color": colour, **style})
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    axes.text(0.04, 0.96, duration(found.horizon_bars), transform=axes.transAxes, fontsize=9, va="top", color=INK)
    axes.text(0.96, 0.04, _counted(found), transform=axes.transAxes, fontsize=7.5, va="bottom", ha="right", color=INK)


def _counted(found: Reliability) -> str:
    """What a panel rests on, in its corner."""
    if not found.outcomes:
        return "no outcome ends\ninside the span"
    if not found.is_judged:
        return f"{found.apart} outcomes apart:\ntoo few to judge"
    static, adaptive = (percent(held.coverage_frac, 0) for held in (found.static, found.adaptive))
    return f"{found.apart:,} outcomes apart\n90 % interval\nholds {static}\nadaptive {adaptive}"


def _line_keys() -> "list[Artist]":
    return [line_key(name, **style) for name, style in _LINES.items()]


def _band_keys() -> "list[Artist]":
    return [
        *(line_key(name, **{"color": SOFT, **style}) for name, style in _FORMS.values()),
        line_key("right", color=INK, linewidth=0.8, linestyle="--"),
        *patch_keys({"where 95 % of right ones lie, by the outcomes apart": "#DDDDDD"}),
    ]
