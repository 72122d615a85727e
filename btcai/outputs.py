"""What the stages wrote, read again."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btcai import paths
from btcai.errors import ArtifactError
from btcai.schema import IntArray, MarketData, SealedSpan, Span

if TYPE_CHECKING:
    from btcai.features.scaling import Scaler
    from btcai.features.splits import Splits
    from btcai.training.starts import DataSeen


def load_features(root: Path) -> "tuple[MarketData, Splits, Scaler]":
    """What the features stage wrote, memory-mapped, up to the sealed span: what tunes or judges cannot reach that."""
    data, splits, scaler = load_whole(root)
    return data.until(splits.sealed.first), splits, scaler


def load_whole(root: Path) -> "tuple[MarketData, Splits, Scaler]":
    """The same with the sealed bars: for the record of what there is, for drift, and for who opens the seal."""
    from btcai.features.scaling import Scaler
    from btcai.features.splits import Splits
    from btcai.features.store import load_market, read_meta

    folder = root / paths.FEATURES
    data = load_market(folder)
    scaler_path = folder / "scaler.json"
    if not scaler_path.is_file():
        raise ArtifactError(f"{scaler_path} not found; make it with: btcai run")
    saved = read_meta(folder)["splits"]
    splits = Splits(
        **{name: Span(**saved[name]) for name in ("train", "valid", "test")},
        folds=tuple(Span(**fold) for fold in saved["folds"]),
        sealed=SealedSpan(**saved["sealed"]),
    )
    return data, splits, Scaler.from_json(scaler_path.read_bytes())


def data_version(root: Path) -> str:
    """The hash of the raw bars' content that the features were made from."""
    from btcai.features.store import read_meta

    return str(read_meta(root / paths.FEATURES)["data_version"])


def tested_ts_ns(root: Path) -> tuple[int, int]:
    """Closes of the first and the last bar of the test span of artifacts/features."""
    data, splits, _ = load_features(root)
    first, last = (int(data.bars.close_ts_ns[row]) for row in (splits.test.first, splits.test.stop - 1))
    return first, last


def seen(root: Path) -> "DataSeen":
    """What networks trained on artifacts/features are fitted to and chosen on."""
    from btcai.features.store import read_meta
    from btcai.training.starts import DataSeen

    data, splits, _ = load_features(root)
    meta, rows = read_meta(root / paths.FEATURES), (splits.train.stop - 1, splits.valid.first, splits.valid.stop - 1)
    fitted_until, chosen_from, until = (int(data.bars.close_ts_ns[row]) for row in rows)
    return DataSeen(
        market=meta["market"],
        data_version=meta["data_version"],
        fitted_until_ts_ns=fitted_until,
        chosen_from_ts_ns=chosen_from,
        until_ts_ns=until,
    )


def read_metrics(root: Path) -> dict[str, Any]:
    """reports/evaluation/metrics.json."""
    path = root / paths.EVALUATION / "metrics.json"
    if not path.is_file():
        raise ArtifactError(f"{path} not found; make it with: btcai run")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def days(span: Span | SealedSpan, close_ts_ns: IntArray) -> str:
    """First and last UTC day of a span, and its length: "2024-10-01 .. 2025-03-31, 52,416 bars"."""
    import numpy as np

    ends = close_ts_ns[[span.first, span.stop - 1]].astype("datetime64[ns]").astype("datetime64[D]")
    first, last = np.datetime_as_string(ends)
    return f"{first} .. {last}, {len(span):,} bars"
