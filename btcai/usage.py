"""What long work takes of the machine, sampled while it runs: one CSV, in the terms of MLflow's system metrics."""

import csv
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

logger = logging.getLogger(__name__)

FILE = "system.csv"
EVERY_S = 5.0
COLUMNS = (
    "unix_s",
    "elapsed_s",
    "cpu_utilization_percentage",  # of the whole machine, as MLflow's own monitor has it
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
    "process_cpu_percentage",  # of one core, so two busy threads are 200
    "process_memory_megabytes",
)


@contextmanager
def sampled(path: Path, every_s: float = EVERY_S) -> Iterator[None]:
    """Write COLUMNS to a CSV every `every_s` seconds while the body runs, and once more as it ends."""
    import psutil  # of the extra that trains; what was sampled is read without it

    ended = threading.Event()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        process, began_s = psutil.Process(), time.monotonic()

        def sample() -> None:
            psutil.cpu_percent()  # both count from the thread's own call before
            process.cpu_percent()
            last = False
            while not last:
                last = ended.wait(every_s)
                try:
                    writer.writerow(_row(process, time.monotonic() - began_s))
                    file.flush()
                except (OSError, psutil.Error) as error:  # the work goes on, or fails by itself
                    logger.warning("usage of the machine is no longer sampled: %s", error)
                    return

        thread = threading.Thread(target=sample, name="usage", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _row(process: "psutil.Process", elapsed_s: float) -> tuple[float, ...]:
    import psutil

    memory = psutil.virtual_memory()
    return (
        round(time.time(), 1),
        round(elapsed_s, 1),
        psutil.cpu_percent(),
        round(memory.used / 1e6, 1),
        round(100 * memory.used / memory.total, 1),
        process.cpu_percent(),
        round(process.memory_info().rss / 1e6, 1),
    )


def elapsed_s(path: Path) -> float | None:
    """How long the work took, from the last whole row of its CSV; None where there is none."""
    rows = read(path)
    return rows[-1]["elapsed_s"] if rows else None


def read(path: Path) -> list[dict[str, float]]:
    """The rows that `sampled` wrote; a row cut short, or a file that is not there, holds nothing."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        whole = [row for row in csv.reader(file) if len(row) == len(COLUMNS)][1:]
    return [dict(zip(COLUMNS, map(float, row), strict=True)) for row in whole]
