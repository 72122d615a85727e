"""The server as a process: where it listens, who may reach it, and how it ends."""

import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from btcai.errors import ConfigError
from btcai.schema import BUCKETS
from btcai.secrets import secret, variable
from btcai.serving.app import create_app
from btcai.serving.connections import Connection
from btcai.serving.metrics import Metrics
from btcai.serving.service import Service
from btcai.serving.shelf import Shelf

logger = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 8710
TOKEN = "SERVE_TOKEN"
"""The secret that requests must bear. Needed with --remote, heeded without it too."""

REMEDY = f"set {variable(TOKEN)}, or: btcai secrets set {TOKEN}"

LEAST_TOKEN = 16
GRACE_S = 30
"""What requests in flight get when the server is told to stop."""

GC_THRESHOLDS = (50_000, 20, 20)
"""Objects before a garbage collection, and collections before a deeper one: a body is a tree of up to a million lists
without a cycle among them, which Python's own (700, 10, 10) looked through again and again while it was read."""


def run(root: Path, host: str = HOST, port: int = PORT, buckets: Sequence[str] = BUCKETS, remote: bool = False) -> None:
    """Serve root's champions until SIGTERM or SIGINT, then answer what is in flight and return; a second one cuts that
    short. Afterwards both are ignored: the process is about to end, and well.

    ConfigError where the host is not the loopback and remote was not said, or remote was said without a token.
    """
    token = checked_token(host, remote, secret(TOKEN))
    metrics = Metrics()
    service = Service(Shelf(root, buckets, metrics.bundle_event), metrics)
    hosts = ("*",) if remote else ("127.0.0.1", "localhost", "[::1]", "::1")
    with _listening(host, port) as listener:
        app = create_app(service, token=token, hosts=hosts)
        config = uvicorn.Config(
            app,
            http=Connection,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            lifespan="on",
        )
        where = f"[{host}]" if ":" in host else host
        logger.info(
            "serving on http://%s:%d, %s", where, listener.getsockname()[1], "by token" if token else "no token"
        )
        # What is imported by now stays as long as the server: a full garbage collection that looked at its 200,000
        # objects would keep every request waiting for 0.1 s.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """One that has ended well when a signal ended it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's, but that who was told to stop is deaf from then on."""
        before = {sign: signal.signal(sign, self.handle_exit) for sign in uvicorn.server.HANDLED_SIGNALS}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, signal.SIG_IGN if self.should_exit else handler)

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.should_exit:  # asked twice: each request that is cut off would be an error with a traceback
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            logger.warning("stopping at once: requests in flight are not answered")
            return
        self.should_exit = True  # before it is said: who reads that may ask again at once
        logger.info("stopping: requests in flight are answered first")


def checked_token(host: str, remote: bool, token: str | None) -> str | None:
    """The token that requests must bear; ConfigError where one is needed, or where this is none.

    remote needs one on the loopback too: behind a proxy the server is asked by any name, so Host is not checked.
    """
    if token and len(token) < LEAST_TOKEN:
        raise ConfigError(f"{TOKEN} must have at least {LEAST_TOKEN} characters, has {len(token)}; choose a longer one")
    if token and not all("!" <= character <= "~" for character in token):  # in a header no others arrive as they are
        raise ConfigError(f"{TOKEN} must be of visible ASCII characters, has others or blanks; choose another")
    if not remote and not is_loopback(host):
        raise ConfigError(
            f"the host must be of the loopback, was {host}; to be reached from elsewhere say --remote and {REMEDY}"
        )
    if remote and not token:
        raise ConfigError(f"a server that is reached from elsewhere needs a token, {TOKEN} is not set; {REMEDY}")
    return token or None


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine can ask there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the server must be able to listen on {host}:{port} ({error}); choose another --port"
        ) from error
