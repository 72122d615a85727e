"""What is due every day: new bars, then the pipeline, unless the stage `drift` says that it is not due or unsafe."""

import sys
from pathlib import Path
from typing import Any

from prefect import State as RunState
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment
from prefect.states import Completed

from btcai import paths
from btcai.environment import child_environment
from btcai.errors import ArtifactError, DamageError
from btcai.inference.bundle import load_bundle
from btcai.logs import handlers
from btcai.schema import BUCKETS
from btcai.watch.report import read_verdict
from flows import artifacts, news, steering
from flows.pipeline import Show, StageFailed, State, champions_missing, every_stage, prepare, run_limited
from flows.process import Halted, Look, stream
from flows.stall import Stall

UPDATE_LIMIT_S = 6 * 3600.0
"""A first fetch of years from an exchange without an archive takes hours; a day takes seconds."""


@flow(name="btcai-refresh", validate_parameters=False, on_failure=[news.failed], on_crashed=[news.failed])
def refresh(
    root: str = ".", force: bool = False, only_if_drifted: bool = False, warm_start: bool = False
) -> dict[str, State] | RunState[Any]:
    """Fetch what is new of the market in use, ask the stage `drift` of it, then run the pipeline.

    Where the newest bars are beyond a hard limit (drift.stop_* in params.yaml) nothing is trained: the run fails, for a
    person to look. only_if_drifted: train only where `drift` says that it is due, whatever else has changed. It holds
    them against the training span of today's bars, the first part of the history: a drift that lasts is seen every day
    until the span holds it, and a champion that is missing is made. With force, or without a candidate that can be
    read (an older btcai's, say), nothing is asked and the pipeline runs. warm_start: on new bars training goes on from
    the networks of the last run.

    Of several runs of the schedule that are due at once, one works (steering.not_now).
    """
    project = Path(root).resolve()
    if deployment.id is not None:
        handlers.setup_project(project)
    if reason := steering.not_now():
        return Completed(name="Skipped", message=reason)
    before = news.standings(project)
    ended = steering.driven(project, lambda: refreshed(project, force, only_if_drifted, warm_start))
    if not isinstance(ended, dict):
        return ended
    return Completed(message=artifacts.headline(ended, before, news.standings(project)), data=ended)


def refreshed(root: Path, force: bool, only_if_drifted: bool, warm_start: bool) -> dict[str, State]:
    """What refresh does once it is alone."""
    if isinstance(halted := steering.unwrap_state(update(str(root))), Halted):
        raise halted
    prepare(root)
    news.tell_silence(root)
    if force or candidate_missing(root):
        return every_stage(root, force)
    if warm_start:
        go_on(root)
    states = {name: run_limited(name, root) for name in ("validate", "features", "drift")}
    verdict, reasons = read_verdict(root / paths.DRIFT)
    if states["drift"] == "ran":  # else it was told when it did
        news.tell_drift(verdict, reasons)
    if verdict == "look_first":
        raise StageFailed(
            f"the newest bars are very unlike the training span, so nothing was trained: {reasons}; see {paths.DRIFT}, "
            "then mend the bars, raise the limit in params.yaml, or train on them once with: btcai run"
        )
    if only_if_drifted and verdict == "steady" and not champions_missing(root):
        return states
    del states["drift"]  # of the bundles that this run may make anew
    return every_stage(root, force, states)


def candidate_missing(root: Path) -> bool:
    """True where a bucket's candidate is not there, or is of another version: `drift` would have nothing to ask.

    StageFailed where one is damaged: bars that somebody must look at first must not be trained on for a lost bit.
    """
    try:
        for bucket in BUCKETS:
            load_bundle(root / paths.CANDIDATE / bucket)
    except DamageError as error:
        raise StageFailed(
            f"a candidate must be whole for the newest bars to be held against it, so nothing was trained: {error}; "
            "that trains on the newest bars, whatever they are like"
        ) from error
    except ArtifactError as error:
        get_run_logger().warning(
            "the whole pipeline runs, since there are no bundles to hold the bars against: %s", error
        )
        return True
    return False


def go_on(root: Path) -> None:
    """`btcai warm-start`, before the stage `features` takes the new bars; where it cannot, the setting stays."""
    log = get_run_logger()
    if _btcai(root, "warm-start", show=log.info):
        log.warning("warm_start.name of params.yaml stays as it is")


@task(
    task_run_name="new bars", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=300, timeout_seconds=UPDATE_LIMIT_S
)
def update(root: str) -> Any:
    """`btcai data update`; what had come before a failure is kept, so that another try goes on from there.

    None, or the Halted that says that somebody asks the run to stop.
    """
    watchdog, listener, log = Stall("data update"), steering.Listener(Path(root)), get_run_logger()

    def show(line: str) -> None:
        watchdog.wrote()
        artifacts.relay(log, line)

    def look(pid: int) -> Halted | None:
        return listener.look() or watchdog.check(pid)

    try:
        code = _btcai(Path(root), "data", "update", show=show, look=look)
    except (steering.Paused, steering.CancelRequested) as halted:
        return Completed(name="Stopped", message=str(halted), data=halted)
    if code:
        raise StageFailed(f"no new bars, exit code {code}; the log says why; try again with: btcai data update")


def _btcai(root: Path, *arguments: str, show: Show, look: Look | None = None) -> int:
    command = [sys.executable, "-m", "btcai.cli", *arguments]
    return stream(command, cwd=root, env=child_environment(), show=show, look=look)
