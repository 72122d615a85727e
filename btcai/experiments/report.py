"""The comparison as tables, CSV and a picture."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from btcai.experiments.picture import ablation_png
from btcai.experiments.running import Plan
from btcai.experiments.statistics import Estimate
from btcai.experiments.table import Found, Row, Steps, rows, steps

if TYPE_CHECKING:
    from rich.console import RenderableType

_ROW_COLUMNS = ("subject", "share", "bucket", "arm", "seeds", "score", "score_low", "score_high", "gain", "gain_low",
                "gain_high", "chance", "verdict")  # fmt: skip
_STEPS_COLUMNS = ("subject", "bucket", "arm", "share", "target", "seeds", "ratio", "ratio_low", "ratio_high")


def left(plan: Plan) -> str:
    """What there is to train: "12 of 40 trainings are left, about 9 minutes"."""
    return f"{len(plan.left)} of {len(plan.keys)} trainings are left{about(plan.seconds_left)}"


def about(seconds: float | None) -> str:
    """Of what is left: ", about 9 minutes"; nothing where that is none or not known."""
    return f", about {max(1, round(seconds / 60))} minutes" if seconds else ""


def view(found: Found, seed: int) -> "RenderableType":
    """The tables in the terminal; the steps beside where there are several budgets."""
    from rich.console import Group

    scores = Table("on", "budget", "bucket", "arm", "seeds", "score [95 %]", "gain [95 %]", "chance", "verdict")
    for row in rows(found, seed):
        gain = "" if row.gain is None else _told(row.gain, "+.3f")
        chance = "" if row.chance is None else f"{row.chance:.3f}"
        scores.add_row(
            row.subject, f"{row.share:g}", row.bucket, row.arm, str(row.seeds), _told(row.score, ".3f"), gain, chance,
            row.verdict or "",
        )  # fmt: skip
    table = Table("on", "bucket", "arm", "from scratch with", "scores", "seeds", "steps to it, of its [95 %]")
    found_steps = steps(found, seed)
    for one in found_steps:
        ratio = _told(one.ratio, ".2f")
        table.add_row(
            one.subject, one.bucket, one.arm, f"{one.share:g}", f"{one.target:.3f}", str(one.seeds), ratio
        )  # fmt: skip
    return Group(scores, table) if found_steps else scores


def write(found: Found, folder: Path, seed: int) -> None:
    """scores.csv, steps.csv and ablation.png."""
    folder.mkdir(parents=True, exist_ok=True)
    made = rows(found, seed)
    _csv(folder / "scores.csv", _ROW_COLUMNS, (_row(row) for row in made))
    _csv(folder / "steps.csv", _STEPS_COLUMNS, (_step(one) for one in steps(found, seed)))
    if found:
        (folder / "ablation.png").write_bytes(ablation_png(found, made))


def _row(row: Row) -> tuple[object, ...]:
    gain = ("", "", "") if row.gain is None else _figures(row.gain)
    return (
        row.subject,
        row.share,
        row.bucket,
        row.arm,
        row.seeds,
        *_figures(row.score),
        *gain,
        "" if row.chance is None else f"{row.chance:.4g}",
        row.verdict or "",
    )


def _step(one: Steps) -> tuple[object, ...]:
    return one.subject, one.bucket, one.arm, one.share, f"{one.target:.6g}", one.seeds, *_figures(one.ratio)


def _figures(estimate: Estimate) -> tuple[str, ...]:
    return tuple(f"{figure:.6g}" for figure in estimate)


def _told(estimate: Estimate, form: str) -> str:
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _csv(path: Path, columns: tuple[str, ...], lines: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(lines)
