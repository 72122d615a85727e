"""Each bar judged alone, and the distance of neighbours: what no import lets in. Pure: arrays in, DataError out."""

from collections.abc import Callable

import numpy as np

from btcai.data.cells import refuse
from btcai.data.frame import BAR_MS, VALUE_COLUMNS, describe_bar, iso
from btcai.errors import DataError
from btcai.schema import BoolArray, FloatArray, IntArray

STRETCH_STEPS = 12
"""So many equal steps in a row, all longer than a bar, are bars of another timeframe and not gaps."""


def check_bars(name: str, open_ms: IntArray, values: FloatArray, now_ms: int) -> None:
    """DataError for the first row of `name` that validation would fail too, or that had not closed at now_ms.

    open_ms (T,) UTC ms and values (T, 5) in the order of the file.
    """
    cell = dict(zip(VALUE_COLUMNS, values.T, strict=True))

    def check(title: str, wrong: BoolArray, rule: str) -> None:
        refuse(name, wrong, f"{title} must {rule}", lambda row: f"{cell[title][row]}")

    for title, column in cell.items():
        check(title, ~np.isfinite(column), "be a number, not empty or infinite")
    for title in VALUE_COLUMNS[:4]:
        check(title, cell[title] <= 0, "be above 0")
    check("volume", cell["volume"] < 0, "not be negative")

    def bar(row: int) -> str:
        return describe_bar(values[row])

    body = cell["open"], cell["close"]
    refuse(name, cell["high"] < cell["low"], "high must not be below low", bar)
    refuse(name, cell["high"] < np.maximum(*body), "high must not be below open or close", bar)
    refuse(name, cell["low"] > np.minimum(*body), "low must not be above open or close", bar)
    _check_closed(name, open_ms, now_ms)


def _check_closed(name: str, open_ms: IntArray, now_ms: int) -> None:
    def stamp(row: int) -> str:
        return iso(open_ms[row])

    now = iso(now_ms // 1000 * 1000)
    remedy = "give opening times in UTC, or remove the row"
    refuse(name, open_ms > now_ms, f"a bar must not be from the future (now is {now})", stamp, remedy)
    unfinished = open_ms + BAR_MS > now_ms
    if unfinished.any():
        row = int(unfinished.argmax())
        raise DataError(
            f"{name}: a bar must have ended, the one of {stamp(row)} in data row {row + 1} ends at "
            f"{iso(open_ms[row] + BAR_MS)} (now is {now}); remove the row, or try again after that"
        )


def check_spacing(open_ms: IntArray, place: Callable[[int], str]) -> None:
    """DataError where stamps, strictly increasing UTC ms (T,), are not of 5-minute bars; gaps are no fault.

    place(i) says where row i comes from.
    """
    steps = np.diff(open_ms)
    usual = _usual(steps)
    if usual != BAR_MS:
        row = int(np.argmax(steps != BAR_MS)) + 1
        raise DataError(
            f"{place(row)}: 5m bars must open 5m apart on the 5-minute grid, most are {_span(usual)} apart, the first "
            f"at {iso(open_ms[row])}; give 5m bars"
        )
    _check_grid(open_ms, steps, place)
    _check_stretches(open_ms, steps, place)


def _check_grid(open_ms: IntArray, steps: IntArray, place: Callable[[int], str]) -> None:
    off = open_ms % BAR_MS != 0
    if not off.any():
        return
    row = int(off.argmax())
    if off.all():
        guess = "all stamps are off it: are they closing times? give opening times"
    else:
        near = _span(int(steps[max(row - 1, 0)]))
        guess = f"its neighbour is {near} away: bars of another timeframe, or a wrong stamp; give 5m bars alone"
    raise DataError(f"{place(row)}: 5m bars must open on the 5-minute grid, was {iso(open_ms[row])}; {guess}")


def _check_stretches(open_ms: IntArray, steps: IntArray, place: Callable[[int], str]) -> None:
    starts = np.flatnonzero(np.diff(steps, prepend=-1))  # of each run of equal steps
    lengths = np.diff(starts, append=len(steps))
    other = np.flatnonzero((steps[starts] != BAR_MS) & (lengths >= STRETCH_STEPS))
    if len(other):
        first, bars = int(starts[other[0]]), int(lengths[other[0]]) + 1
        raise DataError(
            f"{place(first)}: 5m bars must open 5m apart, from {iso(open_ms[first])} on {bars} bars are "
            f"{_span(int(steps[first]))} apart: another timeframe and no gap; give 5m bars alone"
        )


def _usual(steps: IntArray) -> int:
    """The most frequent step, the shortest where several are; one of its kind proves nothing and may be a gap."""
    found, counts = np.unique(steps, return_counts=True)
    return int(found[counts.argmax()]) if len(steps) and counts.max() > 1 else BAR_MS


def _span(ms: int) -> str:
    """Milliseconds as a timeframe is called: 5m, 1h, 1d; 0.5s where it is no whole minute."""
    for unit, name in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m")):
        if ms % unit == 0:
            return f"{ms // unit}{name}"
    return f"{ms / 1000:g}s"
