"""Markets on disk: data/MARKET/YYYY-MM.parquet, raw bars only. A market changes as a whole or not at all.

Other files in its folder stay there: funding rates, and where it was fetched from.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from btcai.data.checks import check_spacing
from btcai.data.frame import BAR_MS, content_sha256, find_gaps, iso, make_frame, parts, sort_unique
from btcai.errors import DataError
from btcai.files import backup_of, replaced, settle, write_bytes
from btcai.schema import BAR_NS, RAW_COLUMNS, Bars, FloatArray, IntArray

__all__ = [
    "Written",
    "changed",
    "check_name",
    "content_sha256",
    "list_markets",
    "market_status",
    "read_market",
    "replace_market",
    "to_grid",
    "write_market",
]

logger = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [(RAW_COLUMNS[0], pa.timestamp("ms", tz="UTC")), *((name, pa.float64()) for name in RAW_COLUMNS[1:])]
)
FORMAT: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "version": "2.6",
    "use_dictionary": False,
    "write_page_checksum": True,  # or a bit that the disk lost would be another price
}
MONTH_FILES = "[0-9][0-9][0-9][0-9]-[0-9][0-9].parquet"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What joined a market, and the market after it."""

    market: str
    rows_added: int  # what the market did not hold yet
    rows: int
    first: str
    last: str
    gaps: int
    missing_bars: int
    zero_volume_bars: int
    content_sha256: str


def write_market(data_root: Path, market: str, frame: pd.DataFrame) -> Written:
    """Merge raw bars into a market, as `changed`, for good."""
    with changed(data_root, market, frame) as written:
        return written


def replace_market(data_root: Path, market: str, frame: pd.DataFrame, add: Callable[[Path], None]) -> Written:
    """Raw bars, and what `add` puts beside them, in place of all that a market holds; only if it can be made again."""
    folder = _folder(data_root, market)
    settle(folder)

    def write(draft: Path) -> None:
        _write_months(draft, frame)
        add(draft)

    with replaced(folder, write):
        return Written(rows_added=len(frame), **_describe(market, frame))


@contextmanager
def changed(
    data_root: Path, market: str, frame: pd.DataFrame, place: Callable[[int], str] | None = None
) -> Iterator[Written]:
    """Merge raw bars into a market, making it if it is new; where the block raises, the market is as it was.

    Bars that it already holds change nothing on disk. DataError where a new bar disagrees with one on disk, or where
    old and new together are not of one timeframe; place(i) says where row i of the frame comes from.
    """
    folder = _folder(data_root, market)
    origin = place or (lambda row: f"row {row}")
    bars, kept = sort_unique(frame, origin, "keep one of the two")
    if bars.empty:
        raise DataError(f"an import into {market} must hold at least one bar, was empty; give a file with rows")
    settle(folder)  # a change that was killed, before the folder is read
    held = _read_months(folder) if _months(folder) else bars.iloc[:0]

    def where(row: int) -> str:
        return "on disk" if row < len(held) else origin(int(kept[row - len(held)]))

    merged, rows = sort_unique(
        pd.concat([held, bars], ignore_index=True),
        where,
        f"give the other bars a market of their own (--market), or remove {folder} and import again",
    )
    written = Written(rows_added=len(merged) - len(held), **_describe(market, merged))
    if not written.rows_added:
        yield written
        return
    check_spacing(parts(merged)[0], lambda bar: f"the market {market} with these bars, {where(int(rows[bar]))}")
    with replaced(folder, lambda draft: _write(draft, merged, folder)):
        logger.info("%s: %d bars added, %d in all", folder, written.rows_added, written.rows)
        yield written


def read_market(data_root: Path, market: str) -> pd.DataFrame:
    """A market's raw bars with RAW_COLUMNS, oldest first; DataError names the commands that make one."""
    folder = _folder(data_root, market)
    for place in (folder, backup_of(folder)):
        if _months(place):
            return _read_months(place)
    raise DataError(
        f"{folder} holds no bars; make a market with: btcai simulate market, or import your own: btcai data import PATH"
    )


def list_markets(data_root: Path) -> list[str]:
    """Names of the markets that hold bars, sorted."""
    if not data_root.is_dir():
        return []
    return sorted(place.name for place in data_root.iterdir() if not place.name.startswith(".") and _months(place))


