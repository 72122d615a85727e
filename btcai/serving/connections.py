"""Connections that ask nothing: each is closed after a while, and there are never more than a process can hold.

uvicorn waits for a request's head for as long as it takes, and its limit_concurrency looks at connections only once a
head has come, then turns away whoever asks: neither keeps file descriptors free.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_CONNECTIONS = 512
"""Half of the 1,024 file descriptors that a process usually has."""

HEADER_TIMEOUT_S = 15.0
"""A connection that waits for a whole head at two looks, so far apart, is closed: within 15 to 30 s."""


class Connection(H11Protocol):
    """One client's connection. Time is taken by a look now and then, so that a request costs nothing more."""

    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        waiting = self.cycle is None or self.cycle.response_complete
        unread_bytes = self.transport.get_write_buffer_size()
        self._looking = self.loop.call_later(HEADER_TIMEOUT_S, self._look, waiting, self.cycle, unread_bytes)

    def _look(self, waited: bool, cycle: RequestResponseCycle | None, unread_bytes: int) -> None:
        """Close where no head has come since the last look, and none was being answered then or an answer waited to be
        read, of which nothing was read meanwhile."""
        is_read = self.transport.get_write_buffer_size() < unread_bytes
        if (waited or unread_bytes) and self.cycle is cycle and not is_read:
            self.transport.abort()
        else:
            self._look_again()
