"""One child process in a group of its own: its lines come through as they are written, and none of it outlives us."""

import codecs
import io
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from btcai.errors import BtcaiError
from btcai.operation import run_lock

logger = logging.getLogger(__name__)

Graces = Sequence[tuple[int, float]]

GRACE_S: Graces = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
"""SIGINT first: DVC then sees its stage fail and leaves its locks in order."""
PATIENT_S: Graces = ((signal.SIGINT, 900.0), *GRACE_S[1:])
"""For who asks a training to stop and would rather wait for its next checkpoint than make updates again."""
POLL_S, LOOK_S = 0.05, 1.0
PIECE_BYTES = 65536
"""What a pipe of Linux holds."""


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
    which flows.guard sees. Its pipes stay open until it has ended: the guard takes a closed one for our death, and a
    training that cannot write its lines does not reach its checkpoint. The guard holds the project with us: where we
    are killed, until the group has ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.guard", *command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=run_lock.handed_on(),
    )
    assert process.stdout is not None  # PIPE was asked for
    assert process.stdin is not None
    with process.stdin, process.stdout, _Lookout(process, look) as lookout:
        lines = _Lines(process.stdout.fileno(), show)
        try:
            while lines.pass_on():
                pass
            code = process.wait()
        except BaseException:
            lookout.leave()
            end_group(process, wait=lines.drain)
            while lines.drain(0.0):
                pass
            raise
    if lookout.found is not None:
        end_group(process)  # whoever of it has outlived its leader
        raise lookout.found
    return code


class _Lines:
    """Passes the lines of a pipe to `show`; one that `show` fails at does not cost the next."""

    def __init__(self, pipe: int, show: Callable[[str], None]) -> None:
        self._pipe, self._show = pipe, show
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
        self._lines: deque[str] = deque()
        self._rest = ""  # of a line whose end has not come

    def pass_on(self, wait_s: float | None = None) -> bool:
        """Show what comes next, within `wait_s` where it is given; False where nothing did, or the pipe has ended."""
        if not self._lines and not self._read(wait_s):
            return False
        while self._lines:
            self._show(self._lines.popleft())
        return True

    def drain(self, wait_s: float) -> bool:
        """pass_on while the child ends, in place of sleeping; what shows the lines may be what failed."""
        try:
            return self.pass_on(wait_s)
        except Exception as error:
            logger.debug("a line of a child that ends was not shown: %s", error)
            return True

    def _read(self, wait_s: float | None) -> bool:
        if not select.select([self._pipe], [], [], wait_s)[0]:
            return False
        piece = os.read(self._pipe, PIECE_BYTES)
        *lines, self._rest = (self._rest + self._decoder.decode(piece, final=not piece)).split("\n")
        self._lines.extend(lines)
        if not piece and self._rest:
            self._lines.append(self._rest)
            self._rest = ""
        if not piece and not self._lines and wait_s:
            time.sleep(wait_s)  # an ended pipe is always ready
        return bool(piece or self._lines)


class _Lookout:
    """A thread that asks `look` while the child runs, and ends the child's group where there is a reason."""

    def __init__(self, process: subprocess.Popen[bytes], look: Look | None) -> None:
        self.found: Halted | None = None
        self._has_failed = False
        self._process, self._look, self._over = process, look, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Lookout":
        if self._look is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        if self._thread.is_alive():
            self._thread.join(timeout=5 * LOOK_S)

    def leave(self) -> None:
        """Look no more: the child has ended, or somebody else ends it."""
        self._over.set()

    def _run(self) -> None:
        while self.found is None and not self._over.wait(LOOK_S):
            self.found = self._ask()
        if self.found is not None:
            end_group(self._process, PATIENT_S if self.found.patient else GRACE_S, over=self._over)

    def _ask(self) -> Halted | None:
        """What `look` says; one that fails says nothing, and is asked again."""
        assert self._look is not None
        try:
            return self._look(self._process.pid)
        except Exception:
            if not self._has_failed:
                logger.exception("nobody could tell whether process %d should be ended", self._process.pid)
            self._has_failed = True
            return None


def end_group(
    process: subprocess.Popen[bytes],
    graces: Graces = (),
    over: threading.Event | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Stop every process of the group that `process` leads, politely at first; by GRACE_S where nothing else is said.

    Until `over` is set, where another thread waits for it too. wait: what is done for POLL_S between two looks.
    """
    for sign, grace_s in graces or GRACE_S:
        if not _signal(process, sign):
            return
        give_up_at = time.monotonic() + grace_s
        while time.monotonic() < give_up_at:
            process.poll()  # reap the leader: a zombie still counts as a member
            if not _signal(process, 0) or (over is not None and over.is_set()):
                return
            wait(POLL_S)


def _signal(process: subprocess.Popen[bytes], sign: int) -> bool:
    """Signal the group; False when nobody is left in it."""
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return False
    return True
