"""A stage that does nothing is ended, one that works is not, and none outlives who asked for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ended_process import gone

from flows import process, stall
from flows.guard import NOT_FOUND
from flows.process import Halted, stream
from flows.stall import Stall, Stuck, processor_s


class Clock:
    """A clock, and a processor's time, that a test moves."""

    def __init__(self) -> None:
        self.now_s, self.used_s = 0.0, 0.0

    def run(self, seconds: float, share: float) -> None:
        self.now_s += seconds
        self.used_s += seconds * share

    def watch(self, watch: Stall, seconds: int, share: float) -> Stuck | None:
        """What the watchdog says at the end of so long, in which it is asked every second."""
        found = None
        for _ in range(seconds):
            self.run(1.0, share)
            found = watch.check(1)
        return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stall, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr(stall, "processor_s", lambda _: clock.used_s)
    return clock


def stuck_after(clock: Clock, watch: Stall, share: float, wrote_every_s: float = 1e9) -> float | None:
    """Seconds until the watchdog speaks, in two hours; the process uses `share` of a processor."""
    wrote_s = 0.0
    for _ in range(7200):
        clock.run(1.0, share)
        if clock.now_s - wrote_s >= wrote_every_s:
            watch.wrote()
            wrote_s = clock.now_s
        if watch.check(1) is not None:
            return clock.now_s
    return None


def test_a_process_that_waits_is_stuck_after_the_limit(clock: Clock) -> None:
    assert stuck_after(clock, Stall("x", 600.0), share=0.001) == 600.0


def test_a_process_at_work_without_a_line_is_not_stuck(clock: Clock) -> None:
    assert stuck_after(clock, Stall("x", 600.0), share=0.02) is None


def test_a_process_that_waits_and_writes_is_not_stuck(clock: Clock) -> None:
    assert stuck_after(clock, Stall("x", 600.0), share=0.0, wrote_every_s=500.0) is None


def test_bursts_of_work_keep_it_alive_and_their_end_is_counted_from_the_last(clock: Clock) -> None:
    watch = Stall("x", 600.0)
    for _ in range(10):
        assert clock.watch(watch, 50, 1.0) is None
        assert clock.watch(watch, 250, 0.0) is None
    assert stuck_after(clock, watch, share=0.0) == clock.now_s
    assert 3000.0 - 250.0 + 600.0 - 60.0 <= clock.now_s <= 3000.0 + 600.0


def test_a_child_that_ended_counts_as_work(clock: Clock) -> None:
    watch = Stall("x", 600.0)
    assert clock.watch(watch, 300, 1.0) is None
    assert clock.watch(watch, 400, 0.0) is None
    clock.used_s = 100.0  # the child took its 200 s with it; seen at 720 s, with the next look
    assert clock.watch(watch, 619, 0.0) is None
    assert clock.watch(watch, 1, 0.0) is not None


def test_what_it_says(clock: Clock) -> None:
    found = clock.watch(Stall("evaluate", 600.0), 601, 0.0)
    assert str(found) == "stage evaluate wrote nothing and used no processor for 601 s"


def test_hours_in_which_the_watchdog_itself_stood_still_are_not_the_stages_idleness(clock: Clock) -> None:
    watch = Stall("x", 600.0)
    assert clock.watch(watch, 30, 1.0) is None
    clock.run(7200.0, 0.0)  # docker pause: a tenth of the limit is counted, 60 s, in which it used 30 s
    assert watch.check(1) is None
    assert clock.watch(watch, 59, 0.0) is None
    clock.run(7200.0, 0.0)  # idle for 59 s, and for 60 s more of this
    assert watch.check(1) is None
    assert clock.watch(watch, 480, 0.0) is None
    assert str(clock.watch(watch, 1, 0.0)).endswith("for 600 s")


def test_a_stuck_stage_is_found_though_each_look_takes_minutes(clock: Clock) -> None:
    """Prefect's server, asked before, does not answer."""
    watch, found = Stall("x", 600.0), []
    for _ in range(10):
        clock.run(360.0, 0.0)
        found.append(watch.check(1) is not None)
    assert found == [False] * 9 + [True]


def test_processor_time_counts_children() -> None:
    busy = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", busy], start_new_session=True) as parent:
        deadline = time.monotonic() + 60.0
        while processor_s(parent.pid) < 0.2 and time.monotonic() < deadline:
            time.sleep(0.02)
        used_s = processor_s(parent.pid)
        os.killpg(parent.pid, signal.SIGKILL)
    assert used_s >= 0.2
    assert processor_s(parent.pid) == 0.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOOK_S", 0.05)


def watched(watch: Stall) -> Callable[[int], Halted | None]:
    return watch.check


@pytest.mark.usefixtures("quick")
def test_a_sleeping_stage_is_ended_with_its_children(tmp_path: Path) -> None:
    lines: list[str] = []
    watch = Stall("sleepy", 2.0)
    with pytest.raises(Stuck, match="stage sleepy wrote nothing"):
        stream(
            ["/bin/sh", "-c", "/bin/sh -c 'echo $$; sleep 60; true'; true"],
            cwd=tmp_path, env=os.environ, show=lines.append, look=lambda pid: watch.check(pid) if lines else None,
        )  # fmt: skip
    assert gone(int(lines[0]))


@pytest.mark.usefixtures("quick")
def test_a_stage_asked_to_stop_may_end_its_work_first(tmp_path: Path) -> None:
    class Asked(Halted):
        patient = True

    script = "trap 'sleep 0.5; echo saved; exit 1' INT; echo ready; while :; do sleep 0.05; done"
    lines: list[str] = []
    with pytest.raises(Asked):
        stream(
            ["/bin/sh", "-c", script],
            cwd=tmp_path, env=os.environ, show=lines.append, look=lambda _: Asked("pause") if lines else None,
        )  # fmt: skip
    assert lines == ["ready", "saved"]


@pytest.mark.usefixtures("quick")
def test_a_watchdog_that_fails_says_so_once_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = 0

    def look(pid: int) -> Halted | None:
        nonlocal asked
        asked += 1
        if asked <= 2:
            raise OSError("the system's table of processes was not readable")
        return Halted("stuck")

    with pytest.raises(Halted, match="stuck"):
        stream(["sleep", "60"], cwd=tmp_path, env=os.environ, show=lambda _: None, look=look)
    assert asked == 3
    assert caplog.text.count("OSError: the system's table of processes was not readable") == 1


@pytest.mark.usefixtures("quick")
def test_a_child_that_outlives_a_stage_ended_by_the_watchdog_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "sleep 60 >/dev/null 2>&1 & echo $!; exec sleep 60"  # in the background SIGINT is not heard
    lines: list[str] = []
    monkeypatch.setattr(process, "GRACE_S", ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.1)))
    with pytest.raises(Halted, match="stuck"):
        stream(
            ["/bin/sh", "-c", script],
            cwd=tmp_path, env=os.environ, show=lines.append, look=lambda _: Halted("stuck") if lines else None,
        )  # fmt: skip
    assert gone(int(lines[0]))


SAVES = """
import signal, time
came = 0
def count(*_):
    global came
    came += 1
signal.signal(signal.SIGINT, count)
print("ready", flush=True)
while not came:
    time.sleep(0.01)
print("x" * 200_000, flush=True)  # more than a pipe holds
give_up_at = time.monotonic() + 0.5
while time.monotonic() < give_up_at:
    time.sleep(0.01)
print("saved after", came, end="", flush=True)
"""


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_stage_is_asked_once_and_heard_until_it_has_saved(
    tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", ((signal.SIGINT, 60.0), *process.GRACE_S[1:]))
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if line == "ready":
            raise error

    with pytest.raises(error):
        stream([sys.executable, "-c", SAVES], cwd=tmp_path, env=os.environ, show=show)
    assert lines == ["ready", "x" * 200_000, "saved after 1"]


def test_lines_come_whole_whatever_ends_them_and_however_they_are_cut(tmp_path: Path) -> None:
    script = r"printf 'a\r\n\303'; sleep 0.1; printf '\251\rb\n\nc'"
    lines: list[str] = []
    assert stream(["/bin/sh", "-c", script], cwd=tmp_path, env=os.environ, show=lines.append) == 0
    assert lines == ["a", "\u00e9", "b", "", "c"]


def test_a_command_that_is_not_there_has_the_shells_code(tmp_path: Path) -> None:
    assert stream(["no-such-command"], cwd=tmp_path, env=os.environ, show=lambda _: None) == NOT_FOUND


def test_a_command_ended_by_a_signal_has_the_shells_code(tmp_path: Path) -> None:
    code = stream(["/bin/sh", "-c", "kill -9 $$"], cwd=tmp_path, env=os.environ, show=lambda _: None)
    assert code == 128 + signal.SIGKILL


PARENT = """
import os, sys
from pathlib import Path
from flows.process import stream
stream(["/bin/sh", "-c", "sleep 60 & echo $! $$; wait"], cwd=Path("."), env=os.environ,
       show=lambda line: print(line, flush=True))
"""


def test_a_stage_does_not_outlive_a_flow_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as flow:
        assert flow.stdout is not None
        sleeper, shell = map(int, flow.stdout.readline().split())
        os.kill(flow.pid, signal.SIGKILL)
        flow.wait()
        assert gone(shell)
        assert gone(sleeper)
