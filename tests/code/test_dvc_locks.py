"""A lock that a killed DVC left is told from one that is held, and keeps nobody out."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scratch_checkout import checkout, dvc

from btcai.environment import child_environment
from btcai.operation.dvc_locks import GUARD, RWLOCK, freed, stale

NOBODY = 2**22 + 1
"""Above what Linux gives."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / RWLOCK).parent.mkdir(parents=True)
    return tmp_path


def held(project: Path, pid: int, command: str) -> None:
    entry = {"pid": pid, "cmd": command}
    content = {"write": {"/p/features": entry}, "read": {"/p/data": [entry]}}
    (project / RWLOCK).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["", "{", '{"write": {"/p/a": {"pid": 12', '{"write": {"/p/a": {"cmd": "dvc"}}}', "[]"]
)
def test_a_torn_lock_is_removed_and_told(project: Path, text: str) -> None:
    (project / RWLOCK).write_text(text, encoding="utf-8")
    assert stale(project) == freed(project) == f"{RWLOCK} was torn: a DVC was killed while it wrote it"
    assert not (project / RWLOCK).exists()
    assert freed(project) is None


def test_a_lock_of_a_process_that_is_no_more_is_removed(project: Path) -> None:
    held(project, NOBODY, "dvc repro")
    assert freed(project) == f"{RWLOCK} was held by processes that have ended: {NOBODY}"
    assert not (project / RWLOCK).exists()


def test_a_process_that_was_given_the_same_id_since_is_not_the_holder(project: Path) -> None:
    held(project, os.getpid(), "/venv/dvc/__main__.py repro -s features")
    assert freed(project) == f"{RWLOCK} was held by processes that have ended: {os.getpid()}"


@pytest.mark.parametrize(
    "command",
    ["/elsewhere/a.py repro -s features", "/else where/a.py repro", "/else where/a.py"],
)
def test_a_holder_that_works_keeps_its_lock(project: Path, tmp_path: Path, command: str) -> None:
    script = tmp_path / "a.py"
    script.write_text("import time; print(1, flush=True); time.sleep(60)", encoding="utf-8")
    arguments = command.partition(".py")[2].split()
    with subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        held(project, holder.pid, command)
        assert freed(project) is None
        assert (project / RWLOCK).is_file()
        holder.kill()
    assert freed(project) is not None


def test_a_lock_that_is_being_written_is_left_alone(project: Path) -> None:
    (project / RWLOCK).write_text("{", encoding="utf-8")
    script = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(project / GUARD)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert freed(project) is None
        writer.kill()
    assert freed(project) is not None


def test_a_project_without_dvc_or_with_nothing_held_has_no_stale_lock(project: Path, tmp_path: Path) -> None:
    assert stale(tmp_path / "nowhere") is None
    assert stale(project) is None
    (project / RWLOCK).write_text('{"write": {}, "read": {}}', encoding="utf-8")
    assert freed(project) is None
    with (project / GUARD).open("a") as file:  # and the guard was let go
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.slow
def test_dvc_itself_goes_on_after_a_sigkill_in_a_stage_and_after_one_that_tore_its_lock(tmp_path: Path) -> None:
    root = tmp_path / "project"
    checkout(root)
    (root / "dvc.yaml").write_text("stages: {one: {cmd: touch begun && sleep 60, outs: [out]}}", encoding="utf-8")
    environment = child_environment() | {"DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, start_new_session=True) as killed:
        until_begun = time.monotonic() + 60
        while not (root / "begun").is_file():  # until then DVC writes its lock several times, and a kill may tear it
            assert time.monotonic() < until_begun
            time.sleep(0.05)
        assert stale(root) is None
        os.killpg(killed.pid, signal.SIGKILL)
    assert stale(root) == f"{RWLOCK} was held by processes that have ended: {killed.pid}"
    (root / "dvc.yaml").write_text("stages: {one: {cmd: echo 1 > out, outs: [out]}}", encoding="utf-8")
    whole = (root / RWLOCK).read_text(encoding="utf-8")
    held(root, os.getpid(), "dvc repro")  # as after a restart, when the id is another's
    (root / RWLOCK).write_text((root / RWLOCK).read_text().replace("/p/features", str(root / "out")), encoding="utf-8")
    refused = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode
    assert "is busy, it is being blocked by" in refused.stderr
    assert freed(root) is not None
    (root / RWLOCK).write_text(whole[: len(whole) // 2], encoding="utf-8")
    refused = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert "JSON structure is corrupted" in refused.stderr
    assert freed(root) is not None
    dvc(root, "repro")
    assert (root / "out").read_text(encoding="utf-8") == "1\n"
