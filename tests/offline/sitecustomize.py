"""Python without a network: every process that finds this folder on PYTHONPATH reaches 127.0.0.1 and nothing else.

What it asks for fails as it does on a machine whose cable is out, and is noted in the file that OFFLINE_NOTES names.
"""

import errno
import os
import socket
import sys

HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", None)


def _text(host: object) -> object:
    return host.decode() if isinstance(host, bytes) else host


def _note(what: str) -> None:
    if path := os.environ.get("OFFLINE_NOTES"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {what} by {' '.join(sys.argv)[:200]}\n")


def _offline(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = _text(arguments[0])
        if host not in (*HERE, socket.gethostname()):
            _note(f"asked for the address of {host}")
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    elif event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and _text(address[0]) not in HERE:
            _note(f"connected to {address[0]}")
            raise OSError(errno.ENETUNREACH, "Network is unreachable")


sys.addaudithook(_offline)
