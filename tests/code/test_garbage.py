"""What may go goes, and a champion can still be restored to the byte: its bundle, its bars, its settings."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from registry_fakes import project, register
from scratch_checkout import bars, cached, checkout, committed, dvc, git

from btcai import paths
from btcai.errors import ArtifactError, ConfigError
from btcai.inference.bundle import file_sha256
from btcai.params import changed
from btcai.records import versions
from btcai.registry import garbage, place, promotion, recording, succession, tracking, verification, warm_starts
from btcai.registry.garbage import Recorded
from btcai.schema import BUCKETS


def recorded(
    name: str, began: int, *, needed: bool = False, finished: bool = True, versions: tuple[int, ...] = ()
) -> Recorded:
    return Recorded(
        input_hash=name,
        parent=name,
        commit=None,
        began_unix_ms=began,
        finished=finished,
        run_ids=(),
        versions=tuple((f"btcai-{bucket}", number) for bucket, number in zip(BUCKETS, versions, strict=False)),
        model_ids=(),
        needed=needed,
        bytes=0,
        start="none",
    )


def test_the_newest_and_the_needed_stay_and_an_unfinished_one_counts_as_neither() -> None:
    runs = [
        recorded("champion", 1, needed=True),
        recorded("old", 2),
        recorded("older champion", 3, needed=True),
        recorded("newest", 5),
        recorded("killed", 6, finished=False),
        recorded("second", 4),
    ]
    assert [one.input_hash for one in garbage._staying(runs, 2)] == [
        "champion",
        "older champion",
        "newest",
        "second",
    ]


def test_the_newest_is_the_last_that_was_registered_though_the_clock_was_put_back() -> None:
    runs = [
        recorded("first", 1_000, versions=(1, 1)),
        recorded("second", 9_000, versions=(2, 2)),
        recorded("last", 500, versions=(3, 3)),
    ]
    assert [one.input_hash for one in garbage._staying(runs, 1)] == ["last"]
    assert [one.input_hash for one in garbage._staying(runs, 2)] == ["second", "last"]


def test_a_start_is_named_by_the_workspace_a_branch_a_tag_or_a_run_that_stays(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    for name in ("tagged", "branch", "committed", "nobody", "of_a_run"):
        (root / paths.STARTS / name / "long").mkdir(parents=True)
        (root / paths.STARTS / name / "long" / paths.WEIGHTS).write_bytes(b"1234")
    (root / ".gitignore").write_text("/models/\n", encoding="utf-8")
    for name, then in (("tagged", ("tag", "v1")), ("branch", ("branch", "other")), ("committed", ("status",))):
        (root / paths.PARAMS).write_text(f"warm_start:\n  name: {name}\n", encoding="utf-8")
        committed(root)
        git(root, *then)
    (root / paths.PARAMS).write_text("warm_start:\n  name: none\n", encoding="utf-8")
    kept = {"of_a_run"} | warm_starts.named(warm_starts.committed(root))
    assert warm_starts.collect(root, kept, dry=True) == ((root / paths.STARTS / "nobody", 4),)
    assert (root / paths.STARTS / "nobody").is_dir()
    (root / paths.PARAMS).write_text("warm_start:\n  name: nobody\n", encoding="utf-8")
    assert warm_starts.collect(root, kept, dry=False) == ()
    (root / paths.PARAMS).write_text("seed: 8\n", encoding="utf-8")  # of a time before there were starts
    assert warm_starts.collect(root, kept, dry=False) == ((root / paths.STARTS / "nobody", 4),)
    left = {path.name for path in (root / paths.STARTS).iterdir() if path.is_dir()}
    assert left == {"tagged", "branch", "committed", "of_a_run"}
    (root / paths.PARAMS).write_text("warm_start: [", encoding="utf-8")
    with pytest.raises(ArtifactError, match="must be readable to tell which warm starts are needed"):
        warm_starts.collect(root, set(), dry=False)


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--keep must be at least 1, was 0"):
        garbage.collect(tmp_path, 0, dry=True)


@pytest.fixture
def one_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `short` is registered, which is enough and quicker; the terms of its score stay what they are."""
    for module in (recording, tracking, garbage):
        monkeypatch.setattr(module, "BUCKETS", ("short",))
    monkeypatch.setattr(versions, "judged_on", lambda config, data_version: "terms")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
