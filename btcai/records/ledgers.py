"""Lines that are added to a file for good: whole and on the disk, or the file is as it was. A damaged one is known."""

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from btcai.checksums import CHECKSUM, is_intact, with_checksum
from btcai.errors import ArtifactError, DiskError
from btcai.files import NO_ROOM, sync

FORMAT = 1
"""Of the records in the lines. A line says its format once that is another one; those that say none are of the first,
for ledgers outlive the code that wrote them."""


def lines_of(ledger: Path) -> list[bytes]:
    """The lines of a ledger, oldest first; none where there is no such file.

    Bytes: one that a disk changed need not be text any more, and must not keep the others from being read.
    """
    return ledger.read_bytes().splitlines() if ledger.is_file() else []


def line_of(record: Mapping[str, Any]) -> str:
    """The line of a record, with its hash."""
    return json.dumps(with_checksum(record), sort_keys=True)


def record_of(line: str | bytes, place: str) -> dict[str, Any]:
    """The record in a line, for its reader to check; `place` names it in errors.

    ValueError where the line is torn or damaged; ArtifactError where a later btcai wrote it, in which its names may
    mean other things: it is neither skipped nor guessed at. Lines without a hash are of before there was one.
    """
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"must be an object, was {type(found).__name__}")
    number = found.get("format", 1)
    if number != FORMAT:
        raise ArtifactError(
            f"{place} must be of format {FORMAT}, is of format {number}: another btcai wrote it; read it with that one"
        )
    if CHECKSUM in found and not is_intact(found):
        raise ValueError("not what was written")
    return {name: value for name, value in found.items() if name not in ("format", CHECKSUM)}


def append_line(path: Path, line: str, unless: Callable[[list[bytes]], bool] | None = None) -> bool:
    """Add a line, and force it onto the disk before this returns; after one that a kill left torn it begins anew.

    False, and nothing added, where unless(the ledger's lines). One process at a time, from the reading to the end: the
    kernel frees the lock of one that was killed. DiskError where it cannot be written; half of it is taken back.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another's line may not come behind half of ours, to be cut off with it
            file.seek(0)
            held = file.read()
            if unless is not None and unless(held.splitlines()):
                return False
            begin = "\n" if held and not held.endswith(b"\n") else ""
            try:
                _write(file.fileno(), f"{begin}{line}\n".encode())
                if not held:
                    sync(path.parent)  # its name, too, outlives a power cut
            except BaseException:
                file.truncate(len(held))
                raise
            return True
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskError(
            f"{path} could not be written: {error}; it is as it was: free the disk, then try again"
        ) from error


def _write(handle: int, data: bytes) -> None:
    """All of it: what finds a disk almost full writes some, and fails only the next time."""
    while data:
        data = data[os.write(handle, data) :]
    os.fsync(handle)
