"""No bad bar gets in: each is named by file, row and value, and validation would have failed it too."""

from pathlib import Path

import numpy as np
import pytest

from btcai.data.checks import check_bars, check_spacing
from btcai.data.frame import BAR_MS, iso, make_frame
from btcai.data.sources import read_source
from btcai.data.validation import validate
from btcai.errors import DataError
from btcai.schema import FloatArray, IntArray

FIRST_MS = 1_672_531_200_000  # 2023-01-01T00:00:00Z
NOW_MS = FIRST_MS + 10**10
MINUTE_MS = 60_000
NAN, INF = float("nan"), float("inf")

BAD_BARS = {  # open, high, low, close, volume of one bar, and how the refusal begins
    "price is missing": ((NAN, 12, 9, 11, 1), "open must be a number, not empty or infinite, was nan"),
    "price is infinite": ((10, INF, 9, 11, 1), "high must be a number, not empty or infinite, was inf"),
    "price is zero": ((10, 12, 0, 11, 1), "low must be above 0, was 0.0"),
    "price is negative": ((10, 12, 9, -11, 1), "close must be above 0, was -11.0"),
    "volume is missing": ((10, 12, 9, 11, NAN), "volume must be a number, not empty or infinite, was nan"),
    "volume is infinite": ((10, 12, 9, 11, INF), "volume must be a number, not empty or infinite, was inf"),
    "volume is negative": ((10, 12, 9, 11, -1), "volume must not be negative, was -1.0"),
    "high below low": ((10, 8, 9, 11, 1), "high must not be below low, was (open 10.0, high 8.0, low 9.0,"),
    "high below open": ((12.5, 12, 9, 11, 1), "high must not be below open or close, was (open 12.5, high 12.0,"),
    "high below close": ((10, 12, 9, 12.5, 1), "high must not be below open or close, was (open 10.0, high 12.0,"),
    "low above open": ((8.5, 12, 9, 11, 1), "low must not be above open or close, was (open 8.5,"),
    "low above close": ((10, 12, 9, 8.5, 1), "low must not be above open or close, was (open 10.0,"),
}


def stamps(*minutes: int) -> IntArray:
    return FIRST_MS + np.array(minutes, dtype=np.int64) * MINUTE_MS


def table(bad: tuple[float, ...]) -> tuple[IntArray, FloatArray]:
    """Four bars, the third is the bad one."""
    values = np.tile([10.0, 12.0, 9.0, 11.0, 1.0], (4, 1))
    values[2] = bad
    return stamps(0, 5, 10, 15), values


@pytest.mark.parametrize("fault", BAD_BARS)
def test_a_bad_bar_is_refused_with_its_row_and_value(fault: str) -> None:
    bad, words = BAD_BARS[fault]
    with pytest.raises(DataError) as refused:
        check_bars("bars.csv", *table(bad), NOW_MS)
    message = str(refused.value)
    assert message.startswith(f"bars.csv: {words}")
    assert message.endswith(" in data row 3; mend or remove the row")


@pytest.mark.slow  # Great Expectations
@pytest.mark.parametrize("fault", BAD_BARS)
def test_what_an_import_refuses_fails_validation_too(fault: str) -> None:
    open_ms, values = table(BAD_BARS[fault][0])
    broken = [rule for rule in validate(make_frame(open_ms, values)).expectations if not rule.success]
    assert broken
    assert {offence.row for rule in broken for offence in rule.offences} == {2}


@pytest.mark.parametrize("volume", [0.0, 1e-8])
def test_a_bar_that_never_moves_or_trades_is_sound(volume: float) -> None:
    check_bars("bars.csv", stamps(0), np.array([[10.0, 10.0, 10.0, 10.0, volume]]), NOW_MS)


