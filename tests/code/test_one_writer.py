"""Which commands are refused while a run is at work, which go on beside it; nothing changes where one is refused."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from faults import contents
from run_holder import another_run
from typer.testing import CliRunner

from btcai import acquisition, cli, datasets, outputs, paths, stages, unsealing, warming
from btcai.commands import operate
from btcai.operation import run_lock

ROOT = Path(__file__).resolve().parents[2]

WRITERS = {
    "a stage, as dvc repro starts it": ["stage", "train@short"],
    "a run": ["run"],
    "a run of another profile": ["run", "--profile", "full"],
    "an import": ["data", "import", "bars.parquet"],
    "a fetch": ["data", "fetch", "--since", "2024-01-01", "--market", "btcusdt"],
    "an update": ["data", "update"],
    "another market": ["data", "use", "simulated"],
    "a simulated market": ["simulate", "market"],
    "a warm start": ["warm-start"],
    "no warm start": ["warm-start", "--off"],
    "the sealed span": ["sealed", "open", "--because", "to know"],
}
"""They write what a run reads or writes: bars, data.dvc, params.yaml, artifacts, reports, models/starts."""

NO_REGISTRY = "no registry yet (mlflow/mlflow.db is missing); make one with: btcai run"
BESIDE = {
    "a change of champion, which has its own lock and must not wait for days": (
        ["registry", "promote", "short", "1", "--because", "it is better"],
        NO_REGISTRY,
    ),
    "a roll back": (["registry", "rollback", "short", "--because", "it loses"], NO_REGISTRY),
    "what reads alone": (["data", "status"], "None"),
    "the results": (["report"], "{root}/reports/evaluation/metrics.json not found; make it with: btcai run"),
    "the services": (["status"], str(operate.NOT_UP)),
}
"""With what a project that is empty lets each of them come to: its error, or its exit code."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing in it but settings; whatever got past the lock would say so."""
    shutil.copy(ROOT / paths.PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_lock, "GLANCES_S", 0.05)
    return tmp_path


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What commands do once they may."""
    names: list[str] = []
    for module, name in (
        *((acquisition, function) for function in ("import_files", "fetch", "update")),
        *((datasets, function) for function in ("use", "simulate", "ready")),
        *((warming, function) for function in ("off", "go_on")),
        *((stages, "run_stage"), (unsealing, "unseal")),
    ):

        def reach(*_: object, name: str = name, **__: object) -> None:
            names.append(name)
            raise InterruptedError

        monkeypatch.setattr(module, name, reach)
    return names


@pytest.fixture
def run(tmp_path: Path) -> Iterator[int]:
    """The process of a run at work."""
    with another_run(tmp_path) as process:
        yield process.pid


@pytest.mark.parametrize("command", WRITERS.values(), ids=WRITERS)
@pytest.mark.usefixtures("project")
def test_what_writes_there_is_refused_beside_a_run(
    command: list[str], run: int, reached: list[str], tmp_path: Path
) -> None:
    before = contents(tmp_path)
    error = CliRunner().invoke(cli.app, command).exception
    assert isinstance(error, run_lock.Busy), error
    assert f"only one command may write to {tmp_path}, and there is one: btcai run, process {run}, since " in str(error)
    assert reached == []
    after = {name: held for name, held in contents(tmp_path).items() if not name.startswith("logs")}
    assert after == {name: held for name, held in before.items() if not name.startswith("logs")}


@pytest.mark.parametrize("command", WRITERS.values(), ids=WRITERS)
@pytest.mark.usefixtures("project")
def test_it_has_the_project_to_itself_and_leaves_it(
    command: list[str], reached: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def forget(place: object) -> None:
        taken.extend(found.what for found in [run_lock.holder(tmp_path)] if found)

    monkeypatch.setattr(run_lock, "_forget", forget)
    assert isinstance(CliRunner().invoke(cli.app, command).exception, InterruptedError)
    assert len(reached) == 1
    (what,) = taken
    assert f"btcai {' '.join(command)} ".startswith(f"{what} ")
    assert run_lock.holder(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize(("command", "ended"), BESIDE.values(), ids=BESIDE)
@pytest.mark.usefixtures("run")
def test_what_disturbs_no_run_goes_on_to_what_the_project_lacks(project: Path, command: list[str], ended: str) -> None:
    assert str(CliRunner().invoke(cli.app, command).exception) == ended.format(root=project)


@pytest.mark.parametrize(
    "command", [WRITERS["an update"], WRITERS["a warm start"], WRITERS["a stage, as dvc repro starts it"]]
)
@pytest.mark.usefixtures("project", "run")
def test_what_the_run_starts_itself_passes(
    command: list[str], reached: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_lock.holder(tmp_path)
    assert found is not None
    monkeypatch.setenv(run_lock.RUN_VARIABLE, found.identity)
    assert isinstance(CliRunner().invoke(cli.app, command).exception, InterruptedError)
    assert len(reached) == 1


@pytest.mark.usefixtures("project", "run")
def test_of_torchruns_processes_the_first_one_alone_has_to_have_the_project(
    reached: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert isinstance(CliRunner().invoke(cli.app, ["stage", "train@short"]).exception, run_lock.Busy)
    monkeypatch.setenv("RANK", "1")
    assert isinstance(CliRunner().invoke(cli.app, ["stage", "train@short"]).exception, InterruptedError)
    assert reached == ["run_stage"]


def test_outside_a_project_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "this is no btcai project" in str(CliRunner().invoke(cli.app, ["data", "use", "simulated"]).exception)
    assert not (tmp_path / ".prefect").exists()


@pytest.mark.parametrize("splits", ["a", "b"])
def test_features_made_anew_while_they_are_read_are_no_mixture_even_of_the_same_bars(
    project: Path, splits: str
) -> None:
    from btcai.commands.project import features_unchanged
    from btcai.errors import ArtifactError
    from btcai.files import whole

    def make(splits: str) -> None:
        with whole(project / paths.FEATURES) as out:
            (out / "meta.json").write_text(json.dumps({"data_version": "d1", "splits": splits}), encoding="utf-8")

    with features_unchanged(project):
        pass
    make("a")
    with features_unchanged(project):
        pass
    with pytest.raises(ArtifactError, match="a run made it anew; run this again"), features_unchanged(project):
        make(splits)


def test_a_refit_that_is_refused_has_seen_nothing_and_is_not_on_record(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from btcai.experiments import refitting  # imports torch

    splits, plan = SimpleNamespace(), SimpleNamespace(name="forward", folds=())
    monkeypatch.setattr(outputs, "data_version", lambda root: "d1")
    data = SimpleNamespace(warmup_bars=0, bars=SimpleNamespace(close_ts_ns=[3, 5, 8]))
    monkeypatch.setattr(outputs, "load_features", lambda root: (data, splits, None))
    monkeypatch.setattr(refitting, "planned", lambda *_: plan)
    for name, value in {"outcomes": [None], "seconds_left": None, "plan_key": "k", "refit": []}.items():
        monkeypatch.setattr(refitting, name, lambda *_, value=value: value)
    with another_run(project, part=paths.FOLDS):
        assert isinstance(CliRunner().invoke(cli.app, ["refit"]).exception, run_lock.Busy)
    assert not (project / paths.TRIALS).exists()
    assert CliRunner().invoke(cli.app, ["refit"]).exception is None
    (line,) = (project / paths.TRIALS).read_text(encoding="utf-8").splitlines()
    found = json.loads(line)
    assert (found["input_hash"], found["tested_ts_ns"]) == ("k", [3, 8])


def test_a_trial_counts_for_the_market_it_was_made_on_whichever_is_in_use_when_it_ends(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from btcai.experiments import subjects, tuning, tuning_report  # they import torch
    from btcai.params import load_config

    def tune(*_: object) -> Iterator[object]:
        params = project / paths.PARAMS
        text = params.read_text(encoding="utf-8")
        assert text.count(f"market: {made_on}") == 1
        params.write_text(text.replace(f"market: {made_on}", "market: other"), encoding="utf-8")
        yield SimpleNamespace(number=0, params={})

    made_on = load_config(project / paths.PARAMS).data.market
    subject = SimpleNamespace(name="market", terms={}, seen_ts_ns=(3, 8))
    monkeypatch.setattr(subjects, "open_subject", lambda *_: subject)
    for name, value in {"open_study": SimpleNamespace(study_name="s"), "ended": [], "seen_by": ()}.items():
        monkeypatch.setattr(tuning, name, lambda *_, value=value: value)
    monkeypatch.setattr(tuning, "tune", tune)
    monkeypatch.setattr(tuning_report, "write", lambda *_: None)
    monkeypatch.setattr(tuning_report, "view", lambda *_: "done")
    assert CliRunner().invoke(cli.app, ["tune", "--on", "market"]).exception is None
    assert load_config(project / paths.PARAMS).data.market == "other"
    (line,) = (project / paths.TRIALS).read_text(encoding="utf-8").splitlines()
    found = json.loads(line)
    assert (found["market"], found["tested_ts_ns"]) == (made_on, [3, 8])


@pytest.mark.slow
@pytest.mark.parametrize("command", [["tune"], ["tune", "--population", "2"], ["ablate"]])
@pytest.mark.usefixtures("run")
def test_comparisons_go_on_beside_a_run_but_not_beside_each_other(
    project: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from btcai.experiments import evolution, on_ray, running, tuning  # they import torch

    class Reached(Exception):
        pass

    def reach(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr(on_ray, "require", lambda: None)
    for module, name in ((tuning, "tune"), (running, "make"), (evolution, "evolve")):
        monkeypatch.setattr(module, name, reach)
    assert isinstance(CliRunner().invoke(cli.app, command).exception, Reached)
    with another_run(project, part=paths.ABLATION / "two_scale"):
        error = CliRunner().invoke(cli.app, command).exception
    assert isinstance(error, run_lock.Busy)
    assert f"{os.sep}reports/ablation/two_scale, and there is one" in str(error)
