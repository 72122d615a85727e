"""Runs a command and ends its whole group once whoever asked for it is gone, were it by SIGKILL.

`python -m flows.guard COMMAND...` in a session of its own, with a pipe from the parent as standard input. The kernel
closes that pipe when the parent ends, however it ends. Nothing is imported here that takes time.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

ORPHAN_GRACE_S = ((signal.SIGINT, 30.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 0.0))
"""A training stops at its next checkpoint on the first, where that is near."""
NOT_FOUND = 127
POLL_S = 0.2


def main(command: Sequence[str]) -> int:
    """The command's exit code, 128 + n where signal n ended it."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, _leave_it_to_the_command)  # a handler of ours is not inherited, SIG_IGN would be
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        sys.stderr.write(f"error: {error}\n")
        return NOT_FOUND
    alone = threading.Event()
    threading.Thread(target=_outlive_nobody, args=(child, alone), daemon=True).start()
    code = child.wait()
    if alone.is_set():
        time.sleep(sum(grace_s for _, grace_s in ORPHAN_GRACE_S))  # until the last signal, which ends this process too
    return code if code >= 0 else 128 - code


def _leave_it_to_the_command(number: int, frame: object) -> None:
    """The command is in our group, so it has had the signal too; we end when it has."""


def _outlive_nobody(child: subprocess.Popen[bytes], alone: threading.Event) -> None:
    while os.read(0, 1):
        pass
    if child.returncode is not None:
        return
    alone.set()
    for sign, grace_s in ORPHAN_GRACE_S:
        os.killpg(0, sign)
        give_up_at = time.monotonic() + grace_s
        while child.returncode is None and time.monotonic() < give_up_at:
            time.sleep(POLL_S)
        time.sleep(POLL_S)  # for those of its children that had not heard


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
