"""Files of bars as people have them -> raw bars, every one judged. Reads only; changes nothing."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from btcai.data.cells import numbers, open_ms
from btcai.data.checks import check_bars, check_spacing
from btcai.data.frame import VALUE_COLUMNS, make_frame, parts, sort_unique
from btcai.data.tables import Table, read_tables
from btcai.errors import DataError
from btcai.schema import IntArray

logger = logging.getLogger(__name__)

TIMEFRAMES = ("5m",)
TIME_COLUMNS = ("timestamp", "open_time", "date", "datetime", "time")
"""Accepted names of the opening time, the preferred first, in any case, with spaces for underscores."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What files held: bars sorted and without repetition, where each came from, and how many rows that took."""

    bars: pd.DataFrame
    files: tuple[str, ...]  # a CSV in a zip is one
    file: IntArray  # (T,) of bars, which of files
    row: IntArray  # (T,) of bars, which of the file's rows, from 1
    rows_read: int
    duplicates_dropped: int
    out_of_order: int  # rows older than one above them

    def place(self, bar: int) -> str:
        """Where a bar of `bars` comes from."""
        return f"data row {self.row[bar]} of {self.files[self.file[bar]]}"


def clock_ms() -> int:
    """Now, in UTC ms."""
    return time.time_ns() // 1_000_000


def read_bars(path: Path, timeframe: str = "5m") -> pd.DataFrame:
    """A file's bars as a raw frame with RAW_COLUMNS, oldest first, repeated bars once; DataError as read_source."""
    return read_source([path], timeframe, clock_ms()).bars


def read_source(paths: Sequence[Path], timeframe: str, now_ms: int) -> Source:
    """The files' bars, merged and judged as one; DataError names file, row and value of the first bad one.

    Refused: bars that break a rule of btcai/data/checks.py, that disagree with another of the same time, or that had
    not closed at now_ms (UTC).
    """
    if timeframe not in TIMEFRAMES:
        raise DataError(
            f"timeframe must be one of {', '.join(TIMEFRAMES)} (others are not supported yet), was {timeframe}; "
            "give 5m bars"
        )
    found = [judged(table, now_ms) for path in paths for table in read_tables(path)]
    source = found[0] if len(found) == 1 else _merged(found)
    logger.info(
        "%d file(s): %d rows, %d repeated bars dropped", len(found), source.rows_read, source.duplicates_dropped
    )
    return source


def judged(table: Table, now_ms: int) -> Source:
    """One table's bars; DataError as read_source."""
    if not table.columns.num_rows:
        raise DataError(f"{table.name} holds no bars; give a file with at least one")
    titles = [" ".join(title.split()) for title in table.columns.column_names]  # a line end would break a message
    time_column, *value_columns = (table.columns.column(index) for index in _columns(table.name, titles))
    stamps = open_ms(table.name, "time", time_column)
    named = zip(VALUE_COLUMNS, value_columns, strict=True)
    values = np.column_stack([numbers(table.name, title, column) for title, column in named])
    check_bars(table.name, stamps, values, now_ms)
    source = Source(
        bars=make_frame(stamps, values),
        files=(table.name,),
        file=np.zeros(len(stamps), dtype=np.int64),
        row=np.arange(1, len(stamps) + 1),
        rows_read=len(stamps),
        duplicates_dropped=0,
        out_of_order=int((stamps < np.maximum.accumulate(stamps)).sum()),
    )
    return _settled(source)


def _merged(sources: Sequence[Source]) -> Source:
    """Bars of several tables as those of one."""
    return _settled(
        Source(
            bars=pd.concat([source.bars for source in sources], ignore_index=True),
            files=tuple(name for source in sources for name in source.files),
            file=np.repeat(np.arange(len(sources)), [len(source.bars) for source in sources]),
            row=np.concatenate([source.row for source in sources]),
            rows_read=sum(source.rows_read for source in sources),
            duplicates_dropped=sum(source.duplicates_dropped for source in sources),
            out_of_order=sum(source.out_of_order for source in sources),
        )
    )


def _settled(source: Source) -> Source:
    """Sorted, repeated bars once, and of the right timeframe."""
    bars, kept = sort_unique(source.bars, source.place, "remove the wrong row")
    settled = Source(
        bars=bars,
        files=source.files,
        file=source.file[kept],
        row=source.row[kept],
        rows_read=source.rows_read,
        duplicates_dropped=source.duplicates_dropped + len(source.bars) - len(bars),
        out_of_order=source.out_of_order,
    )
    check_spacing(parts(bars)[0], settled.place)
    return settled


def _columns(name: str, titles: list[str]) -> Iterator[int]:
    """Which columns hold time, open, high, low, close, volume."""
    found = [title.strip().lower().replace(" ", "_") for title in titles]
    times = [title for title in TIME_COLUMNS if title in found][:1]
    missing = [] if times else [f"a time ({', '.join(TIME_COLUMNS)})"]
    missing += [title for title in VALUE_COLUMNS if title not in found]
    if missing:
        raise DataError(
            f"{name} must name its columns, a time and {', '.join(VALUE_COLUMNS)}; missing: {', '.join(missing)}; "
            f"found: {', '.join(titles)[:200]}; name the columns in the first line"
        )
    for title in (*times, *VALUE_COLUMNS):
        if found.count(title) > 1:
            raise DataError(f"{name} must have one column {title}, was {found.count(title)}; remove the others")
        yield found.index(title)
