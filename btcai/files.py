"""Folders that change as a whole or not at all.

One writer at a time. The new folder is written beside the old one as .NAME.new and swapped in; the old one waits as
.NAME.old. Folders only ever move by renames, so NAME is whole whenever it is there. On Linux the two change places in
one step, so NAME is always there; elsewhere a kill between two renames leaves the old one under .NAME.old, where the
next change finds it. DVC must not see these names: .dvcignore.
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from btcai.errors import DiskError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a disk that takes no more, which are no bug of ours."""


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """An empty draft beside `folder`, to be filled; it takes the folder's place when the block ends well.

    Where the block raises or is interrupted, the folder stays as it was. DiskError where it cannot be written.
    """
    try:
        with _told(folder):
            yield _fresh_draft(folder)
            _swap_in(folder)
    finally:
        settle(folder)


@contextmanager
def replaced(folder: Path, write: Callable[[Path], None]) -> Iterator[None]:
    """`folder` holds what write(draft) wrote while the block runs, and afterwards if the block ends well too.

    Where the block raises or is interrupted, the folder is again as it was, to the byte. DiskError where it cannot be
    written.
    """
    parent_is_new, swapped = not folder.parent.exists(), False
    try:
        with _told(folder):
            write(_fresh_draft(folder))
            _swap_in(folder)
            swapped = True
        yield
    except BaseException:
        if swapped:
            folder.rename(_draft(folder))
        raise
    finally:
        settle(folder)
        if parent_is_new and folder.parent.is_dir() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def write_bytes(path: Path, data: bytes) -> None:
    """A file as a whole or not at all, and on the disk before this returns: a power cut could leave it empty.

    Its draft lies beside the folder, where neither DVC nor the next run takes it for one of the folder's; it goes where
    the disk is full.
    """
    draft = path.parent.with_name(f".{path.parent.name}.{path.name}")
    try:
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def remove(folder: Path) -> None:
    """A folder is there whole or not at all while it goes; a kill leaves a draft, which `settle` removes."""
    shutil.rmtree(_draft(folder), ignore_errors=True)
    folder.rename(_draft(folder))
    shutil.rmtree(_draft(folder), ignore_errors=True)


def bytes_of(folder: Path) -> int:
    """What all files below hold together."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def backup_of(folder: Path) -> Path:
    """Where the old folder waits."""
    return folder.with_name(f".{folder.name}.old")


def settle(folder: Path) -> None:
    """Put the old folder back where there is no other, and leave nothing beside it."""
    backup = backup_of(folder)
    if backup.exists() and not folder.exists():
        backup.rename(folder)
    for leftover in (_draft(folder), backup):
        shutil.rmtree(leftover, ignore_errors=True)


def _draft(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _fresh_draft(folder: Path) -> Path:
    settle(folder)
    if backup_of(folder).exists():  # or it would be taken for what was there before this change
        raise DiskError(f"{backup_of(folder)} could not be removed; remove it, then run it again")
    _draft(folder).mkdir(parents=True)
    return _draft(folder)


def _swap_in(folder: Path) -> None:
    """Files first, then the names: whatever a power cut leaves, the folder is the old or the new one."""
    draft = _draft(folder)
    for path in (*draft.rglob("*"), draft):
        sync(path)
    _rename_in(draft, folder)
    sync(folder.parent)


def sync(path: Path) -> None:
    """A file's bytes, or a folder's names, are on the disk before this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename_in(draft: Path, folder: Path) -> None:
    if folder.exists():
        if _exchanged(draft, folder):
            try:
                draft.rename(backup_of(folder))
            except OSError:
                _exchanged(draft, folder)
                raise
            return
        folder.rename(backup_of(folder))
    draft.rename(folder)


def _exchanged(one: Path, other: Path) -> bool:
    """Two folders change places in one step, renameat2(2); False where system, C library or file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (None, *NO_ROOM):  # numpy names no number when it could not write all
            raise
        raise DiskError(
            f"{folder} could not be written: {error}; it is as it was: free the disk or mend its permissions, "
            "then run it again"
        ) from error
