"""Timing that can be trusted: warmed up, on an idle machine where one can be had, medians, and in turns."""

import logging
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from bench.line import Fact

logger = logging.getLogger("btcai.bench")

IDLE_CORES = 0.2
"""Cores that others may keep busy on a machine that counts as idle."""

_GLANCE_S = 0.5
_PAUSE_S = 4.5

Run = Callable[[], float]
"""Does the work once and returns how many units it did."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Of each repeat: units done, wall time in seconds, cores that others kept busy meanwhile."""

    units: tuple[float, ...]
    seconds: tuple[float, ...]
    others_cores: tuple[float, ...]

    @property
    def per_second(self) -> float:
        """Median units a second."""
        return statistics.median(units / seconds for units, seconds in zip(self.units, self.seconds, strict=True))

    @property
    def median_s(self) -> float:
        """Median wall time of one run."""
        return statistics.median(self.seconds)

    def facts(self) -> dict[str, Fact]:
        """What to know before the number is believed; spread_frac = (slowest - fastest) / median, of the wall time."""
        others = statistics.median(self.others_cores)
        return {
            "repeats": len(self.seconds),
            "spread_frac": (max(self.seconds) - min(self.seconds)) / self.median_s,
            "others_cores": others,
            "idle": others <= IDLE_CORES,
        }


class Stopwatch:
    """Times runs one after the other; waits for an idle machine first, `patience_s` in all, then measures anyway."""

    def __init__(self, repeats: int, patience_s: float = 60.0) -> None:
        self.repeats = repeats
        self._patience_s = patience_s

    def time(self, *runs: Run) -> tuple[Timing, ...]:
        """Each run once uncounted (it compiles and fills caches), then in turns, so that all meet the same machine."""
        for run in runs:
            run()
        self.await_idle()
        laps = [tuple(_lap(run) for run in runs) for _ in range(self.repeats)]
        return tuple(_timing(of_one) for of_one in zip(*laps, strict=True))

    def await_idle(self) -> None:
        """Return once the machine is idle or the patience is used up."""
        while self._patience_s > 0 and (busy := _busy_cores(_GLANCE_S)) > IDLE_CORES:
            logger.info("waiting for an idle machine, %.0f s at most: %.1f cores are busy", self._patience_s, busy)
            time.sleep(_PAUSE_S)
            self._patience_s -= _GLANCE_S + _PAUSE_S


def _lap(run: Run) -> tuple[float, float, float]:
    """(units, wall seconds, cores that others kept busy)."""
    _busy_cores(None)
    cpu, start = time.process_time(), time.perf_counter()
    units = run()
    seconds, own = time.perf_counter() - start, time.process_time() - cpu
    return units, seconds, max(0.0, _busy_cores(None) - own / seconds)


def _timing(laps: tuple[tuple[float, float, float], ...]) -> Timing:
    units, seconds, others = zip(*laps, strict=True)
    return Timing(units=units, seconds=seconds, others_cores=others)


def _busy_cores(interval_s: float | None) -> float:
    """Cores busy on the whole machine, over interval_s or since the last call."""
    return float(psutil.cpu_percent(interval_s)) / 100.0 * (os.cpu_count() or 1)
