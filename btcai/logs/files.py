"""A log file that several processes write at once, and that becomes an archive by size or by time.

Each record is appended by one write under a lock of the file itself (fcntl), which the kernel frees when a process
dies. Whoever finds the file full or of an earlier day, week or month renames it under that lock; the others see that
the name means another file and open that. The time of the last line is the file's own time of change, so that there is
no state to lose, and a turn that came while nothing ran is caught up. Archives are compressed beside the work.
"""

import errno
import fcntl
import logging
import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from btcai.logs.settings import LogSettings, Rotation

_BLOCK_BYTES: Final = 65_536
"""Bytes read at a time when looking for the end of the last whole line."""
_tidying = threading.Lock()


class SharedFile(logging.Handler):
    """Appends formatted records to `path`; OSError where it cannot be opened."""

    def __init__(self, path: Path, settings: LogSettings) -> None:
        super().__init__()
        self.path = path
        self._settings = settings
        self._max_bytes = int(settings.max_mb * 1_000_000)
        self._turn = Turn(settings.rotate)
        self._lost = 0
        self._descriptor = _opened(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Lines that a full disk does not take are counted and said on stderr, once; the work goes on."""
        try:
            self._append(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
            if self._lost:
                sys.stderr.write(f"warning: {self.path} takes lines again; {self._lost} are missing\n")
                self._lost = 0
        except OSError as error:
            if not self._lost:
                sys.stderr.write(f"warning: {self.path} takes no more lines: {error}\n")
            self._lost += 1
        except Exception:  # as every handler of the standard library does
            self.handleError(record)

    def close(self) -> None:
        """Frees the file; a record after that opens it again, for logging's dictConfig closes handlers it keeps."""
        with self.lock or threading.RLock():
            self._close()
        super().close()

    def _append(self, line: bytes) -> None:
        try:
            size, changed_ns = self._lock_live_file()
            if size and self._is_due(size + len(line), changed_ns) and self._rotate(changed_ns):
                size, _ = self._lock_live_file()
            if os.write(self._descriptor, line) < len(line):  # the disk is full: half a line is worse than none
                os.ftruncate(self._descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            if self._descriptor >= 0:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, 0)

    def _lock_live_file(self) -> tuple[int, int]:
        """Lock what `path` names now, which may not be what was opened; its size, of whole lines alone, and when it
        was last written."""
        while True:
            if self._descriptor < 0:
                self._descriptor = _opened(self.path)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, 0)
            status = os.fstat(self._descriptor)
            try:
                named = os.stat(self.path)
            except FileNotFoundError:
                named = None
            if named is not None and (named.st_ino, named.st_dev) == (status.st_ino, status.st_dev):
                return _without_torn_line(self._descriptor, status.st_size), status.st_mtime_ns
            self._close()

    def _is_due(self, grown_bytes: int, changed_ns: int) -> bool:
        return 0 < self._max_bytes < grown_bytes or changed_ns / 1e9 < self._turn.latest(time.time())

    def _rotate(self, changed_ns: int) -> bool:
        """Rename the file, after its last line's time; where that fails it goes on growing."""
        try:
            os.rename(self.path, _free_name(self.path, changed_ns))
        except OSError as error:
            sys.stderr.write(f"warning: {self.path} cannot be archived, so it grows: {error}\n")
            self._max_bytes, self._turn = 0, Turn("size")
            return False
        self._close()
        with suppress(RuntimeError):  # the interpreter is ending: the next archive's turn compresses this one too
            threading.Thread(target=tidy, args=(self.path, self._settings), name="btcai-archives").start()
        return True

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass
class Turn:
    """When the day, week or month began, UTC; of rotation by size, never."""

    rotation: Rotation
    _began_s: float = -1.0
    _next_s: float = -1.0

    def latest(self, now_s: float) -> float:
        """Seconds since 1970 of the newest turn up to `now_s`."""
        if self.rotation == "size":
            return 0.0
        if not self._began_s <= now_s < self._next_s:
            began = turn_before(self.rotation, datetime.fromtimestamp(now_s, UTC))
            following = turn_before(self.rotation, began + timedelta(days=_LONGEST_DAYS[self.rotation]))
            self._began_s, self._next_s = began.timestamp(), following.timestamp()
        return self._began_s


