"""Stages: glue that reads and writes files, and a graph that lists exactly what each stage depends on."""

import ast
import json
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml

from btcai import outputs, paths, stages
from btcai.config import Config
from btcai.errors import ArtifactError, ConfigError, DataError
from btcai.params import load_config
from btcai.records import versions
from btcai.registry import packaging

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / paths.PARAMS

EXEMPT = {
    "file_lock",
    "checksums",
    "environment",
    "errors",
    "files",
    "records.ledgers",
    "logs.fields",
    "machine",
    "outputs",
    "paths",
    "stages",
    "usage",
}
"""They change no result."""
EXEMPT |= {"config", "records.versions"}
"""config: a stage names the settings it reads. versions: export's own hash, whose result is in the bundle."""
AT_HAND_OVER = {"inference.bundle"}
"""Training imports a name of it, and meets nothing that it computes."""
EXEMPT_IN = {"train": AT_HAND_OVER, "consolidate": AT_HAND_OVER}


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


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Modules of btcai that the code imports when it runs, without "btcai."; imports for type hints are left out."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "btcai":
            names = [".".join(f"{node.module}.{alias.name}".split(".")[1:]) for alias in node.names]
            inside = [name for name in names if file_of(name).is_file() or name in EXEMPT]
            yield from inside or [str(node.module).removeprefix("btcai.")]
        else:
            waiting += ast.iter_child_nodes(node)


def file_of(module: str) -> Path:
    return ROOT / "btcai" / f"{module.replace('.', '/')}.py"


def closure(modules: Iterable[str], exempt: set[str]) -> set[str]:
    """The modules and all they import, each, up to those exempt."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found | exempt:
            found.add(module)
            waiting += imported([ast.parse(file_of(module).read_text(encoding="utf-8"))])
    return found


def imported_by_stage(function: str) -> set[str]:
    """What a function of stages.py imports, with the functions of stages.py that it calls, and the file's own head."""
    tree = ast.parse(file_of("stages").read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    called, waiting = set[str](), [function]
    while waiting:
        name = waiting.pop()
        called.add(name)
        names = {node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)}
        waiting += [other for other in names & set(functions) if other not in called]
    head = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    return set(imported([*head, *(functions[name] for name in called)]))


@pytest.mark.parametrize(
    "name", ["validate", "features", "train", "consolidate", "evaluate", "export", "reflect", "register", "drift"]
)
def test_a_stage_depends_on_every_module_that_it_runs(name: str) -> None:
    exempt = (EXEMPT - ({"records.versions"} if name == "register" else set())) | EXEMPT_IN.get(name, set())
    listed = code_of(graph()[name])
    missing = {
        path
        for module in closure(imported_by_stage(name), exempt)
        if not listed & {path := file_of(module).relative_to(ROOT).as_posix(), *map(str, Path(path).parents)}
    }
    assert missing == set()


def test_the_import_closure_is_found() -> None:
    found = closure(imported_by_stage("validate"), EXEMPT)
    data = {f"data.{name}" for name in ("cells", "checks", "data_docs", "frame", "page", "store", "validation")}
    assert found == {"schema"} | data


def test_what_has_no_part_in_judging_is_not_imported_by_it() -> None:
    judging = closure(["evaluation.backtest", "evaluation.judge"], EXEMPT)
    assert {"evaluation.walk", "evaluation.metrics", "market.kernel", "market.execution"} <= judging
    assert not {file_of(module).relative_to(ROOT / "btcai").as_posix() for module in judging} & (
        versions.NO_PART_IN_JUDGING
    )
    assert all((ROOT / "btcai" / name).is_file() for name in versions.NO_PART_IN_JUDGING)


def test_a_change_of_the_consolidation_budget_trains_no_bucket_again() -> None:
    budgets = {
        name: {key for key in graph()[name]["params"] if key.startswith("profiles")}  # type: ignore[attr-defined]
        for name in ("train", "consolidate")
    }
    assert budgets["train"] == {
        "profiles.${profile}.rounds",
        "profiles.${profile}.pretrain_updates",
        "profiles.${profile}.ppo_updates",
    }
    assert budgets["consolidate"] == {
        "profiles.${profile}.consolidate_pretrain_updates",
        "profiles.${profile}.consolidate_ppo_updates",
    }


