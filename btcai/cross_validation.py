"""Folds of a history that is judged more than once: purged and embargoed, walked forward or in all combinations.

A row's label reaches purge_bars ahead. No training row's label reaches a test row, no test row's label reaches a
training row, and embargo_bars after that stay free (López de Prado 2018, Advances in Financial Machine Learning,
chapters 7 and 12).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from btcai.errors import DataError
from btcai.schema import IntArray, Span


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Spans of grid rows, oldest first; what is in neither is purged or under embargo."""

    train: tuple[Span, ...]
    test: tuple[Span, ...]


def walk_forward_folds(
    span: Span, n_folds: int, purge_bars: int, embargo_bars: int, least_bars: int = 0
) -> tuple[Fold, ...]:
    """The span in n_folds + 1 equal parts, rest at the front: each part but the first is tested on what lies before.

    least_bars: of the first part at least; the others share what is left. DataError where a fold has nothing to train
    on.
    """
    size = min(len(span) // (n_folds + 1), max(0, len(span) - least_bars) // n_folds)
    parts = _parts(Span(span.stop - (n_folds + 1) * size, span.stop), n_folds + 1)
    folds = tuple(
        Fold(train=_free(Span(span.first, part.first), (part,), purge_bars, embargo_bars), test=(part,))
        for part in parts[1:]
    )
    return _checked(folds, span, purge_bars, embargo_bars)


def combinatorial_folds(span: Span, n_groups: int, n_test: int, purge_bars: int, embargo_bars: int) -> tuple[Fold, ...]:
    """The span in n_groups equal parts, rest at the front: every choice of n_test of them is tested on the others.

    In the order of itertools.combinations. DataError where a fold has nothing to train on.
    """
    if not 0 < n_test < n_groups:
        raise DataError(
            f"at least 1 and fewer than all {n_groups} groups are tested at a time, was {n_test}; add --test-groups 1"
        )
    groups = _parts(span, n_groups)
    folds = tuple(
        Fold(train=_free(span, chosen, purge_bars, embargo_bars), test=tuple(chosen))
        for chosen in combinations(groups, n_test)
    )
    return _checked(folds, span, purge_bars, embargo_bars)


def combinatorial_paths(n_groups: int, n_test: int) -> tuple[tuple[int, ...], ...]:
    """Histories that the folds make, each every group once: for each, the number of the fold that tests group 0, 1, ...

    C(n_groups - 1, n_test - 1) of them: the k-th takes of each group the k-th fold that tests it.
    """
    chosen = list(combinations(range(n_groups), n_test))
    of_group = [[number for number, groups in enumerate(chosen) if group in groups] for group in range(n_groups)]
    return tuple(zip(*of_group, strict=True))


def printed(folds: Sequence[Fold], close_ts_ns: IntArray) -> str:
    """A table: each fold's bars to train and to test on, and the UTC days of its spans. close_ts_ns (T,)."""
    lines = [f"{'fold':>4}{'train bars':>12}{'test bars':>11}  train; test"]
    for number, fold in enumerate(folds, start=1):
        train, test = (", ".join(_days(span, close_ts_ns) for span in spans) for spans in (fold.train, fold.test))
        lines.append(f"{number:>4}{_bars(fold.train):>12,}{_bars(fold.test):>11,}  {train}; {test}")
    return "\n".join(lines)


def _parts(span: Span, n_parts: int) -> tuple[Span, ...]:
    size = len(span) // n_parts
    first = span.stop - n_parts * size
    found = [Span(first + number * size, first + (number + 1) * size) for number in range(n_parts)]
    return (Span(span.first, found[0].stop), *found[1:])


def _free(span: Span, test: Sequence[Span], purge_bars: int, embargo_bars: int) -> tuple[Span, ...]:
    """What is left of a span to train on."""
    free, first = [], span.first
    for part in test:
        free.append(Span(first, part.first - purge_bars))
        first = part.stop + purge_bars + embargo_bars
    free.append(Span(first, span.stop))
    return tuple(piece for piece in free if piece.first < piece.stop)


def _checked(folds: tuple[Fold, ...], span: Span, purge_bars: int, embargo_bars: int) -> tuple[Fold, ...]:
    for number, fold in enumerate(folds, start=1):
        if not fold.train or not all(map(len, fold.test)):
            raise DataError(
                f"fold {number} of {len(folds)} must have bars to train and to test on: {len(span):,} bars are too few "
                f"for a purge of {purge_bars:,} and an embargo of {embargo_bars:,}; take fewer folds or more bars"
            )
    return folds


def _bars(spans: Sequence[Span]) -> int:
    return sum(map(len, spans))


def _days(span: Span, close_ts_ns: IntArray) -> str:
    since, until = (
        np.datetime64(int(close_ts_ns[row]), "ns").astype("datetime64[D]") for row in (span.first, span.stop - 1)
    )
    return f"{since}..{until}"
