"""Only one run at a time writes to a project, whoever started it, and a killed one holds nobody up."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


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


def test_a_holder_that_has_not_yet_said_who_it_is(tmp_path: Path) -> None:
    with another_run(tmp_path):
        (tmp_path / paths.RUN_LOCK).with_suffix(".json").write_text("{", encoding="utf-8")
        with pytest.raises(run_lock.Busy, match="a process that has just started"), run_lock.alone(tmp_path, "x"):
            pytest.fail("two runs at once")


def test_the_record_is_whole_json(tmp_path: Path) -> None:
    with run_lock.alone(tmp_path, "btcai run", flow_run_id="abc"):
        found = json.loads((tmp_path / paths.RUN_LOCK).with_suffix(".json").read_text(encoding="utf-8"))
    assert set(found) == {"pid", "since", "what", "flow_run_id"}
