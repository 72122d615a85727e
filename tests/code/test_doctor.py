"""The doctor names what is broken and the command that mends it, and goes on looking: each thing broken in turn."""

import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from scratch_checkout import bars, checkout, committed, dvc
from typer.testing import CliRunner

from btcai import cli, paths
from btcai.doctor import checkup, installation, project, services
from btcai.doctor.findings import Finding, error, looked, ok, warning
from btcai.environment import TELEMETRY_OFF
from btcai.errors import ConfigError
from btcai.machine import Machine
from btcai.operation import dvc_locks, processes
from btcai.params import set_param
from btcai.schema import BUCKETS
from btcai.training import starts

ROOT = Path(__file__).resolve().parents[2]


def told(findings: Iterator[Finding]) -> list[tuple[str, str, str]]:
    """Status, what was seen, remedy."""
    return [(one.status, one.said, one.remedy) for one in findings]


def only(findings: Iterator[Finding]) -> tuple[str, str, str]:
    (one,) = told(findings)
    return one


def test_another_python_is_an_error() -> None:
    assert only(installation.python((3, 11, 9))) == ("ok", "3.11.9", "")
    assert only(installation.python((3, 12, 1)))[:2] == ("error", "must be 3.11, is 3.12.1")


def test_a_package_that_is_not_the_locked_one_is_named() -> None:
    pins = {"numpy": "2.4.6", "torch": "2.13.0", "ray": "2.58.0"}
    assert only(installation.packages(pins, {"numpy": "2.4.6", "torch": "2.13.0+cpu"})) == ("ok", "2 are as locked", "")
    found = only(installation.packages(pins, {"numpy": "2.4.5", "torch": "2.13.0"}))
    assert found == ("error", "1 differ from the lock: numpy 2.4.5, locked 2.4.6", "make setup")
    assert only(installation.packages({}, {}))[0] == "warning"


def test_the_projects_own_lock_is_read_whole() -> None:
    pins = installation.pinned(ROOT)
    assert pins["mlflow"] == "3.17.2"
    assert pins["torch"] == "2.13.0"
    assert len(pins) > 200


def test_a_missing_package_is_told_by_its_extra() -> None:
    requires = ["numpy>=2.0", 'torch==2.13.0; extra == "train"', 'btcai[train]; extra == "operate"']
    requires += ['mlflow==3.17.2; extra == "operate"', 'great-expectations==1.24.1; extra == "operate"']
    found = told(installation.extras(requires, {"torch": "2.13.0", "mlflow": "3.17.2"}))
    assert found == [
        ("error", "missing: numpy", "make setup"),
        ("ok", "all there", ""),
        ("ok", "all there", ""),
        ("warning", "missing: great-expectations", "make setup, or pip install -e '.[operate]'"),
    ]


def test_this_installation_is_whole() -> None:
    here = installation.installed()
    found = [
        *installation.packages(installation.pinned(ROOT), here),
        *installation.extras(installation.requirements(), here),
    ]
    assert {one.status for one in found} == {"ok"}, found


@pytest.mark.parametrize(("free", "status"), [(5e9, "ok"), (1e9, "warning"), (1e8, "error")])
def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path, free: float, status: str) -> None:
    assert only(installation.disk(tmp_path, int(free)))[0] == status


def test_little_memory_is_told() -> None:
    assert only(installation.memory(Machine(cores=2, memory_bytes=8 * 10**9))) == ("ok", "8.0 GB, 2 cores", "")
    status, said, _ = only(installation.memory(Machine(cores=1, memory_bytes=2 * 10**9)))
    assert (status, said) == ("warning", "2.0 GB, 1 cores; training takes up to 3 GB")


