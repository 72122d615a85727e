"""What keeps a command that uses Ray in hand: a cluster that answers in time, Ctrl-C in time, no process left over."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SECONDS_TO_ANSWER = 5.0
"""Of a cluster."""

SECONDS_TO_END = 2.0
"""Of Ray's processes, before they are killed: what they have not brought back yet is a draft."""


def require_http2(address: str) -> None:
    """OSError or ValueError where nothing listens, or what does speaks no HTTP/2 (RFC 9113, 3.4)."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS_TO_ANSWER) as connection:
        if os.environ.get("RAY_USE_TLS", "0") == "0":
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))  # and no settings
            if connection.recv(9)[3:4] != b"\x04":  # the server's settings come first
                raise ValueError("something else than Ray listens there")


@contextmanager
def deferred_sigint() -> Iterator[None]:
    """Ctrl-C is heard when the block has ended: Ray, broken off while it starts, ends this process by SIGSEGV."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def kill_leftover_children() -> Iterator[None]:
    """Afterwards no process that this one had is left: members outlive what started them for a while."""
    import psutil

    children = psutil.Process().children(recursive=True)
    try:
        yield
    finally:
        alive = psutil.wait_procs(children, timeout=SECONDS_TO_END)[1]
        for child in alive:
            with suppress(psutil.NoSuchProcess):  # it just ended
                child.kill()
        psutil.wait_procs(alive, timeout=SECONDS_TO_END)  # their files are removed next
