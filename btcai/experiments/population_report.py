"""A population as tables, CSV, JSON and a picture."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from btcai.experiments.evolution import BEST, UNCHANGED, Found
from btcai.experiments.population import Population, Round, Step
from btcai.pictures import png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType


def view(found: Found) -> "RenderableType":
    """What the best member is worth beside the settings as they are, and the settings that it had, round by round."""
    from rich.console import Group

    worth = Table("", "score it was chosen by", "score elsewhere")
    for name, line in found.lines.items():
        worth.add_row(name, _told(line.rounds[-1].score), _told(line.elsewhere))
    best, present = found.lines[BEST].rounds, found.lines[UNCHANGED].rounds[0].settings
    schedule = Table(BEST, "as configured", *(f"round {one.number}" for one in best))
    schedule.add_row("score", "", *(_told(one.score) for one in best))
    for name in sorted(present):
        schedule.add_row(name, f"{present[name]:.4g}", *(f"{one.settings[name]:.4g}" for one in best))
    return Group(worth, schedule)


def write(found: Found, population: Population, folder: Path) -> None:
    """population.json, population.csv (every round of every member) and population.png."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"asked": asdict(population), "lines": {name: asdict(line) for name, line in found.lines.items()}}
    text = json.dumps(told, indent=1, allow_nan=False)
    (folder / "population.json").write_text(text + "\n", encoding="utf-8")
    _write_csv(found.steps, folder / "population.csv")
    (folder / "population.png").write_bytes(_png(found))


def _write_csv(steps: list[Step], path: Path) -> None:
    """went_on_from: the member whose weights a round began with; empty in the first round."""
    names = sorted(steps[0].round.settings)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "member", "went_on_from", "score", "seconds", *names])
        for step in _ordered(steps):
            one, score = step.round, "" if step.round.score is None else f"{step.round.score:.6g}"
            settings = (one.settings[name] for name in names)
            before = _origin(step, steps)
            origin = "" if before is None else before.member
            writer.writerow([one.number, step.member, origin, score, f"{one.seconds:.1f}", *settings])


def _ordered(steps: list[Step]) -> list[Step]:
    return sorted(steps, key=lambda step: (step.round.number, step.member))


def _origin(step: Step, steps: list[Step]) -> Step | None:
    """The round that this one went on from; of members that share it the own one, else the first."""
    origins = [one for one in _ordered(steps) if one.round.id == step.round.before]
    return min(origins, key=lambda one: one.member != step.member, default=None)


def _png(found: Found) -> bytes:
    """Scores by round: a line from what a member went on from to what it made of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    for step in found.steps:
        ends = [one.round for one in (_origin(step, found.steps), step) if one is not None]
        _line(axes, ends, color="#0072B2", marker="o", markersize=4, linewidth=0.8, alpha=0.6)
    axes.lines[0].set_label("a member")
    best, unchanged = found.lines[BEST].rounds, found.lines[UNCHANGED].rounds
    _line(axes, best, color="#D55E00", linewidth=1.6, label=BEST)
    _line(axes, unchanged, color="#777777", linestyle="--", linewidth=1.2, label=UNCHANGED)
    axes.set_xticks(range(1, len(best) + 1))
    axes.set_xlabel("round")
    axes.set_ylabel("score, mean over buckets and seeds")
    axes.legend(frameon=False)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    return png_bytes(figure)


def _line(axes: "Axes", rounds: list[Round], **style: Any) -> None:
    """Rounds without a score leave a gap."""
    scores = [float("nan") if one.score is None else one.score for one in rounds]
    axes.plot([one.number for one in rounds], scores, **style)


def _told(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
