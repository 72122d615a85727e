"""One child process in a group of its own: its lines come through as they are written, and none of it outlives us."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GRACE_S = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
"""SIGINT first: DVC then sees its stage fail and leaves its locks in order."""
POLL_S = 0.05


def stream(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], show: Callable[[str], None]) -> int:
    """Run `command`, pass each line of its output to `show`; returns the exit code.

    The group is its own, so Ctrl-C at the terminal does not reach it. Whatever interrupts us (Ctrl-C, a time limit,
    Prefect's cancel: all BaseException) ends the whole group, children of children included.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None  # PIPE was asked for
    try:
        with process.stdout:
            for line in process.stdout:
                show(line.rstrip("\n"))
        return process.wait()
    except BaseException:
        end_group(process)
        raise


def end_group(process: subprocess.Popen[str]) -> None:
    """Stop every process of the group that `process` leads, politely at first."""
    for sign, grace_s in GRACE_S:
        if not _signal(process, sign):
            return
        give_up_at = time.monotonic() + grace_s
        while time.monotonic() < give_up_at:
            process.poll()  # reap the leader: a zombie still counts as a member
            if not _signal(process, 0):
                return
            time.sleep(POLL_S)


def _signal(process: subprocess.Popen[str], sign: int) -> bool:
    """Signal the group; False when nobody is left in it."""
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return False
    return True
