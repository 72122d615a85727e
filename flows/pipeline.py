"""The pipeline as a story: every stage of dvc.yaml in its order, each one task that runs `dvc repro -s STAGE`.

DVC decides whether a stage has to run; Prefect decides when, how often again, for how long, and keeps the history.
"""

import logging
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast
from unittest import mock

import httpx
from prefect import State as RunState
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import CancelledRun
from prefect.runtime import deployment
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Completed

from btcai import datasets, paths
from btcai.environment import child_environment
from btcai.errors import BtcaiError
from btcai.logs import handlers
from btcai.operation import dvc_locks, endings, run_lock
from btcai.params import load_config
from btcai.records.champions import is_whole
from btcai.redaction import redact
from btcai.schema import BUCKETS
from flows import news, steering
from flows.artifacts import Progress, publish, relay
from flows.process import Halted, stream
from flows.stall import STALL_LIMIT_S, Stall, Stuck

logger = logging.getLogger(__name__)

State = Literal["ran", "skipped"]
Show = Callable[[str], None]
Asked = Callable[[], Halted | None]
"""Why somebody wants the run to stop now."""

HOUR_S = 3600.0
QUICK = ("validate", "features", "export", "reflect", "register", "drift")
LIMITS_S = dict.fromkeys(QUICK, HOUR_S) | {"evaluate": 12 * HOUR_S}
"""Time limits; every other stage trains and may take TRAINING_LIMIT_S."""
TRAINING_LIMIT_S = 7 * 24 * HOUR_S
RETRIES = {"register": 1}
"""Only a stage that talks to a database may fail by chance; the others would fail the same way again."""

SERVER_ANSWERS_S = 120.0
"""Prefect's temporary server, as it starts; a client's 5 s have failed runs on a busy machine."""

DVC_CHATTER = (
    "Running stage ",
    "> ",
    "Updating lock file",
    "Generating lock file",
    "To track",
    "\tgit add",
    "To enable",
    "\tdvc config",
    "Use `dvc push`",
    "Stage '",
    "ERROR: failed to reproduce",
)
"""Beginnings of DVC's own lines, which the task's line says better."""


BLOCKED = "it is being blocked by"
"""DVC says so where another DVC runs a stage of the same files. Its stage is refused, since the project is ours."""
BLOCKED_S, AGAIN_S = 60.0, 2.0
"""How long that is waited for, and how often asked."""
EXITED = re.compile(r"exited with (-?\d+)$")
"""How DVC's last line ends where a stage did not end well."""


class StageFailed(BtcaiError):
    """A stage of the pipeline ended with an error."""


class Stopped(BtcaiError):
    """Somebody paused or cancelled a run in a terminal, which has ended."""


@flow(name="btcai", validate_parameters=False, on_failure=[news.failed], on_crashed=[news.failed])
def pipeline(root: str = ".", force: bool = False) -> dict[str, State] | RunState[Any]:
    """Validate, build features, train shortest first, consolidate, evaluate, export, reflect, register, watch."""
    project = Path(root).resolve()

    def work() -> dict[str, State]:
        prepare(project)
        return every_stage(project, force)

    return steering.driven(project, work)


def every_stage(root: Path, force: bool, done: Mapping[str, State] | None = None) -> dict[str, State]:
    """What the flows have in common: all stages but those `done`, in order; the results shown, new champions told."""
    states: dict[str, State] = dict(done or {})
    before = told = news.standings(root)
    progress, order = Progress("pipeline"), stage_order(root)
    for place, name in enumerate(order):
        progress.step(place / len(order), f"{name}, stage {place + 1} of {len(order)}")
        if name in states:
            continue
        again = force or (name == "register" and champions_missing(root))
        states[name] = run_limited(name, root, again)
        after = news.standings(root)
        news.tell_champions(told, after)  # at once: whatever becomes of the stages that follow
        told = after
    progress.step(1.0, "every stage is up to date")
    publish(root, states, before, told)
    return states


def run_limited(name: str, root: Path, force: bool = False) -> State:
    """run_stage within its time limit, and again where a stage may fail by chance; Paused where somebody paused it."""
    limit_s = LIMITS_S.get(name, TRAINING_LIMIT_S)
    stage = run_stage.with_options(timeout_seconds=limit_s, retries=RETRIES.get(name, 0), retry_delay_seconds=5)
    state: Any = steering.unwrap_state(stage(name, str(root), force))
    if isinstance(state, Halted):
        raise state
    return cast(State, state)


def prepare(root: Path) -> None:
    """Settings and bars are looked at before the first stage, where no command line has done it already."""
    if deployment.id is None:
        return
    handlers.setup_project(root)
    for note in datasets.ready(root, load_config(root / paths.PARAMS)):
        get_run_logger().warning(note)


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def run_stage(name: str, root: str, force: bool = False) -> Any:
    """Bring one stage up to date, its output streamed to the console and to Prefect's log; its State.

    Where somebody asks the run to stop: the Halted that says so, as a result, since the stage did not fail.
    """
    log, progress = get_run_logger(), Progress(name)
    began_s = time.monotonic()
    say(f"{name}:")

    def show(line: str) -> None:
        say(f"  {line}")
        relay(log, line)
        progress.read(line)

    try:
        state = unstuck(name, Path(root), force=force, show=show, asked=steering.Listener(Path(root)).look)
    except (steering.Paused, steering.CancelRequested) as halted:
        return _halted(name, halted, log)
    except KeyboardInterrupt:
        if deployment.id is not None:
            raise
        return _halted(name, steering.Interrupted("interrupted by Ctrl-C"), log)  # no crash, as Prefect would have it
    say(f"{name}: {'done in' if state == 'ran' else 'up to date, checked in'} {time.monotonic() - began_s:.1f} s")
    return state if state == "ran" else Completed(name="Up to date", data=state)


