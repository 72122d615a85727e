"""Pause, resume, cancel and look after runs from outside them: what btcai pause, resume, cancel, up and down do."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Cancelling, Crashed, Suspended

from btcai.errors import BtcaiError
from btcai.operation import run_lock
from flows import news
from flows.process import PATIENT_S
from flows.steering import HEARD_S, command, runs

logger = logging.getLogger(__name__)

DEPLOYMENT = "btcai-refresh/daily"
"""As prefect.yaml names it."""
POLL_S = 0.5
CANCEL_LIMIT_S = HEARD_S + 60.0
"""A cancelled stage has 20 s to end, its worker 30; and a run that its worker does not end asks after HEARD_S."""
WORKING = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


class NotUp(BtcaiError):
    """There is no Prefect server to ask."""


def pause(root: Path) -> str:
    """Let the run that works stop at its next checkpoint and wait; what was done, in a line.

    One in a terminal has no server to wait at: it ends then. Asked a second time, it ends as by Ctrl-C.
    """
    found = run_lock.holder(root)
    if found is None:
        return run_lock.at_work(root) or "nothing runs"
    if found.flow_run_id is None:
        return _pause_in_terminal(root, found)
    with _server() as (client, _):
        client.set_flow_run_state(UUID(found.flow_run_id), Suspended(message="btcai pause"), force=True)
    return f"{found.what} was asked to stop at its next checkpoint; go on with: btcai resume"


def _pause_in_terminal(root: Path, found: run_lock.Holder) -> str:
    """A stage or a command that is no flow hears a signal; a training stops at its next checkpoint by itself."""
    who = f"{found.what}, process {found.pid},"
    if found.pauses and run_lock.ask_to_pause(root, found):
        minutes = PATIENT_S[0][1] / 60
        return (
            f"{who} was asked to stop at its next checkpoint ({minutes:.0f} minutes are given; a second btcai pause, "
            f"btcai cancel or Ctrl-C hastens it); go on with: {found.what}"
        )
    if not run_lock.interrupt(found):
        return "nothing runs"
    return f"{who} was asked to end {'now' if found.pauses else 'where it can go on from'}; go on with: {found.what}"


def resume() -> str:
    """Let runs that wait go on from where they were."""
    with _server() as (client, deployment_id):
        found = runs(client, deployment_id, StateType.PAUSED)
        for run in found:
            client.resume_flow_run(run.id)
    return f"resumed: {_names(found)}" if found else "nothing is paused; start a run with: btcai run"


def cancel(root: Path) -> str:
    """End the run that works, and those that wait to be resumed; what was done is kept."""
    told, found, again = [], run_lock.holder(root), []
    if found is not None and found.flow_run_id is None and run_lock.interrupt(found):
        told.append(f"{found.what}, process {found.pid}")
        again.append(found.what)
    if PREFECT_API_URL.value() is not None:
        with _server() as (client, deployment_id):
            ended = runs(client, deployment_id, StateType.PAUSED)
            for run in ended:
                client.set_flow_run_state(run.id, Cancelled(message="btcai cancel"), force=True)
            ended += _cancel_working(client, deployment_id, root)
        told += [run.name for run in ended]
        again += sorted({command(run.parameters) for run in ended})
    if not told:
        return run_lock.at_work(root) or "nothing runs"
    return f"cancelled: {', '.join(told)}; go on with: {', then '.join(dict.fromkeys(again))}"


def cancel_working(root: Path) -> str:
    """End the worker's run before its worker is."""
    with _server() as (client, deployment_id):
        found = _cancel_working(client, deployment_id, root)
    return f"cancelled: {_names(found)}; it goes on from its checkpoint next time" if found else "no run was at work"


def _cancel_working(client: SyncPrefectClient, deployment_id: UUID, root: Path) -> list[FlowRun]:
    """Cancel what works and wait for its end; close the books of what has lost its worker, which nobody else would."""
    found = runs(client, deployment_id, *WORKING)
    for run in found:
        client.set_flow_run_state(run.id, Cancelling(message="btcai cancel, or down"))
    give_up_at = time.monotonic() + CANCEL_LIMIT_S
    while (left := runs(client, deployment_id, *WORKING)) and time.monotonic() < give_up_at:
        time.sleep(POLL_S)
    working = run_lock.holder(root)
    for run in left:
        if working is None or working.flow_run_id != str(run.id):
            client.set_flow_run_state(run.id, Cancelled(message="it had no worker any more"), force=True)
    return found


def settle(root: Path) -> None:
    """Close the books of runs whose worker was killed: they would hold the only place for ever.

    Call it while no worker runs. A run that works on without its worker is left alone.
    """
    working = run_lock.holder(root)
    with _server() as (client, deployment_id):
        for run in runs(client, deployment_id, *WORKING):
            if working is None or working.flow_run_id != str(run.id):
                killed: State[Any] = Crashed(message="its worker was killed, or the machine")
                news.tell_end(DEPLOYMENT, run, killed)
                client.set_flow_run_state(run.id, killed, force=True)


@contextmanager
def _server() -> Iterator[tuple[SyncPrefectClient, UUID]]:
    """A client, and the deployment's id; NotUp where no server runs or answers, or it does not know the deployment."""
    if PREFECT_API_URL.value() is None:
        raise NotUp("Prefect's server must be running for that and is not; start it with: btcai up")
    with get_client(sync_client=True) as client:
        try:
            yield client, client.read_deployment_by_name(DEPLOYMENT).id
        except ObjectNotFound:
            raise NotUp(
                f"the server must know the deployment {DEPLOYMENT}, does not; deploy it with: btcai up"
            ) from None
        except httpx.HTTPError as error:
            raise NotUp(
                f"Prefect's server must answer, does not ({type(error).__name__}: {error}); "
                "start it anew with: btcai down, then btcai up"
            ) from error


def _names(found: list[FlowRun]) -> str:
    return ", ".join(run.name for run in found)
