"""A run that `btcai run` started in a terminal, paused and cancelled from elsewhere: by commands and by the pages."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from operated_project import PATIENCE_S, QUICK_S, UPDATES, Operated, free_port, make_project, undisturbed, until

from btcai.cli import INTERRUPTED
from btcai.operation import processes, run_lock, services

ROOT = Path(__file__).resolve().parents[2]

GRACE_S = 5.0
"""Between Ctrl-C and what is less polite; 10 by itself."""

RUN = f"""
import sys
from pathlib import Path
from btcai import cli, datasets
from flows import settings
settings.apply(Path.cwd())
from flows import pipeline, process
process.GRACE_S = ((process.GRACE_S[0][0], {GRACE_S}), *process.GRACE_S[1:])
datasets.ready = lambda root, config: []     # this project has no bars
pipeline.publish = lambda root, states, before, after: None
cli._report = lambda root, trained: None
sys.argv = ["btcai", "run", "--force"]
cli.main()
"""

pytestmark = pytest.mark.slow


class Terminal:
    """The project's `btcai run`, one after the other."""

    def __init__(self, project: Operated) -> None:
        self.project = project
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self._env = {**kept, "BTCAI_NOTIFY_URL": "", services.MARK: services.mark(project.root)}

    def start(self) -> "subprocess.Popen[str]":
        """At work: its training goes on from where it was, and has made an update since; a quick one has ended."""
        before = self.project.checkpoint()
        process = subprocess.Popen(
            [sys.executable, "-c", RUN], cwd=self.project.root, env=self._env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        until(lambda: self.project.checkpoint() >= before + 5 or process.poll() is not None)
        return process

    def ended(self, process: "subprocess.Popen[str]") -> str:
        """What it said; nothing of it is left."""
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert run_lock.holder(self.project.root) is None
        assert self.trainers() == []
        return said

    def trainers(self) -> list[int]:
        marked = services.marked(self.project.root)
        return [one.pid for one in marked if "trainer.py" in processes.command(one)]

    def page(self) -> str:
        """The id of its run on Prefect's pages."""
        active = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}, "deployment_id": {"is_null_": True}}}
        (found,) = self.project.api("flow_runs/filter", active)
        return str(found["id"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed training."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed") / "one")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Of a project whose services are down."""
    make_project(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    project = Operated(tmp_path, free_port(), free_port())
    project.pace(0.25)
    try:
        yield Terminal(project)
    finally:
        processes.send(services.marked(tmp_path), signal.SIGKILL)


@pytest.fixture
def operated(terminal: Terminal) -> Iterator[Terminal]:
    """Of one whose services are up, but for MLflow's, which has no part in it."""
    project = terminal.project
    started = project.btcai("up", "--prefect-port", str(project.port), "--no-mlflow")
    try:
        assert started.returncode == 0, started.stderr
        yield terminal
    finally:
        project.btcai("down")


def test_pause_waits_for_the_next_checkpoint_and_a_second_one_does_not(terminal: Terminal, whole: str) -> None:
    project = terminal.project
    run = terminal.start()
    project.pace(0.25 * GRACE_S)  # a checkpoint comes after ten updates: later than Ctrl-C would wait
    first = project.checkpoint()
    until(lambda: project.checkpoint() > first)
    before, began_s = project.checkpoint(), time.monotonic()
    found = run_lock.holder(project.root)
    assert found is not None
    assert run_lock.ask_to_pause(project.root, found)
    said = terminal.ended(run)
    assert run.returncode == INTERRUPTED
    assert "paused, which ends a run in a terminal: what was done is kept; go on with: btcai run" in said
    assert time.monotonic() - began_s > GRACE_S
    assert project.checkpoint() > before  # it was waited for,
    heard, _, later = said.partition("asked to stop: training ends at its next checkpoint")
    assert heard != said
    assert later.count("toy: PPO [#]") <= 10  # and no further

    project.pace(0.25)
    run = terminal.start()
    project.pace(600.0)
    before = project.checkpoint()
    told = project.btcai("pause").stdout
    assert "was asked to stop at its next checkpoint (15 minutes are given; a second btcai pause" in told
    assert "was asked to end now" in project.btcai("pause").stdout
    said = terminal.ended(run)
    assert "interrupted: what was finished is kept; go on with: btcai run --force" in said
    assert [word for word in ("Crash", "was killed") if word in said] == []  # somebody wanted it
    assert run.returncode == INTERRUPTED
    reached = project.checkpoint()
    assert reached in (before, before + 10)  # of the update under way, not of those that take ten minutes

    project.pace(QUICK_S)
    terminal.ended(again := terminal.start())
    assert again.returncode == 0
    assert project.weights() == whole
    assert project.beginnings() == [0, *sorted(set(project.beginnings()[1:]))]
    assert project.beginnings()[-1] == reached


def test_the_pages_and_cancel_end_it_and_the_next_run_goes_on(operated: Terminal, whole: str) -> None:
    project = operated.project
    run = operated.start()
    page = operated.page()
    state = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
    project.api(f"flow_runs/{page}/set_state", {"state": state, "force": True})  # its Pause button
    assert "paused, which ends a run in a terminal" in operated.ended(run)
    assert run.returncode == INTERRUPTED
    assert project.state(page)["name"] == "Cancelled"

    run = operated.start()
    page = operated.page()
    project.api(f"flow_runs/{page}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})  # Cancel
    assert "cancelled: what was done is kept" in operated.ended(run)
    assert run.returncode == INTERRUPTED
    assert project.state(page)["name"] == "Cancelled"

    run = operated.start()
    page = operated.page()
    assert f"cancelled: btcai run --force, process {run.pid}" in project.btcai("cancel").stdout
    assert "interrupted: what was finished is kept" in operated.ended(run)
    assert run.returncode == INTERRUPTED
    assert until(lambda: (found := project.state(page))["type"] not in ("RUNNING", "CANCELLING") and found)

    project.pace(QUICK_S)
    page_of = operated.start()
    operated.ended(page_of)
    assert page_of.returncode == 0
    assert project.weights() == whole
    begun = project.beginnings()
    assert len(begun) == 4
    assert 0 == begun[0] < begun[1] < begun[2] < begun[3] < UPDATES
