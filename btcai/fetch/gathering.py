"""Bars wanted -> the requests that bring them, and what came: the plan of a fetch. No clock, no network, no file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from btcai.data.frame import BAR_MS
from btcai.schema import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """One answer: bars that have closed, oldest first, each time once: open stamps (T,) UTC ms and values (T, 5)."""

    open_ms: IntArray
    values: FloatArray
    repeated: int = 0
    unfinished: int = 0
    untrue: int = 0  # bars that cannot be, left out

    def of(self, some: BoolArray) -> "Page":
        """Some of its bars; what was left out before is still counted."""
        return replace(self, open_ms=self.open_ms[some], values=self.values[some])


LEAST_BARS = 4
"""Asked for at once, wanted or not: ccxt cuts an answer to the number asked for, and so hides a contradiction in it."""

Ask = Callable[[int, int], Page]
"""(first open stamp, number of bars) -> a page; the source may leave bars out, send fewer, or send others."""


def wanted_bars(first_ms: int, stop_ms: int, held_ms: IntArray) -> IntArray:
    """Open stamps of the grid in first_ms .. stop_ms - 1 that are not held, oldest first."""
    first_ms = -(-first_ms // BAR_MS) * BAR_MS
    return np.setdiff1d(np.arange(first_ms, stop_ms, BAR_MS, dtype=np.int64), held_ms, assume_unique=True)


def gather(ask: Ask, wanted_ms: IntArray, page_bars: int) -> Iterator[Page]:
    """Pages of bars that are wanted and were not on a page before.

    A first round goes from the oldest to the newest and skips what an answer shows not to be there. Further rounds ask
    for what is still missing, until a round brings nothing new: a source may send an empty page by mistake, or only the
    newest part of what is asked for. Of a hole that is longer than two pages only the ends are asked for again.
    """
    got, longest = np.zeros(len(wanted_ms), dtype=np.bool_), 0
    asked = wanted_ms
    while len(asked):
        before, at = int(got.sum()), 0
        while at < len(asked):
            page, next_ms = _asked(ask, asked[at:], page_bars)
            longest = max(longest, len(page.open_ms))
            place = np.searchsorted(wanted_ms, page.open_ms).clip(max=len(wanted_ms) - 1)
            new = (wanted_ms[place] == page.open_ms) & ~got[place]
            if new.any():
                got[place[new]] = True
                yield page.of(new)
            at += int(np.searchsorted(asked[at:], next_ms))
        if got.sum() == before:
            return
        page_bars = max(min(page_bars, longest), LEAST_BARS)  # no longer than the source has ever sent
        asked = _ends(wanted_ms[~got], page_bars)


def _asked(ask: Ask, wanted_ms: IntArray, page_bars: int) -> tuple[Page, int]:
    """The page from the first wanted bar on, and the stamp to go on from."""
    first = int(wanted_ms[0])
    last = int(wanted_ms[np.searchsorted(wanted_ms, first + page_bars * BAR_MS) - 1])
    stop = last + BAR_MS
    page = ask(first, max((stop - first) // BAR_MS, LEAST_BARS))
    within = page.open_ms[(page.open_ms >= first) & (page.open_ms < stop)]
    if len(within):
        return page, int(within[-1]) + BAR_MS  # a page may end early
    later = page.open_ms[page.open_ms >= stop]
    return page, int(later[0]) if len(later) else stop


def _ends(missing_ms: IntArray, page_bars: int) -> IntArray:
    """Of each run of missing bars the first and the last page_bars."""
    if not len(missing_ms):
        return missing_ms
    runs = np.split(missing_ms, np.flatnonzero(np.diff(missing_ms) != BAR_MS) + 1)
    kept = [run if len(run) <= 2 * page_bars else np.r_[run[:page_bars], run[-page_bars:]] for run in runs]
    return np.concatenate(kept)
