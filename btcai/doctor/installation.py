"""The environment that btcai runs in: Python, packages, the machine's room, the clock, telemetry."""

import importlib.metadata
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from btcai import paths
from btcai.doctor.findings import Finding, error, ok, warning
from btcai.environment import TELEMETRY_OFF
from btcai.machine import Machine, machine
from btcai.records import lineage

PYTHON = (3, 11)
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*(?:; extra == [\"'](?P<extra>[\w-]+)[\"'])?$")
EXTRAS = ("train", "report", "operate")
"""What a whole installation has; `scale`, `bench` and `dev` are for what they are named after."""
ROOM_BYTES, LITTLE_ROOM_BYTES = 200_000_000, 2_000_000_000
"""A run of the pipeline takes about 200 MB; a month of daily ones a few GB."""
MEMORY_BYTES = 4_000_000_000
"""Training takes 3 GB at most, the system the rest."""
BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""Before this, a clock is wrong: nothing of this project is older."""


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    """The version that the locked packages are for."""
    said = ".".join(map(str, version))
    if version[:2] == PYTHON:
        yield ok("Python", said)
    else:
        yield error("Python", f"must be 3.11, is {said}", "install Python 3.11, then: rm -r .venv && make setup")


def pinned(root: Path) -> dict[str, str]:
    """Names and versions of requirements.lock and constraints.txt; empty where neither is there."""
    files = [root / lineage.LOCK, root / "constraints.txt"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    return {_normal(found["name"]): found["version"] for found in PIN.finditer(text)}


def installed() -> dict[str, str]:
    """Names and versions of what can be imported here."""
    found = ((dist.metadata["Name"], dist.version) for dist in importlib.metadata.distributions())
    return {_normal(name): version for name, version in found if name}


def packages(pins: Mapping[str, str], here: Mapping[str, str]) -> Iterator[Finding]:
    """What is installed is what is locked; a local build (2.13.0+cpu) is its version's."""
    if not pins:
        yield warning("packages", f"no {lineage.LOCK} to compare with", f"git checkout {lineage.LOCK} constraints.txt")
        return
    odd = [
        f"{name} {here[name]}, locked {version}"
        for name, version in sorted(pins.items())
        if name in here and here[name].partition("+")[0] != version.partition("+")[0]
    ]
    if odd:
        yield error("packages", f"{len(odd)} differ from the lock: {_some(odd)}", "make setup")
    else:
        yield ok("packages", f"{len(pins.keys() & here.keys())} are as locked")


def extras(requires: list[str], here: Mapping[str, str]) -> Iterator[Finding]:
    """What deciding needs, and each extra: whole, in part or not installed."""
    wanted: dict[str, set[str]] = {}
    for line in requires:
        if (found := REQUIREMENT.match(line)) and _normal(found["name"]) != "btcai":
            wanted.setdefault(found["extra"] or "core", set()).add(_normal(found["name"]))
    for extra in ("core", *EXTRAS):
        missing = sorted(wanted.get(extra, set()) - here.keys())
        name = f"extra {extra}" if extra != "core" else "core packages"
        if not missing:
            yield ok(name, "all there")
        elif extra == "core":
            yield error(name, f"missing: {_some(missing)}", "make setup")
        else:
            yield warning(name, f"missing: {_some(missing)}", f"make setup, or pip install -e '.[{extra}]'")


def requirements() -> list[str]:
    """btcai's own, with its extras; empty where it is not installed."""
    try:
        return importlib.metadata.requires("btcai") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def disk(root: Path, free_bytes: int | None = None) -> Iterator[Finding]:
    """Room for a run, and for the next ones."""
    free = shutil.disk_usage(root).free if free_bytes is None else free_bytes
    said = f"{free / 1e9:.1f} GB free"
    if free >= LITTLE_ROOM_BYTES:
        yield ok("disk", said)
    else:
        look = error if free < ROOM_BYTES else warning
        yield look("disk", said, "free the disk; what old runs take: btcai registry gc --dry-run")


def memory(found: Machine | None = None) -> Iterator[Finding]:
    """What this process may use, of the machine or of its container's limit."""
    found = found or machine()
    said = f"{found.memory_bytes / 1e9:.1f} GB, {found.cores} cores"
    if found.memory_bytes >= MEMORY_BYTES:
        yield ok("memory", said)
    else:
        yield warning("memory", f"{said}; training takes up to 3 GB", "give it 4 GB; deciding and serving take less")


def clock(root: Path, now_unix_s: float | None = None) -> Iterator[Finding]:
    """Not before the newest bar that is on disk, nor before there was this project."""
    now = time.time() if now_unix_s is None else now_unix_s
    newest = _newest_close_unix_s(root)
    said, remedy = (
        f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "set the clock: timedatectl set-ntp true",
    )
    if now < BUILT.timestamp():
        yield error("clock", f"{said} is before this project was made", remedy)
    elif newest is not None and now < newest:
        last = f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d %H:%M}"
        yield error("clock", f"{said} is before the newest bar's close, {last} UTC", remedy)
    else:
        yield ok("clock", said)


def _newest_close_unix_s(root: Path) -> float | None:
    import numpy as np

    path = root / paths.FEATURES / "close_ts_ns.npy"
    if not path.is_file():
        return None
    try:
        closes = np.load(path, mmap_mode="r", allow_pickle=False)
        return float(closes[-1]) / 1e9
    except (ValueError, IndexError) as failure:
        raise OSError(f"{path} cannot be read ({failure}); make it again: btcai stage features") from failure


def telemetry(root: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """No dependency reports its use, in this process or in tools started by hand here."""
    wrong = [name for name, value in TELEMETRY_OFF.items() if environment.get(name) != value]
    config = root / ".dvc" / "config"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    if config.is_file() and not re.search(r"^\s*analytics\s*=\s*false\s*$", text, re.MULTILINE):
        yield error("telemetry", f"{config.relative_to(root)} does not turn it off", "dvc config core.analytics false")
    elif wrong:
        yield error("telemetry", f"on for: {_some(wrong)}", "start it as `btcai` or through make, which turn it off")
    else:
        yield ok("telemetry", "off")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
