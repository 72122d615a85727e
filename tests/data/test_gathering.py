"""The plan of a fetch against sources of every manner: all that there is arrives, once, in few requests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.data.frame import BAR_MS
from btcai.fetch.gathering import LEAST_BARS, Page, gather, wanted_bars
from btcai.schema import IntArray


class Source:
    """Bars at some slots of the grid; answers as exchanges do, and sometimes not at all."""

    def __init__(self, slots: IntArray, manner: str, most: int, silent: set[int]) -> None:
        self.slots, self.manner, self.most, self.silent = slots, manner, most, silent
        self.asked: list[tuple[int, int]] = []

    def __call__(self, first_ms: int, n_bars: int) -> Page:
        first = first_ms // BAR_MS
        self.asked.append((first, n_bars))
        there = self.slots[self.slots >= first]
        if self.manner == "whatever comes next":
            there = there[: min(n_bars, self.most)]
        else:
            there = there[there < first + n_bars]
            there = there[-self.most :] if self.manner == "the newest of the span" else there[: self.most]
        if len(self.asked) - 1 in self.silent:
            there = there[:0]
        return Page(open_ms=there * BAR_MS, values=np.repeat(there[:, None], 5, axis=1).astype(np.float64))


def arrived(source: Source, wanted: IntArray, page_bars: int) -> list[int]:
    found: list[int] = []
    for page in gather(source, wanted * BAR_MS, page_bars):
        assert (page.values[:, 0] * BAR_MS == page.open_ms).all()
        found += (page.open_ms // BAR_MS).tolist()
    return found


@given(
    there=st.lists(st.booleans(), min_size=1, max_size=120),
    held=st.sets(st.integers(0, 119)),
    manner=st.sampled_from(["whatever comes next", "the oldest of the span", "the newest of the span"]),
    page_bars=st.integers(LEAST_BARS, 40),
    most=st.integers(LEAST_BARS, 40),
)
def test_all_that_there_is_arrives_once(
    there: list[bool], held: set[int], manner: str, page_bars: int, most: int
) -> None:
    slots = np.flatnonzero(there)
    wanted = np.setdiff1d(np.arange(len(there)), sorted(held))
    source = Source(slots, manner, most, silent=set())
    found = arrived(source, wanted, page_bars)
    assert sorted(found) == np.intersect1d(slots, wanted).tolist()


@given(silent=st.integers(0, 9), manner=st.sampled_from(["whatever comes next", "the newest of the span"]))
def test_one_empty_page_by_mistake_loses_nothing(silent: int, manner: str) -> None:
    source = Source(np.arange(100), manner, 10, {silent})
    assert sorted(arrived(source, np.arange(100), 10)) == list(range(100))


def test_a_history_without_gaps_takes_one_request_a_page() -> None:
    source = Source(np.arange(1000), "whatever comes next", 100, set())
    assert arrived(source, np.arange(1000), 100) == list(range(1000))
    assert source.asked == [(first, 100) for first in range(0, 1000, 100)]


def test_years_before_a_market_opened_are_skipped_or_asked_for_once() -> None:
    """The last 50 of 100,000: the next bars are far away, and of the hole only the ends are asked for again."""
    source = Source(np.arange(99_950, 100_000), "whatever comes next", 100, set())
    assert arrived(source, np.arange(100_000), 100) == list(range(99_950, 100_000))
    assert len(source.asked) <= 8


def test_only_what_is_not_held_is_wanted_on_the_grid() -> None:
    held = np.array([2, 3]) * BAR_MS
    assert wanted_bars(BAR_MS + 1, 6 * BAR_MS, held).tolist() == [4 * BAR_MS, 5 * BAR_MS]
    assert wanted_bars(0, 3 * BAR_MS + 1, held).tolist() == [0, BAR_MS]
    assert wanted_bars(5 * BAR_MS, 5 * BAR_MS, held).tolist() == []


@pytest.mark.parametrize("page_bars", [LEAST_BARS, 1000])
def test_nothing_wanted_asks_for_nothing(page_bars: int) -> None:
    source = Source(np.arange(10), "whatever comes next", 100, set())
    assert arrived(source, np.arange(0), page_bars) == []
    assert source.asked == []
