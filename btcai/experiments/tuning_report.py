"""A search as a table, CSV and a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from btcai.experiments.tuning import ended, is_present
from btcai.pictures import png_bytes

if TYPE_CHECKING:
    from optuna.study import Study
    from rich.console import RenderableType

CSV = "trials.csv"
SHOWN = 5
"""Trials in the terminal, as many as fit beside each other; all of them are in the CSV."""


def view(study: "Study", folder: Path) -> "RenderableType":
    """A column per trial, the best first, the settings as they are last where they are not among these; a row per
    setting. Below, where all trials are."""
    done = sorted(ended(study), key=lambda one: -(one.value or 0.0))
    shown = [*done[:SHOWN], *filter(is_present, done[SHOWN:])]
    caption = f"all {len(done)} trials: {folder / CSV}"
    table = Table("trial", box=SIMPLE_HEAD, show_edge=False, collapse_padding=True, pad_edge=False, caption=caption)
    for trial in shown:
        table.add_column("as is" if is_present(trial) else str(trial.number), justify="right")
    table.add_row("score", *(f"{trial.value:.4f}" for trial in shown))
    for name in sorted({name for trial in done for name in trial.params}):
        table.add_row(name, *(f"{trial.params[name]:.3g}" for trial in shown))
    return table


def write(study: "Study", folder: Path) -> None:
    """CSV and tuning.png: the scores in the order of the trials, and the best so far."""
    folder.mkdir(parents=True, exist_ok=True)
    study.trials_dataframe(attrs=("number", "value", "params", "state")).to_csv(folder / CSV, index=False)
    (folder / "tuning.png").write_bytes(_png(study))


def _png(study: "Study") -> bytes:
    from matplotlib.figure import Figure

    done = ended(study)
    figure = Figure(figsize=(8.0, 4.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    scores = [float(trial.value or 0.0) for trial in done]
    best = [max(scores[: k + 1]) for k in range(len(scores))]
    numbers = [trial.number for trial in done]
    axes.plot(numbers, scores, linestyle="", marker="o", markersize=4, color="#0072B2", label="a trial")
    axes.step(numbers, best, where="post", color="#D55E00", linewidth=1.4, label="best so far")
    for trial in filter(is_present, done):
        axes.axhline(trial.value or 0.0, color="#777777", linestyle="--", linewidth=1.0, label="as configured")
    axes.set_xlabel("trial")
    axes.set_ylabel("score, mean over buckets and seeds")
    axes.legend(frameon=False)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    return png_bytes(figure)
