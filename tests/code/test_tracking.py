"""The record: the same inputs are recorded once, the right version is champion, its files are the bundle's bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from export_fakes import hand_made_bundle
from registry_fakes import PARAMS, SYSTEM_ROW, project, register

from btcai import paths, usage
from btcai.errors import ArtifactError
from btcai.inference.bundle import file_sha256, load_bundle
from btcai.params import flat, load_config, set_param
from btcai.records.champions import MODEL_CARD, Standing, is_placed, is_whole, place_champion, promotion, read_standing
from btcai.records.ledgers import line_of
from btcai.records.trials import append_trial
from btcai.registry import place, recording, tracking
from btcai.registry.recording import curve_points, usage_points
from btcai.schema import BUCKETS


def standing(version: int, score: float, judged_on: str = "t1") -> Standing:
    return Standing(
        bucket="short",
        version=version,
        data_version="d",
        code_version="c",
        judged_on=judged_on,
        score=score,
        edge="none",
        run_id=f"run{version}",
    )


def write_bundle(folder: Path, weight: float) -> None:
    hand_made_bundle(folder, "short", mean=0.001 * weight)


NAN = float("nan")


@pytest.mark.parametrize(
    ("candidate", "champion", "others", "winner", "reason"),
    [
        (standing(1, -0.5), None, [], 1, "score -0.5000 is the first on these terms"),
        (standing(1, NAN), None, [], None, "not a number"),
        (standing(2, 0.4), standing(1, 0.3), [], 2, "score 0.4000 is the best of 2 on these terms"),
        (standing(2, 0.3), standing(1, 0.3), [], 1, "does not beat version 1's 0.3000"),
        (standing(2, NAN), standing(1, 0.3), [], 1, "not a number"),
        (standing(1, 0.3), standing(1, 0.3), [standing(2, 0.2)], 1, "score 0.3000 is the best of 2 on these terms"),
        (standing(2, 0.2, "t2"), standing(1, 0.3), [], 2, "score 0.2000 is the first on these terms"),
        (standing(2, NAN, "t2"), standing(1, 0.3), [], 1, "not a number"),
        (standing(2, 0.5), standing(3, 0.7, "t2"), [standing(1, 1.0)], 1, "does not beat version 1's 1.0000"),
        (standing(2, NAN), standing(3, 0.7, "t2"), [standing(1, 1.0)], 1, "not a number"),
        (standing(4, 1.0), standing(3, 0.7, "t2"), [standing(1, 1.0)], 1, "does not beat version 1's 1.0000"),
    ],
    ids=[
        "first",
        "first_invalid",
        "better",
        "equal",
        "invalid",
        "itself",
        "new_terms",
        "new_terms_invalid",
        "back_on_old_terms_with_a_loser",
        "back_on_old_terms_invalid",
        "back_on_old_terms_equal",
    ],
)
def test_promotion_rule(
    candidate: Standing, champion: Standing | None, others: list[Standing], winner: int | None, reason: str
) -> None:
    registered = [*others, *([champion] if champion and champion.version != candidate.version else []), candidate]
    chosen, why = promotion(candidate, champion, registered)
    assert (chosen.version if chosen else None) == winner
    assert reason in why


def test_placing_replaces_the_whole_folder_with_the_bundles_bytes(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", 1.0)
    write_bundle(tmp_path / "b", 2.0)
    champion = tmp_path / "champion" / "short"
    place_champion(tmp_path / "a", standing(1, 0.1), champion)
    (champion / "left_over.txt").write_text("x", encoding="utf-8")
    place_champion(tmp_path / "b", standing(2, 0.2), champion)
    assert {file.name for file in champion.iterdir()} == {file.name for file in (tmp_path / "b").iterdir()} | {
        "standing.json"
    }
    for file in (tmp_path / "b").iterdir():
        assert (champion / file.name).read_bytes() == file.read_bytes()
    assert read_standing(champion) == standing(2, 0.2)
    assert [folder.name for folder in champion.parent.iterdir()] == ["short"]


def test_a_damaged_champion_is_not_placed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", 1.0)
    champion = tmp_path / "champion" / "short"
    place_champion(tmp_path / "a", standing(1, 0.1), champion)
    assert is_placed(standing(1, 0.1), champion)
    assert not is_placed(standing(2, 0.1), champion)
    (champion / "head.onnx").write_bytes(b"cut short")
    assert not is_placed(standing(1, 0.1), champion)


def test_the_ledger_holds_a_configuration_once(tmp_path: Path) -> None:
    ledger = tmp_path / "journal" / "trials.jsonl"
    assert append_trial(ledger, {"input_hash": "a"})
    assert not append_trial(ledger, {"input_hash": "a"})
    assert append_trial(ledger, {"input_hash": "b"})
    assert len(ledger.read_text(encoding="utf-8").splitlines()) == 2


def test_a_torn_line_of_the_ledger_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = tmp_path / "trials.jsonl"
    ledger.write_text('{"input_hash": "a"}\n{"input_ha', encoding="utf-8")  # killed while appending
    assert append_trial(ledger, {"input_hash": "b"})
    assert "line 2 is torn" in caplog.text
    assert not append_trial(ledger, {"input_hash": "a"})
    assert not append_trial(ledger, {"input_hash": "b"})
    assert ledger.read_text(encoding="utf-8").splitlines()[1:] == ['{"input_ha', line_of({"input_hash": "b"})]


@pytest.mark.parametrize("text", ['{"bucket": "sho', "[1]", '{"bucket": "short", "version": 1}'])
def test_a_standing_that_cannot_be_read_says_how_to_restore_it(tmp_path: Path, text: str) -> None:
    write_bundle(tmp_path / "a", 1.0)
    champion = tmp_path / "champion" / "short"
    assert not is_whole(champion)
    place_champion(tmp_path / "a", standing(1, 0.1), champion)
    assert is_whole(champion)
    (champion / "standing.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match="restore it with: btcai run"):
        read_standing(champion)
    assert not is_whole(champion)  # so that btcai run does restore it
    assert not is_placed(standing(1, 0.1), champion)


def test_settings_are_on_record_by_one_name_each() -> None:
    found = flat(load_config(PARAMS))
    assert found["ppo.clip"] == "0.3"
    assert found["buckets.short.horizons_bars"] == "[12, 72, 288]"
    assert set(map(type, found.values())) == {str}


def test_curves_skip_labels_and_blanks(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text("phase,update,loss\npretrain,0,2.5\nppo,0,\n", encoding="utf-8")
    points = [point[:3] for point in curve_points(path, "train")]
    assert points == [("train/update", 0.0, 0), ("train/loss", 2.5, 0), ("train/update", 0.0, 1)]


def test_usage_has_the_names_and_times_of_mlflows_own_monitor(tmp_path: Path) -> None:
    path = tmp_path / usage.FILE
    path.write_text(f"{','.join(usage.COLUMNS)}\n{SYSTEM_ROW}\n", encoding="utf-8")
    assert usage_points(path) == [
        ("system/cpu_utilization_percentage", 50.0, 0, 1_700_000_000_500),
        ("system/system_memory_usage_megabytes", 4000.0, 0, 1_700_000_000_500),
        ("system/system_memory_usage_percentage", 25.0, 0, 1_700_000_000_500),
        ("system/process_cpu_percentage", 99.0, 0, 1_700_000_000_500),
        ("system/process_memory_megabytes", 800.0, 0, 1_700_000_000_500),
    ]


def test_registering_without_bundles_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="btcai stage export"):
        register(tmp_path, load_config(PARAMS), 0.1)


def test_bundles_of_other_bars_than_the_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"scalping's was made from others \(d1, not d2\).*btcai run"):
        register(tmp_path, project(tmp_path), 0.1, data_version="d2")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_life_of_a_champion(tmp_path: Path) -> None:
    config = project(tmp_path)
    client = tracking._client(tmp_path)

    first = register(tmp_path, config, 0.1)
    assert {bucket: first["buckets"][bucket]["aliases"]["champion"] for bucket in BUCKETS} == dict.fromkeys(BUCKETS, 1)
    bundle, champion = tmp_path / paths.CANDIDATE / "long", tmp_path / paths.CHAMPION / "long"
    assert all((champion / file.name).read_bytes() == file.read_bytes() for file in bundle.iterdir())

    # the same inputs, from another commit: the same runs, versions and report, nothing new
    (tmp_path / "requirements.lock").write_text("another", encoding="utf-8")
    report = (tmp_path / paths.REGISTER).read_bytes()
    assert register(tmp_path, config, 0.1) == first
    assert (tmp_path / paths.REGISTER).read_bytes() == report
    assert [v.version for v in client.search_model_versions("name = 'btcai-long'")] == [1]
    experiment = client.get_experiment_by_name(place.OWN)
    assert len(client.search_runs([experiment.experiment_id])) == 5
    assert len((tmp_path / paths.TRIALS).read_text(encoding="utf-8").splitlines()) == 1

    # a worse one on the same data challenges in vain; the champion's files stay
    kept = (champion / "encoder.onnx").read_bytes()
    project(tmp_path, weight=2.0)
    worse = register(tmp_path, config, 0.05)["buckets"]["long"]
    assert worse["aliases"] == {"champion": 1, "challenger": 2}
    assert (champion / "encoder.onnx").read_bytes() == kept

    # other data: its scores do not compare, so it takes over, and the folder follows
    project(tmp_path, weight=3.0, data_version="d2")
    other = register(tmp_path, config, 0.01, "proven", "d2")["buckets"]["long"]
    assert other["aliases"] == {"champion": 3, "challenger": 3, "previous": 1}
    standing_now = read_standing(champion)
    assert standing_now is not None
    assert standing_now.edge == "proven"

    # back on the first data with the loser's inputs: the winner on those terms returns, its files too
    project(tmp_path, weight=2.0)
    back = register(tmp_path, config, 0.05)["buckets"]["long"]
    assert back["aliases"] == {"champion": 1, "challenger": 2, "previous": 3}
    assert back["reason"] == worse["reason"]
    assert (champion / "encoder.onnx").read_bytes() == kept

    # the first bundle judged at other costs: a worse score, a new champion, no new data
    project(tmp_path)
    set_param(tmp_path / paths.PARAMS, "market.severity", "optimistic")
    cheap = register(tmp_path, load_config(tmp_path / paths.PARAMS), 0.02)["buckets"]["long"]
    assert cheap["aliases"]["champion"] == cheap["version"] == 4

    # a lost folder comes back, from the record
    project(tmp_path, weight=3.0, data_version="d2")
    shutil.rmtree(champion)
    register(tmp_path, config, 0.01, "proven", "d2")
    assert (champion / "encoder.onnx").read_bytes() == (bundle / "encoder.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_what_a_run_and_a_version_hold(tmp_path: Path) -> None:
    shutil.copy(PARAMS.with_name("requirements.lock"), tmp_path)
    report = register(tmp_path, project(tmp_path), 0.1)
    client = tracking._client(tmp_path)

    run = client.get_run(report["buckets"]["long"]["run_id"])
    assert run.data.params["buckets.long.patch_bars"] == "28"
    assert "buckets.short.patch_bars" not in run.data.params
    assert run.data.metrics["evaluation/score"] == 0.1
    assert [point.value for point in client.get_metric_history(run.info.run_id, "train/loss")] == [2.5, 1.5]
    (cpu,) = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert (cpu.value, cpu.timestamp) == (50.0, 1_700_000_000_500)
    assert run.data.tags["mlflow.parentRunId"] == report["parent_run_id"]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "report")] == ["report/training_long.png"]

    parent = client.get_run(report["parent_run_id"])
    assert parent.data.tags["mlflow.note.content"] == "| the | table |"
    kept = {file.path for folder in ("report", "lineage") for file in client.list_artifacts(parent.info.run_id, folder)}
    pages = {"report/index.html", "report/table.csv", "report/equity.png", "report/training_long.png"}
    assert kept == pages | {"lineage/params.yaml", "lineage/requirements.lock"}

    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("simulated", "0123456789abcdef0123456789abcdef.dir")
    assert json.loads(given.dataset.profile)["num_rows"] == 8000
    assert {tag.key: tag.value for tag in given.tags} == {
        "mlflow.data.context": "training",
        "content_sha256": "d1",
        "dvc_md5": "0123456789abcdef0123456789abcdef.dir",
    }

    version = client.get_model_version_by_alias("btcai-long", "champion")
    assert version.description.startswith("# btcai-long\n\n## Verdict\n\nno edge shown")
    card = (tmp_path / paths.CHAMPION / "long" / MODEL_CARD).read_text(encoding="utf-8")
    assert card == version.description
    assert version.tags["manifest_sha256"] == file_sha256(tmp_path / paths.CHAMPION / "long" / "manifest.json")
    assert "models:/btcai-long@champion" in client.get_registered_model("btcai-long").description
    assert version.tags["python"].startswith("3.11")
    assert version.tags["requirements_lock_sha256"] == file_sha256(tmp_path / "requirements.lock")
    assert version.tags["model_version"] == load_bundle(tmp_path / paths.CHAMPION / "long").version
    assert "git_commit" not in version.tags  # this folder is no checkout


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_a_killed_attempt_is_removed_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = project(tmp_path)
    whole = recording._register_version

    def dies_at_medium(client: Any, submission: Any, bucket: str, run_id: str) -> str:
        if bucket == "medium":
            raise KeyboardInterrupt
        return whole(client, submission, bucket, run_id)

    monkeypatch.setattr(recording, "_register_version", dies_at_medium)
    with pytest.raises(KeyboardInterrupt):
        register(tmp_path, config, 0.1)
    assert not (tmp_path / paths.CHAMPION).exists()
    monkeypatch.setattr(recording, "_register_version", whole)
    report = register(tmp_path, config, 0.1)
    client = tracking._client(tmp_path)
    assert all(len(client.search_model_versions(f"name = 'btcai-{bucket}'")) == 1 for bucket in BUCKETS)
    assert report["buckets"]["scalping"]["aliases"]["champion"] == report["buckets"]["scalping"]["version"]
    experiment = client.get_experiment_by_name(place.OWN)
    assert len(client.search_runs([experiment.experiment_id])) == 5
