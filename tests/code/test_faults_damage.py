"""Bytes that a disk lost: a damaged file is refused with its name and the remedy, or it gives what it gave before.

Each file is damaged at seeded places, one byte or a stretch, or cut off; its reader may then raise one of our errors,
or return what it returned from the whole file. Anything else would be a wrong result in silence, or a traceback.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_fakes import frame, hand_made_bundle, market, newest_bars, scaler
from learning_tasks import SMALL, settings

from btcai.data.frame import content_sha256
from btcai.data.store import read_market, write_market
from btcai.errors import ArtifactError, BtcaiError
from btcai.features.scaling import Scaler
from btcai.features.store import FILES, load_market, save_market
from btcai.inference.bundle import MANIFEST, load_bundle
from btcai.inference.decision import decide
from btcai.paths import WEIGHTS
from btcai.records import champions, openings, promotions, trials
from btcai.records.champions import Standing, place_champion
from btcai.records.openings import Opening
from btcai.records.promotions import Change, Seats
from btcai.records.trials import JudgedSpan, append_trial, trial_sharpes
from btcai.schema import Bars, SealedSpan
from btcai.training.checkpoint import load_model, new_model, save_model

TRIES = 60


def damaged(whole: bytes, number: int) -> bytes:
    """The bytes with other ones at a seeded place, most often near the ends, where formats keep what they need."""
    rng = np.random.default_rng(number)
    if number % 10 == 9:
        return whole[: rng.integers(0, len(whole))]
    ends = min(400, len(whole))
    first = [rng.integers(0, ends), len(whole) - 1 - rng.integers(0, ends), rng.integers(0, len(whole))][number % 3]
    length = min(len(whole) - int(first), [1, 1, 64][rng.integers(0, 3)])
    mask = rng.integers(1, 256, length, dtype=np.uint8)
    bytes_ = np.frombuffer(whole, np.uint8).copy()
    bytes_[first : first + length] ^= mask
    return bytes_.tobytes()


def outcome(read: Callable[[], Any]) -> tuple[Any, str | None]:
    """What was read, or the error of ours that refused it."""
    try:
        return read(), None
    except BtcaiError as error:
        return None, str(error)


def tried(path: Path, read: Callable[[], Any], named: str) -> tuple[int, int]:
    """Damages the file TRIES times: how often it was refused, how often it gave the same."""
    whole, before = path.read_bytes(), read()
    refused = same = 0
    for number in range(TRIES):
        path.write_bytes(damaged(whole, number))
        found, told = outcome(read)
        if told is None:
            assert found == before, number
            same += 1
        else:
            assert named in told
            assert "btcai " in told or "dvc checkout" in told
            refused += 1
    path.write_bytes(whole)
    assert read() == before
    return refused, same


def test_bars(tmp_path: Path) -> None:
    write_market(tmp_path, "btcusdt", frame().head(3000))
    (path,) = (tmp_path / "btcusdt").iterdir()
    refused, _ = tried(path, lambda: content_sha256(read_market(tmp_path, "btcusdt")), path.name)
    assert refused > TRIES // 2


@pytest.mark.parametrize("name", [*FILES, "meta.json"])
def test_features(tmp_path: Path, name: str) -> None:
    save_market(market().until(300), tmp_path, {"data_version": "d", "splits": {"train": [0, 200]}})

    def read() -> list[bytes]:
        found = load_market(tmp_path)
        bars = [getattr(found.bars, column).tobytes() for column in Bars.__dataclass_fields__]
        return [found.features.tobytes(), found.mark.tobytes(), found.sigma.tobytes(), *bars]

    refused, same = tried(tmp_path / name, read, str(tmp_path))
    assert refused + same == TRIES
    assert refused > 0.9 * TRIES  # blanks of meta.json are nothing


def test_scaler(tmp_path: Path) -> None:
    path = tmp_path / "scaler.json"
    path.write_text(scaler().to_json(), encoding="utf-8")

    def read() -> tuple[bytes, bytes]:
        found = Scaler.from_json(path.read_bytes())
        return found.mean.tobytes(), found.std.tobytes()

    refused, same = tried(path, read, path.name)
    assert refused + same == TRIES
    assert refused > 0.9 * TRIES  # blanks are nothing


def test_features_of_an_older_btcai_are_read_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_market(market().until(300), tmp_path, {})
    text = (tmp_path / "meta.json").read_text(encoding="utf-8")
    first, last = text.index('  "sha256"'), text.index("  },", text.index('  "sha256"')) + 5
    (tmp_path / "meta.json").write_text(text[:first] + text[last:], encoding="utf-8")
    assert len(load_market(tmp_path)) == 300
    assert "has no checksums, of an older btcai; make it again with: btcai stage features" in caplog.text


@pytest.mark.slow
def test_weights(tmp_path: Path) -> None:
    config = settings().model_copy(update={"model": SMALL})
    torch.manual_seed(1)
    save_model(new_model(config, "scalping"), tmp_path)

    def read() -> dict[str, bytes]:
        weights = load_model(tmp_path, "scalping", config).state_dict()
        return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}

    refused, same = tried(tmp_path / WEIGHTS, read, WEIGHTS)
    assert refused > 0.9 * TRIES
    assert refused + same == TRIES


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx", "policy.onnx", MANIFEST])
def test_bundle(tmp_path: Path, name: str) -> None:
    hand_made_bundle(tmp_path, "scalping")
    bars = newest_bars(market().bars, 9000, 2400)

    def read() -> Any:
        return decide(load_bundle(tmp_path), bars)

    refused, same = tried(tmp_path / name, read, name)
    assert refused + same == TRIES
    assert refused == TRIES or (name == MANIFEST and refused > 0.9 * TRIES)  # blanks of a manifest are nothing


@pytest.mark.parametrize("digit", range(10))
def test_no_digit_of_a_manifest_can_change_unseen(tmp_path: Path, digit: int) -> None:
    path = hand_made_bundle(tmp_path, "scalping") / MANIFEST
    whole = path.read_text(encoding="utf-8")
    places = [k for k, letter in enumerate(whole) if letter.isdigit() and letter != str(digit)]
    for k in np.random.default_rng(digit).choice(places, TRIES, replace=False):
        path.write_text(f"{whole[:k]}{digit}{whole[k + 1 :]}", encoding="utf-8")
        with pytest.raises(ArtifactError, match=r"manifest.json .*btcai run"):
            load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["standing.json", "encoder.onnx", MANIFEST])
def test_a_champion_that_is_damaged_is_no_champion(tmp_path: Path, name: str) -> None:
    standing = Standing(
        bucket="scalping", version=1, data_version="d", code_version="c", judged_on="t", score=0.1, edge="none",
        run_id="r",
    )  # fmt: skip
    place_champion(hand_made_bundle(tmp_path / "bundle", "scalping"), standing, tmp_path / "champion")
    path = tmp_path / "champion" / name
    whole = path.read_bytes()
    for number in range(TRIES):
        path.write_bytes(damaged(whole, number))
        said = outcome(lambda: champions.read_standing(path.parent))
        assert said == (standing, None) or (name == champions.STANDING and said[0] is None)
        assert not champions.is_placed(standing, path.parent) or json.loads(path.read_bytes()) == json.loads(whole)
    path.write_bytes(whole)
    assert champions.is_placed(standing, path.parent)
    shutil.rmtree(path.parent)


def test_ledger_of_looks(tmp_path: Path) -> None:
    """An unknown number of looks is not none: it is refused."""
    path = tmp_path / "openings.jsonl"
    look = Opening(
        market="m", data_version="d", first_ts_ns=1_000, last_ts_ns=2_000, opened_unix_s=1, because="a new champion",
        models={"short": "abc"},
    )  # fmt: skip
    for _ in range(3):
        openings.opened(SealedSpan(1, 2), look, path)
    refused, same = tried(path, lambda: openings.looks(path), path.name)
    assert refused + same == TRIES
    assert refused > 0.9 * TRIES


def told_or_the_same(path: Path, read: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> int:
    """Damages a ledger whose other lines count on: how often a line was named. Where none was, nothing is lost."""
    whole, before = path.read_bytes(), read()
    named = 0
    for number in range(TRIES):
        path.write_bytes(damaged(whole, number))
        caplog.clear()
        if (found := read()) == before:
            continue
        assert f"{path} line " in caplog.text, (number, found)
        named += 1
    path.write_bytes(whole)
    assert read() == before
    return named


def test_ledger_of_changes_of_champion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "promotions.jsonl"
    for number in (1, 2, 3):
        change = Change(
            kind="promote", bucket="short", before=Seats(champion=number), after=Seats(champion=number + 1),
            because="a try", model_version="m", manifest_sha256="f",
        )  # fmt: skip
        promotions.begin(path, change)
        promotions.end(path, change, "done")
    assert told_or_the_same(path, lambda: promotions.entries(path), caplog) > 0.9 * TRIES


def test_ledger_of_trials(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, tested = tmp_path / "trials.jsonl", JudgedSpan(market="m", first_ts_ns=0, last_ts_ns=9, data_version="d")
    for number in range(3):
        append_trial(path, {"input_hash": f"hash {number}", "data_version": "d", "sharpes": {"short": number + 0.25}})

    def read() -> tuple[list[float], set[object]]:
        return trial_sharpes(path, tested, {"config": None}), trials._tried(path, path.read_bytes().splitlines())

    assert told_or_the_same(path, read, caplog) > 0.9 * TRIES
    damaged_once = damaged(path.read_bytes(), 2)
    path.write_bytes(damaged_once)
    assert append_trial(path, {"input_hash": "another"})
    assert path.read_bytes().startswith(damaged_once)
