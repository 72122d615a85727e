"""`btcai refit --ray` as people type it, on a cluster of two nodes: one dies in the middle, and the bytes are those of
one process."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import psutil
import pytest
from small_project import small_project

from btcai import paths, usage
from btcai.experiments.spread import Files, packed

TESTS = Path(__file__).parents[1]
SECONDS = 600
"""At most; on an idle machine it takes 30."""
REFIT = ("refit", "--groups", "3")
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "PYTHONWARNINGS": "ignore"}
"""Ray then listens on 127.0.0.1 alone, on Linux too, and looks for a cluster there."""


def started(command: list[str], environment: Mapping[str, str], **more: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, **more)


@contextmanager
def ending(running: "subprocess.Popen[str]") -> Iterator[None]:
    """It does not outlive the block."""
    try:
        yield
    finally:
        running.kill()


@contextmanager
def cluster(environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What cluster_run.py says of a cluster that ends with the block."""
    running = started([sys.executable, str(TESTS / "cluster_run.py")], environment, stdin=subprocess.PIPE)
    try:
        line = stream(running.stdout).readline()
        assert line, f"no cluster: exit status {running.wait(SECONDS)}"
        yield json.loads(line)
    finally:
        running.communicate(timeout=SECONDS)


def stream(of: IO[str] | None) -> IO[str]:
    assert of is not None
    return of


def kill_at_work(raylet: psutil.Process, running: "subprocess.Popen[str]") -> None:
    """SIGKILL a node as soon as it works on a piece."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and running.poll() is None:
        processes = raylet.children(recursive=True)
        if any(_name(one).startswith("ray::elsewhere") for one in processes):
            for one in (raylet, *processes):
                with suppress(psutil.NoSuchProcess):  # those that a dead node leaves end by themselves
                    one.kill()
            return
        time.sleep(0.05)
    raise AssertionError(f"the node had no piece in {SECONDS} s; exit status {running.poll()}")


def _name(process: psutil.Process) -> str:
    """Empty where it just ended."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra scale is not installed")
def test_folds_on_two_nodes_of_which_one_is_killed_leave_the_bytes_of_one_process(tmp_path: Path) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    for root in (here, away):
        small_project(root, 30_000)
    with TemporaryDirectory(prefix="n", dir="/tmp") as name:  # names of Ray's sockets have 107 characters at most
        environment = {**os.environ, **LOOPBACK, "RAY_AUTH_TOKEN": secrets.token_hex(), "TMPDIR": name}
        btcai = [sys.executable, "-m", "btcai.cli"]
        alone = started([*btcai, *REFIT], environment, cwd=here, stderr=subprocess.STDOUT)
        with ending(alone), cluster(environment) as nodes:
            ray = ("--ray", nodes["address"], "--workers", "2")
            running = started([*btcai, *REFIT, *ray], environment, cwd=away, stderr=subprocess.STDOUT)
            try:
                kill_at_work(psutil.Process(nodes["raylet"]), running)
                said, _ = running.communicate(timeout=SECONDS)
            finally:
                running.kill()
            told, _ = alone.communicate(timeout=SECONDS)
    assert alone.returncode == 0, told[-2000:]
    assert running.returncode == 0, said[-2000:]
    found, wanted = (files(root) for root in (away, here))
    assert found == wanted
    assert len([place for place in found if place.endswith("judged.json")]) == 2


def files(root: Path) -> Files:
    """What a refit leaves, and the ledger, without what says how long it took."""
    made = packed(root / paths.FOLDS) | packed(root / paths.TRIALS.parent)
    return {place: content for place, content in made.items() if not place.endswith(usage.FILE)}
