"""Connections that ask nothing do not last, and do not keep those out that ask."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn

from btcai.serving import connections
from btcai.serving.connections import Connection

HEADER_TIMEOUT_S = 0.5
HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
OPEN_S = 10.0
"""How long an end is waited for at most."""

LARGE_BYTES = 12_000_000

Talk = Callable[[int], Awaitable[None]]


async def answering(scope: Any, _: Any, send: Any) -> None:
    """200, at /slow after four looks; nothing is read of a body."""
    if scope["path"] == "/slow":
        await asyncio.sleep(4 * HEADER_TIMEOUT_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def large(scope: Any, _: Any, send: Any) -> None:
    """200 with LARGE_BYTES, far more than a connection's buffers take."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * LARGE_BYTES})


def served(talk: Talk, app: Any = answering) -> None:
    """Run talk(port) beside a server whose connections are Connections."""

    async def both() -> None:
        config = uvicorn.Config(app, port=0, http=Connection, lifespan="off", log_config=None, timeout_keep_alive=600)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            await talk(server.servers[0].sockets[0].getsockname()[1])
        finally:
            server.should_exit = True
            await serving

    asyncio.run(both())


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", HEADER_TIMEOUT_S)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """What the server says until it ends the connection, OPEN_S at most."""
    said = b""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(OPEN_S):
            while piece := await reader.read(1_000):
                said += piece
    return said


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes = b"/health") -> bool:
    """Whether a request is; not so on a connection that was closed."""
    try:
        writer.write(HEAD.replace(b"/health", path) + b"\r\n")
        return (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    except (ConnectionError, asyncio.IncompleteReadError):
        return False


@pytest.mark.parametrize(
    ("said", "answers"),
    [(b"", 0), (HEAD, 0), (HEAD + b"\r\n", 1), (HEAD + b"Content-Length: 9\r\n\r\n1", 1)],
    ids=["nothing", "part of a head", "one request", "part of a body"],
)
def test_a_connection_without_another_whole_head_is_closed_after_two_looks(said: bytes, answers: int) -> None:
    async def talk(port: int) -> None:
        start = time.monotonic()  # before the server's own clock
        async with connected(port) as (reader, writer):
            writer.write(said)
            assert (await all_of(reader)).count(b"200 OK") == answers
            assert time.monotonic() - start > HEADER_TIMEOUT_S / 2

    served(talk)


def test_a_head_that_comes_letter_by_letter_does_not_hold_its_connection() -> None:
    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):

            async def drip() -> None:
                writer.write(HEAD + b"X: ")
                while True:
                    writer.write(b"x")
                    await asyncio.sleep(HEADER_TIMEOUT_S / 10)

            dripping = asyncio.create_task(drip())
            assert await all_of(reader) == b""
            dripping.cancel()

    served(talk)


@pytest.mark.slow
def test_a_request_that_takes_longer_than_four_looks_is_answered_and_so_is_the_next_one() -> None:
    async def talk(port: int) -> None:
        async with connected(port) as (reader, writer):
            assert [await answered(reader, writer, path) for path in (b"/slow", b"/health", b"/slow")] == [True] * 3

    served(talk)


def test_beyond_the_most_connections_one_is_closed_at_once_and_those_before_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", 60.0)

    async def talk(port: int) -> None:
        async with connected(port) as first:
            async with connected(port) as second:
                async with connected(port) as third:
                    assert not await answered(*third)
                assert [await answered(*one) for one in (first, second)] == [True, True]
            async with asyncio.timeout(OPEN_S):  # once one of them has gone there is room
                while True:
                    async with connected(port) as fourth:
                        if await answered(*fourth):
                            return

    served(talk)


def test_who_asks_twice_and_reads_nothing_of_the_answers_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request waits for the first one's answer to be read, which never happens."""
    lost: list[object] = []
    forget = Connection.connection_lost
    monkeypatch.setattr(Connection, "connection_lost", lambda self, exc: (lost.append(exc), forget(self, exc)))

    async def talk(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        writer.write((HEAD + b"\r\n") * 2)
        try:
            async with asyncio.timeout(OPEN_S):
                while not lost:
                    await asyncio.sleep(HEADER_TIMEOUT_S)
        finally:
            writer.transport.abort()

    served(talk, large)


def test_who_reads_a_large_answer_slowly_has_all_of_it() -> None:
    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        writer.write(HEAD + b"Connection: close\r\n\r\n")
        n = 0
        async with asyncio.timeout(OPEN_S):
            while piece := await reader.read(1_000_000):
                n += piece.count(b"x")
                await asyncio.sleep(HEADER_TIMEOUT_S / 100)
        assert n == LARGE_BYTES
        writer.close()

    served(talk, large)
