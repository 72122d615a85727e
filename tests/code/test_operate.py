"""The services and the runs under them, for real: up, down, pause, resume, cancel, kill, and days off."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from operated_project import QUICK_S, UPDATES, Operated, make_project, undisturbed, until

from btcai import run_lock, services

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    operated = Operated(root, free_port(), free_port())
    started = operated.up()
    try:
        assert started.returncode == 0, started.stderr
        yield operated
    finally:
        operated.btcai("down")
        for left in services.marked(root):
            left.kill()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed training."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed") / "one")


@pytest.fixture(autouse=True)
def _fresh(project: Operated) -> None:
    """Each test begins with a training that has not begun."""
    project.begin_anew()


def trainers(root: Path) -> list[int]:
    """Processes of stages at work."""
    return [one.pid for one in services.marked(root) if "trainer.py" in " ".join(one.cmdline())]


def test_everything_runs_and_answers_and_a_second_up_changes_nothing(project: Operated) -> None:
    first = project.btcai("status", "--json")
    assert first.returncode == 0, first.stdout
    found = json.loads(first.stdout)
    assert [(one["name"], one["health"]) for one in found["services"]] == [
        ("prefect", "up"), ("mlflow", "up"), ("worker", "up"),
    ]  # fmt: skip
    assert found["run"] is None
    again = project.up()
    assert again.returncode == 0, again.stderr
    assert json.loads(project.btcai("status", "--json").stdout)["services"] == found["services"]


def test_pause_and_resume_end_with_the_bits_of_a_run_that_was_left_alone(project: Operated, whole: str) -> None:
    run = project.start()
    project.wait_for_checkpoint()
    limit = (datetime.now(UTC) + timedelta(seconds=300)).isoformat()
    details = {"pause_timeout": limit, "pause_reschedule": True}
    state = {"type": "PAUSED", "name": "Suspended", "state_details": details}  # what the page's Pause button sends
    project.api(f"flow_runs/{run}/set_state", {"state": state, "force": True})
    wait_for_pause(project, run)
    reached = project.checkpoint()
    assert "resumed: " in project.btcai("resume").stdout
    project.wait_for_checkpoint(reached + 10)
    assert "asked to stop at its next checkpoint" in project.btcai("pause").stdout
    wait_for_pause(project, run)
    project.pace(QUICK_S)
    project.api(f"flow_runs/{run}/resume", {})  # its Resume button
    project.wait(run, "Completed")
    begun = project.beginnings()
    assert begun[0] == 0
    assert 0 < begun[1] <= reached < begun[2] < UPDATES
    assert project.weights() == whole


def wait_for_pause(project: Operated, run: str) -> None:
    """Until it has stopped at a checkpoint; no process of it is left then, and no time limit."""
    until(lambda: run_lock.holder(project.root) is None)
    assert trainers(project.root) == []
    paused = until(lambda: state if "checkpoint" in ((state := project.state(run))["message"] or "") else None)
    assert (paused["name"], paused["state_details"]["pause_timeout"]) == ("Suspended", None)


def test_a_run_refuses_one_in_a_terminal_and_its_cancel_leaves_no_process_and_every_update(
    project: Operated, whole: str
) -> None:
    run = project.start()
    project.wait_for_checkpoint()
    with pytest.raises(run_lock.Busy, match=r"Prefect's run [a-z]+-[a-z]+, process \d+"):
        run_lock.alone(project.root, "btcai run").__enter__()
    assert "cancelled: " in project.btcai("cancel").stdout
    project.wait(run, "Cancelled")
    until(lambda: run_lock.holder(project.root) is None)
    assert trainers(project.root) == []
    project.pace(QUICK_S)
    project.wait(project.start(), "Completed")
    assert project.beginnings()[-1] > 0
    assert project.weights() == whole


def test_a_second_run_is_cancelled_by_the_limit_also_where_a_second_worker_is_free(project: Operated) -> None:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "btcai", "--type", "process"]
    env = {
        **os.environ,
        "PREFECT_API_URL": f"http://127.0.0.1:{project.port}/api",
        "PREFECT_HOME": str(project.root / ".prefect"),
        services.MARK: services.mark(project.root),
    }
    with subprocess.Popen(
        command, cwd=project.root, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as two:
        try:
            first = project.start()
            project.wait_for_checkpoint()
            second = project.wait(project.start(), "Cancelled", "Running", "Completed")
            assert (second["name"], second["message"]) == ("Cancelled", "Deployment concurrency limit reached.")
            project.pace(QUICK_S)
            project.wait(first, "Completed")
        finally:
            services.stop(psutil.Process(two.pid))


def test_after_days_off_one_of_the_runs_that_are_due_works(project: Operated) -> None:
    project.pace(QUICK_S)
    now = datetime.now(UTC)
    span = {"start_time": (now - timedelta(days=5)).isoformat(), "end_time": now.isoformat()}
    project.api(f"deployments/{project.deployment()}/schedule", {**span, "min_runs": 5, "max_runs": 5})
    asked = {"flow_runs": {"expected_start_time": {"before_": now.isoformat(), "after_": span["start_time"]}}}
    asked["flow_runs"]["deployment_id"] = {"any_": [project.deployment()]}

    def due() -> list[str]:
        found = project.api("flow_runs/filter", asked)
        return [run["state_name"] for run in found if run["auto_scheduled"]]

    assert len(due()) == 5
    names = until(lambda: found if sorted(set(found := due())) == ["Cancelled", "Completed"] else None)
    assert sorted(names) == ["Cancelled"] * 4 + ["Completed"]


def test_what_was_killed_is_found_again_and_the_next_run_is_not_kept_out(project: Operated, whole: str) -> None:
    run = project.start()
    project.wait_for_checkpoint()
    for process in services.marked(project.root):
        process.send_signal(signal.SIGKILL)  # as a power cut would: servers, worker, flow, guard, DVC, trainer
    until(lambda: not services.marked(project.root))
    assert project.btcai("status").returncode == 3
    started = project.up()
    assert started.returncode == 0, started.stderr
    assert project.state(run)["name"] == "Crashed"
    project.pace(QUICK_S)
    project.wait(project.start(), "Completed")
    assert project.weights() == whole


def test_down_ends_the_run_and_leaves_no_process(project: Operated) -> None:
    run = project.start()
    project.wait_for_checkpoint()
    began_s = time.monotonic()
    ended = project.btcai("down")
    assert ended.returncode == 0, ended.stderr
    assert "ended: worker, mlflow, prefect" in ended.stdout
    assert services.marked(project.root) == []
    assert time.monotonic() - began_s < 120.0
    assert [one["health"] for one in json.loads(project.btcai("status", "--json").stdout)["services"]] == ["down"] * 3
    assert run
