"""Mails about critical records: at most one a minute from all processes together, with all that came meanwhile.

Records wait in a file beside the logs, so that nothing is lost when a process ends or the mail server is away; a
thread of its own sends them. Work never waits for a mail server: a process that ends gives it EXIT_GRACE_S once.
"""

import atexit
import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from btcai.logs.settings import LogSettings

INTERVAL_S: Final = 60.0
TIMEOUT_S: Final = 10.0
"""Of each exchange with the mail server."""
EXIT_GRACE_S: Final = 5.0
MOST_BYTES: Final = 1_000_000
"""That wait; more are in the logs alone."""

logger = logging.getLogger(__name__)


class MailHandler(logging.Handler):
    """Records from CRITICAL -> mails. `password` is asked for when one is sent."""

    def __init__(
        self,
        folder: Path,
        settings: LogSettings,
        password: Callable[[], str | None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        super().__init__(logging.CRITICAL)
        self._waiting, self._sent = folder / "mail.waiting", folder / "mail.sent"
        self._settings, self._password, self._interval_s = settings, password, interval_s
        self._news, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._wrote = False
        atexit.register(self.close)  # logging's own list of handlers is emptied by its dictConfig
        if self._size():
            self._wake()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with _locked(self._waiting) as descriptor:
                if (size := os.fstat(descriptor).st_size) < MOST_BYTES:
                    text = f"{self.format(record)}\n\n".encode("utf-8", "backslashreplace")
                    if os.write(descriptor, text) < len(text):  # the disk is almost full
                        os.ftruncate(descriptor, size)
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._waiting))
            self._wrote = True
            self._wake()
        except Exception:  # as every handler of the standard library does
            self.handleError(record)

    def close(self) -> None:
        """Send what may be sent now; the rest waits for the next process. A record after that starts it again."""
        self._ending.set()
        self._news.set()
        if self._thread is not None and self._wrote:
            self._thread.join(EXIT_GRACE_S)
        super().close()

    def _wake(self) -> None:
        if self._thread is None or self._ending.is_set() or not self._thread.is_alive():
            self._ending = threading.Event()
            self._thread = threading.Thread(target=self._deliver, args=(self._ending,), name="btcai-mail", daemon=True)
            self._thread.start()
        self._news.set()

    def _deliver(self, ending: threading.Event) -> None:
        while not ending.is_set() or self._size():
            self._news.wait()
            self._news.clear()
            while self._size():
                if ending.wait(self._wait_s()) and self._wait_s() > 0:  # the process ends before its minute
                    return
                self._send_waiting()

    def _size(self) -> int:
        try:
            return self._waiting.stat().st_size
        except FileNotFoundError:
            return 0

    def _wait_s(self) -> float:
        """Until a mail may be sent. A clock that was put back does not silence it for longer than a minute."""
        try:
            ago_s = time.time() - self._sent.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        return self._interval_s - ago_s if 0 <= ago_s < self._interval_s else 0.0

    def _send_waiting(self) -> None:
        """Claim this minute, send, and only then forget what was sent: a kill sends it twice rather than never."""
        with _locked(self._waiting) as descriptor:
            if self._wait_s() > 0:  # another process was faster
                return
            self._sent.touch()
            batch = os.pread(descriptor, MOST_BYTES * 2, 0)
        try:
            send(batch.decode("utf-8", "replace"), self._settings, self._password())
        except Exception as error:  # of the network, the server, TLS; it is tried again in a minute
            logger.warning("no mail about %d bytes of critical records: %s", len(batch), error)
            return
        with _locked(self._waiting) as descriptor:
            now = os.pread(descriptor, MOST_BYTES * 2, 0)
            if now.startswith(batch):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, now[len(batch) :])


def send(text: str, settings: LogSettings, password: str | None) -> None:
    """One mail with `text`; OSError or smtplib.SMTPException where the server does not take it."""
    import smtplib
    import ssl

    message = EmailMessage()
    message["Subject"] = f"btcai: critical: {_subject(text)}"
    message["From"] = settings.email_from or settings.email_to[0]
    message["To"] = ", ".join(settings.email_to)
    message.set_content(text)
    if settings.smtp_security == "ssl":
        opened: smtplib.SMTP = smtplib.SMTP_SSL(
            settings.smtp_host, settings.smtp_port, timeout=TIMEOUT_S, context=ssl.create_default_context()
        )
    else:
        opened = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=TIMEOUT_S)
    with opened as server:
        if settings.smtp_security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_user:
            server.login(settings.smtp_user, password or "")
        server.send_message(message)


def _subject(text: str) -> str:
    first = text.strip().partition("\n")[0]
    return "".join(character if character.isprintable() else " " for character in first)[:120]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """`path` open to read and append, for this process and thread alone."""
    with _in_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


_in_process = threading.Lock()