def test_a_clock_behind_the_newest_bar_is_an_error(tmp_path: Path) -> None:
    closed_unix_s = 1_800_000_000
    assert only(installation.clock(tmp_path, closed_unix_s))[0] == "ok"
    (tmp_path / paths.FEATURES).mkdir(parents=True)
    np.save(tmp_path / paths.FEATURES / "close_ts_ns.npy", np.array([0, closed_unix_s * 10**9]))
    assert only(installation.clock(tmp_path, closed_unix_s + 1))[0] == "ok"
    status, said, _ = only(installation.clock(tmp_path, closed_unix_s - 1))
    assert (status, said) == ("error", "2027-01-15 07:59:59 UTC is before the newest bar's close, 2027-01-15 08:00 UTC")
    assert only(installation.clock(tmp_path, 1000.0))[1] == "1970-01-01 00:16:40 UTC is before this project was made"
    (tmp_path / paths.FEATURES / "close_ts_ns.npy").write_bytes(b"cut")
    (found,) = looked({"clock": lambda: installation.clock(tmp_path, closed_unix_s)})
    assert (found.status, "btcai stage features" in found.said) == ("error", True)


def test_telemetry_that_is_on_is_named(tmp_path: Path) -> None:
    assert only(installation.telemetry(tmp_path, TELEMETRY_OFF)) == ("ok", "off", "")
    assert only(installation.telemetry(tmp_path, {**TELEMETRY_OFF, "DO_NOT_TRACK": "0"}))[1] == "on for: DO_NOT_TRACK"
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = true\n", encoding="utf-8")
    assert only(installation.telemetry(tmp_path, TELEMETRY_OFF))[2] == "dvc config core.analytics false"


def test_broken_settings_are_one_line_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / paths.PARAMS).write_text("seed: [", encoding="utf-8")
    found = list(looked({"settings": lambda: project.settings(tmp_path), "disk": lambda: installation.disk(tmp_path)}))
    assert [one.check for one in found] == ["settings", "disk"]
    assert found[0].status == "error"
    assert "must be valid YAML" in found[0].said


def test_a_stale_lock_of_dvc_is_named_and_may_be_removed(tmp_path: Path) -> None:
    path = tmp_path / dvc_locks.RWLOCK
    path.parent.mkdir(parents=True)
    assert only(project.locks(tmp_path)) == ("ok", "none is in the way", "")
    path.write_text('{"write": {', encoding="utf-8")
    (found,) = project.locks(tmp_path)
    assert (found.status, found.remedy) == ("error", "btcai run, or: rm .dvc/tmp/rwlock")
    assert checkup.mend([found]) == [f"DVC locks: mended ({found.said})"]
    assert not path.exists()
    assert only(project.locks(tmp_path))[0] == "ok"


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    assert only(project.writable(tmp_path))[0] == "ok"
    (tmp_path / "reports").write_text("a file in its place", encoding="utf-8")
    assert only(project.writable(tmp_path))[:2] == ("error", "may not be written: reports")


def test_what_killed_processes_left_is_named(tmp_path: Path) -> None:
    assert told(project.leftovers(tmp_path)) == [("ok", "none", "")]
    (tmp_path / "models" / ".candidate.new").mkdir(parents=True)
    champion = tmp_path / paths.CHAMPION
    (champion / ".short.old").mkdir(parents=True)
    (tmp_path / paths.CHECKPOINTS / "medium").mkdir(parents=True)
    found = list(project.leftovers(tmp_path))
    assert [one.status for one in found] == ["warning"] * 3
    assert found[-1].said == "a training has not ended: medium"
    assert checkup.mend(found) == [f"leftovers: mended ({found[1].said})"]
    assert [path.name for path in champion.iterdir()] == ["short"]  # the champion is back
    assert (tmp_path / "models" / ".candidate.new").is_dir()  # may be a running stage's


def test_a_forced_training_that_was_interrupted_is_told_from_one_that_must_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "_changed", lambda root: ["consolidate", "train@short"])
    (tmp_path / "dvc.lock").touch()
    kept = tmp_path / paths.CHECKPOINTS
    for name in ("short", "medium", "consolidate"):
        (kept / name / "ppo").mkdir(parents=True)
    found = list(project.leftovers(tmp_path))
    assert [one.said for one in found] == [
        "a training has not ended: consolidate, short",
        "a training that was forced has not ended, its stage is up to date: medium",
    ]
    assert found[1].remedy == "go on with it: btcai run --force, or: rm -r artifacts/.checkpoints/medium"
    assert found[0].fix is None
    assert checkup.mend(found) == [f"leftovers: mended ({found[1].said})"]
    assert sorted(path.name for path in kept.iterdir()) == ["consolidate", "short"]


def test_a_start_that_is_named_is_looked_at(tmp_path: Path) -> None:
    shutil.copy(ROOT / paths.PARAMS, tmp_path)
    assert only(project.warm_start(tmp_path)) == ("ok", "none: training starts from scratch", "")
    for bucket in BUCKETS:
        (tmp_path / paths.CONSOLIDATE / bucket).mkdir(parents=True)
        (tmp_path / paths.CONSOLIDATE / bucket / paths.WEIGHTS).write_bytes(bucket.encode())
    seen = starts.DataSeen(market="m", data_version="d", fitted_until_ts_ns=1, chosen_from_ts_ns=2, until_ts_ns=3)
    name = starts.keep(tmp_path / paths.CONSOLIDATE, seen, tmp_path / paths.STARTS)
    set_param(tmp_path / paths.PARAMS, "warm_start.name", name)
    assert only(project.warm_start(tmp_path)) == ("ok", f"{name}, whole", "")
    (tmp_path / paths.STARTS / name / "long" / paths.WEIGHTS).write_bytes(b"cut")
    status, said, remedy = only(project.warm_start(tmp_path))
    assert (status, said.endswith("is damaged: its name is its content's")) == ("error", True)
    assert remedy.startswith("start from scratch with: btcai warm-start --off, or restore models/starts/m-")
    shutil.rmtree(tmp_path / paths.STARTS)
    status, said, _ = only(project.warm_start(tmp_path))
    assert (status, "must hold a start, was missing or damaged" in said) == ("error", True)
    assert "warm start" in checkup.checks(tmp_path)


def test_torn_lines_and_interrupted_changes_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    assert told(project.journals(tmp_path)) == [("ok", "every line is whole", "")]
    folder.mkdir()
    (folder / "trials.jsonl").write_text('{"input_hash": "a"}\n{"input_ha', encoding="utf-8")
    seats = {"champion": 1, "previous": None, "pinned": None}
    change = {
        **{"event": "intent", "kind": "promote", "bucket": "long", "before": seats, "after": seats, "because": "x"},
        **{"model_version": "m", "manifest_sha256": "f", "who": "w", "id": "1", "began_unix_s": 1},
    }
    (folder / "promotions.jsonl").write_text(json.dumps(change) + "\n", encoding="utf-8")
    found = told(project.journals(tmp_path))
    assert found[0][:2] == ("warning", "journal/trials.jsonl line 2 is torn: a process was killed there")
    assert found[1] == ("error", "a change of long's champion was interrupted", "btcai registry verify long --mend")


def test_a_damaged_database_is_named_and_a_whole_one_is_not(tmp_path: Path) -> None:
    def look() -> tuple[str, str, str]:
        return only(services.database(tmp_path, paths.MLFLOW_DB, "restore it"))

    assert look()[0] == "ok"
    path = tmp_path / paths.MLFLOW_DB
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("create table runs (a text)")
        connection.executemany("insert into runs values (?)", [("x" * 500,)] * 100)
    connection.close()
    assert look()[:2] == ("ok", "whole, 0.1 MB")
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * 4096 + whole[12288:])
    assert (look()[0], look()[2]) == ("error", "restore it")
    path.write_bytes(b"not a database" * 100)
    assert look()[1] == "damaged: file is not a database"


def test_the_ports_looked_at_are_those_that_up_took(tmp_path: Path) -> None:
    assert services.places(tmp_path)["Prefect"] == (4200, "/api/health")
    us = psutil.Process()
    record = {"pid": us.pid, "started_s": processes.started_s(), "port": 4321}
    (tmp_path / paths.SERVICES).mkdir(parents=True)
    (tmp_path / paths.SERVICES / "prefect.json").write_text(json.dumps(record), encoding="utf-8")
    assert services.places(tmp_path) == {"Prefect": (4321, "/api/health"), "MLflow": (5000, "/health")}


