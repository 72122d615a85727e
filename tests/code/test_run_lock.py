"""One run at a time writes to a project, whoever started it; a killed one holds nobody up once its stages ended."""

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_holder import another_run

from btcai import paths
from btcai.operation import processes, run_lock


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
    with another_run(tmp_path, flow_run_id="the run") as first:
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
        with run_lock.alone(tmp_path, "scheduled", wait_s=30.0):
            first.wait(10)  # the kernel freed the lock a moment before


def test_a_flow_inside_the_command_that_holds_the_project_holds_it_too(tmp_path: Path) -> None:
    with run_lock.alone(tmp_path, "btcai run"):
        with run_lock.alone(tmp_path, "inner"):
            pass
        found = run_lock.holder(tmp_path)
        assert found is not None
        assert found.what == "btcai run"


@pytest.fixture
def started_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[run_lock.Holder | None], None]:
    """Gives this process the environment of one that the holder started."""

    def put(found: run_lock.Holder | None) -> None:
        assert found is not None
        monkeypatch.setenv(run_lock.RUN_VARIABLE, found.identity)

    return put


StartedBy = Callable[[run_lock.Holder | None], None]


@pytest.mark.usefixtures("sure_soon")
def test_what_the_holder_started_passes_and_in_that_project_alone(tmp_path: Path, started_by: StartedBy) -> None:
    with another_run(tmp_path / "one") as first, another_run(tmp_path / "other"):
        found = run_lock.holder(tmp_path / "one")
        started_by(found)
        with run_lock.alone(tmp_path / "one", "btcai stage features"):
            assert run_lock.holder(tmp_path / "one") == found
            assert found is not None
            assert found.pid == first.pid
        assert run_lock.holder(tmp_path / "one") == found  # a stage that ends takes nothing from its run
        with pytest.raises(run_lock.Busy), run_lock.alone(tmp_path / "other", "btcai stage features"):
            pytest.fail("two runs at once")


@pytest.mark.slow
@pytest.mark.usefixtures("sure_soon")
def test_a_stage_that_outlives_its_killed_run_keeps_others_out_until_it_ends(
    tmp_path: Path,
) -> None:
    with another_run(tmp_path) as flow:
        identity = run_lock.holder(tmp_path).identity  # type: ignore[union-attr]
        with another_run(tmp_path, env={run_lock.RUN_VARIABLE: identity}) as stage:  # passes, or it would not start
            flow.kill()
            flow.wait()
            assert run_lock.holder(tmp_path) is None
            told = (
                rf"a stage of a killed run still works in {tmp_path}: process {stage.pid} \(.*python -c import sys, "
                rf"time .*\[\.\.\.\]\); wait for it \(a minute with flows\.guard\), or: kill {stage.pid}$"
            )
            with pytest.raises(run_lock.Busy, match=told), run_lock.alone(tmp_path, "btcai run"):
                pytest.fail("a run beside a stage of another")
            assert run_lock.holder(tmp_path) is None  # who was refused is on record no more
            threading.Timer(0.2, stage.kill).start()
            with run_lock.alone(tmp_path, "btcai run", wait_s=30.0):
                assert stage.poll() is not None or stage.wait(10.0)


@pytest.mark.usefixtures("sure_soon")
def test_a_stage_whose_run_was_killed_before_it_began_is_nobodys_child(tmp_path: Path, started_by: StartedBy) -> None:
    with another_run(tmp_path) as killed:
        started_by(run_lock.holder(tmp_path))
        killed.kill()
        killed.wait()
        with another_run(tmp_path), pytest.raises(run_lock.Busy), run_lock.alone(tmp_path, "btcai stage features"):
            pytest.fail("it took another run for its own")
        with run_lock.alone(tmp_path, "btcai stage features"):
            found = run_lock.holder(tmp_path)
            assert found is not None
            assert (found.pid, found.what) == (os.getpid(), "btcai stage features")


@pytest.mark.usefixtures("sure_soon")
def test_who_inherited_the_descriptor_keeps_others_out_as_the_guard_of_a_stage_does(tmp_path: Path) -> None:
    assert run_lock.handed_on() == ()
    with run_lock.alone(tmp_path, "btcai run"):
        guard = subprocess.Popen(["sleep", "60"], pass_fds=run_lock.handed_on())
        deaf = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(run_lock.Busy, match=rf"process {guard.pid} \(sleep 60\); wait"):
            run_lock.alone(tmp_path, "btcai run").__enter__()
        guard.kill()
        guard.wait()
        with run_lock.alone(tmp_path, "btcai run"):
            assert deaf.poll() is None
    finally:
        for process in (guard, deaf):
            process.kill()
            process.wait()
    assert run_lock.handed_on() == ()
    assert run_lock.RUN_VARIABLE not in os.environ


