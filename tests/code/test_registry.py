"""The registry read back: who is champion, what it was made from, and whether the same is here."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from registry_fakes import PARAMS, project, register
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from btcai import cli, paths
from btcai.errors import ArtifactError
from btcai.inference.bundle import file_sha256
from btcai.params import load_config, set_param
from btcai.registry import tracing
from btcai.registry.tracing import Entry, Shelf, Trace
from btcai.registry.view import shelves_view, trace_view

ENTRY = Entry(
    bucket="short",
    model="btcai-short",
    version=3,
    registered=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    aliases=("champion",),
    tags={
        "edge": "none",
        "score": "0.12345",
        "data_version": "d" * 64,
        "data_market": "btcusdt",
        "data_rows": "341280",
        "code_version": "c" * 64,
        "git_commit": "1234567",
        "git_dirty": "false",
        "requirements_lock_sha256": "l" * 64,
    },
    run_id="child",
)
TRACE = Trace(
    entry=ENTRY,
    experiment_id="1",
    parent_run_id="parent",
    params={"seed": "7", "ppo.clip": "0.2"},
    files={"encoder.onnx": "e" * 64, "head.onnx": "h" * 64},
    tags_here={"data_version": "d" * 64, "code_version": "other", "git_commit": "1234567"},
    params_here={"seed": "7", "ppo.clip": "0.3"},
    files_here={"encoder.onnx": "e" * 64, "head.onnx": "damaged"},
)


def printed(view: RenderableType, width: int = 160) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def line(text: str, start: str) -> str:
    return next(found for found in text.splitlines() if found.strip().startswith(start)).rstrip()


def test_a_trace_says_what_is_the_same_here() -> None:
    text = printed(trace_view(TRACE, all_params=False, pages="http://127.0.0.1:5091"))
    assert "btcai-short version 3 (champion)" in text
    assert "http://127.0.0.1:5091/#/models/btcai-short/versions/3" in text
    assert f"http://127.0.0.1:5091/#/experiments/1/runs/{ENTRY.run_id}" in text
    assert line(text, "bars, content").endswith("same here")
    assert line(text, "code, sha256").endswith("differs here")
    assert line(text, "requirements.lock").endswith("not here")
    assert line(text, "Python").split() == ["Python", "-", "-"]  # not on record
    assert line(text, "encoder.onnx").endswith("same here")
    assert line(text, "head.onnx").endswith("differs here")


def test_a_trace_shows_the_parameters_that_differ_or_all() -> None:
    some, every = (printed(trace_view(TRACE, all_params=wanted)) for wanted in (False, True))
    assert line(some, "ppo.clip").split() == ["ppo.clip", "0.2", "0.3"]
    assert "seed" not in some
    assert line(every, "seed").split() == ["seed", "7", "7"]
    same = printed(trace_view(replace(TRACE, params_here=TRACE.params), all_params=False))
    assert "Its 2 parameters are those of params.yaml" in same


def test_the_commands_take_the_models_own_code_where_the_commit_did_not_have_it() -> None:
    clean = printed(trace_view(TRACE, all_params=False))
    assert "git checkout 1234567" in clean
    assert "mlflow artifacts download -r parent" in clean
    assert "model/code/btcai" not in clean
    dirty = replace(TRACE, entry=replace(ENTRY, tags={**ENTRY.tags, "git_dirty": "true"}))
    text = printed(trace_view(dirty, all_params=False))
    assert "download -u models:/btcai-short/3 -d model\ncp -r model/code/btcai ." in text
    assert "1234567 with changes of its own" in text


def test_the_list_has_a_row_a_bucket() -> None:
    shelves = [
        Shelf(bucket="short", aliased={"champion": ENTRY, "challenger": replace(ENTRY, version=4)}, versions=4),
        Shelf(bucket="long", aliased={}, versions=1),
    ]
    text = printed(shelves_view(shelves), width=80)
    assert line(text, "short").split() == "short 3 of 4 4 - 0.1235 none btcusdt 2026-01-02".split()
    assert line(text, "long").split() == "long - of 1 - - - - - -".split()


@pytest.mark.parametrize("command", [["list"], ["show", "short"]])
def test_without_a_registry_the_command_to_make_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    shutil.copy(PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["registry", *command])
    assert isinstance(done.exception, ArtifactError)
    assert "no registry yet (mlflow/mlflow.db is missing); make one with: btcai run" in str(done.exception)
    assert not (tmp_path / "mlflow").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_a_champion_is_traced_to_its_files_and_settings(tmp_path: Path) -> None:
    config = project(tmp_path)
    with pytest.raises(ArtifactError, match="no registry yet"):
        tracing.trace(tmp_path, "short", config)
    report = register(tmp_path, config, float("nan"))
    with pytest.raises(ArtifactError, match="no champion for short among its 1 registered versions"):
        tracing.trace(tmp_path, "short", config)
    with pytest.raises(ArtifactError, match="must be one of scalping, short, medium, long, was shrt"):
        tracing.trace(tmp_path, "shrt", config)
    report = register(tmp_path, config, 0.1)

    trace = tracing.trace(tmp_path, "short", config)
    bundle = tmp_path / paths.CANDIDATE / "short"
    assert trace.files == trace.files_here == {file.name: file_sha256(file) for file in bundle.iterdir()}
    assert (trace.entry.version, trace.parent_run_id) == (2, report["parent_run_id"])
    assert trace.entry.aliases == ("challenger", "champion")
    assert trace.params == trace.params_here
    assert "data_version" not in trace.tags_here  # no bars are here

    (tmp_path / paths.CHAMPION / "short" / "head.onnx").write_bytes(b"damaged")
    set_param(tmp_path / paths.PARAMS, "profile", "full")
    later = tracing.trace(tmp_path, "short", load_config(tmp_path / paths.PARAMS))
    differ = {name for name in later.files if later.files[name] != later.files_here[name]}
    assert differ == {"head.onnx"}
    assert {name for name in later.params if later.params[name] != later.params_here[name]} == {"profile"}
    assert [(shelf.bucket, shelf.versions) for shelf in tracing.shelves(tmp_path)] == [
        ("scalping", 2),
        ("short", 2),
        ("medium", 2),
        ("long", 2),
    ]
