"""reports/bench/learn.png: shares of the optimum by level beside rivals, and scores against seconds of training."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.learn_jobs import LEVEL_GOALS, Seconds
from bench.learn_lines import interval
from bench.learn_runs import LINEAR, NO_PREDICTION, OURS, SB3, Runs
from btcai.pictures import png_bytes
from btcai.yardstick.drift import LEVELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart by colour-blind readers.
_LEARNERS = {OURS: "#0072B2", SB3: "#D55E00", LINEAR: "#777777", NO_PREDICTION: "#E69F00"}
_LEVELS = dict(zip(LEVELS, ("#009E73", "#0072B2", "#E69F00", "#D55E00"), strict=True))
_WIDTH, _HEIGHT, _DPI = 11.0, 4.8, 110
_LOWEST = 0.4  # of what is shown: below is far from a result
_TICKS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 240.0)


def draw(runs: Runs, seconds: Seconds, path: Path) -> None:
    """Write the picture of the runs there are; a kind without runs is left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    by_level, by_seconds = figure.subplots(1, 2)
    _levels(by_level, runs, seconds)
    _curves(by_seconds, runs)
    for axes in (by_level, by_seconds):
        axes.set_ylabel("share of the optimum, hidden drift")
        axes.grid(axis="y", color="#DDDDDD")
        axes.set_axisbelow(True)
        axes.axhline(1.0, color="#222222", linewidth=0.8)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, loc="lower left" if axes is by_level else "lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(figure))


def _levels(axes: "Axes", runs: Runs, seconds: Seconds) -> None:
    """Means with 95 % intervals over training seeds, and the goals as short lines."""
    kinds = [(OURS, seconds.hidden), (OURS, seconds.long), (SB3, seconds.rival), (LINEAR, 0.0)]
    kinds.append((NO_PREDICTION, seconds.hidden))
    for k, (learner, its_seconds) in enumerate(kinds):
        color, label = _LEARNERS[learner], f"{learner}{f', {its_seconds:g} s' if its_seconds else ''}"
        for place, level in enumerate(LEVELS):
            scores = [run.outcome.score for run in runs.like(f"{level}, hidden", learner, its_seconds)]
            if scores:
                found = interval(scores)
                error = np.nan_to_num(found.high - found.ratio_of_sums)
                marker = "s" if its_seconds == seconds.long else "o"
                x, y = place + 0.13 * (k - 2), found.ratio_of_sums
                axes.errorbar(
                    x, y, error, markersize=4, capsize=2, linestyle="none", label=label, color=color, marker=marker
                )
                label = "_"  # named once
    for place, goal in enumerate(LEVEL_GOALS.values()):
        axes.plot((place - 0.4, place + 0.4), (goal, goal), color="#222222", linestyle=":", linewidth=1.0)
    axes.set_xticks(range(len(LEVELS)), [level.replace("_", " ") for level in LEVELS])
    axes.set_ylim(bottom=max(_LOWEST, axes.get_ylim()[0]))
    axes.set_title("after training, 95 % intervals over seeds; dotted: goals of the lower end", fontsize=8)


def _curves(axes: "Axes", runs: Runs) -> None:
    """A complete run a point for ours, marks along one run for the rival."""
    for level, color in _LEVELS.items():
        market = f"{level}, hidden"
        ours = [(budget, runs.like(market, OURS, budget)) for budget in runs.budgets(market, OURS)]
        points = [(budget, np.mean([run.outcome.score for run in kind])) for budget, kind in ours]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=3, label=level.replace("_", " "))
        rivals = [run.outcome.curve for budget in runs.budgets(market, SB3) for run in runs.like(market, SB3, budget)]
        if rivals:
            seconds, scores = np.mean([curve for curve in rivals if len(curve) == len(rivals[0])], axis=0).T
            axes.plot(seconds, scores, color=color, linestyle="--", linewidth=1.0)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [seconds for seconds in _TICKS_S if low <= seconds <= high]
    axes.set_xticks(ticks, [f"{seconds:g}" for seconds in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("seconds of training")
    axes.set_ylim(bottom=max(_LOWEST, axes.get_ylim()[0]))
    axes.set_title(f"ours: complete runs of each budget; dashed: {SB3}", fontsize=8)
