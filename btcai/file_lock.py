"""One process at a time, by a lock file; that of a killed process is free. Not in files.py, for deciding needs that."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from btcai.errors import BtcaiError


@contextmanager
def locked(path: Path, refusal: BtcaiError, wait_s: float = 0.0) -> Iterator[None]:
    """`refusal` is raised where another process still holds the lock file after wait_s."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(timeout=wait_s)
    except Timeout as error:
        raise refusal from error
    with lock:
        yield
