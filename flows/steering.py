"""What people ask of a run while it works, from Prefect's pages or by btcai pause, cancel; and what a schedule asks.

Prefect's "Pause" sets a run's state and leaves its process at work until the next task; ours asks for the state while
a stage runs, so that a training stops at its next checkpoint and the process ends. "Cancel" of a run that no worker
started, or whose worker hears nothing any more, changes nothing but the state; that is heard here too.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from prefect import State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.concurrency import _leases
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.runtime import deployment
from prefect.states import Cancelled, Cancelling, Suspended
from prefect.types._datetime import now

from btcai.operation import run_lock
from flows.process import Halted

logger = logging.getLogger(__name__)

T = TypeVar("T")

ASK_S = 2.0
"""From one question to Prefect's server to the next."""
HEARD_S = 20.0
"""A worker that hears of a cancel ends its run before; it hears none of a run during which its server was away for
half a minute: Prefect's observer asks three times, then gives up."""
WAIT_S = 6 * 3600.0
"""A run of the schedule waits so long for one that somebody started in a terminal."""


class Paused(Halted):
    """Somebody paused the run."""

    patient: ClassVar[bool] = True


class CancelRequested(Halted):
    """Somebody cancelled a run that no worker ends."""


class Interrupted(CancelRequested):
    """Somebody pressed Ctrl-C in the terminal of the run."""


class Listener:
    """Tells whether somebody wants the flow run of this context to stop: asks Prefect for it, every ASK_S at most."""

    def __init__(self, root: Path) -> None:
        context = FlowRunContext.get()
        self._root = root
        self._run_id: UUID | None = context.flow_run.id if context and context.flow_run else None
        self._asked_s = time.monotonic()
        self._heard_s = 0.0 if deployment.id is None else HEARD_S

    def look(self) -> Halted | None:
        """Why the run should stop now; a server that does not answer asks for nothing."""
        if run_lock.is_asked_to_pause(self._root):
            return Paused("paused by btcai pause")
        if self._run_id is None or time.monotonic() - self._asked_s < ASK_S:
            return None
        self._asked_s = time.monotonic()
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(self._run_id).state
                if state is not None and state.is_paused() and state.state_details.pause_timeout is not None:
                    # Prefect fails a run whose limit is over, also one that is still on its way to a checkpoint.
                    waiting: State[Any] = Suspended(message="it stops where it can go on from, then waits for ever")
                    client.set_flow_run_state(self._run_id, waiting, force=True)
        except Exception as error:  # whatever a server that restarts makes of it
            logger.debug("Prefect's server did not say whether to stop: %s", error)
            return None
        if state is not None and state.is_paused():
            return Paused("paused on request")
        if state is not None and (
            state.type == StateType.CANCELLED
            or (state.type == StateType.CANCELLING and (now("UTC") - state.timestamp).total_seconds() >= self._heard_s)
        ):
            return CancelRequested("cancelled on request")
        return None


def unwrap_state(found: Any) -> Any:
    """What a task returned: where it gave its state a name for the page, Prefect hands its caller the state itself."""
    return found.result() if isinstance(found, State) else found


def driven(root: Path, work: Callable[[], T]) -> T | State[Any]:
    """`work()` as the only run of the project; the state that the flow ends in where somebody stopped it.

    Prefect's Pause where a worker takes the run up again later: the process ends, and holds nothing.
    """
    _outlive_a_lost_lease()
    try:
        run_id, wait_s = worker_run_id(), WAIT_S if deployment.id else 0.0
        with run_lock.alone(root, name(), flow_run_id=run_id, pauses=run_id is None, wait_s=wait_s):
            return work()
    except (Paused, Pause):  # ours, or Prefect's own, which comes at the end of a task
        if deployment.id is not None:
            raise Pause(state=_suspended()) from None
        _cancelling()
        ended = "paused, which ends a run in a terminal: what was done is kept"
    except Interrupted:
        _cancelling()
        ended = "interrupted: what was finished is kept"
    except CancelRequested:
        ended = "cancelled: what was done is kept"
    context = FlowRunContext.get()
    return Cancelled(message=f"{ended}; go on with: {command((context and context.parameters) or {})}")


def _outlive_a_lost_lease() -> None:
    """Prefect leases a run its place under the deployment's concurrency limit, and ends the run where that cannot be
    renewed: its server is away or began anew, or the run was paused and is on its way to a checkpoint.

    Here run_lock keeps two runs apart, so that this one goes on. Not undone: Prefect could still end the process after
    the flow's last line.
    """
    _leases._handle_lease_renewal_failure = lambda error, *_: logger.warning(
        "Prefect's lease of this run's place is not renewed any more; the run is not ended for that: %s", error
    )


def name() -> str:
    """Of this run, as its page has it."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return f"Prefect's run {run.name}" if run and deployment.id is not None else "btcai run"


def command(parameters: Mapping[str, Any]) -> str:
    """What goes on in a terminal with a run of these: one that is not forced finds nothing to do where that one was."""
    return "btcai run --force" if parameters.get("force") else "btcai run"


def worker_run_id() -> str | None:
    """The id of this flow run where a worker started it."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run and deployment.id is not None else None


def _suspended() -> State[Any]:
    """The run's state once its process has ended: without the time limit that Prefect's pages give a pause."""
    context = FlowRunContext.get()
    assert context is not None  # it is a flow that was paused
    assert context.flow_run is not None
    state: State[Any] = Suspended(message="Stopped at a checkpoint; resume goes on from there")
    with get_client(sync_client=True) as client:
        present = client.read_flow_run(context.flow_run.id).state
        if present is not None and not present.is_paused():  # resumed or cancelled meanwhile: the next one to look acts
            return present
        client.set_flow_run_state(context.flow_run.id, state, force=True)
    return state


def _cancelling() -> None:
    """Take a run in a terminal out of its pause: Prefect's server lets none end there that has no deployment."""
    context = FlowRunContext.get()
    assert context is not None  # it is a flow that was paused
    assert context.flow_run is not None
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(context.flow_run.id, Cancelling(message="it ends"), force=True)


def not_now() -> str | None:
    """Why this run of the schedule has nothing to do; None where it is to work.

    After days off several runs are due. The first that starts does it all and cancels the others; while a paused run
    waits for somebody, none starts. A run that a person started is theirs, and works.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.deployment_id is None or not run.auto_scheduled:
        return None
    with get_client(sync_client=True) as client:
        if waiting := [one for one in runs(client, run.deployment_id, StateType.PAUSED) if one.id != run.id]:
            return f"{waiting[0].name} is paused: resume or cancel it (btcai resume, btcai cancel)"
        for one in runs(client, run.deployment_id, StateType.SCHEDULED):
            due = one.next_scheduled_start_time or one.expected_start_time
            if one.id != run.id and one.auto_scheduled and due is not None and due <= now("UTC"):
                client.set_flow_run_state(one.id, Cancelled(message=f"{run.name} does its work too"), force=True)
                logger.info("%s was due too; this run does its work", one.name)
    return None


def runs(client: SyncPrefectClient, deployment_id: UUID, *types: StateType) -> list[FlowRun]:
    """The deployment's runs in such a state, the earliest due first."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )
