"""Services are started once, told apart from other people's processes, and only ours are ended."""

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import typer
from operated_project import free_port, until
from typer.testing import CliRunner

from btcai import paths
from btcai.commands import operate
from btcai.environment import child_environment
from btcai.errors import ConfigError
from btcai.operation import health, processes, services
from btcai.operation.services import Record, ServiceError
from btcai.registry import place


@contextmanager
def sleeper(script: str = "import time; time.sleep(60)", **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this test, once it runs its script."""
    command = [sys.executable, "-c", f"print(flush=True)\n{script}"]
    with subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def write(root: Path, name: services.Name, pid: int, started_s: float, port: int | None = None) -> None:
    (root / paths.SERVICES).mkdir(parents=True, exist_ok=True)
    record = {"pid": pid, "started_s": started_s, "port": port}
    (root / paths.SERVICES / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_record_names_our_process_by_id_and_start(tmp_path: Path) -> None:
    with sleeper() as process:
        write(tmp_path, "prefect", process.pid, processes.started_s(process.pid), 4321)
        started_s = processes.started_s(process.pid)
        assert services.record(tmp_path, "prefect") == Record(pid=process.pid, started_s=started_s, port=4321)
        assert services.prefect_api(tmp_path) == "http://127.0.0.1:4321/api"


def test_down_ends_ours_and_spares_whoever_has_its_old_id(tmp_path: Path) -> None:
    with sleeper() as ours, sleeper() as theirs:
        write(tmp_path, "worker", ours.pid, processes.started_s(ours.pid))
        write(tmp_path, "prefect", theirs.pid, processes.started_s(theirs.pid) - 3600.0, 4321)
        assert services.record(tmp_path, "prefect") is None
        assert services.down(tmp_path) == ["worker"]
        assert ours.poll() is not None
        assert theirs.poll() is None
    assert list((tmp_path / paths.SERVICES).glob("*.json")) == []


def test_down_ends_what_a_killed_service_left_behind_and_nobody_elses(tmp_path: Path) -> None:
    mine = {services.MARK: services.mark(tmp_path)}
    with sleeper(**mine) as orphan, sleeper(**{services.MARK: services.mark(tmp_path / "other")}) as others:
        assert [one.pid for one in services.marked(tmp_path)] == [orphan.pid]
        assert services.down(tmp_path) == []
        assert orphan.poll() is not None
        assert others.poll() is None
        assert services.marked(tmp_path) == []


@pytest.mark.slow
def test_one_that_ignores_the_first_request_is_asked_again_then_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "STOP_S", tuple((sign, 0.1) for sign, _ in services.STOP_S))
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "time.sleep(60)"
    )
    with sleeper(stubborn) as process:
        write(tmp_path, "worker", process.pid, processes.started_s(process.pid))
        give_up_at = time.monotonic() + 10.0
        while not (children := psutil.Process(process.pid).children()) and time.monotonic() < give_up_at:
            time.sleep(0.02)
        (child,) = children
        assert services.down(tmp_path) == ["worker"]
        assert process.poll() is not None
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_port_that_somebody_else_has_is_refused_by_whom_and_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = rf"port {port} must be free for prefect, was taken.*{os.getpid()}.*btcai up --prefect-port PORT"
        with pytest.raises(ServiceError, match=told):
            services.up(tmp_path, {}, prefect_port=port, mlflow_port=1)
    assert services.record(tmp_path, "prefect") is None


def test_a_port_that_one_of_ours_was_left_on_is_freed_by_down(tmp_path: Path) -> None:
    serve = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    mine = {**os.environ, services.MARK: services.mark(tmp_path)}
    command = [sys.executable, "-c", f"{serve}; time.sleep(60)"]
    with subprocess.Popen(command, env=mine, stdout=subprocess.PIPE) as left:
        assert left.stdout is not None
        port = int(left.stdout.readline())
        with pytest.raises(ServiceError, match=rf"was taken by process {left.pid}, .*; end it: btcai down$"):
            services._check_port(tmp_path, "prefect", port)
        left.kill()


def test_a_port_that_may_not_be_had_is_not_called_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", denied)
    with pytest.raises(ServiceError, match=r"prefect may not listen on port 80 \(Permission denied\); choose another"):
        services._check_port(tmp_path, "prefect", 80)


def test_what_could_not_be_ended_keeps_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "stop", lambda process: None)
    monkeypatch.setattr(services, "marked", lambda root: [])
    write(tmp_path, "worker", os.getpid(), processes.started_s(os.getpid()))
    services.down(tmp_path)
    assert services.record(tmp_path, "worker") is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # as after `up`
def test_no_page_but_its_own_may_ask_prefects_server(tmp_path: Path) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    env = {**child_environment(), "PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": api}
    try:
        services._start(tmp_path, "prefect", services._prefect_server(port), env | services.own_pages_only(port), port)
        services._wait_until_up(tmp_path, "prefect")
        asked = {"headers": {"Origin": "http://evil.example"}, "json": {}, "timeout": 120}
        assert httpx.post(f"{api}/flows/filter", **asked).status_code == 403  # as a form or text/plain could
        wanted = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        assert httpx.options(f"{api}/flows/filter", headers=wanted, timeout=120).status_code == 400
        token = httpx.get(f"{api}/csrf-token?client=x", headers={"Origin": "http://evil.example"}, timeout=120)
        assert "access-control-allow-origin" not in token.headers  # so that the page may not read it
        own = httpx.options(f"{api}/flows/filter", headers=wanted | {"Origin": f"http://localhost:{port}"}, timeout=120)
        assert own.headers["access-control-allow-origin"] == f"http://localhost:{port}"
        until(lambda: health.asked(f"{api}/flows/filter", {}, health.csrf(api)) == [])
        services._step(tmp_path, env, "work-pool", "create", services.POOL, "--type", "process")  # Prefect's client
    finally:
        services.down(tmp_path)


def test_a_service_that_runs_on_another_port_is_not_started_twice(tmp_path: Path) -> None:
    with sleeper() as process:
        write(tmp_path, "prefect", process.pid, processes.started_s(process.pid), 4321)
        with pytest.raises(ServiceError, match="prefect runs on port 4321 already, not on 4200; end it first"):
            services.up(tmp_path, {}, prefect_port=4200, mlflow_port=1)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # as it is meant to, after `up`
def test_one_that_ends_as_it_starts_is_told_with_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, time; sys.stderr.write('no such table\\n'); time.sleep(0.2); sys.exit(3)"
    monkeypatch.setattr(services, "_prefect_server", lambda port: [sys.executable, "-c", script])
    monkeypatch.setattr(services, "POLL_S", 0.05)
    port = free_port()
    with pytest.raises(ServiceError, match="prefect ended as it started: no such table; see "):
        services.up(tmp_path, os.environ, prefect_port=port, mlflow_port=1, with_mlflow=False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(operate.status)
    made.command()(operate.up)
    made.command()(operate.down)
    return made


def test_status_of_a_project_that_is_down_exits_with_3(run: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    done = run.invoke(app(), ["status", "--json"])
    assert done.exit_code == operate.NOT_UP == 3
    found = json.loads(done.stdout)
    assert found["run"] is None
    assert [(one["name"], one["health"], one["pid"]) for one in found["services"]] == [
        ("prefect", "down", None), ("mlflow", "down", None), ("worker", "down", None),
    ]  # fmt: skip
    table = run.invoke(app(), ["status"])
    assert len(re.findall("start it with: btcai up", table.stdout)) == 3


def test_down_ends_a_server_that_does_not_answer(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed `up` leaves: its process lives, and nobody can ask it about a run at work."""
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    (tmp_path / "params.yaml").touch()
    with sleeper() as deaf:
        write(tmp_path, "prefect", deaf.pid, processes.started_s(deaf.pid), free_port())
        done = run.invoke(app(), ["down"], catch_exceptions=False)
        assert deaf.poll() is not None
    assert done.exit_code == 0
    assert "the run at work was not asked to end: Prefect's server must answer, does not" in done.output
    assert "ended: prefect" in done.output


def test_outside_a_project_nothing_is_started(run: CliRunner) -> None:
    assert isinstance(run.invoke(app(), ["status"]).exception, ConfigError)


def test_mlflow_pages_have_their_usual_address_while_nothing_runs(tmp_path: Path) -> None:
    assert services.mlflow_pages(tmp_path) == "http://127.0.0.1:5000"
    assert services.prefect_api(tmp_path) is None


def test_pages_are_where_the_services_run_and_else_named_with_the_command_that_starts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = "btcai up, then http://127.0.0.1:"
    assert services.pages(tmp_path) == {"MLflow": f"{started}5000", "Prefect": f"{started}4200"}
    with sleeper() as process:
        write(tmp_path, "prefect", process.pid, processes.started_s(process.pid), 4291)
        write(tmp_path, "mlflow", process.pid, processes.started_s(process.pid), 5091)
        assert services.pages(tmp_path) == {"MLflow": "http://127.0.0.1:5091", "Prefect": "http://127.0.0.1:4291"}
        monkeypatch.setenv(place.PAGES, "https://mlflow.example/")
        assert services.pages(tmp_path)["MLflow"] == "https://mlflow.example"


def test_one_up_or_down_at_a_time(tmp_path: Path) -> None:
    with services._alone(tmp_path), pytest.raises(ServiceError, match="another btcai up or down is at work"):
        services.down(tmp_path)