def test_export_depends_on_the_code_that_its_version_hashes() -> None:
    proving = {"btcai/inference"}  # walks the bundle beside the agent
    assert code_of(graph()["export"]) - proving == {f"btcai/{name}" for name in versions.MODEL_CODE}


def test_every_package_that_trains_is_in_the_code_version() -> None:
    for name in ("features", "train", "consolidate"):
        for path in code_of(graph()[name]):
            assert path.removeprefix("btcai/").split("/")[0] in versions.MODEL_CODE


def test_no_stage_writes_below_data() -> None:
    for stage in graph().values():
        outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]  # type: ignore[misc]
        assert not [out for out in outs if str(out).startswith("data")]


def test_code_version_follows_contents_not_places(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        shutil.copytree(ROOT / "btcai", tmp_path / copy, ignore=shutil.ignore_patterns("__pycache__"))
    version = versions.code_version(tmp_path / "a")
    assert version == versions.code_version(tmp_path / "b")
    (tmp_path / "b" / "cli.py").write_text("changed", encoding="utf-8")  # shapes no bundle
    assert version == versions.code_version(tmp_path / "b")
    (tmp_path / "b" / "schema.py").write_text("changed", encoding="utf-8")
    assert version != versions.code_version(tmp_path / "b")


def changed(**values: object) -> Config:
    """params.yaml with some leaves set, "market__severity" for market.severity."""
    raw = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    for key, value in values.items():
        *sections, leaf = key.split("__")
        section = raw
        for name in sections:
            section = section[name]
        section[leaf] = value
    return Config.model_validate(raw)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"seed": 8}, True),
        ({"ppo__clip": 0.3}, True),
        ({"buckets__short__max_lots": 3}, True),
        ({"market__severity": "base"}, False),
        ({"market__severities__pessimistic__taker_fee_bps": 11.0}, False),
        ({"splits__test_folds": 5}, False),
        ({"splits__embargo_bars": 289}, False),
        ({"risk__cool_down_bars": 12}, False),
        ({"sizing__max_uncertainty": 2.0}, False),
        ({"buckets__long__horizons_bars": [2016, 4032, 6048]}, False),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_scores_compare_only_on_the_same_terms(change: dict[str, object], same: bool) -> None:
    before = versions.judged_on(load_config(PARAMS), "d1")
    assert (versions.judged_on(changed(**change), "d1") == before) is same
    assert versions.judged_on(changed(**change), "d2") != before


def test_the_terms_follow_the_judging_code_but_not_its_figures(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "btcai", tmp_path / "btcai", ignore=shutil.ignore_patterns("__pycache__"))
    package, config = tmp_path / "btcai", load_config(PARAMS)
    terms = versions.judged_on(config, "d1", package)
    assert terms == versions.judged_on(config, "d1")
    for name in ("evaluation/slices.py", "models/trunk.py", "cli.py"):
        (package / name).write_text("changed", encoding="utf-8")
    assert terms == versions.judged_on(config, "d1", package)
    for name in ("evaluation/metrics.py", "market/execution.py"):
        (package / name).write_text("changed", encoding="utf-8")
        assert terms != (terms := versions.judged_on(config, "d1", package))


@pytest.mark.parametrize(("stage", "function"), [("train@short", "train_bucket"), ("consolidate", "consolidate")])
def test_checkpoints_outlive_a_stage_that_was_killed_and_not_one_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, function: str
) -> None:
    from btcai.training import progressive

    folders = []

    def training(*arguments: object, killed: bool, start: None = None) -> None:
        out, checkpoints = arguments[-2:]
        assert isinstance(out, Path)
        assert isinstance(checkpoints, Path)
        checkpoints.mkdir(parents=True, exist_ok=True)
        folders.append(checkpoints)
        if killed:
            raise KeyboardInterrupt
        (out / "model.safetensors").touch()

    monkeypatch.setattr(outputs, "load_features", lambda root: ([], None, None))
    monkeypatch.setattr(progressive, function, partial(training, killed=True))
    with pytest.raises(KeyboardInterrupt):
        stages.run_stage(stage, load_config(PARAMS), tmp_path)
    assert folders[0].is_dir()
    monkeypatch.setattr(progressive, function, partial(training, killed=False))
    stages.run_stage(stage, load_config(PARAMS), tmp_path)
    assert folders[0] == folders[1]
    assert not folders[0].exists()
    assert not [out for name in graph().values() for out in name["outs"] if "checkpoints" in str(out)]  # type: ignore[attr-defined]


