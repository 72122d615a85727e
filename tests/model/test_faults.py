"""A registry that hangs, is damaged or has no room: a line within its time, champions stay, and it goes on after."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from disk_sweep import MODES
from export_fakes import market, newest_bars
from faults import Disk, Mode, contents, watched
from registry_fakes import project, register

from btcai import paths
from btcai.config import Config
from btcai.environment import child_environment
from btcai.errors import ArtifactError, BtcaiError
from btcai.inference.bundle import load_bundle
from btcai.inference.decision import decide
from btcai.records.champions import is_whole, read_standing
from btcai.registry import garbage, promotion, verification
from btcai.schema import BUCKETS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow warns of its own and its dependencies' deprecations
]

WRITES = 60
"""About as many as Python does in all; SQLite's own are not counted, but find no room either."""

LIMIT_S = 200.0
"""On a busy machine; MLflow asks a locked SQLite for some seconds, several times."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one run on record and its champions."""
    root = tmp_path_factory.mktemp("registered")
    register(root, project(root), 0.1)
    return root


@pytest.fixture
def registered(first: Path, tmp_path: Path) -> tuple[Path, Config]:
    """A copy of it, with better candidates that wait to be registered."""
    root = moved(first, tmp_path / "project")
    return root, project(root, weight=2.0)