def _halted(name: str, halted: Halted, log: Any) -> Any:
    log.warning("%s: %s", name, halted)
    return Completed(name="Stopped", message=str(halted), data=halted)


def unstuck(name: str, root: Path, *, force: bool, show: Show, asked: Asked) -> State:
    """reproduce, and once more where the stage was stuck; StageFailed where it is again."""
    try:
        return reproduce(name, root, force=force, show=show, asked=asked)
    except Stuck as stuck:
        logger.warning("%s; it was ended and is run once more", stuck)
    try:
        return reproduce(name, root, force=force, show=show, asked=asked)
    except Stuck as stuck:
        raise StageFailed(
            f"{stuck}, twice; look at its last lines in logs/btcai.log, the disk and the network, then: btcai run"
        ) from None


def reproduce(name: str, root: Path, *, force: bool, show: Show, asked: Asked = lambda: None) -> State:
    """`dvc repro -s NAME`; StageFailed carries the stage's own last error line. Raises Stuck and what `asked` gives."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name, *(["-f"] if force else [])]
    last: deque[str] = deque(maxlen=50)
    if freed := dvc_locks.freed(root):
        logger.warning("%s; it was removed", freed)
    watchdog = Stall(name, STALL_LIMIT_S)

    def pick(line: str) -> None:
        watchdog.wrote()
        last.append(line)
        if line.strip() and not line.startswith(DVC_CHATTER):
            show(line)

    def look(pid: int) -> Halted | None:
        return asked() or watchdog.check(pid)

    give_up_at = time.monotonic() + BLOCKED_S
    try:
        while code := stream(command, cwd=root, env=child_environment(), show=pick, look=look):
            if not any(BLOCKED in line for line in last) or time.monotonic() > give_up_at:
                break
            last.clear()
            time.sleep(AGAIN_S)
    except BaseException:  # a cancel, a pause, a time limit, Ctrl-C, the watchdog
        restore(name, root)
        raise
    if code:
        restore(name, root)
        raise StageFailed(f"stage {name} failed: {reason(last, code)}{news.GO_ON}")
    return "skipped" if any(line.startswith(f"Stage '{name}'") and "skipping" in line for line in last) else "ran"


def restore(name: str, root: Path) -> None:
    """Bring back the stage's last outputs, which DVC removes before it runs one; a first run has none."""
    command = [sys.executable, "-m", "dvc", "checkout", "--quiet", "--force", name]
    done = subprocess.run(command, cwd=root, env=child_environment(), text=True, capture_output=True, check=False)
    if done.returncode:
        logger.debug("nothing to bring back for %s: %s", name, done.stderr.strip())


def reason(lines: deque[str], code: int) -> str:
    """The stage's own `error: ...` line where there is one, else what killed it, else DVC's line, else exit code."""
    last = list(reversed(lines))
    said = [line.removeprefix("error: ") for line in last if line.startswith("error: ")]
    said += [told for line in last if (match := EXITED.search(line)) and (told := endings.killed(int(match[1])))]
    said += [line.removeprefix("ERROR: ") for line in last if line.startswith("ERROR: ")]
    return redact(said[0]) if said else endings.killed(code) or f"exit code {code}"


def stage_order(root: Path) -> list[str]:
    """The stages of dvc.yaml, each after all that it needs; where that leaves a choice, in the order of the file."""
    import networkx as nx
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        place = {stage: number for number, stage in enumerate(repo.index.stages)}
        graph = repo.index.graph.reverse(copy=True)  # DVC's edges point from a stage to what it needs
        order = nx.lexicographical_topological_sort(graph, key=place.__getitem__)
        return [stage.name for stage in order if getattr(stage, "name", None)]  # data.dvc has none


def champions_missing(root: Path) -> bool:
    """True when a bucket's champion is not there or damaged; DVC does not track them, so it would not see it."""
    return not all(is_whole(root / paths.CHAMPION / bucket) for bucket in BUCKETS)


def say(line: str) -> None:
    """One line on stderr, at once, whatever logging is set to. A deployment's run is watched on Prefect's pages."""
    if deployment.id is not None:
        return
    sys.stderr.write(f"{redact(line)}\n")
    sys.stderr.flush()


def run(root: Path, *, force: bool = False) -> dict[str, State]:
    """Run the flow in this process; Stopped where somebody asked for it from elsewhere.

    Prefect's heartbeat would cost a second at the end of every run.
    """
    quick = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with quick, run_lock.alone(root, "btcai run", pauses=True):
        start_server()
        try:
            states = pipeline(str(root), force)
        except CancelledRun as error:
            raise Stopped(str(error)) from None
        assert isinstance(states, dict)  # a state would have been raised
        return states


def start_server() -> None:
    """Start Prefect's temporary server in a session of its own, where none is configured.

    Prefect would start it in ours: Ctrl-C at the terminal would end it first, and the run, asking it in vain to note
    the interruption, would hang for over a minute. Prefect stops it when this process ends; where that is killed, the
    system does.
    """
    if PREFECT_API_URL.value() is None:
        apart = partial(subprocess.Popen, start_new_session=True, preexec_fn=_end_with_parent)
        patient = partial(httpx.Client, timeout=SERVER_ANSWERS_S)
        with mock.patch.object(subprocess, "Popen", apart), mock.patch.object(httpx, "Client", patient):
            SubprocessASGIServer().start()


def _end_with_parent() -> None:
    """Linux sends SIGTERM once the thread that started this process is gone, prctl(2); elsewhere nothing does."""
    import ctypes

    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