def test_a_bar_is_let_in_the_moment_it_has_ended() -> None:
    open_ms, values = table((10, 12, 9, 11, 1))
    end_ms = int(open_ms[-1]) + BAR_MS
    check_bars("bars.csv", open_ms, values, end_ms)
    with pytest.raises(DataError) as refused:
        check_bars("bars.csv", open_ms, values, end_ms - 1)
    assert str(refused.value) == (
        "bars.csv: a bar must have ended, the one of 2023-01-01T00:15:00Z in data row 4 ends at 2023-01-01T00:20:00Z "
        "(now is 2023-01-01T00:19:59Z); remove the row, or try again after that"
    )


def test_a_bar_from_the_future_is_refused() -> None:
    open_ms, values = table((10, 12, 9, 11, 1))
    with pytest.raises(DataError, match=r"\(now is 2023-01-01T00:14:59Z\), was 2023-01-01T00:15:00Z in data row 4"):
        check_bars("bars.csv", open_ms, values, int(open_ms[-1]) - 1)


def grid(*stretches: tuple[int, int]) -> IntArray:
    """Open stamps from 00:00 on: so many steps of so many minutes, stretch by stretch."""
    return stamps(*np.cumsum([0, *(minutes for steps, minutes in stretches for _ in range(steps))]))


def place(row: int) -> str:
    return f"data row {row + 1} of bars.csv"


@pytest.mark.parametrize(
    ("stretches", "message"),
    [
        ([(2, 1)], "data row 2 .* most are 1m apart, the first at 2023-01-01T00:01:00Z"),
        ([(2, 15)], "data row 2 .* most are 15m apart, the first at 2023-01-01T00:15:00Z"),
        ([(5, 60), (3, 5)], "data row 2 .* most are 1h apart"),
        ([(3, 1440)], "most are 1d apart"),
        ([(20, 5), (12, 15), (20, 5)], "data row 21 .* from 2023-01-01T01:40:00Z on 13 bars are 15m apart"),
        ([(20, 5), (12, 60)], "data row 21 .* from 2023-01-01T01:40:00Z on 13 bars are 1h apart"),
        ([(20, 5), (5, 1), (20, 5)], "data row 22 .* grid, was 2023-01-01T01:41:00Z; its neighbour is 1m away"),
        ([(20, 5), (1, 7), (1, 3), (20, 5)], "data row 22 .* was 2023-01-01T01:47:00Z; its neighbour is 7m away"),
    ],
    ids=str,
)
def test_bars_of_another_timeframe_are_refused(stretches: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_spacing(grid(*stretches), place)


@pytest.mark.parametrize(
    "stretches",
    [
        [],
        [(1, 60)],
        [(1, 10), (1, 30)],
        [(20, 5), (11, 10), (20, 5)],
        [(5, 5), (1, 85), (30, 5)],
        [(13, 5), *[(1, 15), (2, 5)] * 6],
    ],
    ids=str,
)
def test_gaps_are_no_fault(stretches: list[tuple[int, int]]) -> None:
    check_spacing(grid(*stretches), place)


def test_closing_times_are_told_apart_from_a_wrong_stamp() -> None:
    with pytest.raises(
        DataError, match=r"was 2023-01-01T00:04:59\.999Z; all stamps are off it: are they closing times"
    ):
        check_spacing(grid((20, 5)) + BAR_MS - 1, place)


def test_a_stretch_of_another_timeframe_is_found_in_one_file_of_several(tmp_path: Path) -> None:
    for name, open_ms in (("a.csv", grid((50, 5))), ("b.csv", grid((50, 5))[-1] + BAR_MS + grid((3, 15)) - FIRST_MS)):
        (tmp_path / name).write_text("".join(f"{stamp},1,2,0.5,1.5,3\n" for stamp in open_ms))
    with pytest.raises(DataError, match=r"data row 2 of .*b\.csv: .*most are 15m apart"):
        read_source([tmp_path / "a.csv", tmp_path / "b.csv"], "5m", NOW_MS)


def test_stamps_are_shown_with_their_fraction() -> None:
    assert (iso(FIRST_MS), iso(FIRST_MS + 1)) == ("2023-01-01T00:00:00Z", "2023-01-01T00:00:00.001Z")
