"""One writer at a time in a project: a run of the schedule, `btcai run`, a stage of `dvc repro`, a change of the bars.

Two files that the system locks, and frees when their holders end, were it by SIGKILL. run.lock is held by the one that
has the project to itself; run.work is shared by it and all that it has started: the guard of a stage, which inherits
it, and the stage. So what a killed run has left at work keeps the next one out until it ends.
"""

import fcntl
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Final

from btcai import paths
from btcai.errors import BtcaiError
from btcai.operation import processes

if TYPE_CHECKING:
    import psutil

logger = logging.getLogger(__name__)

RUN_VARIABLE: Final = "BTCAI_RUN"
"""Names the holder (Holder.identity) in the environment of what it starts."""
LOOK_S = 1.0
GLANCE_S, GLANCES_S = 0.02, 1.0
"""Whoever asks for the holder keeps the lock for a moment: that long a second try follows at once."""
SAY_S = 600.0
"""How often who waits says so."""

_handed_on: list[int] = []


class Busy(BtcaiError):
    """Another command is at work in this project."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has the project; run.json."""

    pid: int
    started_s: float
    """Of the process, since the system was (processes.started_s): its id may be another's by now."""
    since: str
    """UTC."""
    what: str
    """A command, `btcai run`, or the name of Prefect's run."""
    flow_run_id: str | None = None
    """None: not one that a Prefect worker started."""
    pauses: bool = False
    """Whether it looks for requests to stop at its next checkpoint: ask_to_pause."""

    @property
    def identity(self) -> str:
        """No other process has had it, or will."""
        return f"{self.pid} {self.started_s}"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What is to be held, and the files that say so, beside each other."""

    folder: Path
    """As messages name it."""
    lock: Path

    @property
    def work(self) -> Path:
        return self.lock.with_suffix(".work")

    @property
    def record(self) -> Path:
        return self.lock.with_suffix(".json")

    @property
    def request(self) -> Path:
        return self.lock.with_suffix(".pause")


@contextmanager
def alone(
    root: Path,
    what: str,
    *,
    flow_run_id: str | None = None,
    pauses: bool = False,
    wait_s: float = 0.0,
    part: Path | None = None,
) -> Iterator[None]:
    """Have the project to oneself; Busy where another has it for longer than `wait_s`, and for some GLANCES_S of looks.

    Who holds it already passes, and so does what that has started: nothing changes for them. part: only this folder,
    which no run writes to.
    """
    place = _place(root, part)
    with ExitStack() as stack:
        work = stack.enter_context(_opened(place.work))
        if not _has_joined(place, work):
            _take(place, work, stack, _this_process(what, flow_run_id, pauses), wait_s)
        yield


def handed_on() -> tuple[int, ...]:
    """Descriptors for who looks after a child of this process: as long as one is open, the child counts as at work."""
    return tuple(_handed_on)


def holder(root: Path) -> Holder | None:
    """Who has the project now; None where nobody does."""
    return _holder(_place(root))


def at_work(root: Path) -> str | None:
    """Who has the project, also where its record cannot be read, and what ends it; None where nobody does."""
    place = _place(root)
    return "{}; end it with: {}".format(*_who(place)) if _is_held(place) else None


def interrupt(found: Holder) -> bool:
    """Send its process SIGINT; False where that has ended, also where its id is another's by now."""
    process = processes.find(found.pid, found.started_s)
    return process is not None and bool(processes.send([process], signal.SIGINT))


def ask_to_pause(root: Path, found: Holder) -> bool:
    """Let it stop at its next checkpoint, where it looks for that (Holder.pauses); False where it was asked before."""
    request = _place(root).request
    if _text(request) == found.identity:
        return False
    request.write_text(found.identity, encoding="utf-8")
    return True


def is_asked_to_pause(root: Path) -> bool:
    """Whether that was asked of this process, or of the one that started it."""
    return RUN_VARIABLE in os.environ and _text(_place(root).request) == os.environ[RUN_VARIABLE]


def _place(root: Path, part: Path | None = None) -> _Place:
    if part is None:
        return _Place(folder=root, lock=root / paths.RUN_LOCK)
    return _Place(folder=root / part, lock=(root / paths.RUN_LOCK).with_name(f"{'-'.join(part.parts)}.lock"))


def _has_joined(place: _Place, work: int) -> bool:
    """Whether this process is the holder, or was started by it, and counts as at work from now on."""
    if RUN_VARIABLE not in os.environ or not _try(work, fcntl.LOCK_SH):
        return False
    found = _holder(place)
    if found is not None and found.identity == os.environ[RUN_VARIABLE]:
        return True
    fcntl.flock(work, fcntl.LOCK_UN)
    return False


