"""What this process may use of the machine: cores and memory, within the limits of its container.

Limits are read where Linux keeps them: CPU affinity, and control groups of version 2 (cpu.max, memory.max: kernel.org,
admin-guide/cgroup-v2) or 1 (cpu.cfs_quota_us, memory.limit_in_bytes), of the process's own group and of all above it.
Elsewhere the machine's own numbers count. What is trained does not depend on them: they decide how much runs at a time.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from btcai.errors import ConfigError

GB = 1e9
NO_LIMIT = 2**60
"""Bytes: version 1 writes the largest multiple of a page where there is none."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """cores: whole ones, at least one; memory_bytes: in all, of the machine or of the group's limit."""

    cores: int
    memory_bytes: int

    def at_once(self, threads: int, bytes_each: float) -> int:
        """How many processes with so many threads and so much memory it has room for, at least one."""
        return max(1, min(self.cores // threads, int(self.memory_bytes // bytes_each)))

    def require(self, bytes_each: float, what: str, processes: int = 1) -> None:
        """ConfigError where it has less memory than something needs in so many processes, before that is begun."""
        if self.memory_bytes < processes * bytes_each:
            times = f" in {processes} processes" if processes > 1 else ""
            raise ConfigError(
                f"{what}{times} needs {processes * bytes_each / GB:.1f} GB of memory, this machine or its container "
                f"gives {self.memory_bytes / GB:.1f} GB; raise the container's limit, or use fewer bars or processes"
            )


def machine(system: Path = Path("/")) -> Machine:
    """Of this process; system: where /proc and /sys are found."""
    return Machine(cores=_cores(system), memory_bytes=_memory_bytes(system))


def processes_here() -> int:
    """How many processes torchrun started on this machine for one work, this one among them; 1 where it did not."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _cores(system: Path) -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    there = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [quota for folder in _groups(system, "cpu") if (quota := _quota(folder)) is not None]
    return max(1, math.floor(min([float(there), *quotas]) + 1e-9))


def _memory_bytes(system: Path) -> int:
    limits = [limit for folder in _groups(system, "memory") if (limit := _limit(folder)) is not None]
    return min([_total_bytes(system), *limits])


def _total_bytes(system: Path) -> int:
    """Of the machine."""
    with suppress(OSError):
        for line in (system / "proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemTotal:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # where there is no /proc


def _groups(system: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups that this process is in and of those above them, where limits of the controller stand.

    Inside a container its own group is often mounted as the root, whatever /proc/self/cgroup says.
    """
    lines: list[str] = []
    with suppress(OSError):
        lines = (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    mounted = system / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = mounted / controllers if controllers else mounted
        if controllers and not root.is_dir():
            root = mounted / controller
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            yield folder
            if folder == root:
                break


def _quota(folder: Path) -> float | None:
    """Cores that a group may use; None where it has no limit."""
    words = _words(folder / "cpu.max") or [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return None
    return int(words[0]) / int(words[1])


def _limit(folder: Path) -> int | None:
    """Bytes that a group may use; None where it has no limit."""
    words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
    return int(words[0]) if words and words[0] != "max" and int(words[0]) < NO_LIMIT else None


def _words(path: Path) -> list[str]:
    """Of a file that need not be there."""
    with suppress(OSError):
        return path.read_text(encoding="ascii").split()
    return []


def training_bytes(n_bars: int) -> float:
    """Memory of a bucket's training at most, from those measured at 341,280 and 1,365,120 bars (docs/scale.md)."""
    return 1.0 * GB + 700.0 * n_bars
