"""The pipeline as a story: every stage of dvc.yaml in its order, each one task that runs `dvc repro -s STAGE`.

DVC decides whether a stage has to run; Prefect decides when, how often again, for how long, and keeps the history.
"""

import logging
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal
from unittest import mock

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from btcai import datasets, paths
from btcai.champions import is_whole
from btcai.environment import child_environment
from btcai.errors import BtcaiError
from btcai.params import load_config
from btcai.schema import BUCKETS
from flows.artifacts import Progress, publish
from flows.process import stream

logger = logging.getLogger(__name__)

State = Literal["ran", "skipped"]
Show = Callable[[str], None]

HOUR_S = 3600.0
QUICK = ("validate", "features", "export", "reflect", "register", "drift")
LIMITS_S = dict.fromkeys(QUICK, HOUR_S) | {"evaluate": 12 * HOUR_S}
"""Time limits; every other stage trains and may take TRAINING_LIMIT_S."""
TRAINING_LIMIT_S = 7 * 24 * HOUR_S
RETRIES = {"register": 1}
"""Only a stage that talks to a database may fail by chance; the others would fail the same way again."""

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


class StageFailed(BtcaiError):
    """A stage of the pipeline ended with an error."""


@flow(name="btcai", validate_parameters=False)
def pipeline(root: str = ".", force: bool = False) -> dict[str, State]:
    """Validate, build features, train shortest first, consolidate, evaluate, export, reflect, register, watch."""
    project = Path(root).resolve()
    prepare(project)
    states: dict[str, State] = {}
    progress, order = Progress("pipeline"), stage_order(project)
    for place, name in enumerate(order):
        progress.step(place / len(order), name)
        again = force or (name == "register" and champions_missing(project))
        states[name] = run_limited(name, project, again)
    progress.step(1.0, "every stage is up to date")
    publish(project, states)
    return states


def run_limited(name: str, root: Path, force: bool = False) -> State:
    """run_stage within its time limit, and again where a stage may fail by chance."""
    limit_s = LIMITS_S.get(name, TRAINING_LIMIT_S)
    stage = run_stage.with_options(timeout_seconds=limit_s, retries=RETRIES.get(name, 0), retry_delay_seconds=5)
    return stage(name, str(root), force)


def prepare(root: Path) -> None:
    """Settings and bars are looked at before the first stage, where no command line has done it already."""
    if deployment.id is None:
        return
    for note in datasets.ready(root, load_config(root / paths.PARAMS)):
        get_run_logger().warning(note)


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def run_stage(name: str, root: str, force: bool = False) -> State:
    """Bring one stage up to date, its output streamed to the console and to Prefect's log."""
    log, progress = get_run_logger(), Progress(name)
    began_s = time.monotonic()
    say(f"{name}:")

    def show(line: str) -> None:
        say(f"  {line}")
        log.info(line)
        progress.read(line)

    state = reproduce(name, Path(root), force=force, show=show)
    say(f"{name}: {'done in' if state == 'ran' else 'up to date, checked in'} {time.monotonic() - began_s:.1f} s")
    return state


def reproduce(name: str, root: Path, *, force: bool, show: Show) -> State:
    """`dvc repro -s NAME`; StageFailed carries the stage's own last error line."""
    command = [sys.executable, "-m", "dvc", "repro", "-s", name, *(["-f"] if force else [])]
    last: deque[str] = deque(maxlen=50)

    def pick(line: str) -> None:
        last.append(line)
        if line.strip() and not line.startswith(DVC_CHATTER):
            show(line)

    try:
        code = stream(command, cwd=root, env=child_environment(), show=pick)
    except BaseException:  # a cancel, a time limit, Ctrl-C
        restore(name, root)
        raise
    if code:
        restore(name, root)
        raise StageFailed(f"stage {name} failed: {reason(last, code)}; mend it, then go on with: btcai run")
    return "skipped" if any(line.startswith(f"Stage '{name}'") and "skipping" in line for line in last) else "ran"


def restore(name: str, root: Path) -> None:
    """Bring back the stage's last outputs, which DVC removes before it runs one; a first run has none."""
    command = [sys.executable, "-m", "dvc", "checkout", "--quiet", "--force", name]
    done = subprocess.run(command, cwd=root, env=child_environment(), text=True, capture_output=True, check=False)
    if done.returncode:
        logger.debug("nothing to bring back for %s: %s", name, done.stderr.strip())


def reason(lines: deque[str], code: int) -> str:
    """The stage's own `error: ...` line where there is one, else DVC's, else the exit code."""
    for mark in ("error: ", "ERROR: "):
        for line in reversed(lines):
            if line.startswith(mark):
                return line.removeprefix(mark)
    return f"exit code {code}"


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
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run(root: Path, *, force: bool = False) -> dict[str, State]:
    """Run the flow in this process. Prefect's heartbeat would cost a second at the end of every run."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        start_server()
        return pipeline(str(root), force)


def start_server() -> None:
    """Start Prefect's temporary server in a session of its own, where none is configured.

    Prefect would start it in ours: Ctrl-C at the terminal would end it first, and the run, asking it in vain to note
    the interruption, would hang for over a minute. Prefect stops it when this process ends.
    """
    if PREFECT_API_URL.value() is None:
        apart = partial(subprocess.Popen, start_new_session=True)
        with mock.patch.object(subprocess, "Popen", apart):
            SubprocessASGIServer().start()