def market_status(data_root: Path, market: str) -> dict[str, Any]:
    """market, rows, first, last, gaps, missing_bars, zero_volume_bars, content_sha256; plain JSON values."""
    return _describe(market, read_market(data_root, market))


def to_grid(frame: pd.DataFrame) -> Bars:
    """Raw bars -> every 5-minute bar from the first to the last; a missing one has present False and nan prices."""
    open_ms, values = parts(frame)
    if not len(open_ms):
        raise DataError("a grid needs at least one bar, was empty; make a market with: btcai simulate market")
    ordered = np.r_[True, np.diff(open_ms) > 0]
    for wrong, rule in (
        (open_ms % BAR_MS != 0, "stamps must lie on the 5-minute grid"),
        (~ordered, "stamps must increase"),
        (~np.isfinite(values).all(axis=1), "values must be finite numbers"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"{rule}, row {row} at {iso(open_ms[row])} does not; see: btcai stage validate")
    slot = (open_ms - open_ms[0]) // BAR_MS
    n_bars = int(slot[-1]) + 1
    present = np.zeros(n_bars, dtype=np.bool_)
    present[slot] = True
    grid = np.full((n_bars, values.shape[1]), np.nan)
    grid[slot] = values
    grid[~present, 4] = 0.0
    columns: list[FloatArray] = [np.ascontiguousarray(column) for column in grid.T]
    close_ts_ns: IntArray = (np.int64(open_ms[0]) * 1_000_000 + BAR_NS) + np.arange(n_bars, dtype=np.int64) * BAR_NS
    return Bars(
        close_ts_ns=close_ts_ns,
        open=columns[0],
        high=columns[1],
        low=columns[2],
        close=columns[3],
        volume=columns[4],
        present=present,
    )


def _describe(market: str, frame: pd.DataFrame) -> dict[str, Any]:
    open_ms, values = parts(frame)
    gaps = find_gaps(open_ms)
    return {
        "market": market,
        "rows": len(open_ms),
        "first": iso(open_ms[0]),
        "last": iso(open_ms[-1]),
        "gaps": len(gaps),
        "missing_bars": sum(gap.bars for gap in gaps),
        "zero_volume_bars": int((values[:, 4] == 0).sum()),
        "content_sha256": content_sha256(frame),
    }


def check_name(market: str) -> None:
    """DataError where no market can be called that."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", market):
        raise DataError(f"a market's name must be lower-case letters, digits, - and _, was {market!r}; choose another")


def _folder(data_root: Path, market: str) -> Path:
    check_name(market)
    return data_root / market


def _months(folder: Path) -> list[Path]:
    return sorted(folder.glob(MONTH_FILES))


def _read_months(folder: Path) -> pd.DataFrame:
    tables = []
    for path in _months(folder):
        try:
            tables.append(pq.ParquetFile(path, page_checksum_verification=True).read().cast(SCHEMA))
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(
                f"{path} must be a month of bars: {reason}; restore it (dvc checkout) or import again"
            ) from error
    table = pa.concat_tables(tables)
    open_ms = table[RAW_COLUMNS[0]].cast(pa.int64()).to_numpy()
    return make_frame(open_ms, np.column_stack([table[name].to_numpy() for name in RAW_COLUMNS[1:]]))


def _write(draft: Path, frame: pd.DataFrame, old: Path) -> None:
    """The whole of a market: its bars, and what else the old folder holds, as it is."""
    _write_months(draft, frame)
    months = set(_months(old))
    for other in old.iterdir() if old.is_dir() else ():
        if other.is_file() and other not in months:
            write_bytes(draft / other.name, other.read_bytes())


def _write_months(folder: Path, frame: pd.DataFrame) -> None:
    """One file a UTC month, the same bytes for the same bars and the same pyarrow."""
    open_ms, values = parts(frame)
    months = open_ms.astype("datetime64[ms]").astype("datetime64[M]")
    names, starts = np.unique(months, return_index=True)
    for name, first, stop in zip(names, starts, [*starts[1:], len(months)], strict=True):
        times = pa.array(open_ms[first:stop], type=pa.int64()).cast(SCHEMA.field(0).type)
        table = pa.table([times, *(pa.array(column) for column in values[first:stop].T)], schema=SCHEMA)
        path = folder / f"{name}.parquet"
        pq.write_table(table, path, **FORMAT)
        with path.open("rb+") as stream:  # on the disk before the swap, or a power cut could leave empty files
            os.fsync(stream.fileno())