def _take(place: _Place, work: int, stack: ExitStack, me: Holder, wait_s: float) -> None:
    """Hold both files until the stack ends, and be on record."""
    held = stack.enter_context(_opened(place.lock))
    give_up_at = time.monotonic() + max(GLANCES_S, wait_s)
    _wait(held, give_up_at, lambda: _told(place))
    _write(place, me)
    stack.callback(_forget, place)
    # On record first: a child that a killed one starts just now is either seen here, or sees that its parent is gone.
    _wait(work, give_up_at, lambda: _told_of_work(place))
    fcntl.flock(work, fcntl.LOCK_SH)
    _handed_on.append(work)
    stack.callback(_handed_on.remove, work)
    stack.enter_context(_named(me))


@contextmanager
def _named(me: Holder) -> Iterator[None]:
    """What this process starts meanwhile is known as its own."""
    before = os.environ.get(RUN_VARIABLE)
    os.environ[RUN_VARIABLE] = me.identity
    try:
        yield
    finally:
        if before is None:
            del os.environ[RUN_VARIABLE]
        else:
            os.environ[RUN_VARIABLE] = before


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor; closing it ends its lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(descriptor: int, give_up_at: float, told: Callable[[], str]) -> None:
    """Lock it for this process alone; Busy where that is not possible by then.

    Nor before it has looked as often as GLANCES_S has room for: a second in which this process stood still, as a busy
    machine makes it, is no second in which somebody held the lock.
    """
    sure_at = say_at = time.monotonic() + GLANCES_S
    looks = 1
    while not _try(descriptor, fcntl.LOCK_EX):
        now_s = time.monotonic()
        if now_s >= give_up_at and looks * GLANCE_S >= GLANCES_S:
            raise Busy(told())
        if say_at <= now_s < give_up_at:
            logger.info("%s; it is waited for, %.0f minutes at most", told(), (give_up_at - now_s) / 60)
            say_at = now_s + SAY_S
        time.sleep(min(LOOK_S if now_s >= sure_at else GLANCE_S, max(GLANCE_S, give_up_at - now_s)))
        looks += 1


def _told(place: _Place) -> str:
    who, end = _who(place)
    return f"only one command may write to {place.folder}, and there is one: {who}; wait for it, or end it with: {end}"


def _who(place: _Place) -> tuple[str, str]:
    """The holder, and what ends it."""
    if (found := _read(place)) is not None:
        is_whole = place.lock.name == paths.RUN_LOCK.name
        who = f"{found.what}, process {found.pid}, since {found.since}"
        return who, "btcai cancel" if is_whole else f"kill -INT {found.pid}"
    if not _text(place.record):
        return "a process that has just started", "btcai cancel"
    record = paths.RUN_LOCK.with_name(place.record.name)
    there = processes.that_hold(place.lock)  # others may wait for it, so that none of them is ended unasked
    names = f": {_names(there)}" if there else ""
    return f"a process (its record {record} is of another version{names})", "Ctrl-C where it was started"


def _told_of_work(place: _Place) -> str:
    left = processes.that_hold(place.work)
    who = _names(left) or "a process that has just ended, or another user's"
    end = f", or: kill {' '.join(str(one.pid) for one in left)}" if left else ""
    return f"a stage of a killed run still works in {place.folder}: {who}; wait for it (a minute with flows.guard){end}"


def _names(found: "list[psutil.Process]") -> str:
    return ", ".join(f"process {one.pid} ({shorten(processes.command(one), 80)})" for one in found)


def _this_process(what: str, flow_run_id: str | None, pauses: bool) -> Holder:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Holder(
        pid=os.getpid(),
        started_s=processes.started_s(),
        since=since,
        what=what,
        flow_run_id=flow_run_id,
        pauses=pauses,
    )


def _holder(place: _Place) -> Holder | None:
    return _read(place) if _is_held(place) else None


def _is_held(place: _Place) -> bool:
    """A shared lock is asked for, which any number may hold: who asks at the same time is not taken for a run."""
    if not place.lock.is_file():
        return False
    with place.lock.open("rb") as file:  # closing it ends the lock
        return not _try(file.fileno(), fcntl.LOCK_SH)


def _write(place: _Place, found: Holder) -> None:
    draft = place.record.with_suffix(".new")
    draft.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
    draft.replace(place.record)


def _forget(place: _Place) -> None:
    for file in (place.record, place.request):
        file.unlink(missing_ok=True)


def _read(place: _Place) -> Holder | None:
    try:
        return Holder(**json.loads(_text(place.record)))
    except (ValueError, TypeError):  # not written yet, or with other fields
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
