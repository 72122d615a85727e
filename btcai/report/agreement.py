"""Three measures of how much a feature matters, held against each other: do they agree, and if not, why not?"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from btcai.report.curves import MEASURES

WORDS = {"gates": "gates", "permutation": "permutation", "integrated_gradients": "integrated gradients"}
AGREES = 0.5
"""Rank correlation from which two measures are said to agree."""
SURE = 3.0
"""Standard errors above zero from which a feature's shuffling is said to cost something: one in 740 does by chance."""
TWIN = 0.8
"""Correlation from which another feature can stand in for one that is shuffled."""
TOP = 8
"""Features that a measure names first."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of one bucket's table of measures (curves.read_measures)."""

    ranks: dict[tuple[str, str], float]
    """Spearman's rank correlation of each pair of MEASURES over all features; nan where one ranks nothing."""
    costly: tuple[str, ...]
    """Features whose shuffling costs surely something, dearest first."""
    text: str


def agreement(measures: pd.DataFrame) -> Agreement:
    """Rank correlations, and in words whether the measures agree or what explains that they do not."""
    places = measures[list(MEASURES)].rank()
    ranks = {(one, other): _correlation(places[one], places[other]) for one, other in combinations(MEASURES, 2)}
    sure = measures["permutation"] > SURE * measures["permutation_error"]
    costly = tuple(measures[sure].sort_values("permutation", ascending=False)["feature"].tolist())
    return Agreement(ranks=ranks, costly=costly, text=_text(measures, ranks, costly))


def top(measures: pd.DataFrame, measure: str, n: int = TOP) -> list[str]:
    """The n features that a measure names first; equal ones by name."""
    ordered = measures.sort_values([measure, "feature"], ascending=[False, True])
    return [str(name) for name in ordered["feature"].head(n)]


def shares(measures: pd.DataFrame) -> pd.DataFrame:
    """Each of MEASURES as shares of its sum over all features; what is below zero (a cost by chance) is not summed."""
    found = measures[list(MEASURES)]
    whole = found.clip(lower=0.0).sum()
    return found / whole.where(whole > 0.0, 1.0)


def shown_first(measures: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n features with the largest mean share over the three measures, largest first."""
    share = shares(measures).mean(axis=1)
    return measures.assign(share=share).sort_values(["share", "feature"], ascending=[False, True]).head(n)


def _correlation(one: "pd.Series[float]", other: "pd.Series[float]") -> float:
    if one.nunique() < 2 or other.nunique() < 2:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _text(measures: pd.DataFrame, ranks: dict[tuple[str, str], float], costly: tuple[str, ...]) -> str:
    told = ", ".join(f"{WORDS[one]} and {WORDS[other]} {ranks[one, other]:.2f}" for one, other in ranks)
    if not costly:
        return (
            "Permutation ranks nothing: no feature's shuffling costs the forecasts more than chance would, for the "
            f"network earns too little on the validation span (rank correlation: {told})."
        )
    if all(rank >= AGREES for rank in ranks.values()):
        return f"They agree (rank correlation: {told})."
    return f"They do not all agree (rank correlation: {told}). {_why(measures, costly)}"


def _why(measures: pd.DataFrame, costly: tuple[str, ...]) -> str:
    """Of the features that the gradients name first: how many cost nothing when shuffled, and which have a twin."""
    first = top(measures, "integrated_gradients")
    free = [name for name in first if name not in costly]
    twins = measures.set_index("feature")["twin_correlation"].abs()
    doubled = [name for name in free if twins[name] >= TWIN]
    both = set(top(measures, "gates")) & set(first)
    parts = [
        f"Of the {len(first)} features that move the mean forecast most, {len(free)} have no sure cost when shuffled: "
        "the loss is of the whole forecast, how far the price goes more than where to"
    ]
    if doubled:
        parts.append(f"{len(doubled)} of these have a twin that still tells the same ({', '.join(doubled)})")
    parts.append(
        f"the gates name {len(both)} of the same {len(first)}, since they say what enters the network and not what it "
        "is used for"
    )
    return "; ".join(parts) + "."