def test_missing_outputs_name_the_run_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="make it with: btcai run"):
        outputs.load_features(tmp_path)
    with pytest.raises(ArtifactError, match="make it with: btcai run"):
        outputs.read_metrics(tmp_path)


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


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_stage_trains_again_for_what_is_watched() -> None:
    reads = [
        str(name)
        for stage, body in graph().items()
        if stage not in ("drift", "validate")  # which looks at every setting
        for name in [*body["deps"], *body.get("params", [])]  # type: ignore[misc]
    ]
    assert not [name for name in reads if "drift" in name or "watch" in name or "data_docs" in name]


@pytest.mark.slow
class TestOnASimulatedMarket:
    def test_bars_become_features_and_come_back_mapped(self, tmp_path: Path) -> None:
        from btcai.data.store import content_sha256, write_market
        from btcai.simulator.bars import simulate_bars

        config = load_config(PARAMS)
        frame = simulate_bars(140_000, 3)
        write_market(tmp_path / paths.DATA, "simulated", frame)
        stages.run_stage("validate", config, tmp_path)
        assert json.loads((tmp_path / paths.VALIDATION / "report.json").read_text(encoding="utf-8"))["success"]
        stages.run_stage("features", config, tmp_path)
        data, splits, scaler = outputs.load_whole(tmp_path)
        assert len(data) == 140_000
        unsealed = outputs.load_features(tmp_path)[0]
        assert len(unsealed) == len(unsealed.features) == len(unsealed.mark) == splits.sealed.first
        assert splits.train.first == data.warmup_bars
        assert len(splits.folds) == config.splits.test_folds
        assert scaler.mean.shape == (len(data.feature_names),)
        assert outputs.data_version(tmp_path) == content_sha256(frame)
        unsealed = stages._history(tmp_path).unsealed
        assert len(unsealed) == splits.sealed.first
        shown = packaging.example(unsealed, config.buckets["long"])["open_time"]
        first_sealed_open = pd.Timestamp(int(data.bars.close_ts_ns[splits.sealed.first]), tz="UTC") - pd.Timedelta(
            "5min"
        )
        assert shown.max() == first_sealed_open - pd.Timedelta("5min")

    def test_broken_bars_fail_with_a_report_of_their_own_and_the_last_good_one_stays(self, tmp_path: Path) -> None:
        from btcai.data.store import write_market
        from btcai.simulator.bars import simulate_bars

        frame = simulate_bars(600, 3)
        write_market(tmp_path / paths.DATA, "sound", frame)
        config = load_config(PARAMS)
        sound = config.model_copy(update={"data": config.data.model_copy(update={"market": "sound"})})
        stages.run_stage("validate", sound, tmp_path)
        counts = json.loads((tmp_path / paths.VALIDATION / "metrics.json").read_text(encoding="utf-8"))
        assert (counts["bars"], counts["rules_broken"]) == (600, 0)
        before = contents(tmp_path / paths.VALIDATION)
        frame.loc[100, "high"] = frame.loc[100, "low"] / 2
        write_market(tmp_path / paths.DATA, "simulated", frame)
        with pytest.raises(DataError, match=r"high.*see reports/rejected/index\.html"):
            stages.run_stage("validate", config, tmp_path)
        assert (tmp_path / paths.REJECTED / "index.html").is_file()
        assert "failed" in (tmp_path / paths.REJECTED / "data_docs" / "index.html").read_text(encoding="utf-8")
        assert not json.loads((tmp_path / paths.REJECTED / "report.json").read_text(encoding="utf-8"))["success"]
        assert contents(tmp_path / paths.VALIDATION) == before
