"""Stages: glue that reads and writes files, and a graph that lists exactly what each stage depends on."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from btcai import paths, stages
from btcai.config import load_config
from btcai.errors import ArtifactError, ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / paths.PARAMS


def graph() -> dict[str, dict[str, object]]:
    """Stages of dvc.yaml; a foreach stage as its body."""
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in found.items()}


def code_of(stage: dict[str, object]) -> set[str]:
    deps = stage["deps"]
    assert isinstance(deps, list)
    return {dep for dep in deps if dep.startswith("btcai/")}


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of validate, features"):
        stages.run_stage("trian", load_config(PARAMS), Path())


def test_the_code_a_stage_depends_on_exists() -> None:
    for name, stage in graph().items():
        for path in code_of(stage):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_export_depends_on_the_code_that_its_version_hashes() -> None:
    assert code_of(graph()["export"]) == {f"btcai/{name}" for name in stages.MODEL_CODE}


def test_every_package_that_trains_is_in_the_code_version() -> None:
    for name in ("features", "train", "consolidate"):
        for path in code_of(graph()[name]):
            assert path.removeprefix("btcai/").split("/")[0] in stages.MODEL_CODE


def test_no_stage_writes_below_data() -> None:
    for stage in graph().values():
        outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]  # type: ignore[misc]
        assert not [out for out in outs if str(out).startswith("data")]


def test_code_version_follows_contents_not_places(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        shutil.copytree(ROOT / "btcai", tmp_path / copy, ignore=shutil.ignore_patterns("__pycache__"))
    version = stages.code_version(tmp_path / "a")
    assert version == stages.code_version(tmp_path / "b")
    (tmp_path / "b" / "cli.py").write_text("changed", encoding="utf-8")  # shapes no bundle
    assert version == stages.code_version(tmp_path / "b")
    (tmp_path / "b" / "schema.py").write_text("changed", encoding="utf-8")
    assert version != stages.code_version(tmp_path / "b")


def test_missing_outputs_name_the_stage_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="btcai stage features"):
        stages.load_features(tmp_path)
    with pytest.raises(ArtifactError, match="btcai stage evaluate"):
        stages.read_metrics(tmp_path)


def test_undefined_figures_come_back_as_nan(tmp_path: Path) -> None:
    figures = {"walk_forward_score": 0.5, "sharpe": None, "note": "", "trades": 3, "did_not_trade": False}
    found = {
        "judged_severity": "base",
        "strategies": {"short": {"base": figures}},
        "verdicts": {"short": {"edge": "none"}},
    }
    judged = stages._judged(found, "short")
    assert (judged.score, judged.edge, judged.metrics["trades"]) == (0.5, "none", 3.0)
    assert judged.metrics["sharpe"] != judged.metrics["sharpe"]


@pytest.mark.slow
class TestOnASimulatedMarket:
    def test_bars_become_features_and_come_back_mapped(self, tmp_path: Path) -> None:
        from btcai.data.simulator import simulate_bars
        from btcai.data.store import content_sha256, write_market

        config = load_config(PARAMS)
        frame = simulate_bars(140_000, 3)
        write_market(tmp_path / paths.DATA, "simulated", frame)
        stages.run_stage("validate", config, tmp_path)
        assert json.loads((tmp_path / paths.VALIDATION / "report.json").read_text(encoding="utf-8"))["success"]
        stages.run_stage("features", config, tmp_path)
        data, splits, scaler = stages.load_features(tmp_path)
        assert len(data) == 140_000
        assert splits.train.first == data.warmup_bars
        assert len(splits.folds) == config.splits.test_folds
        assert scaler.mean.shape == (len(data.feature_names),)
        assert stages.data_version(tmp_path) == content_sha256(frame)

    def test_broken_bars_fail_after_the_report_is_written(self, tmp_path: Path) -> None:
        from btcai.data.simulator import simulate_bars
        from btcai.data.store import write_market

        frame = simulate_bars(600, 3)
        frame.loc[100, "high"] = frame.loc[100, "low"] / 2
        write_market(tmp_path / paths.DATA, "simulated", frame)
        with pytest.raises(DataError, match="high"):
            stages.run_stage("validate", load_config(PARAMS), tmp_path)
        assert (tmp_path / paths.VALIDATION / "index.html").is_file()
        assert not json.loads((tmp_path / paths.VALIDATION / "report.json").read_text(encoding="utf-8"))["success"]