@pytest.mark.usefixtures("one_bucket")
def test_after_collection_a_champion_whose_bars_were_never_committed_is_restored_whole(tmp_path: Path) -> None:
    root = tmp_path / "a project"
    checkout(root)
    config = project(root)
    first_md5 = bars(root, "first bars")
    committed(root)
    register(root, config, 0.9)  # 1: champion, of bars on the branch
    second_md5 = bars(root, "second bars")  # never committed: only MLflow knows them
    project(root, weight=2.0)
    register(root, changed(config, {"warm_start.name": "second"}), 0.1)  # 2
    promotion.promote(root, "short", 2, "held by hand")
    shutil.copy(root / "data.dvc", tmp_path / "second.dvc")
    third_md5 = bars(root, "third bars")
    project(root, weight=3.0)
    register(root, changed(config, {"warm_start.name": "third"}), 0.2)  # 3: nobody's, soon
    last_md5 = bars(root, "last bars")
    project(root, weight=4.0)
    register(root, config, 0.3)  # 4: challenger, the workspace's
    assert {first_md5, second_md5, third_md5, last_md5} <= cached(root)
    kept_before = {file.name: file_sha256(file) for file in (root / paths.CHAMPION / "short").iterdir()}

    for name in ("second", "third"):
        (root / paths.STARTS / name).mkdir(parents=True)

    client = tracking.read_client(root)
    third = succession.version(client, "short", 3)
    dry = garbage.collect(root, 1, dry=True)
    assert [one.versions for one in dry.drop] == [(("btcai-short", 3),)]
    assert dry.drop[0].bytes > 10_000
    assert {path.parent.name + path.name for path, _ in dry.cache} == cached(root) - named(root)
    assert third_md5 in cached(root)
    assert [path.name for path, _ in dry.starts] == ["third"]
    assert (root / paths.STARTS / "third").is_dir()
    assert client.get_run(third.run_id).info.lifecycle_stage == "active"

    done = garbage.collect(root, 1, dry=False)
    assert (done.drop, done.cache, done.starts) == (dry.drop, dry.cache, dry.starts)
    assert (root / paths.STARTS / "second").is_dir()
    assert not (root / paths.STARTS / "third").exists()
    assert third_md5 not in cached(root)
    assert {first_md5, second_md5, last_md5} <= cached(root)
    assert [one.version for one in recording.standings(client, "short")] == [4, 2, 1]
    assert not (root / place.ARTIFACTS / third.run_id).exists()
    assert not any((root / place.ARTIFACTS / "models" / name).exists() for name in done.drop[0].model_ids)
    again = garbage.collect(root, 1, dry=False)
    assert (again.drop, again.cache, again.starts) == ((), (), ())

    shutil.rmtree(root / paths.CHAMPION)
    assert verification.mend(root, "short") == ["short: the files of version 2 are back from the record"]
    assert [check.said for check in verification.verify(root) if not check.ok] == []
    assert {file.name: file_sha256(file) for file in (root / paths.CHAMPION / "short").iterdir()} == kept_before
    shutil.copy(tmp_path / "second.dvc", root / "data.dvc")
    dvc(root, "checkout", "--quiet", "--force", "data.dvc")
    assert (root / "data" / "simulated" / "2024-01.parquet").read_text(encoding="utf-8") == "second bars"


def named(root: Path) -> set[str]:
    """What a collection must keep: everything in the cache but the third bars and their folder."""
    gone = hashlib.md5(b"third bars").hexdigest()
    listed = [{"md5": gone, "relpath": "simulated/2024-01.parquet"}]
    folder = hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    return cached(root) - {gone, f"{folder}.dir"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
@pytest.mark.usefixtures("one_bucket")
def test_nothing_goes_where_a_needed_version_is_not_whole_or_the_files_are_another_projects(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    config = project(root)
    register(root, config, 0.9)
    project(root, weight=2.0)
    register(root, config, 0.1)
    client = tracking.read_client(root)
    first = succession.version(client, "short", 1)

    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    with pytest.raises(ArtifactError, match="this project was copied or moved"):
        garbage.collect(copy, 1, dry=False)

    client.delete_run(first.run_id)
    with pytest.raises(ArtifactError, match="must have its run and its model, one was deleted; nothing was removed"):
        garbage.collect(root, 1, dry=False)
    client.restore_run(first.run_id)
    head = root / place.ARTIFACTS / first.run_id / "artifacts" / "bundle" / "head.onnx"
    head.write_bytes(b"cut")
    with pytest.raises(ArtifactError, match=r"head.onnx is missing or not the file"):
        garbage.collect(root, 1, dry=False)
