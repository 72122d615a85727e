"""Only one run at a time writes to a project, whoever started it, and a killed one holds nobody up."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from btcai import paths, run_lock

HOLD = """
import sys, time
from pathlib import Path
from btcai import run_lock
with run_lock.alone(Path(sys.argv[1]), "btcai run", flow_run_id=sys.argv[2] or None):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_run(root: Path, flow_run_id: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the project."""
    command = [sys.executable, "-c", HOLD, str(root), flow_run_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def sure_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "GLANCES_S", 0.1)


@contextmanager
def glance(root: Path) -> Iterator[None]:
    """Another process's holder(), at the moment when it has the lock."""
    path = root / paths.RUN_LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


@pytest.mark.usefixtures("sure_soon")
def test_a_second_run_is_refused_by_who_holds_since_when_and_what_to_do(tmp_path: Path) -> None:
    with another_run(tmp_path) as first:
        message = rf"btcai run, process {first.pid}, since \d{{4}}-.* UTC; wait for it, or end it with: btcai cancel"
        with pytest.raises(run_lock.Busy, match=message), run_lock.alone(tmp_path, "btcai run"):
            pytest.fail("two runs at once")
        found = run_lock.holder(tmp_path)
        assert found is not None
        assert (found.pid, found.what, found.flow_run_id) == (first.pid, "btcai run", None)


def test_a_run_killed_by_sigkill_holds_nobody_up_and_is_nobody(tmp_path: Path) -> None:
    with another_run(tmp_path, "the run") as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert run_lock.holder(tmp_path) is None
        with run_lock.alone(tmp_path, "next"):
            found = run_lock.holder(tmp_path)
            assert found is not None
            assert (found.pid, found.what) == (os.getpid(), "next")
    assert run_lock.holder(tmp_path) is None


def test_a_run_of_the_schedule_waits_for_one_in_a_terminal(tmp_path: Path) -> None:
    with another_run(tmp_path) as first:
        threading.Timer(0.2, first.kill).start()
        began_s = time.monotonic()
        with run_lock.alone(tmp_path, "scheduled", wait_s=30.0):
            assert time.monotonic() - began_s < 10.0
            assert first.poll() is not None


def test_a_flow_inside_the_command_that_holds_the_project_holds_it_too(tmp_path: Path) -> None:
    with run_lock.alone(tmp_path, "btcai run"):
        with run_lock.alone(tmp_path, "inner"):
            pass
        found = run_lock.holder(tmp_path)
        assert found is not None
        assert found.what == "btcai run"


def test_nobody_holds_a_project_that_never_ran(tmp_path: Path) -> None:
    assert run_lock.holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_two_that_ask_at_once_do_not_take_each_other_for_a_run(tmp_path: Path) -> None:
    with another_run(tmp_path) as first:
        os.kill(first.pid, signal.SIGKILL)  # its record stays
        first.wait()
    with glance(tmp_path):
        assert run_lock.holder(tmp_path) is None


def test_a_run_starts_though_somebody_asks_for_the_holder_just_then(tmp_path: Path) -> None:
    asking = glance(tmp_path)
    asking.__enter__()
    end = threading.Timer(0.1, asking.__exit__, (None, None, None))
    end.start()
    with run_lock.alone(tmp_path, "btcai run"):
        assert run_lock.holder(tmp_path) is not None
    end.join()


def test_a_run_that_ended_leaves_no_record_of_an_id_that_may_be_anothers(tmp_path: Path) -> None:
    record = (tmp_path / paths.RUN_LOCK).with_suffix(".json")
    with run_lock.alone(tmp_path, "btcai run"):
        with run_lock.alone(tmp_path, "inner"):
            pass
        assert record.exists()
    assert not record.exists()


def test_only_the_process_that_holds_the_project_is_interrupted(tmp_path: Path) -> None:
    with another_run(tmp_path) as first:
        found = run_lock.holder(tmp_path)
        assert found is not None
        assert found.started_s == pytest.approx(psutil.Process(first.pid).create_time(), abs=2.0)
        assert not run_lock.interrupt(replace(found, started_s=found.started_s - 3600.0))
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(0.1)
        assert run_lock.interrupt(found)
        assert first.wait(10.0) != 0
        assert not run_lock.interrupt(found)


@pytest.mark.usefixtures("sure_soon")
def test_a_holder_that_has_not_yet_said_who_it_is(tmp_path: Path) -> None:
    with another_run(tmp_path):
        (tmp_path / paths.RUN_LOCK).with_suffix(".json").write_text("{", encoding="utf-8")
        with pytest.raises(run_lock.Busy, match="a process that has just started"), run_lock.alone(tmp_path, "x"):
            pytest.fail("two runs at once")


def test_the_record_is_whole_json(tmp_path: Path) -> None:
    with run_lock.alone(tmp_path, "btcai run", flow_run_id="abc"):
        found = json.loads((tmp_path / paths.RUN_LOCK).with_suffix(".json").read_text(encoding="utf-8"))
    assert set(found) == {"pid", "started_s", "since", "what", "flow_run_id"}