@pytest.mark.usefixtures("sure_soon")
def test_a_part_that_no_run_writes_to_is_held_apart(tmp_path: Path) -> None:
    folds = Path("reports/folds")
    with another_run(tmp_path), run_lock.alone(tmp_path, "btcai refit", part=folds):
        pass
    with another_run(tmp_path, part=folds) as other, run_lock.alone(tmp_path, "btcai run"):
        told = rf"to .*/reports/folds, and there is one: btcai run, process {other.pid}, .* kill -INT {other.pid}$"
        with pytest.raises(run_lock.Busy, match=told), run_lock.alone(tmp_path, "btcai refit", part=folds):
            pytest.fail("two at once")


def test_a_pause_is_asked_once_of_this_holder_and_goes_with_it(tmp_path: Path, started_by: StartedBy) -> None:
    with another_run(tmp_path) as first:
        found = run_lock.holder(tmp_path)
        assert found is not None
        assert run_lock.ask_to_pause(tmp_path, found)
        assert not run_lock.ask_to_pause(tmp_path, found)
        assert not run_lock.is_asked_to_pause(tmp_path)  # not of this process
        started_by(found)
        assert run_lock.is_asked_to_pause(tmp_path)  # but of what the holder started
        first.kill()  # which leaves the request behind
        first.wait()
    with run_lock.alone(tmp_path, "btcai run", pauses=True):
        assert not run_lock.is_asked_to_pause(tmp_path)
        own = run_lock.holder(tmp_path)
        assert own is not None
        assert own.pauses
        assert run_lock.ask_to_pause(tmp_path, own)
        assert run_lock.is_asked_to_pause(tmp_path)
    assert not list((tmp_path / ".prefect").glob("*.pause"))


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


def test_seconds_in_which_a_process_stood_still_are_not_the_lock_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(step=60)  # a minute from one look to the next
    monkeypatch.setattr(run_lock, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep))
    asking = glance(tmp_path)
    asking.__enter__()
    end = threading.Timer(0.1, asking.__exit__, (None, None, None))
    end.start()
    with run_lock.alone(tmp_path, "btcai run"):
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
        assert found.started_s == processes.started_s(first.pid)
        assert not run_lock.interrupt(replace(found, started_s=found.started_s - 3600.0))
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(0.1)
        assert run_lock.interrupt(found)
        assert first.wait(10.0) != 0
        assert not run_lock.interrupt(found)


@pytest.mark.usefixtures("sure_soon")
def test_a_holder_that_has_not_yet_said_who_it_is_or_says_it_in_another_way(tmp_path: Path) -> None:
    record = (tmp_path / paths.RUN_LOCK).with_suffix(".json")
    with another_run(tmp_path) as other:
        record.unlink()
        told = "a process that has just started; wait for it, or end it with: btcai cancel$"
        with pytest.raises(run_lock.Busy, match=told), run_lock.alone(tmp_path, "x"):
            pytest.fail("two runs at once")
        record.write_text('{"pid": 7, "host": "a field of a later version"}', encoding="utf-8")
        told = (
            rf"a process \(its record \.prefect/run\.json is of another version: process {other.pid} \(.*python.*\)\)"
            r"; .*: Ctrl-C where it was started$"
        )
        with pytest.raises(run_lock.Busy, match=told), run_lock.alone(tmp_path, "x"):
            pytest.fail("two runs at once")


def test_a_holder_whose_record_cannot_be_read_is_somebody_all_the_same(tmp_path: Path) -> None:
    record = (tmp_path / paths.RUN_LOCK).with_suffix(".json")
    assert run_lock.at_work(tmp_path) is None
    with another_run(tmp_path) as other:
        said = run_lock.at_work(tmp_path)
        assert said is not None
        assert f"process {other.pid}, since " in said
        record.write_text('{"pid": 7, "host": "a field of a later version"}', encoding="utf-8")
        assert run_lock.holder(tmp_path) is None
        said = run_lock.at_work(tmp_path)
        assert said is not None
        assert f"is of another version: process {other.pid} (" in said
        assert said.endswith("; end it with: Ctrl-C where it was started")
        other.kill()
        other.wait()
        assert run_lock.at_work(tmp_path) is None


def test_the_record_is_whole_json(tmp_path: Path) -> None:
    with run_lock.alone(tmp_path, "btcai run", flow_run_id="abc"):
        found = json.loads((tmp_path / paths.RUN_LOCK).with_suffix(".json").read_text(encoding="utf-8"))
    assert set(found) == {"pid", "started_s", "since", "what", "flow_run_id", "pauses"}
