"""Walk-forward and combinatorial folds: by hand, and against every pair of rows."""

from math import comb

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from btcai.cross_validation import (
    Fold,
    combinatorial_folds,
    combinatorial_paths,
    printed,
    walk_forward_folds,
)
from btcai.errors import DataError
from btcai.schema import BAR_NS, Span


def rows(spans: tuple[Span, ...]) -> set[int]:
    return {row for span in spans for row in range(span.first, span.stop)}


def test_three_folds_walked_forward_by_hand() -> None:
    """Rows 100 .. 501 in four parts of 100 and a rest of 1 at the front; labels reach 10 ahead."""
    assert walk_forward_folds(Span(100, 501), 3, purge_bars=10, embargo_bars=5) == (
        Fold(train=(Span(100, 191),), test=(Span(201, 301),)),
        Fold(train=(Span(100, 291),), test=(Span(301, 401),)),
        Fold(train=(Span(100, 391),), test=(Span(401, 501),)),
    )


def test_two_of_four_groups_by_hand() -> None:
    folds = combinatorial_folds(Span(0, 400), 4, 2, purge_bars=10, embargo_bars=5)
    assert len(folds) == 6
    assert folds[0] == Fold(train=(Span(215, 400),), test=(Span(0, 100), Span(100, 200)))
    assert folds[1] == Fold(train=(Span(115, 190), Span(315, 400)), test=(Span(0, 100), Span(200, 300)))
    assert folds[4] == Fold(train=(Span(0, 90), Span(215, 290)), test=(Span(100, 200), Span(300, 400)))


def test_every_path_visits_every_group_once_and_every_fold_is_used_as_often_as_it_tests() -> None:
    """Six groups, two tested: 15 folds, 5 paths (López de Prado 2018, section 12.4)."""
    folds, paths = combinatorial_folds(Span(0, 6000), 6, 2, 10, 5), combinatorial_paths(6, 2)
    assert (len(folds), len(paths)) == (15, 5)
    for path in paths:
        for group, fold in enumerate(path):
            assert Span(1000 * group, 1000 * group + 1000) in folds[fold].test
    used = np.bincount(np.array(paths).ravel(), minlength=15)
    assert used.tolist() == [2] * 15


@given(
    n_bars=st.integers(40, 120),
    first=st.integers(0, 30),
    n_groups=st.integers(2, 5),
    n_test=st.integers(1, 4),
    purge=st.integers(0, 6),
    embargo=st.integers(0, 6),
)
def test_no_label_of_one_side_reaches_the_other(
    n_bars: int, first: int, n_groups: int, n_test: int, purge: int, embargo: int
) -> None:
    assume(n_test < n_groups)
    span = Span(first, first + n_bars)
    try:
        folds = combinatorial_folds(span, n_groups, n_test, purge, embargo)
        folds += walk_forward_folds(span, n_groups, purge, embargo)
    except DataError:
        assume(False)
    assert len(folds) == comb(n_groups, n_test) + n_groups
    for fold in folds:
        train, test = rows(fold.train), rows(fold.test)
        assert train <= rows((span,))
        assert test <= rows((span,))
        for row in train:
            assert not test & set(range(row, row + purge + 1))  # the row and its label
        for row in test:
            assert not train & set(range(row, row + purge + 1))
        for part in fold.test:
            assert not train & set(range(part.stop, part.stop + purge + embargo))


@given(st.integers(30, 200), st.integers(2, 6))
def test_no_row_of_a_combinatorial_fold_is_lost_but_by_purge_and_embargo(n_bars: int, n_groups: int) -> None:
    for fold in combinatorial_folds(Span(0, n_bars), n_groups, 1, 0, 0):
        assert rows(fold.train) | rows(fold.test) == set(range(n_bars))


def test_what_is_too_short_is_named() -> None:
    with pytest.raises(DataError, match=r"fold 1 of 3 .* 400 bars are too few for a purge of 150 .* take fewer folds"):
        walk_forward_folds(Span(0, 400), 3, 150, 0)
    with pytest.raises(DataError, match="fewer than all 4 groups are tested at a time, was 4"):
        combinatorial_folds(Span(0, 400), 4, 4, 0, 0)


def test_printed_table_has_bars_and_utc_days() -> None:
    close = np.datetime64("2022-01-01T00:05", "ns").astype(np.int64) + BAR_NS * np.arange(4 * 288)
    lines = printed(walk_forward_folds(Span(0, 4 * 288), 3, 12, 0), close).splitlines()
    assert len(lines) == 4
    assert lines[1].split() == ["1", "276", "288", "2022-01-01..2022-01-01;", "2022-01-02..2022-01-03"]
