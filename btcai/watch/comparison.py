"""Two markets beside each other, as files and as a table: metrics.json, facts.csv, giveaways.csv, comparison.png."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from btcai.pictures import png_bytes
from btcai.simulator.facts import Fact
from btcai.watch.discriminator import SUMMARIES, Discrimination, Giveaway

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

FIRST, SECOND = "#0072B2", "#D55E00"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of a history and of a market that is to pass for it; facts in the order of names."""

    names: tuple[str, str]
    facts: tuple[tuple[Fact, ...], tuple[Fact, ...]]
    discrimination: Discrimination


def write_comparison(folder: Path, found: Comparison) -> None:
    """Four files; the same comparison gives the same bytes."""
    told = found.discrimination
    record = {
        "markets": list(found.names),
        "facts_outside": {
            name: [fact.name for fact in facts if not fact.holds]
            for name, facts in zip(found.names, found.facts, strict=True)
        },
        "auc": told.auc,
        "windows": told.windows,
        "giveaways": [giveaway.name for giveaway in told.giveaways],
        "auc_without_them": told.left,
    }
    (folder / "metrics.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _write_table(
        folder / "facts.csv",
        ("fact", *found.names, "least", "most"),
        [(one.name, one.value, other.value, one.least, one.most) for one, other in zip(*found.facts, strict=True)],
    )
    heads = [f"{summary}_{name}" for summary in SUMMARIES for name in found.names]
    _write_table(
        folder / "giveaways.csv",
        ("feature", "auc", *heads),
        [(giveaway.name, giveaway.auc, *_medians(giveaway)) for giveaway in told.giveaways],
    )
    (folder / "comparison.png").write_bytes(_picture(found))


def comparison_view(found: Comparison) -> "RenderableType":
    """Facts, giveaways and the verdict."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(pad_edge=False)
    for head in ("what gives it away, in turn", "AUC with it", *(f"{summary} in each" for summary in SUMMARIES)):
        table.add_column(head, justify="left" if head.startswith("what") else "right")
    for giveaway in found.discrimination.giveaways:
        pairs = zip(giveaway.first, giveaway.second, strict=True)
        table.add_row(giveaway.name, f"{giveaway.auc:.4f}", *(f"{one:.3f} / {other:.3f}" for one, other in pairs))
    facts = facts_view(dict(zip(found.names, found.facts, strict=True)))
    return Group(facts, table, Text(verdict(found)))


def facts_view(markets: Mapping[str, tuple[Fact, ...]]) -> "Table":
    """Facts by market, a column each; what lies outside of the band is marked."""
    from rich.table import Table
    from rich.text import Text

    table = Table(pad_edge=False)
    for head in ("fact", *markets, "band"):
        table.add_column(head, justify="left" if head == "fact" else "right")
    for row in zip(*markets.values(), strict=True):
        cells = (Text(f"{fact.value:.3f}", style="" if fact.holds else "bold red") for fact in row)
        table.add_row(row[0].name.replace("_", " "), *cells, f"{row[0].least:g} .. {row[0].most:g}")
    return table


def verdict(found: Comparison) -> str:
    """One line."""
    told, (history, simulated) = found.discrimination, found.names
    outside = sum(not fact.holds for fact in found.facts[1])
    without = f"; {told.left:.4f} without the {len(told.giveaways)} features above" if told.giveaways else ""
    return (
        f"{simulated}: {len(found.facts[1]) - outside} of {len(found.facts[1])} facts lie in their bands; trees tell "
        f"its windows from those of {history} with an AUC of {told.auc:.4f} (.5 is chance){without}"
    )


def _medians(giveaway: Giveaway) -> list[float]:
    return [value for pair in zip(giveaway.first, giveaway.second, strict=True) for value in pair]


def _write_table(path: Path, head: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *rows])
    path.write_text(text.getvalue(), encoding="utf-8")


def _picture(found: Comparison) -> bytes:
    """Each fact between the ends of its band; the AUC that is left as giveaways are taken out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 5.2), dpi=110, layout="constrained")
    facts, told = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [fact.name.replace("_", " ") for fact in found.facts[0]]
    facts.axvspan(0.0, 1.0, color="#EEEEEE")
    for market, colour, label in zip(found.facts, (FIRST, SECOND), found.names, strict=True):
        places = [(fact.value - fact.least) / (fact.most - fact.least) for fact in market]
        drawn = [(place, row) for row, place in enumerate(places) if math.isfinite(place)]
        facts.plot(*zip(*drawn, strict=True), "o", color=colour, label=label, markersize=5)
    facts.set_yticks(range(len(names)), names, fontsize=8)
    facts.set_ylim(len(names) - 0.5, -0.5)
    facts.set_xlabel("place in the band of Bitcoin's facts: 0 its lower end, 1 its upper")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    giveaways = found.discrimination.giveaways
    aucs = [*(giveaway.auc for giveaway in giveaways), found.discrimination.left]
    labels = ["all features", *(f"without {giveaway.name}" for giveaway in giveaways)]
    told.barh(range(len(aucs)), aucs, color=SECOND, height=0.6)
    told.axvline(0.5, color="#666666", linewidth=1.0)
    told.set_yticks(range(len(labels)), labels, fontsize=8)
    told.set_ylim(len(labels) - 0.5, -0.5)
    told.set_xlim(0.4, 1.0)
    told.set_xlabel("AUC, features taken out in turn; .5 is chance")
    for axes in (facts, told):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return png_bytes(figure)
