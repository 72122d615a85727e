"""Funding rates of a perpetual swap on disk, beside its bars."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from btcai.errors import DataError
from btcai.files import write_bytes
from btcai.schema import FloatArray, IntArray

FILE = "funding.parquet"
SCHEMA = pa.schema([("time", pa.timestamp("ms", tz="UTC")), ("rate", pa.float64())])


def read_funding(folder: Path) -> tuple[IntArray, FloatArray] | None:
    """Times (N,) UTC ms, oldest first, and rates (N,), what a long pays as a share of its position's value; None where
    the market has none on record."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read().cast(SCHEMA)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path} must hold funding rates: {' '.join(str(error).split())[:120]}; restore it with dvc checkout, or "
            "remove it and fetch again: btcai data fetch"
        ) from error
    return table["time"].cast(pa.int64()).to_numpy(), table["rate"].to_numpy()


def write_funding(folder: Path, time_ms: IntArray, rates: FloatArray) -> int:
    """Add rates to a market's folder, in one step; those on record stay as they are. Returns how many are new."""
    held = read_funding(folder)
    known = held[0] if held else np.empty(0, np.int64)
    new = ~np.isin(time_ms, known)
    if not new.any():
        return 0
    times = np.r_[known, time_ms[new]]
    values = np.r_[held[1] if held else np.empty(0), rates[new]]
    order = np.argsort(times)
    table = pa.table([pa.array(times[order]).cast(SCHEMA.field(0).type), pa.array(values[order])], schema=SCHEMA)
    target = pa.BufferOutputStream()
    pq.write_table(table, target, compression="zstd", version="2.6", use_dictionary=False, write_page_checksum=True)
    write_bytes(folder / FILE, target.getvalue().to_pybytes())
    return int(new.sum())


def with_funding(content_sha256: str, funding: tuple[IntArray, FloatArray] | None) -> str:
    """The identity of a market's bars and rates; of its bars alone, as it is, where it has no rates."""
    if funding is None:
        return content_sha256
    digest = hashlib.sha256(content_sha256.encode())
    digest.update(funding[0].astype("<i8").tobytes())
    digest.update(funding[1].astype("<f8").tobytes())
    return digest.hexdigest()
