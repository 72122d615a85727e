"""One run at a time in a project: the flow on a schedule, `btcai run` in a terminal, whoever started them."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from btcai import paths
from btcai.errors import BtcaiError

logger = logging.getLogger(__name__)

LOOK_S = 1.0
SAY_S = 600.0
"""How often who waits says so."""


class Busy(BtcaiError):
    """Another run is at work in this project."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who runs; run.json."""

    pid: int
    since: str
    """UTC."""
    what: str
    """`btcai run`, or the name of Prefect's run."""
    flow_run_id: str | None = None
    """None: not one that a Prefect worker started."""


@contextmanager
def alone(root: Path, what: str, *, flow_run_id: str | None = None, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the project for a run; Busy where another holds it for longer than `wait_s`.

    The system frees the lock when its holder ends, were it by SIGKILL. Within one process the inner of two blocks
    changes nothing.
    """
    from filelock import FileLock, Timeout

    path = root / paths.RUN_LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True, thread_local=False)
    give_up_at, say_at = time.monotonic() + wait_s, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if time.monotonic() >= give_up_at:
                raise Busy(f"{_told(root)}; wait for it, or end it with: btcai cancel") from None
            if time.monotonic() >= say_at:
                logger.info("%s: this run waits for it, %.0f minutes at most", _told(root), wait_s / 60)
                say_at = time.monotonic() + SAY_S
            time.sleep(min(LOOK_S, max(0.0, give_up_at - time.monotonic())))
    try:
        if lock.lock_counter == 1:
            _write(root, Holder(pid=os.getpid(), since=_now(), what=what, flow_run_id=flow_run_id))
        yield
    finally:
        lock.release()


def holder(root: Path) -> Holder | None:
    """Who runs in this project now; None where nobody does."""
    from filelock import FileLock, Timeout

    path = root / paths.RUN_LOCK
    if not path.is_file():
        return None
    lock = FileLock(path, is_singleton=True, thread_local=False)
    if lock.is_locked:  # by this process
        return _read(root)
    try:
        with lock.acquire(timeout=0):
            return None
    except Timeout:
        return _read(root)


def _told(root: Path) -> str:
    found = _read(root)
    who = f"{found.what}, process {found.pid}, since {found.since}" if found else "a process that has just started"
    return f"only one run may write to {root}, and there is one: {who}"


def _write(root: Path, found: Holder) -> None:
    path = _record(root)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
    draft.replace(path)


def _read(root: Path) -> Holder | None:
    try:
        return Holder(**json.loads(_record(root).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not written yet
        return None


def _record(root: Path) -> Path:
    """Apart from the lock itself, which whoever tries it cuts to nothing."""
    return (root / paths.RUN_LOCK).with_suffix(".json")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
