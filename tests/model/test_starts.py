"""Warm starts: what is kept, what is refused, and that a network which learns nothing more stays as it is."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from export_fakes import loud_network, market, scaler, splits, tiny_config

from btcai.errors import ArtifactError
from btcai.paths import WEIGHTS
from btcai.schema import BUCKETS, Span
from btcai.training import importance, progressive, starts
from btcai.training.checkpoint import load_model, save_model
from btcai.training.convergence import Standing
from btcai.training.progressive import train_bucket
from btcai.training.starts import RECORD, DataSeen

SHORT = splits(Span(2016, 7000), Span(7100, 9900))
DAY_NS = 86_400_000_000_000
SEEN = DataSeen(
    market="btcusdt",
    data_version="d" * 64,
    fitted_until_ts_ns=19_000 * DAY_NS,
    chosen_from_ts_ns=19_030 * DAY_NS,
    until_ts_ns=19_200 * DAY_NS,
)


def trained(folder: Path, seed: int = 0) -> Path:
    for number, bucket in enumerate(BUCKETS):
        save_model(loud_network(tiny_config(), bucket, seed + number), folder / bucket)
    return folder


def test_what_is_kept_is_named_by_its_content_and_never_kept_twice(tmp_path: Path) -> None:
    name = starts.keep(trained(tmp_path / "run"), SEEN, tmp_path / "starts")
    assert name.startswith("btcusdt-")
    assert len(name) == len("btcusdt-") + 12
    first = (tmp_path / "starts" / name / RECORD).stat().st_mtime_ns
    assert starts.keep(tmp_path / "run", SEEN, tmp_path / "starts") == name
    assert (tmp_path / "starts" / name / RECORD).stat().st_mtime_ns == first
    assert starts.keep(trained(tmp_path / "other", seed=9), SEEN, tmp_path / "starts") != name
    for bucket in BUCKETS:
        kept = (tmp_path / "starts" / name / bucket / WEIGHTS).read_bytes()
        assert kept == (tmp_path / "run" / bucket / WEIGHTS).read_bytes()


def test_a_start_opens_for_the_same_and_for_later_bars(tmp_path: Path) -> None:
    name = starts.keep(trained(tmp_path / "run"), SEEN, tmp_path)
    later = replace(SEEN, until_ts_ns=SEEN.until_ts_ns + DAY_NS, data_version="e" * 64)
    assert starts.opened(name, tmp_path, SEEN) == starts.opened(name, tmp_path, later) == tmp_path / name


def test_a_start_that_saw_what_is_to_be_judged_on_is_refused(tmp_path: Path) -> None:
    name = starts.keep(trained(tmp_path / "run"), SEEN, tmp_path)
    earlier = replace(SEEN, until_ts_ns=SEEN.until_ts_ns - DAY_NS)
    with pytest.raises(ArtifactError, match=r"saw 1\.0 days more, which are to be judged on; start from scratch with"):
        starts.opened(name, tmp_path, earlier)


def test_a_start_that_was_fitted_to_what_is_validated_on_is_refused(tmp_path: Path) -> None:
    name = starts.keep(trained(tmp_path / "run"), SEEN, tmp_path)
    wider = replace(SEEN, chosen_from_ts_ns=SEEN.fitted_until_ts_ns - 2 * DAY_NS)
    with pytest.raises(ArtifactError, match=r"fitted to the validation span, .* its first 2\.0 days"):
        starts.opened(name, tmp_path, wider)
    next_bar = replace(SEEN, chosen_from_ts_ns=SEEN.fitted_until_ts_ns + 1)
    assert starts.opened(name, tmp_path, next_bar) == tmp_path / name


def test_the_same_weights_of_other_bars_are_another_start_and_a_changed_bit_is_none(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    later = replace(SEEN, until_ts_ns=SEEN.until_ts_ns + DAY_NS)
    name, other = (starts.keep(tmp_path / "run", seen, tmp_path) for seen in (SEEN, later))
    assert name != other
    path = tmp_path / name / "short" / WEIGHTS
    weights = bytearray(path.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    with pytest.raises(ArtifactError, match="is damaged: its name is its content's"):
        starts.opened(name, tmp_path, SEEN)
    assert starts.opened(other, tmp_path, later) == tmp_path / other


def test_a_start_of_another_market_a_missing_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    name = starts.keep(trained(tmp_path / "run"), SEEN, tmp_path)
    with pytest.raises(ArtifactError, match="start of simulated was asked for"):
        starts.opened(name, tmp_path, replace(SEEN, market="simulated"))
    with pytest.raises(ArtifactError, match="missing or damaged"):
        starts.opened("btcusdt-000000000000", tmp_path, SEEN)
    record = json.loads((tmp_path / name / RECORD).read_text(encoding="utf-8"))
    for change, said in (
        ({"market": None}, "is damaged: its name is its content's"),
        ({"another": 1}, "is damaged: its name is its content's"),
        ({"format": 4}, "must be of format 3, .* is of format 4"),
    ):
        (tmp_path / name / RECORD).write_text(json.dumps(record | change), encoding="utf-8")
        with pytest.raises(ArtifactError, match=said):
            starts.opened(name, tmp_path, SEEN)
    for text in ("[]", "{", json.dumps({"market": "btcusdt"})):
        (tmp_path / name / RECORD).write_text(text, encoding="utf-8")
        with pytest.raises(ArtifactError, match="missing or damaged"):
            starts.opened(name, tmp_path, SEEN)


def test_a_start_of_an_older_btcai_or_of_other_features_is_refused_and_not_misread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = starts.keep(trained(tmp_path / "run"), SEEN, tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / RECORD).write_text(json.dumps(asdict(SEEN)), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"must be of format 3, old is of format 1; .*warm-start --off"):
        starts.opened("old", tmp_path, SEEN)
    swapped = (starts.FEATURE_NAMES[1], starts.FEATURE_NAMES[0], *starts.FEATURE_NAMES[2:])  # weights still fit
    monkeypatch.setattr(starts, "FEATURE_NAMES", swapped)
    with pytest.raises(ArtifactError, match=r"must read this btcai's .* features .*, those of .* read others"):
        starts.opened(name, tmp_path, SEEN)


def test_a_damaged_start_is_kept_anew_under_its_name(tmp_path: Path) -> None:
    name = starts.keep(trained(tmp_path / "run"), SEEN, tmp_path / "starts")
    (tmp_path / "starts" / name / "long" / WEIGHTS).unlink()
    assert starts.keep(tmp_path / "run", SEEN, tmp_path / "starts") == name
    assert starts.read(name, tmp_path / "starts") == SEEN


def test_what_is_dropped_is_gone_whole_and_what_is_named_stays(tmp_path: Path) -> None:
    folder = tmp_path / "starts"
    assert starts.unnamed(folder, {"a"}) == []
    for name in ("a", "b", ".c.new"):
        (folder / name).mkdir(parents=True)
        (folder / name / RECORD).touch()
    (folder / starts.LOCK).touch()
    gone = starts.unnamed(folder, {"a", "none"})
    assert [path.name for path in gone] == [".c.new", "b"]
    starts.drop(gone)
    assert sorted(path.name for path in folder.iterdir()) == [starts.LOCK, "a"]


def test_a_run_that_lacks_a_bucket_is_not_kept(tmp_path: Path) -> None:
    (trained(tmp_path / "run") / "long" / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match="long"):
        starts.keep(tmp_path / "run", SEEN, tmp_path / "starts")
    assert not (tmp_path / "starts").exists()


@pytest.mark.slow
@pytest.mark.parametrize("gains", [False, True])
def test_training_goes_on_from_a_start_and_keeps_only_what_gains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gains: bool
) -> None:
    for name, value in {"STRETCHES": 2, "REPEATS": 1, "WINDOWS": importance.WINDOWS_AT_ONCE}.items():
        monkeypatch.setattr(importance, name, value)
    said: list[bool] = []

    def gained(before: Standing, after: Standing, config: object, label: str) -> bool:
        said.append(gains and not said)
        return said[-1]

    monkeypatch.setattr(progressive, "_gained", gained)
    config = tiny_config(rounds=3)
    save_model(loud_network(config, "short"), tmp_path / "start")
    save_model(loud_network(config, "scalping", seed=5), tmp_path / "teacher")
    out = tmp_path / "out"
    found = train_bucket(
        market(), SHORT, scaler(), "short", config, tmp_path / "teacher", out, start=tmp_path / "start"
    )
    before, after = (load_model(folder, "short", config) for folder in (tmp_path / "start", out))
    same = all(torch.equal(one, other) for one, other in zip(before.parameters(), after.parameters(), strict=True))
    assert same is not gains
    assert (found["rounds"], found["converged"]) == (2.0 if gains else 1.0, 1.0)
    assert "valid_forecast_loss_warm" in found
    assert "valid_forecast_loss_handed_over" not in found  # what the teacher knows is in the start already
