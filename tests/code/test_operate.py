"""The services and the runs under them, for real: up, down, pause, resume, cancel, kill, days off, and who is told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from operated_project import QUICK_S, SLOW_S, UPDATES, Operated, free_port, make_project, undisturbed, until
from webhook import webhook

from btcai import paths
from btcai.operation import processes, run_lock, services

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    with webhook() as found:
        yield found


@pytest.fixture
def told(hook: tuple[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    """What people have been told since the test began."""
    hook[1].clear()
    return hook[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, hook: tuple[str, list[dict[str, str]]]) -> Iterator[Operated]:
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    operated = Operated(root, free_port(), free_port(), hook[0])
    started = operated.up()
    try:
        assert started.returncode == 0, started.stderr
        yield operated
    finally:
        operated.btcai("down")
        processes.send(services.marked(root), signal.SIGKILL)


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
    return [one.pid for one in services.marked(root) if "trainer.py" in processes.command(one)]


def test_everything_runs_and_answers_and_a_second_up_changes_nothing(project: Operated) -> None:
    found = project.status()
    assert [(one["name"], one["health"]) for one in found["services"]] == [
        ("prefect", "up"), ("mlflow", "up"), ("worker", "up"),
    ]  # fmt: skip
    assert found["run"] is None
    again = project.up()
    assert again.returncode == 0, again.stderr
    assert project.status()["services"] == found["services"]


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
    told = project.btcai("cancel").stdout
    assert told.startswith("cancelled: ")
    assert told.endswith("; go on with: btcai run --force\n")  # the deployment forces its runs
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
    project.due(5, days=5)

    def states() -> list[str]:
        return sorted(run["state_name"] for run in project.scheduled())

    assert len(states()) == 5
    assert until(lambda: found if set(found := states()) == {"Cancelled", "Completed"} else None) == (
        ["Cancelled"] * 4 + ["Completed"]
    )


def test_a_stage_that_fails_is_told_with_run_stage_reason_and_remedy(
    project: Operated, told: list[dict[str, str]]
) -> None:
    (project.root / "broken").touch()
    try:
        run = project.start()
        project.wait(run, "Failed")
        until(lambda: told)
    finally:
        (project.root / "broken").unlink()
    (notice,) = told
    assert (notice["title"], notice["type"]) == ("btcai: btcai-refresh failed", "failure")
    assert notice["message"] == (
        f"run {project.api(f'flow_runs/{run}')['name']}: stage toy failed: sum must be 2, was 3; count again\n"
        "what helps: what was finished is kept; mend it, then go on with: "
        f"Retry on http://127.0.0.1:{project.port}/runs/flow-run/{run}, btcai run --force"
    )


def test_a_run_whose_process_is_killed_is_told_and_goes_on_when_it_is_retried(
    project: Operated, told: list[dict[str, str]], whole: str
) -> None:
    run = project.start()
    project.wait_for_checkpoint()
    project.wait_for_stage(run)
    found = run_lock.holder(project.root)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    project.wait(run, "Crashed")
    until(lambda: told)
    (notice,) = told
    assert notice["title"] == "btcai: btcai-refresh was killed"
    assert "SIGKILL" in notice["message"]
    helps = "what was finished is kept; training goes on from its checkpoint"
    assert f"; it was at toy\nwhat helps: {helps}" in notice["message"]
    assert "notice, failed: btcai-refresh was killed" in (project.root / "logs" / "btcai.log").read_text("utf-8")
    until(lambda: not any("crashed" in processes.command(one) for one in services.marked(project.root)))
    until(lambda: project.is_done_with(run))  # else it would take the retry's state for its own run's
    project.pace(QUICK_S)
    retry = {"type": "SCHEDULED", "name": "AwaitingRetry"}  # what the page's Retry button asks for
    project.api(f"flow_runs/{run}/set_state", {"state": retry, "force": True})
    project.wait(run, "Completed")
    assert project.beginnings()[-1] > 0
    assert project.weights() == whole


def service(project: Operated, name: str) -> psutil.Process:
    """Its process, where it lives."""
    record = json.loads((project.root / paths.SERVICES / f"{name}.json").read_text(encoding="utf-8"))
    found = processes.find(record["pid"], record["started_s"])
    assert found is not None
    return found


def lost_leases(project: Operated) -> int:
    """How often it was said that a lease is not renewed any more."""
    log = project.root / "logs" / "btcai.log"
    return log.read_text(encoding="utf-8").count("is not renewed any more") if log.is_file() else 0


def test_a_run_outlives_prefects_server_and_its_lease_of_the_deployments_limit(project: Operated, whole: str) -> None:
    run, lost = project.start(), lost_leases(project)
    project.wait_for_checkpoint()
    project.pace(1.0)
    service(project, "prefect").kill()
    assert project.up().returncode == 0  # a new one, which knows of no lease
    until(lambda: lost_leases(project) > lost)
    reached = project.checkpoint()
    project.pace(SLOW_S)
    project.wait_for_checkpoint(reached + 20)
    assert project.state(run)["name"] == "Running"
    project.pace(1.0)
    project.wait(project.start(), "Cancelled")  # its place is still taken
    project.pace(QUICK_S)
    project.wait(run, "Completed")
    assert project.beginnings() == [0]
    assert project.weights() == whole
    project.wait(project.start(), "Completed")


def test_a_cancel_is_heard_although_the_worker_hears_nothing(
    project: Operated, told: list[dict[str, str]], whole: str
) -> None:
    run = project.start()
    project.wait_for_checkpoint()
    project.pace(1.0)
    worker = service(project, "worker")
    worker.suspend()
    try:
        assert "cancelled: " in project.btcai("cancel").stdout
        assert project.wait(run, "Cancelled")["message"].startswith("cancelled: what was done is kept")
        until(lambda: run_lock.holder(project.root) is None)
        assert trainers(project.root) == []
    finally:
        worker.resume()
    assert told == []  # somebody wanted it
    project.pace(QUICK_S)
    project.wait(project.start(), "Completed")
    assert project.beginnings()[-1] > 0
    assert project.weights() == whole


def test_a_pause_may_wait_longer_for_its_checkpoint_than_the_lease_lasts(project: Operated, whole: str) -> None:
    run, lost = project.start(), lost_leases(project)
    project.wait_for_checkpoint()
    project.pace(10.0)
    before = project.checkpoint()
    assert "asked to stop at its next checkpoint" in project.btcai("pause").stdout
    until(lambda: lost_leases(project) > lost or run_lock.holder(project.root) is None)  # a pause gives it back
    project.pace(1.0)
    wait_for_pause(project, run)
    reached = project.checkpoint()
    assert reached > before
    project.pace(QUICK_S)
    assert "resumed: " in project.btcai("resume").stdout
    project.wait(run, "Completed")
    assert project.beginnings() == [0, reached]
    assert project.weights() == whole


def test_what_was_killed_is_found_again_and_the_next_run_is_not_kept_out(
    project: Operated, told: list[dict[str, str]], whole: str
) -> None:
    run = project.start()
    project.wait_for_checkpoint()
    project.wait_for_stage(run)
    # servers, worker, flow, guard, DVC: a power cut
    until(lambda: not processes.send(services.marked(project.root), signal.SIGKILL))
    assert project.btcai("status").returncode == 3
    started = project.up()
    assert started.returncode == 0, started.stderr
    assert project.state(run)["name"] == "Crashed"
    assert [notice["title"] for notice in told] == ["btcai: btcai-refresh/daily was killed"]
    assert "its worker was killed, or the machine; it was at toy\n" in told[0]["message"]
    project.pace(QUICK_S)
    project.wait(project.start(), "Completed")
    assert project.weights() == whole


def test_down_ends_the_run_and_leaves_no_process(project: Operated) -> None:
    run = project.start()
    project.wait_for_checkpoint()
    ended = project.btcai("down")
    assert ended.returncode == 0, ended.stderr
    assert "ended: worker, mlflow, prefect" in ended.stdout
    assert services.marked(project.root) == []
    assert [one["health"] for one in json.loads(project.btcai("status", "--json").stdout)["services"]] == ["down"] * 3
    assert run
