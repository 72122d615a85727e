"""Stopping a training without losing an update: a signal asks for it, the next checkpoint answers."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from btcai.errors import BtcaiError

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_asked = threading.Event()  # a signal is the whole process's


class Stopped(BtcaiError):
    """A training that was asked to stop, and goes on from there when it is run again."""


def is_asked() -> bool:
    """Whether a signal came since on_signals began."""
    return _asked.is_set()


@contextmanager
def on_signals() -> Iterator[None]:
    """Meanwhile the first SIGINT (Ctrl-C, a cancel) or SIGTERM only asks; the next one ends the process as ever.

    Outside the main thread nothing changes: Python gives signals to that one alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sign: signal.getsignal(sign) for sign in SIGNALS}

    def put_back() -> None:
        for sign, handler in before.items():
            signal.signal(sign, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        _asked.set()
        put_back()
        logger.warning("asked to stop: training ends at its next checkpoint; ask again to end it at once")

    for sign in SIGNALS:
        signal.signal(sign, ask)
    try:
        yield
    finally:
        put_back()
        _asked.clear()