_LONGEST_DAYS: Final = {"daily": 1, "weekly": 7, "monthly": 31}


def turn_before(rotation: Rotation, moment: datetime) -> datetime:
    """The midnight, Monday or first of the month at or before `moment`."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if rotation == "weekly":
        return midnight - timedelta(days=midnight.weekday())
    return midnight.replace(day=1) if rotation == "monthly" else midnight


def archives(path: Path) -> list[Path]:
    """Archives of a log file, oldest first; of one that is being compressed, the uncompressed one alone."""
    found = {file for file in path.parent.glob(f"{path.stem}-*{path.suffix}*") if file.suffix in (path.suffix, ".gz")}
    return sorted(file for file in found if not (file.suffix == ".gz" and file.with_suffix("") in found))


def tidy(path: Path, settings: LogSettings) -> None:
    """Compress what is not, delete what is too old. Several processes may do it at once."""
    with _tidying:
        try:
            for old in archives(path)[: -settings.keep or None]:
                old.unlink(missing_ok=True)
            for archive in archives(path):
                if settings.compress and archive.suffix != ".gz":
                    _compress(archive)
        except OSError as error:
            sys.stderr.write(f"warning: archives of {path} stay as they are: {error}\n")


def _compress(archive: Path) -> None:
    """ARCHIVE -> ARCHIVE.gz, as a whole or not at all; left alone where another process is at it."""
    import gzip  # only a turn needs it

    draft = archive.with_name(f".{archive.name}.new")
    try:
        with archive.open("r+b") as source:
            # flock, for the writers' kind of lock goes when this process closes the file anywhere
            fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(source.fileno()).st_nlink:  # another has just done it
                return
            with gzip.open(draft, "wb", compresslevel=6) as packed:
                shutil.copyfileobj(source, packed, 1 << 20)
            shutil.copystat(archive, draft)
            os.replace(draft, f"{archive}.gz")
            archive.unlink()
    except (BlockingIOError, PermissionError, FileNotFoundError) as error:
        logging.getLogger(__name__).debug("%s is compressed by another process: %s", archive, error)


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _free_name(path: Path, changed_ns: int) -> Path:
    """btcai-20251129T180127.123456Z.log: no archive's yet, and after them all.

    The last to be deleted is the last that was written, also where the clock was put back since: then its name is a
    moment after the newest one's.
    """
    moment = datetime.fromtimestamp(changed_ns // 1_000_000_000, UTC) + timedelta(
        microseconds=changed_ns // 1000 % 1_000_000
    )
    if newest := max((found for old in archives(path) if (found := _moment_of(path, old)) is not None), default=None):
        moment = max(moment, newest + timedelta(microseconds=1))
    while True:
        archive = path.with_name(f"{path.stem}-{moment:{_MOMENT}}{path.suffix}")
        if not archive.exists() and not Path(f"{archive}.gz").exists():
            return archive
        moment += timedelta(microseconds=1)


_MOMENT: Final = "%Y%m%dT%H%M%S.%fZ"


def _moment_of(path: Path, archive: Path) -> datetime | None:
    """When an archive of `path` was last written, by its name; None for a file that is none."""
    said = archive.name.removeprefix(f"{path.stem}-").removesuffix(".gz").removesuffix(path.suffix)
    try:
        return datetime.strptime(said, _MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return None


def _without_torn_line(descriptor: int, size: int) -> int:
    """Cut off a line that a killed process did not finish: writers hold the lock, so nobody else is at it."""
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    end = size
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        if (found := os.pread(descriptor, end - start, start).rfind(b"\n")) >= 0:
            end = start + found + 1
            break
        end = start
    os.ftruncate(descriptor, end)
    return end
