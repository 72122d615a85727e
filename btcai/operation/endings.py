"""How processes end: a Ctrl-C that Python drops is repeated; who was killed, and whose memory ran out, is told in words
that say what to do."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_S = 0.05
MORE_MEMORY = "give this machine or its container more memory, or use fewer bars, then run it again"
_ALLOCATORS = ("can't allocate memory", "failed to allocate memory", "bad allocation", "std::bad_alloc")
"""torch and onnxruntime raise a RuntimeError of their own."""


@contextmanager
def lost_interrupts_repeated() -> Iterator[None]:
    """Meanwhile a Ctrl-C that Python drops is sent to this process again, until it is heard.

    Python drops any error where none can be raised: in a destructor, in a weak reference's callback, at one place of
    the import of each Cython module.
    """
    before, under_way = sys.unraisablehook, list[threading.Timer]()

    def told(lost: "sys.UnraisableHookArgs") -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            under_way.append(again := threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)))
            again.daemon = True
            again.start()
        else:
            before(lost)

    sys.unraisablehook = told
    try:
        yield
    finally:
        sys.unraisablehook = before
        for again in under_way:
            again.cancel()


def killed(code: int) -> str | None:
    """What ended a process with this exit code (-n, or a shell's 128 + n for signal n); None where it did itself."""
    try:
        sign = signal.Signals(-code if code < 0 else code - 128)
    except ValueError:
        return None
    if sign is signal.SIGKILL:
        return f"killed, likely out of memory (dmesg tells): what was not finished is as it was; {MORE_MEMORY}"
    if sign is signal.SIGABRT:
        return f"aborted, as a library does that gets no memory: what was not finished is as it was; {MORE_MEMORY}"
    return f"ended by {sign.name}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is of a memory that is full, whoever raised it: Python, numpy, Arrow, torch, onnxruntime."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in _ALLOCATORS)
    )
