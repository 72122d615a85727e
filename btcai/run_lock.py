"""One run at a time in a project: the flow on a schedule, `btcai run` in a terminal, whoever started them."""

import fcntl
import json
import logging
import signal
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
GLANCE_S, GLANCES_S = 0.02, 1.0
"""Whoever asks for the holder keeps the lock for a moment: that long a second try follows at once."""
SAME_START_S = 5.0
"""The system tells a process's start to the second, by a clock that may be set meanwhile."""
SAY_S = 600.0
"""How often who waits says so."""


class Busy(BtcaiError):
    """Another run is at work in this project."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who runs; run.json."""

    pid: int
    started_s: float
    """Of the process, since 1970: its id may be another's by now."""
    since: str
    """UTC."""
    what: str
    """`btcai run`, or the name of Prefect's run."""
    flow_run_id: str | None = None
    """None: not one that a Prefect worker started."""


@contextmanager
def alone(root: Path, what: str, *, flow_run_id: str | None = None, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the project for a run; Busy where another holds it for longer than `wait_s`, and than GLANCES_S.

    The system frees the lock when its holder ends, were it by SIGKILL. Within one process the inner of two blocks
    changes nothing.
    """
    from filelock import FileLock, Timeout

    path = root / paths.RUN_LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True, thread_local=False)
    began_s = time.monotonic()
    sure_at = say_at = began_s + GLANCES_S
    give_up_at = began_s + max(GLANCES_S, wait_s)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            now_s = time.monotonic()
            if now_s >= give_up_at:
                raise Busy(f"{_told(root)}; wait for it, or end it with: btcai cancel") from None
            if now_s >= say_at:
                logger.info("%s: this run waits for it, %.0f minutes at most", _told(root), wait_s / 60)
                say_at = now_s + SAY_S
            time.sleep(min(LOOK_S if now_s >= sure_at else GLANCE_S, give_up_at - now_s))
    try:
        if lock.lock_counter == 1:
            _write(root, _this_process(what, flow_run_id))
        yield
    finally:
        if lock.lock_counter == 1:
            _record(root).unlink(missing_ok=True)
        lock.release()


def holder(root: Path) -> Holder | None:
    """Who runs in this project now; None where nobody does.

    A shared lock is asked for, which any number may hold: who asks at the same time is not taken for a run.
    """
    path = root / paths.RUN_LOCK
    if not path.is_file():
        return None
    with path.open("rb") as file:  # closing it ends the lock
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(root)
    return None


def interrupt(found: Holder) -> bool:
    """Send its process SIGINT; False where that has ended, also where its id is another's by now."""
    import psutil

    try:
        process = psutil.Process(found.pid)
        if abs(process.create_time() - found.started_s) > SAME_START_S:
            return False
        process.send_signal(signal.SIGINT)
    except psutil.NoSuchProcess:
        return False
    return True


def _told(root: Path) -> str:
    found = _read(root)
    who = f"{found.what}, process {found.pid}, since {found.since}" if found else "a process that has just started"
    return f"only one run may write to {root}, and there is one: {who}"


def _this_process(what: str, flow_run_id: str | None) -> Holder:
    import psutil

    process = psutil.Process()
    return Holder(pid=process.pid, started_s=process.create_time(), since=_now(), what=what, flow_run_id=flow_run_id)


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