def moved(source: Path, root: Path) -> Path:
    """A copy of a project; its store knows files by their absolute paths, so they are told to it anew."""
    shutil.copytree(source, root)
    with sqlite3.connect(root / paths.MLFLOW_DB) as connection:
        for (table,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            for column in connection.execute(f"pragma table_info({table})").fetchall():
                name = f'"{column[1]}"'
                change = f'update "{table}" set {name} = replace({name}, ?, ?) where instr({name}, ?)'
                connection.execute(change, (str(source), str(root), str(source)))
    connection.close()
    return root


def decides(root: Path) -> str:
    """Which model the champion's folder decides with."""
    bundle = load_bundle(root / paths.CHAMPION / "scalping")
    return decide(bundle, newest_bars(market().bars, 9000, 2400)).model_version


def in_time(root: Path, config: Config, words: str) -> None:
    """Registering ends with these words in its one line, soon."""
    began_s = time.monotonic()
    with pytest.raises(ArtifactError) as found:
        register(root, config, 0.2)
    assert time.monotonic() - began_s < LIMIT_S
    assert words in str(found.value)
    assert "then go on with: btcai run" in str(found.value)
    assert "\n" not in str(found.value)


HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin exclusive")
print("held", flush=True)
time.sleep(600)
"""


def test_a_store_that_another_process_locks_is_told_in_time_and_deciding_goes_on(
    registered: tuple[Path, Config],
) -> None:
    root, config = registered
    before = decides(root)
    command = [sys.executable, "-c", HOLD, str(root / paths.MLFLOW_DB)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        in_time(root, config, "database is locked")
        assert decides(root) == before
        holder.kill()
    report = register(root, config, 0.2)
    assert report["buckets"]["scalping"]["aliases"]["champion"] == report["buckets"]["scalping"]["version"]
    assert decides(root) != before


def test_a_tracking_server_that_never_answers_is_not_even_asked(
    registered: tuple[Path, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline writes to its own store, whatever the environment names; the server only shows it."""
    root, config = registered
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", address)
        register(root, config, 0.2)
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()


AGAIN = """
import sys
from pathlib import Path
from btcai.params import load_config
from registry_fakes import register
root = Path(sys.argv[1])
register(root, load_config(root / "params.yaml"), 0.2)
"""


@pytest.mark.parametrize("where", ["pages", "cut"])
def test_a_damaged_store_is_told_and_a_restored_one_goes_on(registered: tuple[Path, Config], where: str) -> None:
    root, config = registered
    store, before = root / paths.MLFLOW_DB, decides(root)
    whole = store.read_bytes()
    broken = bytearray(whole)
    if where == "pages":
        broken[4096:] = np.random.default_rng(1).bytes(len(whole) - 4096)
    store.write_bytes(bytes(broken if where != "cut" else broken[: len(whole) // 3]))
    with pytest.raises(ArtifactError, match=r"the registry in mlflow could not be read or written: .*btcai run"):
        register(root, config, 0.2)
    assert decides(root) == before
    assert all(is_whole(root / paths.CHAMPION / bucket) for bucket in BUCKETS)
    store.write_bytes(whole)
    again = [sys.executable, "-c", AGAIN, str(root)]  # this process's SQLite remembers pages of the damaged file
    environment = child_environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(again, env=environment, check=True, capture_output=True)
    assert decides(root) != before


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_disk_that_fills_while_it_registers(registered: tuple[Path, Config], share: float) -> None:
    """Champions are the old ones or the new ones, each whole; the next try ends where an undisturbed one does."""
    root, config = registered
    first_write = max(1, round(share * WRITES))
    old = {bucket: contents(root / paths.CHAMPION / bucket) for bucket in BUCKETS}
    with watched(Disk(root, first_write, "full")), pytest.raises((BtcaiError, OSError)) as found:
        register(root, config, 0.2)
    assert "\n" not in str(found.value)
    for bucket in BUCKETS:
        assert is_whole(root / paths.CHAMPION / bucket)
    report = register(root, config, 0.2)
    assert report["buckets"]["scalping"]["aliases"]["champion"] == report["buckets"]["scalping"]["version"]
    for bucket in BUCKETS:
        now = contents(root / paths.CHAMPION / bucket)
        assert now["encoder.onnx"] == (root / paths.CANDIDATE / bucket / "encoder.onnx").read_bytes()
        assert now != old[bucket]
    with sqlite3.connect(root / paths.MLFLOW_DB) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


def is_sound(root: Path) -> bool:
    """The store, by SQLite's own check."""
    with sqlite3.connect(root / paths.MLFLOW_DB) as connection:
        (said,) = connection.execute("pragma integrity_check").fetchone()
    connection.close()
    return bool(said == "ok")


def champion_of(root: Path) -> int | None:
    standing = read_standing(root / paths.CHAMPION / "short")
    return standing.version if standing and is_whole(root / paths.CHAMPION / "short") else None


CHANGES: dict[str, Callable[[Path], object]] = {
    "promote": lambda root: promotion.promote(root, "short", 1, "it trades less"),
    "rollback": lambda root: promotion.rollback(root, "short", "it trades less"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_disk_that_is_full_at_any_write_of_a_change_of_champion(
    registered: tuple[Path, Config], change: Callable[[Path], object]
) -> None:
    """Each fourth one, of its files, the ledger and the store: the old or the new champion is whole, the same command
    ends it.
    """
    root, config = registered
    register(root, config, 0.2)  # version 2, champion
    with watched(Disk(root)) as disk:
        change(root)
    assert champion_of(root) == 1
    told = []
    numbers = [*range(1, len(disk.writes), 4), len(disk.writes)]
    for mode, number in [(mode, number) for mode in MODES for number in numbers]:
        promotion.promote(root, "short", 2, "back")
        try:
            with watched(Disk(root, number, mode)):
                change(root)
        except (BtcaiError, OSError) as error:
            told.append(str(error))
            assert champion_of(root) in (1, 2), (mode, number)
            assert is_sound(root), (mode, number)
            change(root)
        assert champion_of(root) == 1, (mode, number)
    assert len(told) >= len(numbers) > 3
    assert all("\n" not in one for one in told)


@pytest.mark.parametrize(("number", "mode"), [(1, "refused"), (3, "full")])
def test_a_disk_that_is_full_while_old_runs_are_collected(
    registered: tuple[Path, Config], number: int, mode: Mode
) -> None:
    """Its first write, and SQLite's and those of the tools that it starts: what a champion needs is whole, and the next
    call collects what the first would have."""
    root, config = registered
    register(root, config, 0.05)
    register(root, project(root, weight=3.0), 0.03)
    wanted = {one.parent for one in garbage.collect(root, 1, dry=True).drop}
    assert wanted
    told, disk = "", Disk(root, number, mode)
    try:
        with watched(disk):
            garbage.collect(root, 1, dry=False)
    except (BtcaiError, OSError) as error:
        told = str(error)
    assert len(disk.writes) >= number, "the disk was never full"
    assert "\n" not in told
    assert is_sound(root)
    assert all(is_whole(root / paths.CHAMPION / bucket) for bucket in BUCKETS)
    garbage.collect(root, 1, dry=False)
    assert garbage.collect(root, 1, dry=True).drop == ()
    with sqlite3.connect(root / paths.MLFLOW_DB) as connection:
        left = {run for (run,) in connection.execute("select run_uuid from runs").fetchall()}
    connection.close()
    assert not wanted & left
    assert [check.said for check in verification.verify(root) if not check.ok] == []
