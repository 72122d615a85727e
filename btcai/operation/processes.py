"""Processes of this machine: found again though their ids are given anew, signalled, ended with all that is below them.

Nothing is imported before it is asked for.
"""

import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

SAME_START_S = 0.1
"""The system counts a process's start from its own in hundredths of a second, whatever the clock is set to."""
CHILDREN_S = 5.0
"""What children have to end in by themselves, once their parent has."""

Graces = Sequence[tuple[int, float]]
"""Signals in turn, and how long each is waited for, in seconds."""


def find(pid: int, started_s: float) -> "psutil.Process | None":
    """The process of that id and start; None where it has ended, also where its id is another's by now."""
    import psutil

    try:
        process = psutil.Process(pid)
        is_same = abs(_since_boot_s(process) - started_s) <= SAME_START_S
        return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def started_s(pid: int | None = None) -> float:
    """When the process, by default this one, was started: since the system was, by its own account."""
    import psutil

    return _since_boot_s(psutil.Process(pid))


def _since_boot_s(process: "psutil.Process") -> float:
    """psutil adds the clock time of the system's start, which moves when the clock is set: it is taken off again."""
    import psutil

    return round(float(process.create_time() - psutil.boot_time()), 2)


def send(found: "Iterable[psutil.Process]", sign: int) -> "list[psutil.Process]":
    """Signal each; those that were there to hear it."""
    import psutil

    heard = []
    for process in found:
        try:
            process.send_signal(sign)
        except psutil.NoSuchProcess:
            continue
        heard.append(process)
    return heard


def stop(process: "psutil.Process | None", graces: Graces) -> None:
    """End a process, by `graces`, SIGKILL the last of them, and all that is below it."""
    import psutil

    if process is None:
        return
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for sign, grace_s in graces:
        send([process] if sign != signal.SIGKILL else tree, sign)
        _, alive = psutil.wait_procs([process], timeout=grace_s)
        if not alive:
            break
    _, alive = psutil.wait_procs(tree, timeout=CHILDREN_S)
    send(alive, signal.SIGKILL)


def with_variable(name: str, value: str) -> "list[psutil.Process]":
    """All others that have it in their environment, as children inherit it, whoever is their parent now."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(name) == value:
                found.append(process)
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


def that_hold(path: Path) -> "list[psutil.Process]":
    """All others that have the file open, as far as this user may see."""
    import psutil

    found, wanted = [], str(path.resolve())
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(file.path == wanted for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def command(process: "psutil.Process") -> str:
    """Its command line; empty where it has ended."""
    import psutil

    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def name(process: "psutil.Process") -> str:
    """Of its program; empty where it has ended."""
    import psutil

    try:
        return str(process.name())
    except psutil.Error:
        return ""


def listeners(port: int) -> "list[psutil.Process]":
    """Who has a TCP port of this machine, where the system tells us."""
    import psutil

    try:
        pids = [one.pid for one in psutil.net_connections("tcp") if one.laddr and one.laddr.port == port and one.pid]
        return [psutil.Process(pid) for pid in dict.fromkeys(pids)]
    except psutil.Error:
        return []
