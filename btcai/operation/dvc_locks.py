"""DVC's locks that a killed process left: DVC gets over some of them alone, this ends the others.

.dvc/tmp/lock and rwlock.lock are locks of the operating system, which end with their process. .dvc/tmp/rwlock is a
file: who reads and writes which path, by process id. DVC takes out entries of ids that are no more, but it refuses to
start where the file was torn by a kill (or a full disk) in the middle of its writing, and where an id has been given to
another process since, as after a restart of the machine or the container.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RWLOCK = Path(".dvc/tmp/rwlock")
GUARD = Path(".dvc/tmp/rwlock.lock")
"""Held while RWLOCK is read and written."""


def stale(root: Path) -> str | None:
    """Why DVC's rwlock keeps others out though nobody holds it; None where there is none, or DVC is at work."""
    with _guarded(root) as ours:
        return _reason(root / RWLOCK) if ours else None


def freed(root: Path) -> str | None:
    """Remove the rwlock where it is stale; says why it was."""
    with _guarded(root) as ours:
        reason = _reason(root / RWLOCK) if ours else None
        if reason is not None:
            (root / RWLOCK).unlink()
        return reason


def _reason(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        owners = list(_owners(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{RWLOCK} was torn: a DVC was killed while it wrote it"
    if not owners or any(_at_work(pid, command) for pid, command in owners):
        return None
    pids = ", ".join(map(str, sorted({pid for pid, _ in owners})))
    return f"{RWLOCK} was held by processes that have ended: {pids}"


def _owners(held: dict[str, dict[str, object]]) -> Iterator[tuple[int, str]]:
    """Process id and command of a writer a path, and of its readers, which are a list."""
    for by_path in held.values():
        for entry in by_path.values():
            for one in entry if isinstance(entry, list) else [entry]:
                if one:
                    yield int(one["pid"]), str(one["cmd"])  # type: ignore[index]


def _at_work(pid: int, command: str) -> bool:
    """Whether the process still is the one that held the lock, by the words of its command."""
    import psutil

    try:
        words = psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    except psutil.AccessDenied:
        return True
    program, *arguments = command.rpartition("/")[2].split()  # the folder before it may have blanks in its name
    if arguments:  # of `python -m dvc repro` DVC knows its own __main__.py and `repro`
        return set(arguments) <= set(" ".join(words).split())
    return any(Path(word).name == Path(program).name for word in words)


@contextmanager
def _guarded(root: Path) -> Iterator[bool]:
    """Hold off every DVC that would change the rwlock; False where one is doing so just now, or none has ever run."""
    path = root / GUARD
    if not path.parent.is_dir():
        yield False
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True  # closing it ends the lock
    finally:
        os.close(handle)
