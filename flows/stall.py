"""The watchdog: a stage that neither writes a line nor uses a processor is stuck, and nobody looks at it for days."""

import time

import psutil

from flows.process import Halted

STALL_LIMIT_S = 20 * 60.0
"""Longer than an exchange asks to be left alone (five minutes at most), shorter than a night."""
BUSY_SHARE = 0.01
"""Of one processor: less than this is a process that waits."""


class Stuck(Halted):
    """A stage that did nothing for longer than it may."""


class Stall:
    """Tells when a process and its children have done nothing for `limit_s`.

    wrote() is called at every line of output; check(pid) every second or so. Between two looks at the processors'
    times lies a tenth of the limit, so that a stage that works in bursts is seen at work. No more than that is counted
    from one check to the next: where more passed, this process stood still, as in a paused container, and so did the
    stage.
    """

    def __init__(self, name: str, limit_s: float = STALL_LIMIT_S) -> None:
        self._name, self._limit_s = name, limit_s
        self._checked_s = time.monotonic()
        self._now_s = self._alive_s = self._looked_s = self._used_s = 0.0  # by a clock that counts that alone

    def wrote(self) -> None:
        """The stage has written a line."""
        self._alive_s = self._now_s

    def check(self, pid: int) -> Stuck | None:
        """Whether the tree under `pid` is stuck."""
        before_s, self._checked_s = self._checked_s, time.monotonic()
        now_s = self._now_s = self._now_s + min(self._checked_s - before_s, self._limit_s / 10)
        if now_s - self._looked_s >= self._limit_s / 10:
            used_s = processor_s(pid)
            # Less than before: a child has ended, so that something happened.
            if abs(used_s - self._used_s) > BUSY_SHARE * (now_s - self._looked_s):
                self._alive_s = now_s
            self._looked_s, self._used_s = now_s, used_s
        if now_s - self._alive_s < self._limit_s:
            return None
        return Stuck(f"stage {self._name} wrote nothing and used no processor for {now_s - self._alive_s:.0f} s")


def processor_s(pid: int) -> float:
    """Processor time of `pid` and all below it, in seconds; of those that still run, and whom they have reaped."""
    total = 0.0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return total
    for process in tree:
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue  # it has just ended
    return total
