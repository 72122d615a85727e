"""A disk that is full at the n-th write, and what a folder holds, to the byte."""

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Mode = Literal["refused", "full"]
"""refused: the n-th time that a file is opened for writing, made, renamed or linked fails, and no other; what a disk
says that has no room for one more name. full: from then on that file may grow by ROOM_BYTES and any other to no more
than that, whoever writes it, numpy, Arrow, SQLite, Rust: a line is left half, and cleaning up has no room either."""

ROOM_BYTES = 7

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NAMES = ("os.mkdir", "os.rename", "os.link", "os.symlink")

_hook: Callable[[str, tuple[object, ...]], None] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _hook is not None:
        _hook(event, arguments)


sys.addaudithook(_audit)  # one for good: none can be taken back


def _path_written(event: str, arguments: tuple[object, ...]) -> str | None:
    """The file or folder that an event of Python's audit is about to change."""
    if event in NAMES:
        named = arguments[0]
    elif event == "open" and _opens_to_write(arguments):
        named = arguments[0]
    else:
        return None
    return os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else None


def _opens_to_write(arguments: tuple[object, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & WRITES)


class Disk:
    """Counts the writes below `root` while it is watched, and lets the one numbered `fails_at` (from 1) fail."""

    def __init__(self, root: Path, fails_at: int | None = None, mode: Mode = "refused") -> None:
        self.writes: list[str] = []
        self._root, self._fails_at, self._mode = str(root), fails_at, mode

    def see(self, event: str, arguments: tuple[object, ...]) -> None:
        path = _path_written(event, arguments)
        if path is None or not os.path.abspath(path).startswith(self._root):
            return
        self.writes.append(f"{event} {os.path.relpath(path, self._root)}")
        if len(self.writes) != self._fails_at:
            return
        if self._mode == "refused":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        held = os.path.getsize(path) if os.path.isfile(path) else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (held + ROOM_BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def watched(disk: Disk) -> Iterator[Disk]:
    """The disk's fault holds inside; afterwards there is room again."""
    global _hook
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    _hook = disk.see
    try:
        yield disk
    finally:
        _hook = None
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(root: Path) -> dict[str, bytes]:
    """Every file below, by its path from there."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
