"""Cores and memory as containers limit them: control groups of both versions, laid out as Linux does."""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from btcai.errors import ConfigError
from btcai.machine import Machine, machine, processes_here, training_bytes

GB = 10**9
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000 kB\n"


def system(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def test_version_2_limits_of_the_own_group(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/user.slice/job"
    limits = {"proc/self/cgroup": "0::/user.slice/job\n", f"{group}/cpu.max": "250000 100000\n"}
    found = machine(system(tmp_path, limits | {f"{group}/memory.max": "8000000000\n"}))
    assert found == Machine(cores=2, memory_bytes=8 * GB)  # two and a half cores are two whole ones


def test_a_limit_above_binds_the_group_below(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/cpu.max": "300000 100000",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        "sys/fs/cgroup/a/memory.max": "4000000000",
        "sys/fs/cgroup/a/b/memory.max": "9000000000",
    }
    assert machine(system(tmp_path, files)) == Machine(cores=3, memory_bytes=4 * GB)


def test_version_1_limits_and_none(tmp_path: Path) -> None:
    groups = "4:memory:/docker/x\n2:cpuacct,cpu:/docker/x\n0::/\n"
    cpu, memory = "sys/fs/cgroup/cpuacct,cpu/docker/x", "sys/fs/cgroup/memory/docker/x"
    files = {
        "proc/self/cgroup": groups,
        f"{cpu}/cpu.cfs_quota_us": "50000",
        f"{cpu}/cpu.cfs_period_us": "100000",
        f"{memory}/memory.limit_in_bytes": "3000000000",
    }
    assert machine(system(tmp_path / "limited", files)) == Machine(cores=1, memory_bytes=3 * GB)  # half a core is one
    free = files | {f"{cpu}/cpu.cfs_quota_us": "-1", f"{memory}/memory.limit_in_bytes": "9223372036854771712"}
    assert machine(system(tmp_path / "free", free)) == Machine(cores=8, memory_bytes=16_384_000_000)


def test_a_container_whose_group_is_mounted_as_the_root(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/docker/outside\n", "sys/fs/cgroup/memory.max": "2000000000"}
    assert machine(system(tmp_path, files)).memory_bytes == 2 * GB


def test_affinity_counts_where_there_is_no_quota(tmp_path: Path) -> None:
    assert machine(system(tmp_path, {})) == Machine(cores=8, memory_bytes=16_384_000_000)


def test_this_machine_has_no_more_than_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine()
    assert 1 <= found.cores <= 8
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total


def test_processes_at_once_have_cores_and_memory() -> None:
    eight = Machine(cores=8, memory_bytes=8 * GB)
    assert eight.at_once(2, 1 * GB) == 4  # cores bind
    assert eight.at_once(2, 3 * GB) == 2  # memory does
    assert eight.at_once(16, 9 * GB) == 1


def test_too_little_memory_is_told_before_anything_is_begun() -> None:
    small = Machine(cores=2, memory_bytes=2 * GB)
    small.require(2 * GB, "training")
    with pytest.raises(ConfigError, match=r"training needs 3\.0 GB of memory.*gives 2\.0 GB; raise the container's"):
        small.require(3 * GB, "training")
    small.require(1 * GB, "training", 2)
    with pytest.raises(ConfigError, match=r"training in 2 processes needs 3\.0 GB of memory.*bars or processes"):
        small.require(1.5 * GB, "training", 2)


def test_processes_of_one_work_are_counted_as_torchrun_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert processes_here() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert processes_here() == 2


def test_training_on_three_years_fits_into_two_gigabytes_and_on_thirty_does_not_into_eight() -> None:
    eight, year = Machine(cores=2, memory_bytes=8 * GB), 105_120
    assert 1.14 * GB < training_bytes(341_280) < 2 * GB  # what was measured, and some more
    eight.require(training_bytes(10 * year), "training")
    with pytest.raises(ConfigError, match="training on 30 years of minutes needs"):
        eight.require(training_bytes(150 * year), "training on 30 years of minutes")
