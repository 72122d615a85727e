"""What was found of the newest bars, as files and as a table: metrics.json, table.csv, forecasts.csv, drift.png."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from btcai.errors import ArtifactError
from btcai.pictures import png_bytes
from btcai.watch.drift import Drift, FeatureDrift
from btcai.watch.fit import BucketFit, Fit
from btcai.watch.verdict import Finding, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

METRICS = "metrics.json"
SHOWN = 12
WORDS: dict[Verdict, str] = {
    "steady": "steady",
    "retrain": "drifted, train again",
    "look_first": "very unlike, look at them before anything is trained on them",
}


def write_finding(folder: Path, finding: Finding) -> None:
    """Four files; the same finding gives the same bytes."""
    record = json.dumps(_record(finding), indent=2, allow_nan=False)
    (folder / METRICS).write_text(f"{record}\n", encoding="utf-8")
    features = by_distance(finding.drift)
    (folder / "table.csv").write_text(_csv(FeatureDrift, features), encoding="utf-8")
    (folder / "forecasts.csv").write_text(_csv(BucketFit, finding.fit.buckets), encoding="utf-8")
    (folder / "drift.png").write_bytes(_picture(finding))


def read_verdict(folder: Path) -> tuple[Verdict, str]:
    """The verdict that write_finding left in `folder`, and its reasons; ArtifactError where there is none."""
    path = folder / METRICS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        verdict: Verdict = found["verdict"]
        return verdict, str(found["reasons"])
    except (OSError, ValueError, LookupError) as error:
        raise ArtifactError(f"{path} holds no verdict ({error}); make it with: btcai stage drift") from error


def by_distance(drift: Drift) -> list[FeatureDrift]:
    """The strangest first: distance over the largest that the training span shows."""
    return sorted(drift.features, key=lambda found: found.ks / max(found.largest_ks, 1e-9), reverse=True)


def finding_view(finding: Finding) -> "RenderableType":
    """The verdict, the forecasts of every bucket, and the SHOWN strangest features."""
    from rich.console import Group
    from rich.text import Text

    drift, fit = finding.drift, finding.fit
    features = _table(
        ("feature", "KS", "usual", "largest", "PSI"),
        [
            (one.is_unusual, one.name, one.ks, one.usual_ks, one.largest_ks, one.psi)
            for one in by_distance(drift)[:SHOWN]
        ],
    )
    forecasts = _table(
        ("forecasts", "loss", "usual", "largest", "in 90 %"),
        [
            (one.is_unusual, one.bucket, one.loss, one.usual_loss, one.largest_loss, one.coverage_frac)
            for one in fit.buckets
        ],
    )
    return Group(
        Text(f"{finding.days}, against {len(drift.window_scores)} windows of the training span", style="dim"),
        features,
        *([forecasts] if fit.buckets else []),
        Text(text(finding), style="green" if finding.verdict == "steady" else "bold red"),
    )


def text(finding: Finding) -> str:
    """One line."""
    drift, fit = finding.drift, finding.fit
    unusual = sum(found.is_unusual for found in drift.features)
    low, high = min(drift.window_volatilities), max(drift.window_volatilities)
    reasons = f" ({'; '.join(finding.reasons)})" if finding.reasons else ""
    return (
        f"{WORDS[finding.verdict]}{reasons}: {unusual} of {len(drift.features)} features are further off than "
        f"in any window of the training span; mean distance {drift.score:.3f}, of windows up to "
        f"{max(drift.window_scores):.3f} (chance {drift.chance:.2f}); volatility {drift.volatility:.0%} a year, of "
        f"windows {low:.0%} to {high:.0%}; {_forecasts(fit)}"
    )


def _forecasts(fit: Fit) -> str:
    if fit.note:
        return f"forecasts not judged: {fit.note}"
    return (
        f"forecast misfit {fit.score:.2f}, of windows up to {max(fit.window_scores, default=float('nan')):.2f} "
        "(mean of the buckets, each 0 on its usual window of the test span and 1 on its worst)"
    )


def _record(finding: Finding) -> dict[str, object]:
    drift, fit = finding.drift, finding.fit
    return {
        "days": finding.days,
        "verdict": finding.verdict,
        "reasons": "; ".join(finding.reasons),
        "score": drift.score,
        "largest_window_score": max(drift.window_scores),
        "chance": drift.chance,
        "psi": drift.psi,
        "features": len(drift.features),
        "unusual_features": sum(found.is_unusual for found in drift.features),
        "volatility": drift.volatility,
        "window_volatility_low": min(drift.window_volatilities),
        "window_volatility_high": max(drift.window_volatilities),
        "forecast_note": fit.note,
    }


def _csv(kind: type[FeatureDrift | BucketFit], rows: Sequence[FeatureDrift | BucketFit]) -> str:
    target = io.StringIO()
    writer = csv.DictWriter(target, [*(field.name for field in fields(kind)), "is_unusual"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**asdict(row), "is_unusual": row.is_unusual})
    return target.getvalue()


def _table(head: Sequence[str], rows: Sequence[tuple[bool, str, *tuple[float, ...]]]) -> "RenderableType":
    """Rows: whether it is unusual, its name, its figures."""
    from rich.table import Table
    from rich.text import Text

    table = Table(pad_edge=False)
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left")
    for is_unusual, name, *figures in rows:
        table.add_row(Text(name, style="bold red" if is_unusual else ""), *(f"{figure:.3f}" for figure in figures))
    return table


def _picture(finding: Finding) -> bytes:
    """Each feature's distance on the range that is usual, the strangest on top."""
    from matplotlib.figure import Figure

    found = by_distance(finding.drift)[::-1]
    figure = Figure(figsize=(9.0, 1.4 + 0.2 * len(found)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(found):
        axes.plot([0.0, one.largest_ks], [place, place], color="#CCCCCC", linewidth=4.0, solid_capstyle="butt")
        axes.plot([one.usual_ks], [place], "|", color="#666666", markersize=7)
        axes.plot([one.ks], [place], "o", color="#D55E00" if one.is_unusual else "#0072B2", markersize=4.5)
    axes.set_yticks(range(len(found)), [one.name for one in found], fontsize=7)
    axes.set_ylim(-1, len(found))
    axes.set_xlim(left=0.0)
    axes.set_xlabel("Kolmogorov-Smirnov distance to the training span; grey: its own windows, tick: their median")
    axes.set_title(f"{finding.days}: {WORDS[finding.verdict]}", loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return png_bytes(figure)
