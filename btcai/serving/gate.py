"""What every request passes before it is looked at: who may ask, how much, and the clock that is stopped at its end."""

import asyncio
import hmac
import time
from collections import deque

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from btcai.serving.answers import StrictJSONResponse
from btcai.serving.metrics import Metrics
from btcai.serving.requests import BATCH, MAX_BATCH_BYTES, MAX_BODY_BYTES

BODY_S = 30.0
"""A body must have come by then."""

OPEN_TO_ALL = "/health"
"""Answered without a token: it says nothing but that the process lives."""


class Gate:
    """ASGI middleware: bearer token where there is one, bodies up to a limit, counts and times."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, endpoints: frozenset[str], token: str | None) -> None:
        self._app, self._metrics, self._endpoints = app, metrics, endpoints
        self._authorization = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, endpoint, status = time.perf_counter(), self._endpoint(scope), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(scope, receive, sent)
        finally:
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.request_seconds.labels(endpoint).observe(time.perf_counter() - start)

    def _endpoint(self, scope: Scope) -> str:
        return scope["path"] if scope["path"] in self._endpoints else "other"

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == OPEN_TO_ALL:  # before who asks is known nothing is read of a body
            await self._app(scope, receive, send)
            return
        headers, limit = Headers(scope=scope), MAX_BATCH_BYTES if scope["path"] == BATCH else MAX_BODY_BYTES
        if not self._may_ask(headers):
            error = "requests must carry the token of SERVE_TOKEN, this one did not; add Authorization: Bearer TOKEN"
            await _refuse(401, error, scope, receive, send, {"WWW-Authenticate": "Bearer"})
            return
        try:
            async with asyncio.timeout(BODY_S):
                messages = await _body(headers, receive, limit)
        except TimeoutError:
            await _refuse(
                408, f"a body must come within {BODY_S:g} s, this one did not; send it again", scope, receive, send
            )
            return
        if messages is None:
            error = f"a body must have at most {limit:,} bytes, this one has more; ask in several requests"
            await _refuse(413, error, scope, receive, send)
            return

        async def replayed() -> Message:
            return messages.popleft() if messages else await receive()

        await self._app(scope, replayed, send)

    def _may_ask(self, headers: Headers) -> bool:
        return self._authorization is None or hmac.compare_digest(
            headers.get("authorization", "").encode(), self._authorization
        )


async def _body(headers: Headers, receive: Receive, limit: int) -> deque[Message] | None:
    """The request's messages; None where they hold too much, whatever the headers say of it."""
    said = headers.get("content-length", "0")
    if said.isdigit() and int(said) > limit:
        return None
    messages: deque[Message] = deque()
    size, more = 0, True
    while more:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > limit:
            return None
        more = message["type"] == "http.request" and message.get("more_body", False)
    return messages


async def _refuse(
    status: int, error: str, scope: Scope, receive: Receive, send: Send, headers: dict[str, str] | None = None
) -> None:
    response = StrictJSONResponse({"error": error}, status, {"Connection": "close", **(headers or {})})
    await response(scope, receive, send)
