"""The server as an ASGI application: addresses, status codes and threads around service.Service.

Decisions are made off the event loop, by as many threads as there are cores: a graph runs on one of them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from btcai.errors import BtcaiError, DataError
from btcai.inference.holdings import shown
from btcai.machine import machine
from btcai.serving.answers import StrictJSONResponse
from btcai.serving.gate import Gate
from btcai.serving.live import NotNextError
from btcai.serving.metrics import CONTENT_TYPE
from btcai.serving.requests import BATCH, AppendRequest, BatchRequest, DecideRequest
from btcai.serving.schemas import (
    METRICS,
    READY,
    AppendAnswer,
    BatchAnswer,
    DecisionAnswer,
    HealthAnswer,
    VersionAnswer,
    answers,
)
from btcai.serving.service import Service, UnknownMarketError
from btcai.serving.shelf import NotServedError

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""How often the champions' folders are looked at."""

MAX_WAITING = 256
"""Requests that wait for a thread, beyond which more are turned away."""

ENDPOINTS = frozenset({"/v1/decide", BATCH, "/v1/bars", "/health", "/ready", "/version", "/metrics"})
STATUS: tuple[tuple[type[BtcaiError], int], ...] = (
    (UnknownMarketError, 404),
    (NotNextError, 409),
    (DataError, 422),
    (NotServedError, 503),
)
"""By error, the first that fits; none fits what is no fault of the request."""

Asked = TypeVar("Asked")
Done = TypeVar("Done")


class BusyError(BtcaiError):
    """More requests wait than may."""


class Workers:
    """Threads for what takes longer than an event loop may wait."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(machine().cores, thread_name_prefix="btcai-serve")
        self._waiting = 0

    async def run(self, work: Callable[[Asked], Done], asked: Asked) -> Done:
        """work(asked) in a thread; BusyError where too many wait."""
        if self._waiting >= MAX_WAITING:
            raise BusyError(f"at most {MAX_WAITING} requests may wait, so many do; ask again in a second")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, asked)
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()


def create_app(service: Service, *, token: str | None = None, hosts: tuple[str, ...] = ("*",)) -> FastAPI:
    """The application. token: what a request must bear, none for None; hosts: names by which it may be asked, so that
    no web page can reach a server of the loopback under a name of its own."""
    workers = Workers()
    app = FastAPI(title="btcai", docs_url=None, redoc_url=None, lifespan=lambda _: _life(service, workers))
    _add_decisions(app, service, workers)
    _add_states(app, service)
    _add_errors(app)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(Gate, metrics=service.metrics, endpoints=ENDPOINTS, token=token)
    return app


@asynccontextmanager
async def _life(service: Service, workers: Workers) -> AsyncIterator[None]:
    """The champions are read before the first request and looked at again every POLL_S until the last."""
    await asyncio.to_thread(service.shelf.refresh)
    polling = asyncio.create_task(_poll(service))
    try:
        yield
    finally:
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling
        await asyncio.to_thread(workers.stop)


async def _poll(service: Service) -> None:
    while True:
        await asyncio.sleep(POLL_S)
        try:
            await asyncio.to_thread(service.shelf.refresh)
        except (OSError, RuntimeError) as error:  # no file handle, no thread: what is in use stays in use
            logger.warning("the champions could not be looked at: %s", error)


def _add_decisions(app: FastAPI, service: Service, workers: Workers) -> None:
    @app.post("/v1/decide", responses=answers(DecisionAnswer, 401, 404, 422, 503))
    async def decide(asked: DecideRequest) -> Response:
        return await workers.run(lambda one: StrictJSONResponse(service.decide(one)), asked)

    @app.post(BATCH, responses=answers(BatchAnswer, 401, 404, 422, 503))
    async def decide_batch(asked: BatchRequest) -> Response:
        return await workers.run(lambda many: StrictJSONResponse(service.decide_batch(many)), asked)

    @app.post("/v1/bars", responses=answers(AppendAnswer, 401, 409, 422, 503))
    async def bars(asked: AppendRequest) -> Response:
        return await workers.run(lambda new: StrictJSONResponse(service.append(new)), asked)


def _add_states(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses=answers(HealthAnswer))
    async def health() -> Response:
        return StrictJSONResponse({"status": "alive"})

    @app.get("/ready", responses=READY)
    async def ready() -> Response:
        is_ready, state = service.readiness()
        return StrictJSONResponse({"ready": is_ready, **state}, 200 if is_ready else 503)

    @app.get("/version", responses=answers(VersionAnswer, 401))
    async def version() -> Response:
        return StrictJSONResponse(service.version())

    @app.get("/metrics", response_class=Response, responses=METRICS)
    async def metrics() -> Response:
        return Response(service.metrics.text(service.shelf), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(BtcaiError)
    async def refused(_: Request, error: BtcaiError) -> Response:
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 503)
        return StrictJSONResponse({"error": str(error)}, status, {"Retry-After": "1"} if status == 503 else None)

    @app.exception_handler(RequestValidationError)
    async def misshapen(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            what = f"the body is no JSON: {first['ctx']['error']} at character {first['loc'][1]}; see /openapi.json"
            return StrictJSONResponse({"error": what}, 400)
        where = ".".join(map(str, first["loc"][1:]))[:80] or "the body"
        given = f", was {shown(first['input'])}" if where != "the body" else ""
        return StrictJSONResponse({"error": f"{where}: {first['msg']}{given}; see /openapi.json"}, 422)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        said = f"{error.detail}; there are {', '.join(sorted(ENDPOINTS))}"
        if error.status_code == 400:
            said = "the body must be JSON that can be read: UTF-8, and not nested deeply; see /openapi.json"
        return StrictJSONResponse({"error": said}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        logger.error("a request failed: %s", error, exc_info=error)
        return StrictJSONResponse({"error": "the server failed; its log says why"}, 500)
