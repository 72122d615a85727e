"""Where runs and models are on record: this project's own SQLite file, or a team's MLflow server under its own name.

Nothing here imports MLflow. The server is a setting of btcai's own: MLFLOW_TRACKING_URI, which other projects of the
same shell use, changes nothing.
"""

import os
import re
import socket
import uuid
from pathlib import Path

from btcai import paths
from btcai.errors import ConfigError
from btcai.records.promotions import user

SERVER, NAME, PAGES = "BTCAI_MLFLOW_URI", "BTCAI_MLFLOW_NAME", "BTCAI_MLFLOW_PAGES"
"""Environment variables: the server's address, this clone's name on it, its address in a browser where that differs."""
OWN = "btcai"
"""Of the experiment in the project's own store, and on a server where no name is given."""

ARTIFACTS = Path("mlflow/artifacts")
CLONE = Path("journal/registry_clone")
"""Who this clone is to a server: an id, and words for people."""
CLONE_TAG = "btcai.clone"
"""Of an experiment: the one clone that writes to it."""
DOWNLOAD_FAILED = "Failed to download artifacts from path"
"""MLflow's client says so, with the code of what does not exist, whatever was the reason, a server away among them."""


def server() -> str | None:
    """The team's MLflow server; None: the project's own store. ConfigError where it is no server's address."""
    uri = os.environ.get(SERVER, "").strip().rstrip("/")
    if uri and not re.match(r"https?://[^/]", uri):
        raise ConfigError(
            f"{SERVER} must be the address of an MLflow server, http:// or https://, was {_without_password(uri)}; "
            f"mend it, or unset it for the project's own {paths.MLFLOW_DB}"
        )
    return uri or None


def name() -> str:
    """Of this clone's experiment, with which its models' names begin; in the project's own store always the same."""
    if server() is None:
        return OWN
    given = os.environ.get(NAME, "").strip() or OWN
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", given):
        raise ConfigError(f"{NAME} must be letters a-z, digits and single hyphens between them, was {given!r}; mend it")
    return given


def uri(root: Path) -> str:
    """What MLflow's clients are given: one SQLite file in the project, or the team's server."""
    return server() or f"sqlite:///{(root / paths.MLFLOW_DB).resolve()}"


def shown() -> str:
    """The same for people: no password, and short."""
    found = server()
    return paths.MLFLOW_DB.parent.as_posix() if found is None else _without_password(found)


def pages() -> str | None:
    """Where a browser finds the server's pages, without a password; None: where `btcai up` serves the project's own."""
    found = os.environ.get(PAGES, "").strip().rstrip("/") or server()
    return None if found is None else _without_password(found)


def clone(root: Path) -> str:
    """Who this clone is; made at the first question."""
    path = root / CLONE
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        line = f"{uuid.uuid4().hex[:12]} {user()}@{socket.gethostname()}:{root.resolve()}\n"
        draft.write_text(line, encoding="utf-8")
        draft.replace(path)
    return path.read_text(encoding="utf-8").strip()


def is_away(error: Exception) -> bool:
    """True where a server did not answer or failed at it, or may have: that says nothing of what was asked for."""
    if server() is None:
        return False
    if getattr(error, "request", None) is not None:  # of requests, which is not imported here
        response = getattr(error, "response", None)
        return response is None or response.status_code >= 500
    failed = getattr(error, "error_code", "") in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
    return failed or DOWNLOAD_FAILED in str(error)


def _without_password(address: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@", "", address)
