"""Health checks of servers on this machine: whether they answer, have a worker, and whether a port is free for them."""

import json
import os
import socket
import urllib.request
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ANSWER_LIMIT_S = 5.0


def asked(url: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] = MappingProxyType({})) -> Any:
    """The JSON, else the text, of an answer; None where there is none. A POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    try:
        with straight.open(request, timeout=ANSWER_LIMIT_S) as answer:
            text = answer.read().decode()
    except (OSError, ValueError):  # urllib's errors are OSErrors
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def has_worker(api: str, pool: str) -> bool:
    """Whether a worker of the pool is online, by the account of Prefect's server at `api`."""
    found = asked(f"{api}/work_pools/{pool}/workers/filter", {}, csrf(api))
    return isinstance(found, list) and any(worker.get("status") == "ONLINE" for worker in found)


def csrf(api: str) -> dict[str, str]:
    """Headers by which Prefect's server knows that no web page asks; none where it wants none."""
    client = f"btcai-{os.getpid()}"
    found = asked(f"{api}/csrf-token?client={client}")
    token = found.get("token") if isinstance(found, dict) else None
    return {"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token} if token else {}


def refused(host: str, port: int) -> OSError | None:
    """Why nobody may listen on a TCP port now; None where a server may."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None
