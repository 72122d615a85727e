"""Which bundle is in use: new champions are swapped in, broken or foreign ones refused, the last good one stays."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import export_fakes
import numpy as np
import pytest
from export_fakes import hand_made_bundle, loud_bundle, scaler
from serving_fakes import champion, standing

from btcai import paths
from btcai.errors import ConfigError
from btcai.features.scaling import Scaler
from btcai.features.table import FEATURE_NAMES
from btcai.files import backup_of
from btcai.inference.bundle import file_sha256, load_bundle
from btcai.records.champions import place_champion
from btcai.serving import shelf as shelf_module
from btcai.serving.shelf import NotServedError, Shelf, holds_scaler


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "_SWAP_S", 0.0)


def shelf_of(root: Path, *buckets: str) -> tuple[Shelf, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    shelf = Shelf(root, buckets, lambda bucket, event: told.append((bucket, event)))
    shelf.refresh()
    return shelf, told


def change_manifest(root: Path, bucket: str, **changes: Any) -> None:
    export_fakes.change_manifest(root / paths.CHAMPION / bucket, **changes)


def test_a_new_champion_is_in_use_from_the_next_look_on_and_who_holds_the_old_one_keeps_it(tmp_path: Path) -> None:
    one = champion(tmp_path, "scalping", seed=0)
    shelf, told = shelf_of(tmp_path, "scalping")
    held = shelf.placed("scalping")
    other = champion(tmp_path, "scalping", seed=1, version=2)
    assert shelf.placed("scalping") is held
    shelf.refresh()
    assert shelf.placed("scalping").bundle.version == load_bundle(other).version
    assert shelf.placed("scalping").standing == standing("scalping", 2)
    assert held.bundle.version == load_bundle(one).version
    assert held.bundle.encode(np.zeros((144, len(FEATURE_NAMES)), np.float32)).latent.shape == (1, len(FEATURE_NAMES))
    assert told == [("scalping", "swapped")]


def test_a_folder_that_did_not_change_is_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    champion(tmp_path, "scalping")
    shelf, told = shelf_of(tmp_path, "scalping")
    monkeypatch.setattr(shelf, "_open", lambda *_: pytest.fail("opened"))
    shelf.refresh()
    assert told == []


def truncated(root: Path) -> None:
    place = root / paths.CHAMPION / "scalping" / "encoder.onnx"
    place.write_bytes(place.read_bytes()[:100])


def no_graph(root: Path) -> None:
    place = root / paths.CHAMPION / "scalping" / "head.onnx"
    place.write_bytes(b"no graph")
    manifest = json.loads((place.parent / "manifest.json").read_text(encoding="utf-8"))
    change_manifest(root, "scalping", sha256=manifest["sha256"] | {"head.onnx": file_sha256(place)})


def other_features(root: Path) -> None:
    change_manifest(root, "scalping", feature_names=[*FEATURE_NAMES[1:], FEATURE_NAMES[0]])


def other_warm_up(root: Path) -> None:
    change_manifest(root, "scalping", warmup_bars=2000)


def other_scaler(root: Path) -> None:
    change_manifest(root, "scalping", scaler=scaler().columns())


def no_scaler(root: Path) -> None:
    change_manifest(root, "scalping", scaler={"mean": [0.0]})


def other_bucket(root: Path) -> None:
    place_champion(loud_bundle(root / "made/short", "short"), standing("short"), root / paths.CHAMPION / "scalping")


def other_standing(root: Path) -> None:
    made = loud_bundle(root / "made/again", seed=3)
    place_champion(made, standing("scalping", data_version="e" * 64), root / paths.CHAMPION / "scalping")


def torn_standing(root: Path) -> None:
    (root / paths.CHAMPION / "scalping/standing.json").write_text('{"bucket":', encoding="utf-8")


def no_manifest(root: Path) -> None:
    (root / paths.CHAMPION / "scalping/manifest.json").unlink()


def gone(root: Path) -> None:
    shutil.rmtree(root / paths.CHAMPION / "scalping")


def all_gone(root: Path) -> None:
    shutil.rmtree(root / "models")


def nan_probabilities(root: Path) -> None:
    made = hand_made_bundle(root / "made/nan", logits=(float("nan"), 0.0, 0.0, 0.0))
    place_champion(made, standing("scalping"), root / paths.CHAMPION / "scalping")


def rarely(harm: Any, reason: str) -> Any:
    """A harm whose check another test makes too: of the slow suite."""
    return pytest.param(harm, reason, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (truncated, r"champion/scalping/encoder.onnx is missing or not the file its manifest names"),
        rarely(no_graph, r"champion/scalping/head.onnx must be a graph that ONNX Runtime [\d.]+ can run: .*protobuf"),
        rarely(other_features, r"must be made for this btcai's 49 features"),
        rarely(other_warm_up, r"2016 bars of warm-up, the one in .*champion/scalping was made for 49 and 2000"),
        (other_scaler, r"the scaler inside .*champion/scalping/encoder.onnx must be the one that its manifest names"),
        rarely(no_scaler, r"a scaler must hold the numbers mean and std"),
        rarely(other_bucket, r"must be of scalping, was of short; remake it with: btcai run"),
        rarely(
            other_standing,
            r"standing.json in .* must be of the bundle .*, of bars dddddddddddd, was of one of eee",
        ),
        rarely(torn_standing, r"must hold a champion's standing, was damaged"),
        rarely(no_manifest, r"no champion in .*champion/scalping; make one with: btcai run"),
        rarely(gone, r"no champion in .*champion/scalping; make one with: btcai run"),
        (all_gone, r"no champion in .*champion/scalping; make one with: btcai run"),
        (nan_probabilities, r"probabilities must be 4 numbers that sum to 1, were \(nan"),
    ],
)
def test_a_bundle_that_is_broken_or_made_for_something_else_leaves_the_last_good_one_in_use_until_it_is_mended(
    tmp_path: Path, harm: Any, reason: str
) -> None:
    champion(tmp_path, "scalping")
    shelf, told = shelf_of(tmp_path, "scalping")
    good = shelf.placed("scalping")
    harm(tmp_path)
    shelf.refresh()
    shelf.refresh()
    assert shelf.placed("scalping") is good
    assert told == [("scalping", "refused")]  # once, not at every look
    assert re.search(reason, shelf.refused["scalping"]), shelf.refused
    mended = champion(tmp_path, "scalping", seed=9, version=3)
    shelf.refresh()
    assert shelf.placed("scalping").bundle.version == load_bundle(mended).version
    assert shelf.refused == {}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), RuntimeError("no thread")])
def test_what_may_pass_is_told_once_and_tried_again_until_it_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    champion(tmp_path, "scalping")
    tries: list[Path] = []

    def failing(source: Path, target: Path) -> None:
        tries.append(target)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(target))  # names the copy, another one at each try
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", failing)
        shelf, told = shelf_of(tmp_path, "scalping")
        shelf.refresh()
        shelf.refresh()
    assert (len(set(tries)), told) == (3, [("scalping", "refused")])
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    assert "btcai-serve-" not in shelf.refused["scalping"]
    shelf.refresh()
    assert shelf.placed("scalping").bundle.bucket == "scalping"
    assert shelf.refused == {}


def test_the_scaler_that_a_manifest_names_is_found_in_the_encoder_to_the_bit(tmp_path: Path) -> None:
    given = scaler()
    encoder = b"before" + given.std.tobytes() + b"between" + given.mean.tobytes() + b"after"
    assert holds_scaler(encoder, given)
    assert holds_scaler(encoder, Scaler.from_json(given.to_json()))
    moved = given.mean.copy()
    moved[7] = np.nextafter(moved[7], np.float32(9))
    assert not holds_scaler(encoder, Scaler(mean=moved, std=given.std))


def test_without_a_champion_the_reason_is_said_and_the_first_one_is_taken_up(tmp_path: Path) -> None:
    shelf, _ = shelf_of(tmp_path, "short")
    with pytest.raises(NotServedError, match=r"no champion in .*champion/short; make one with: btcai run"):
        shelf.placed("short")
    champion(tmp_path, "short")
    shelf.refresh()
    assert shelf.placed("short").bundle.bucket == "short"


def test_after_a_kill_between_the_two_renames_of_a_swap_the_replaced_champion_is_served(tmp_path: Path) -> None:
    made = champion(tmp_path, "scalping")
    folder = tmp_path / paths.CHAMPION / "scalping"
    folder.rename(backup_of(folder))
    shelf, _ = shelf_of(tmp_path, "scalping")
    assert shelf.placed("scalping").bundle.version == load_bundle(made).version


def test_a_swap_during_the_copy_is_noticed_and_the_copy_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion(tmp_path, "scalping", seed=0)
    copied, copy = [], shutil.copyfile

    def overtaken(source: Path, target: Path, **how: bool) -> Path:
        copy(source, target, **how)
        copied.append(Path(source).name)
        if len(copied) == 2:  # in the midst of the first copy; placing copies through here too
            champion(tmp_path, "scalping", seed=1, version=2)
        return target

    monkeypatch.setattr(shutil, "copyfile", overtaken)
    shelf = Shelf(tmp_path, ("scalping",))
    shelf.refresh()
    placed = shelf.placed("scalping")
    assert placed.standing == standing("scalping", 2)
    assert placed.bundle.version == load_bundle(tmp_path / "made/scalping-1-2").version
    assert shelf.refused == {}


def test_a_damaged_memory_costs_the_explanations_their_memory_and_nothing_else(tmp_path: Path) -> None:
    champion(tmp_path, "scalping")
    learned = tmp_path / paths.REFLECTION / "scalping"
    learned.mkdir(parents=True)
    (learned / "memory.npz").write_bytes(b"torn")
    shelf, _ = shelf_of(tmp_path, "scalping")
    assert shelf.placed("scalping").memory is None


def test_a_longer_patch_than_is_kept_is_refused(tmp_path: Path) -> None:
    settings = json.loads((loud_bundle(tmp_path / "x", "long") / "manifest.json").read_text(encoding="utf-8"))
    champion(tmp_path, "long", bucket_config=settings["bucket_config"] | {"patch_bars": 56})
    shelf, _ = shelf_of(tmp_path, "long")
    assert "patch must be at most 28 bars, long's is 56" in shelf.refused["long"]


def test_unknown_buckets_and_buckets_that_are_not_served_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be among scalping, short, medium, long, was tiny; mend --bucket"):
        Shelf(tmp_path, ("scalping", "tiny"))
    champion(tmp_path, "scalping")
    shelf, _ = shelf_of(tmp_path, "scalping")
    with pytest.raises(NotServedError, match="serves scalping, was asked for long; start it with --bucket long"):
        shelf.placed("long")
