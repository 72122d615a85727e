"""MarketData on disk: the same bits back, the same bytes twice, and damage that is named."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from btcai.errors import ArtifactError
from btcai.features.store import load_market, save_market
from btcai.schema import BAR_NS, Bars, MarketData

NAMES = ("return_1", "log_sigma", "mask")


def small_market(n_bars: int) -> MarketData:
    """Random numbers in the shape of a market; every tenth bar is missing."""
    rng = np.random.default_rng(n_bars)
    present = np.arange(n_bars) % 10 != 9
    prices = {name: np.where(present, rng.lognormal(size=n_bars), np.nan) for name in ("open", "high", "low", "close")}
    volume = np.where(present, rng.lognormal(size=n_bars), 0.0)
    return MarketData(
        bars=Bars(close_ts_ns=BAR_NS * np.arange(n_bars), present=present, volume=volume, **prices),
        mark=rng.lognormal(size=n_bars),
        sigma=rng.lognormal(size=n_bars),
        features=rng.normal(size=(n_bars, 3)).astype(np.float32),
        feature_names=NAMES,
        warmup_bars=12,
    )


def test_a_saved_market_reads_back_bit_for_bit_mapped_and_read_only(tmp_path: Path) -> None:
    data = small_market(500)
    save_market(data, tmp_path, {"data_sha256": "abc"})
    read = load_market(tmp_path)
    for name in ("features", "mark", "sigma"):
        np.testing.assert_array_equal(getattr(read, name), getattr(data, name))
    for name in Bars.__dataclass_fields__:
        stored = getattr(read.bars, name)
        np.testing.assert_array_equal(stored, getattr(data.bars, name))
        assert stored.flags.c_contiguous
        assert not stored.flags.writeable
    assert (read.feature_names, read.warmup_bars) == (NAMES, 12)
    assert not read.features.flags.writeable
    assert read.features.base is not None


def test_two_saves_of_one_market_are_the_same_bytes(tmp_path: Path) -> None:
    data = small_market(200)
    save_market(data, tmp_path / "a", {"z": 1, "a": "x"})
    save_market(data, tmp_path / "b", {"a": "x", "z": 1})
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["bars.npy", "close_ts_ns.npy", "features.npy", "meta.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    assert (meta["rows"], meta["warmup_bars"], meta["z"]) == (200, 12, 1)
    assert meta["feature_names"] == list(NAMES)


def test_meta_may_not_overwrite_what_the_store_writes_itself_nor_hold_nan(tmp_path: Path) -> None:
    data = small_market(20)
    with pytest.raises(ValueError, match="was given rows"):
        save_market(data, tmp_path, {"rows": 3})
    with pytest.raises(ValueError, match="JSON"):
        save_market(data, tmp_path, {"score": math.nan})


@pytest.mark.parametrize("name", ["meta.json", "features.npy", "bars.npy", "close_ts_ns.npy"])
def test_a_missing_or_damaged_file_names_the_command_that_makes_it(tmp_path: Path, name: str) -> None:
    save_market(small_market(50), tmp_path, {})
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"btcai stage features"):
        load_market(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name} not found; make it with: btcai run"):
        load_market(tmp_path)


def test_files_of_two_different_saves_do_not_load_together(tmp_path: Path) -> None:
    save_market(small_market(50), tmp_path / "a", {})
    save_market(small_market(60), tmp_path / "b", {})
    (tmp_path / "b" / "features.npy").replace(tmp_path / "a" / "features.npy")
    with pytest.raises(ArtifactError, match=r"shape \(50, 3\) as meta.json says, was float32 \(60, 3\)"):
        load_market(tmp_path / "a")


def test_recorded_funding_rates_are_saved_and_none_stay_none(tmp_path: Path) -> None:
    plain = small_market(40)
    save_market(plain, tmp_path / "plain", {})
    assert load_market(tmp_path / "plain").funding is None
    rates = np.zeros(len(plain))
    rates[[1, 2]] = 0.0001, np.nan
    save_market(replace(plain, funding=rates), tmp_path / "rates", {})
    np.testing.assert_array_equal(load_market(tmp_path / "rates").funding, rates)
