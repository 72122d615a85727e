"""The report's small multiples: how each bucket learned, and whether its forecasts mean what they say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from btcai.evaluation.figures import DPI, INK, SOFT, STYLES, WIDTH_INCHES, plain
from btcai.evaluation.formats import duration, percent
from btcai.evaluation.reliability import Reliability
from btcai.schema import QUANTILE_LEVELS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: Mapping[str, Mapping[str, Any]] = {
    "training span": {"color": "#777777", "linewidth": 1.0},
    "validation span": {"color": "#0072B2", "linewidth": 1.4, "marker": "o", "markersize": 3.2},
    "net return after costs, validation span": {
        "color": "#D55E00",
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
    figure, grid = _panels(len(_MEASURES), len(curves), title, height=2.0)
    for column, (bucket, rows) in enumerate(curves.items()):
        _head(grid[0, column], bucket)
        for row, measure in enumerate(_MEASURES):
            _curve(grid[row, column], rows, measure)
        grid[-1, column].set_xlabel("update", fontsize=8, color=INK)
    for row, measure in enumerate(_MEASURES):
        grid[row, 0].set_ylabel(measure.axis, fontsize=8, color=INK)
    _legend(figure, [*_line_keys(), *_shade_keys()])
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
        _say(axes, "not measured")
    elif measure.log:
        axes.set_yscale("log")


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
    figure, grid = _panels(depth, len(forecasts), title, height=2.35)
    for column, (bucket, horizons) in enumerate(forecasts.items()):
        _head(grid[0, column], bucket)
        for row in range(depth):
            if row < len(horizons):
                _reliability(grid[row, column], horizons[row], STYLES[bucket][0])
            else:
                grid[row, column].set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("level of the quantile", fontsize=8, color=INK)
    for axes in grid[:, 0]:
        axes.set_ylabel("outcomes below it", fontsize=8, color=INK)
    _legend(figure, _band_keys())
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


def _panels(rows: int, columns: int, title: str, height: float) -> tuple["Figure", NDArray[np.object_]]:
    """Axes (rows, columns) in one figure as wide as the page, each row `height` inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, 0.9 + height * rows), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=INK)
    grid = figure.subplots(rows, columns, squeeze=False, sharex="col")
    for axes in grid.flat:
        plain(axes)
        axes.tick_params(labelsize=8)
    return figure, grid


def _head(axes: "Axes", bucket: str) -> None:
    axes.set_title(bucket, fontsize=9.5, color=STYLES[bucket][0], fontweight="bold")


def _say(axes: "Axes", text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8.5, color=SOFT)


def _legend(figure: "Figure", keys: "list[Artist]") -> None:
    figure.legend(
        handles=keys, loc="outside lower center", ncols=len(keys), fontsize=8.5, frameon=False, labelcolor=INK
    )


def _line_keys() -> "list[Artist]":
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=name, **style) for name, style in _LINES.items()]


def _shade_keys() -> "list[Artist]":
    from matplotlib.patches import Patch

    return [Patch(facecolor=shade, edgecolor="#BBBBBB", label=phase) for phase, shade in _SHADES.items()]


def _band_keys() -> "list[Artist]":
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    forms = [Line2D([], [], label=name, **{"color": SOFT, **style}) for name, style in _FORMS.values()]
    return [
        *forms,
        Line2D([], [], color=INK, linewidth=0.8, linestyle="--", label="right"),
        Patch(facecolor="#DDDDDD", label="where 95 % of right ones lie, by the outcomes apart"),
    ]
