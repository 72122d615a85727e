"""The record: the same inputs are recorded once, the right version is champion, its files are the bundle's bytes."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from btcai import paths, recording, tracking
from btcai.champions import Standing, append_trial, is_placed, is_whole, place_champion, promotion, read_standing
from btcai.config import Config, load_config, set_param
from btcai.errors import ArtifactError
from btcai.recording import Judged, curve_points, flat
from btcai.schema import BUCKETS

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


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


def write_bundle(folder: Path, weight: float, data_version: str = "d1") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    node = helper.make_node("Mul", ["tokens", "w"], ["probabilities"])
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("tokens", "probabilities")
    ]
    weights = [numpy_helper.from_array(np.full(4, weight, np.float32), "w")]
    graph = helper.make_graph([node], "fake", value[:1], value[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    names = ("encoder.onnx", "head.onnx", "policy.onnx")
    for name in names:
        onnx.save(model, str(folder / name))
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    manifest = {"bucket": folder.name, "sha256": digests, "versions": {"data": data_version, "code": "c1"}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def project(root: Path, weight: float = 1.0, data_version: str = "d1") -> Config:
    for bucket in BUCKETS:
        write_bundle(root / paths.CANDIDATE / bucket, weight, data_version)
        curves = root / paths.TRAIN / bucket / "curves.csv"
        curves.parent.mkdir(parents=True, exist_ok=True)
        curves.write_text("phase,update,loss\npretrain,0,2.5\nppo,0,1.5\n", encoding="utf-8")
    return load_config(PARAMS)


def judged(score: float, edge: Any = "none") -> dict[str, Judged]:
    return {bucket: Judged(score=score, edge=edge, metrics={"sharpe": 0.1, "cagr": float("nan")}) for bucket in BUCKETS}


NAN = float("nan")


@pytest.mark.parametrize(
    ("candidate", "champion", "others", "winner", "reason"),
    [
        (standing(1, -0.5), None, [], 1, "first valid version"),
        (standing(1, NAN), None, [], None, "not a number"),
        (standing(2, 0.4), standing(1, 0.3), [], 2, "0.4000 beats version 1's 0.3000"),
        (standing(2, 0.3), standing(1, 0.3), [], 1, "does not beat version 1"),
        (standing(2, NAN), standing(1, 0.3), [], 1, "not a number"),
        (standing(1, 0.3), standing(1, 0.3), [standing(2, 0.2)], 1, "champion already"),
        (standing(2, 0.2, "t2"), standing(1, 0.3), [], 2, "judged on other terms than champion version 1"),
        (standing(2, NAN, "t2"), standing(1, 0.3), [], 1, "not a number"),
        (standing(2, 0.5), standing(3, 0.7, "t2"), [standing(1, 1.0)], 1, "other terms than champion version 3"),
        (standing(2, NAN), standing(3, 0.7, "t2"), [standing(1, 1.0)], 1, "version 1 is the best on these terms"),
        (standing(4, 1.0), standing(3, 0.7, "t2"), [standing(1, 1.0)], 1, "version 1 is the best on these terms"),
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
    assert ledger.read_text(encoding="utf-8").splitlines()[1:] == ['{"input_ha', '{"input_hash": "b"}']


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


def test_flat_joins_names_with_dots() -> None:
    assert flat({"ppo": {"clip": 0.2, "sizes": [1, 2]}, "seed": 7}) == {
        "ppo.clip": "0.2",
        "ppo.sizes": "[1, 2]",
        "seed": "7",
    }


def test_curves_skip_labels_and_blanks(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text("phase,update,loss\npretrain,0,2.5\nppo,0,\n", encoding="utf-8")
    assert curve_points(path, "train") == [("train/update", 0.0, 0), ("train/loss", 2.5, 0), ("train/update", 0.0, 1)]


def test_registering_without_bundles_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="btcai stage export"):
        tracking.register(tmp_path, load_config(PARAMS), judged(0.1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_life_of_a_champion(tmp_path: Path) -> None:
    config = project(tmp_path)
    client = tracking._client(tmp_path)

    first = tracking.register(tmp_path, config, judged(0.1))
    assert {bucket: first["buckets"][bucket]["promoted"] for bucket in BUCKETS} == dict.fromkeys(BUCKETS, True)
    bundle, champion = tmp_path / paths.CANDIDATE / "long", tmp_path / paths.CHAMPION / "long"
    assert all((champion / file.name).read_bytes() == file.read_bytes() for file in bundle.iterdir())

    # the same inputs: the same runs and versions, nothing new
    again = tracking.register(tmp_path, config, judged(0.1))
    assert again["parent_run_id"] == first["parent_run_id"]
    assert [v.version for v in client.search_model_versions("name = 'btcai-long'")] == [1]
    experiment = client.get_experiment_by_name(recording.EXPERIMENT)
    assert len(client.search_runs([experiment.experiment_id])) == 5
    assert len((tmp_path / paths.TRIALS).read_text(encoding="utf-8").splitlines()) == 1

    # what a run holds
    run = client.get_run(first["buckets"]["long"]["run_id"])
    assert run.data.params["buckets.long.patch_bars"] == "28"
    assert "buckets.short.patch_bars" not in run.data.params
    assert run.data.metrics["evaluation/score"] == 0.1
    assert [point.value for point in client.get_metric_history(run.info.run_id, "train/loss")] == [2.5, 1.5]
    assert run.data.tags["mlflow.parentRunId"] == first["parent_run_id"]

    # a worse one on the same data challenges in vain; the champion's files stay
    kept = (champion / "policy.onnx").read_bytes()
    project(tmp_path, weight=2.0)
    worse = tracking.register(tmp_path, config, judged(0.05))["buckets"]["long"]
    assert not worse["promoted"]
    assert worse["aliases"] == {"champion": 1, "challenger": 2}
    assert (champion / "policy.onnx").read_bytes() == kept

    # other data: its scores do not compare, so it takes over, and the folder follows
    project(tmp_path, weight=3.0, data_version="d2")
    other = tracking.register(tmp_path, config, judged(0.01, "proven"))["buckets"]["long"]
    assert other["aliases"] == {"champion": 3, "challenger": 3, "previous": 1}
    standing_now = read_standing(champion)
    assert standing_now is not None
    assert standing_now.edge == "proven"

    # back on the first data with the loser's inputs: the winner on those terms returns, its files too
    project(tmp_path, weight=2.0)
    back = tracking.register(tmp_path, config, judged(0.05))["buckets"]["long"]
    assert not back["promoted"]
    assert back["aliases"] == {"champion": 1, "challenger": 2, "previous": 3}
    assert (champion / "policy.onnx").read_bytes() == kept

    # the first bundle judged at other costs: a worse score, a new champion, no new data
    params = tmp_path / "params.yaml"
    shutil.copy(PARAMS, params)
    set_param(params, "market.severity", "optimistic")
    project(tmp_path)
    cheap = tracking.register(tmp_path, load_config(params), judged(0.02))["buckets"]["long"]
    assert cheap["promoted"]
    assert cheap["reason"].startswith("judged on other terms than champion version 1")

    # a lost folder comes back, from the record
    project(tmp_path, weight=3.0, data_version="d2")
    shutil.rmtree(champion)
    tracking.register(tmp_path, config, judged(0.01, "proven"))
    assert (champion / "policy.onnx").read_bytes() == (tmp_path / paths.CANDIDATE / "long" / "policy.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_a_killed_attempt_is_removed_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = project(tmp_path)
    whole = recording._register_version

    def dies_at_medium(client: Any, submission: Any, bucket: str, run_id: str) -> None:
        if bucket == "medium":
            raise KeyboardInterrupt
        whole(client, submission, bucket, run_id)

    monkeypatch.setattr(recording, "_register_version", dies_at_medium)
    with pytest.raises(KeyboardInterrupt):
        tracking.register(tmp_path, config, judged(0.1))
    assert not (tmp_path / paths.CHAMPION).exists()
    monkeypatch.setattr(recording, "_register_version", whole)
    report = tracking.register(tmp_path, config, judged(0.1))
    client = tracking._client(tmp_path)
    assert all(len(client.search_model_versions(f"name = 'btcai-{bucket}'")) == 1 for bucket in BUCKETS)
    assert report["buckets"]["scalping"]["aliases"]["champion"] == report["buckets"]["scalping"]["version"]
    experiment = client.get_experiment_by_name(recording.EXPERIMENT)
    assert len(client.search_runs([experiment.experiment_id])) == 5