def test_ports_tell_a_server_of_ours_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "WAIT_S", 60.0)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Not on the test's output."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert only(services.ports({"MLflow": (port, "/health")}))[1] == "MLflow answers"
        assert only(services.ports({"Prefect": (port, "/api/health")}))[0] == "warning"
        server.shutdown()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert only(services.ports({"MLflow": (taken.getsockname()[1], "/health")}))[1] == "free for MLflow"


def test_without_mlflow_the_champions_files_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_is_installed", lambda name: False)
    assert [one.status for one in services.registry(tmp_path)] == ["warning"]
    (tmp_path / paths.CHAMPION / "long").mkdir(parents=True)
    found = list(looked({"registry": lambda: services.registry(tmp_path)}))
    assert [one.status for one in found] == ["warning", "error"]
    assert "no bundle in" in found[1].said


def test_a_check_that_fails_of_itself_is_an_error_of_its_name() -> None:
    def broken() -> Iterator[Finding]:
        yield ok("first", "seen")
        raise ConfigError("a rule, a value; a remedy")

    found = list(looked({"both": broken, "after": lambda: [warning("after", "odd", "mend")]}))
    assert [(one.check, one.status) for one in found] == [("first", "ok"), ("both", "error"), ("after", "warning")]


def test_a_check_that_breaks_off_ends_no_other() -> None:
    def broken() -> Iterator[Finding]:
        raise ZeroDivisionError("division\nby zero")
        yield

    found = list(looked({"broken": broken, "after": lambda: [ok("after", "seen")]}))
    assert [(one.check, one.status) for one in found] == [("broken", "error"), ("after", "ok")]
    assert found[0].said == "the check itself failed: ZeroDivisionError: division by zero"


def test_json_is_strict_and_warnings_leave_an_installation_sound() -> None:
    found = [ok("a", "seen"), warning("b", "odd", "mend")]
    assert json.loads(checkup.as_json(found)) == {
        "sound": True,
        "findings": [
            {"check": "a", "status": "ok", "said": "seen", "remedy": ""},
            {"check": "b", "status": "warning", "said": "odd", "remedy": "mend"},
        ],
    }
    assert json.loads(checkup.as_json([*found, error("c", "wrong", "mend")]))["sound"] is False


def test_a_folder_that_is_no_project_is_told_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkup, "checks", without_ports(checkup.checks))
    done = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert done.exit_code == 1, done.output
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["settings"]["status"] == found["git"]["status"] == "error"
    assert "this is no btcai project" in found["settings"]["said"]
    assert found["stages"]["remedy"] == "btcai run"
    assert all(one["remedy"] for one in found.values() if one["status"] != "ok")


def without_ports(checks: Callable[[Path], dict[str, object]]) -> Callable[[Path], dict[str, object]]:
    """What listens on this machine is not the test's."""
    return lambda root: {name: check for name, check in checks(root).items() if name != "ports"}


@pytest.mark.slow
def test_bars_and_stages_that_are_not_as_pinned_are_named(tmp_path: Path) -> None:
    root = tmp_path / "project"
    checkout(root)
    shutil.copy(ROOT / paths.PARAMS, root)
    (root / "dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: cp in out\n    deps: [in]\n    outs: [out]\n", encoding="utf-8"
    )
    (root / "in").write_text("1", encoding="utf-8")
    bars(root, "bars")
    assert only(project.stages(root))[2] == "btcai run"
    dvc(root, "repro", "--quiet")
    committed(root)
    assert [only(check(root))[0] for check in (project.checkout, project.bars, project.stages)] == ["ok"] * 3

    (root / "in").write_text("2", encoding="utf-8")
    assert only(project.stages(root))[:2] == ("warning", "out of date: copy")
    (root / "data" / "simulated" / "2024-01.parquet").write_text("other bars", encoding="utf-8")
    assert only(project.bars(root))[:2] == ("warning", "data/ is not what data.dvc names")
    with (root / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert only(project.checkout(root))[1].endswith("not committed: params.yaml")
    (root / "dvc.lock").write_text("stages: [", encoding="utf-8")
    (found,) = looked({"stages": lambda: project.stages(root)})
    assert (found.status, "dvc status failed" in found.said) == ("error", True)
