"""Lines that are added to a file for good: whole and on the disk, or the file is as it was."""

import os
from pathlib import Path

from btcai.errors import DiskError
from btcai.files import NO_ROOM


def append_line(path: Path, line: str) -> None:
    """Add a line, and force it onto the disk before this returns; after one that a kill left torn it begins anew.

    DiskError where it cannot be written; half of it is then taken back.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            held = file.seek(0, os.SEEK_END)
            try:
                _write(file.fileno(), f"{_break_after_torn(file.fileno(), held)}{line}\n".encode())
            except BaseException:
                file.truncate(held)
                raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskError(
            f"{path} could not be written: {error}; it is as it was: free the disk, then try again"
        ) from error


def _break_after_torn(handle: int, held: int) -> str:
    return "\n" if held and os.pread(handle, 1, held - 1) != b"\n" else ""


def _write(handle: int, data: bytes) -> None:
    """All of it: what finds a disk almost full writes some, and fails only the next time."""
    while data:
        data = data[os.write(handle, data) :]
    os.fsync(handle)
