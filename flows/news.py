"""What people are told of a run beside its pages: it failed, the bars drifted, a champion is new, no bars come."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.flows import Flow
from prefect.states import Crashed
from prefect.utilities.urls import url_for

from btcai import paths
from btcai.errors import ArtifactError, BtcaiError
from btcai.logs import handlers
from btcai.operation.notices import notify
from btcai.params import load_config
from btcai.records.champions import Standing, read_standing
from btcai.schema import BUCKETS
from flows.steering import command

logger = logging.getLogger(__name__)

SILENT_H = 12.0
"""The market never closes: where no bar came for so long, the exchange or the network withholds them."""
HOUR_MS = 3_600_000

Standings = Mapping[str, Standing | None]


GO_ON = "; mend it, then go on with: btcai run"
"""How the message of a stage that failed ends, where no page is near."""
INTERRUPTED = "aborted by an interrupt signal"
"""Prefect of Ctrl-C, and of `kill -INT`."""
_RAISED = re.compile(r"^Flow run encountered an exception: (?:StageFailed: )?")
"""What Prefect puts before the words of an exception of ours."""


def failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of flows: Prefect calls it by these names, for a killed run in a process of the worker's own."""
    if state.is_crashed():
        _log_as_the_project_does(Path(str(flow_run.parameters.get("root", "."))))
    tell_end(flow.name, flow_run, state)


def tell_end(flow: str, run: FlowRun, state: State[Any]) -> None:
    """A notice of a run that did not end well: which, at what stage, why, and what helps."""
    if state.is_crashed():
        what = "was stopped" if INTERRUPTED in (state.message or "") else "was killed"
        why = f"{(state.message or str(state.name)).rstrip('.')}{_at_work(run)}"
        helps = "what was finished is kept; training goes on from its checkpoint"
    else:
        what, why = "failed", _RAISED.sub("", state.message or str(state.name)).removesuffix(GO_ON)
        helps = "what was finished is kept; mend it, then go on"
    again = command(run.parameters)
    if run.deployment_id is not None:
        or_later = "" if run.parameters.get("force") else ", or the schedule"
        again = f"Retry on {url_for('flow-run', run.id)}, {again}{or_later}"
    notify("failed", f"{flow} {what}", f"run {run.name}: {why}\nwhat helps: {helps} with: {again}")


def _at_work(run: FlowRun) -> str:
    """Which task a killed run had begun and not ended, whose books are closed: its process does not come back to do so.

    "" where there was none, or the server does not say.
    """
    begun = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.CRASHED])
    try:
        with get_client(sync_client=True) as client:
            found = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
                task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=begun)),
                sort=TaskRunSort.EXPECTED_START_TIME_DESC,
                limit=1,
            )
            for task in found:
                ended: State[Any] = Crashed(message="its process was killed")
                client.set_task_run_state(task.id, ended, force=True)
    except Exception as error:  # whatever a server that is being ended makes of it: the notice matters more
        logger.debug("Prefect's server did not say what %s was at: %s", run.name, error)
        return ""
    return f"; it was at {found[0].name}" if found else ""


def _log_as_the_project_does(root: Path) -> None:
    """For a process of Prefect's, in which nobody has set up a log."""
    try:
        handlers.setup_project(root)
    except BtcaiError as error:
        logger.warning("the notice that follows goes to the console alone: %s", error)


def standings(root: Path) -> dict[str, Standing | None]:
    """Each bucket's champion; None where there is none, or none that can be read."""
    found: dict[str, Standing | None] = {}
    for bucket in BUCKETS:
        try:
            found[bucket] = read_standing(root / paths.CHAMPION / bucket)
        except ArtifactError:
            found[bucket] = None
    return found


def changes(before: Standings, after: Standings) -> list[tuple[str, str]]:
    """Buckets whose champion is another one now, and in what."""
    told = []
    for bucket, new in after.items():
        old = before.get(bucket)
        if new is None or (old is not None and old.run_id == new.run_id and old.edge == new.edge):
            continue
        what = f"version {new.version}, score {new.score:.4g}, edge {new.edge}"
        told.append((bucket, f"{what}; before: " + (f"version {old.version}, edge {old.edge}" if old else "none")))
    return told


def tell_champions(before: Standings, after: Standings) -> None:
    """One notice of all buckets whose champion changed."""
    if told := changes(before, after):
        proven = [bucket for bucket, _ in told if (new := after[bucket]) and new.edge == "proven"]
        title = (
            f"edge proven: {', '.join(proven)}" if proven else f"new champion: {', '.join(name for name, _ in told)}"
        )
        notify("champion", title, "\n".join(f"{bucket}: {what}" for bucket, what in told))


def tell_drift(verdict: str, reasons: str) -> None:
    """A notice where the newest bars are not as those trained on."""
    if verdict != "steady":
        what = "nothing is trained until somebody has looked" if verdict == "look_first" else "training again"
        notify("drift", f"the newest bars have drifted: {what}", f"{reasons}; see {paths.DRIFT}, or: btcai drift")


def tell_silence(root: Path) -> None:
    """A notice where a fetched market's newest bar is older than SILENT_H."""
    from btcai.data.sources import clock_ms

    if (newest := _newest_ms(root)) is None:
        return
    hours = (clock_ms() - newest) / HOUR_MS
    if hours > SILENT_H:
        market = load_config(root / paths.PARAMS).data.market
        notify(
            "no data",
            f"no new bars of {market} for {hours:.0f} h",
            "the exchange or the network withholds them; see the log, and try: btcai data update",
        )


def _newest_ms(root: Path) -> int | None:
    """Opening time of the newest bar of the market in use; None where it was not fetched, so that none can come."""
    from btcai.data import frame, store
    from btcai.fetch.origin import read_origin

    market = load_config(root / paths.PARAMS).data.market
    if read_origin(root / paths.DATA / market) is None:
        return None
    return int(frame.parts(store.read_market(root / paths.DATA, market))[0][-1])
