"""What runs for months beside the runs themselves: Prefect's server and worker, MLflow's server. `btcai up`, `down`.

Each is a process in a session of its own with a record .prefect/services/NAME.json and a log NAME.log. A process counts
as ours only where its id and the time it started are those of the record, so that none of somebody else's is ever
ended. All that they start in turn carries MARK in its environment: `down` finds what was left behind by it.
"""

import errno
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from btcai import paths
from btcai.errors import BtcaiError
from btcai.file_lock import locked
from btcai.operation import health, processes
from btcai.registry import place

if TYPE_CHECKING:
    import psutil

logger = logging.getLogger(__name__)

Name = Literal["prefect", "worker", "mlflow"]
Health = Literal["up", "no answer", "down"]

HOST: Final = "127.0.0.1"
PREFECT_PORT, MLFLOW_PORT = 4200, 5000
POOL: Final = "btcai"
MARK: Final = "BTCAI_SERVICES_OF"
START_LIMIT_S, STEP_LIMIT_S = 120.0, 120.0
STOP_S: processes.Graces = ((signal.SIGTERM, 20.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
"""A worker that has been asked once ends its runs and may stay; asked again it goes at once."""
POLL_S = 0.25
DOWN_ORDER: tuple[Name, ...] = ("worker", "mlflow", "prefect")
"""A worker without its server asks for it in vain, and longer than anybody waits."""


class ServiceError(BtcaiError):
    """A service that did not start, or whose place somebody else has."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A process that `up` started."""

    pid: int
    started_s: float
    """Since the system was, by its own account: processes.started_s."""
    port: int | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """Of one service, for people and for --json."""

    name: Name
    health: Health
    pid: int | None
    url: str | None
    note: str


def up(
    root: Path,
    env: Mapping[str, str],
    *,
    prefect_port: int,
    mlflow_port: int,
    with_mlflow: bool = True,
    settle: Callable[[], None] = lambda: None,
) -> None:
    """Start what does not run, wait until it answers, deploy prefect.yaml; ServiceError where one does not come up.

    env: of the processes, with Prefect's settings in it. What runs already stays as it is. settle: called once the
    server answers, before a worker starts. One `up` or `down` at a time.
    """
    with _alone(root):
        _up(root, env, prefect_port, mlflow_port, with_mlflow, settle)


def _up(
    root: Path,
    env: Mapping[str, str],
    prefect_port: int,
    mlflow_port: int,
    with_mlflow: bool,
    settle: Callable[[], None],
) -> None:
    env = {**env, MARK: mark(root), "PREFECT_API_URL": f"http://{HOST}:{prefect_port}/api"}
    wanted: list[tuple[Name, int, list[str]]] = [("prefect", prefect_port, _prefect_server(prefect_port))]
    if with_mlflow:
        wanted.append(("mlflow", mlflow_port, _mlflow_server(root, mlflow_port)))
    for name, port, _ in wanted:
        _check_port(root, name, port)
    servers_env = {**env, **own_pages_only(prefect_port), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    for name, port, command in wanted:
        if record(root, name) is None:
            _start(root, name, command, servers_env, port)
    for name, _, _ in wanted:
        _wait_until_up(root, name)
    if is_new := record(root, "worker") is None:
        _step(root, env, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    _step(root, env, "deploy", "--all")
    if is_new:
        settle()
        # Without --limit, by which a worker ends with an error where a run that it has just ended is resumed or retried
        # at once; one run at a time is what concurrency_limit of prefect.yaml sees to.
        command = ["worker", "start", "--pool", POOL, "--type", "process", "--name", "btcai"]
        _start(root, "worker", [sys.executable, "-m", "prefect", *command], env, None)
    _wait_until_up(root, "worker")


def down(root: Path) -> list[Name]:
    """End what `up` started, worker first, and all that was left of it; returns what ran."""
    with _alone(root):
        return _down(root)


def _down(root: Path) -> list[Name]:
    ended: list[Name] = []
    for name in DOWN_ORDER:
        if (found := record(root, name)) is not None:
            stop(_process(found))
            ended.append(name)
        if record(root, name) is None:  # what could not be ended keeps its record, so that `down` finds it again
            _file(root, name).unlink(missing_ok=True)
    for left in marked(root):
        logger.warning("process %d was left of the services and is ended: %s", left.pid, processes.command(left))
        stop(left)
    return ended


def _alone(root: Path) -> AbstractContextManager[None]:
    refusal = ServiceError("another btcai up or down is at work here; wait for it, then run this again")
    return locked(root / paths.SERVICES / "lock", refusal)


def statuses(root: Path) -> list[Status]:
    """Whether each service runs and answers."""
    found: list[Status] = []
    for name in reversed(DOWN_ORDER):
        one = record(root, name)
        health: Health = "down" if one is None else "up" if _answers(root, name) else "no answer"
        note = {"up": "", "down": "start it with: btcai up", "no answer": f"see {paths.SERVICES}/{name}.log"}[health]
        url = f"http://{HOST}:{one.port}" if one is not None and one.port else None
        found.append(Status(name=name, health=health, pid=one.pid if one else None, url=url, note=note))
    return found


def record(root: Path, name: Name) -> Record | None:
    """The service's process where it still runs, and is the one that `up` started."""
    try:
        found = Record(**json.loads(_file(root, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if _process(found) is not None else None


def prefect_api(root: Path) -> str | None:
    """Address of the API of a Prefect server that `up` started, None where none runs."""
    found = record(root, "prefect")
    return f"http://{HOST}:{found.port}/api" if found is not None else None


def mlflow_pages(root: Path) -> str:
    """Where MLflow's pages are, or would be."""
    if (team := place.pages()) is not None:
        return team
    found = record(root, "mlflow")
    return f"http://{HOST}:{found.port if found is not None else MLFLOW_PORT}"


def pages(root: Path) -> dict[str, str]:
    """Where a browser finds the pages of MLflow and of Prefect, and the command that it takes where they are down."""
    prefect = record(root, "prefect")
    own = {
        "MLflow": (mlflow_pages(root), place.pages() is not None or record(root, "mlflow") is not None),
        "Prefect": (f"http://{HOST}:{prefect.port if prefect else PREFECT_PORT}", prefect is not None),
    }
    return {name: address if is_up else f"btcai up, then {address}" for name, (address, is_up) in own.items()}


def mark(root: Path) -> str:
    """What every process of this project's services has as MARK."""
    return str(root.resolve())


def marked(root: Path) -> "list[psutil.Process]":
    """Every process that a service of this project started, or that those started, whoever is its parent now."""
    return processes.with_variable(MARK, mark(root))


def stop(process: "psutil.Process | None") -> None:
    """End a process and its session, politely at first; all that is below it too."""
    processes.stop(process, STOP_S)


def _prefect_server(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]


def own_pages_only(port: int) -> dict[str, str]:
    """Settings of Prefect's server: no other page in the operator's browser may ask it for anything, least of all runs.

    Prefect 3's own are any origin and no token. Its pages and its client fetch the token by themselves.
    """
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }


def _mlflow_server(root: Path, port: int) -> list[str]:
    store = f"sqlite:///{(root / paths.MLFLOW_DB).resolve()}"
    where = ["--host", HOST, "--port", str(port)]
    return [sys.executable, "-m", "mlflow", "server", "--workers", "1", *where, "--backend-store-uri", store]


def _start(root: Path, name: Name, command: Sequence[str], env: Mapping[str, str], port: int | None) -> None:
    (root / paths.SERVICES).mkdir(parents=True, exist_ok=True)
    with (root / paths.SERVICES / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=root, env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    started = Record(pid=process.pid, started_s=processes.started_s(process.pid), port=port)
    draft = _file(root, name).with_suffix(".new")
    draft.write_text(json.dumps(asdict(started)) + "\n", encoding="utf-8")
    draft.replace(_file(root, name))
    logger.info("%s starts, process %d, log %s/%s.log", name, process.pid, paths.SERVICES, name)


def _wait_until_up(root: Path, name: Name) -> None:
    give_up_at = time.monotonic() + START_LIMIT_S
    log = root / paths.SERVICES / f"{name}.log"
    while time.monotonic() < give_up_at:
        if record(root, name) is None:
            raise ServiceError(f"{name} ended as it started: {_last_line(log)}; see {log}, then: btcai up")
        if _answers(root, name):
            return
        time.sleep(POLL_S)
    raise ServiceError(f"{name} must answer within {START_LIMIT_S:.0f} s, did not; see {log}; end it with: btcai down")


def _answers(root: Path, name: Name) -> bool:
    if name == "worker":
        api = prefect_api(root)
        return api is not None and health.has_worker(api, POOL)
    one = record(root, name)
    path = {"prefect": "api/health", "mlflow": "health"}[name]
    return one is not None and health.asked(f"http://{HOST}:{one.port}/{path}") is not None


def _step(root: Path, env: Mapping[str, str], *arguments: str) -> None:
    """One command of Prefect's against the server that runs; ServiceError with its last line where it fails."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    try:
        done = subprocess.run(
            command, cwd=root, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=STEP_LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ServiceError(f"prefect {arguments[0]} did not end in {STEP_LIMIT_S:.0f} s; try again: btcai up") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ServiceError(f"prefect {' '.join(arguments)} failed: {lines[-1] if lines else done.returncode}")


def _check_port(root: Path, name: Name, port: int) -> None:
    """ServiceError where somebody else has the port, or the service runs on another one."""
    if (one := record(root, name)) is not None:
        if one.port != port:
            raise ServiceError(f"{name} runs on port {one.port} already, not on {port}; end it first: btcai down")
    elif (error := health.refused(HOST, port)) is not None:
        other = f"choose another: btcai up --{name}-port PORT"
        if error.errno != errno.EADDRINUSE:
            raise ServiceError(f"{name} may not listen on port {port} ({error.strerror}); {other}")
        owners = processes.listeners(port)
        owner = f" by process {owners[0].pid}, {processes.name(owners[0])}" if owners else ""
        is_ours = bool({one.pid for one in owners} & {one.pid for one in marked(root)})
        remedy = "end it: btcai down" if is_ours else f"end that, or {other}"
        raise ServiceError(f"port {port} must be free for {name}, was taken{owner} ({error.strerror}); {remedy}")


def _process(found: Record) -> "psutil.Process | None":
    """The process of a record; None where it has ended, also where its id is another's by now."""
    return processes.find(found.pid, found.started_s)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it wrote nothing"


def _file(root: Path, name: Name) -> Path:
    return root / paths.SERVICES / f"{name}.json"
