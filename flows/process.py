"""One child process in a group of its own: its lines come through as they are written, and none of it outlives us."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from btcai.errors import BtcaiError

Graces = Sequence[tuple[int, float]]

GRACE_S: Graces = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
"""SIGINT first: DVC then sees its stage fail and leaves its locks in order."""
PATIENT_S: Graces = ((signal.SIGINT, 900.0), *GRACE_S[1:])
"""For who asks a training to stop and would rather wait for its next checkpoint than make updates again."""
POLL_S, LOOK_S = 0.05, 1.0


class Halted(BtcaiError):
    """A child that was ended before its time, and why."""

    patient: ClassVar[bool] = False
    """Whether the child's next checkpoint is waited for."""


Look = Callable[[int], Halted | None]
"""The leader's pid -> why its group is to be ended now; asked every LOOK_S from a thread."""


def stream(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], show: Callable[[str], None], look: Look | None = None
) -> int:
    """Run `command`, pass each line of its output to `show`; returns the exit code. Raises what `look` returned.

    The group is its own, so Ctrl-C at the terminal does not reach it. Whatever interrupts us (Ctrl-C, a time limit,
    Prefect's cancel: all BaseException) ends the whole group, children of children included; and so does our death,
    which flows.guard sees.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.guard", *command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None  # PIPE was asked for
    assert process.stdin is not None
    try:
        with process.stdin, process.stdout, _Lookout(process, look) as lookout:
            for line in process.stdout:
                show(line.rstrip("\n"))
            code = process.wait()
        if lookout.found is not None:
            raise lookout.found
        return code
    except BaseException:
        end_group(process)
        raise


class _Lookout:
    """A thread that asks `look` while the child runs, and ends the child's group where there is a reason."""

    def __init__(self, process: subprocess.Popen[str], look: Look | None) -> None:
        self.found: Halted | None = None
        self._process, self._look, self._over = process, look, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Lookout":
        if self._look is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5 * LOOK_S)

    def _run(self) -> None:
        assert self._look is not None
        while self.found is None and not self._over.wait(LOOK_S):
            self.found = self._look(self._process.pid)
        if self.found is not None:
            end_group(self._process, PATIENT_S if self.found.patient else GRACE_S, over=self._over)


def end_group(process: subprocess.Popen[str], graces: Graces = (), over: threading.Event | None = None) -> None:
    """Stop every process of the group that `process` leads, politely at first; by GRACE_S where nothing else is said.

    Until `over` is set, where another thread waits for it too.
    """
    for sign, grace_s in graces or GRACE_S:
        if not _signal(process, sign):
            return
        give_up_at = time.monotonic() + grace_s
        while time.monotonic() < give_up_at:
            process.poll()  # reap the leader: a zombie still counts as a member
            if not _signal(process, 0) or (over is not None and over.is_set()):
                return
            time.sleep(POLL_S)


def _signal(process: subprocess.Popen[str], sign: int) -> bool:
    """Signal the group; False when nobody is left in it."""
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return False
    return True
