"""The flow for real, in a project of its own: killed in a stage, a stage killed for memory, no network, two at once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from scratch_checkout import checkout

from btcai.dvc_locks import RWLOCK
from btcai.environment import child_environment

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = Path(__file__).resolve().parents[1] / "offline"

pytestmark = pytest.mark.slow

RUN = """
import os, sys
from pathlib import Path
from btcai import logs
from btcai.errors import BtcaiError
logs.setup(None, None)
from flows import settings
root = Path.cwd()
settings.apply(root)
from flows import news, pipeline
pipeline.prepare = lambda root: None  # these stages use no bars
pipeline.publish = lambda *arguments: None
try:
    print(pipeline.run(root))
except BtcaiError as error:
    sys.exit(f"error: {error}")
"""

COUNTING = """
import hashlib, sys, time
from pathlib import Path
from btcai.files import whole
kept = Path("checkpoint")
done = int(kept.read_text()) if kept.is_file() else 0
print(f"begins after {done}", flush=True)
digest = hashlib.sha256(b"".join(str(n).encode() for n in range(done)))
with whole(Path("out")) as draft:
    for number in range(done, 20):
        (draft / f"{number}").write_text("half")
        time.sleep(float(Path("pause").read_text()))
        digest.update(str(number).encode())
        kept.write_text(str(number + 1))
        print(f"count {number}", flush=True)
    for half in draft.iterdir():
        half.unlink()
    (draft / "digest").write_text(digest.hexdigest())
kept.unlink()
"""


def make_project(root: Path) -> None:
    """Two stages: one that is quick, one that counts to twenty and remembers how far it came."""
    checkout(root)
    (root / "count.py").write_text(COUNTING, encoding="utf-8")
    (root / "pause").write_text("0", encoding="utf-8")
    stages = {
        "quick": {"cmd": "echo 1 > quick", "outs": ["quick"]},
        "count": {"cmd": f"{sys.executable} count.py", "deps": ["quick", "count.py"], "outs": ["out"]},
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")


def environment(root: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in child_environment().items() if not name.startswith("PREFECT_")}
    path = [str(OFFLINE), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])]
    return kept | {
        "DVC_SITE_CACHE_DIR": str(root.parent / "site"),
        "PYTHONPATH": os.pathsep.join(path),
        "OFFLINE_NOTES": str(root.parent / "asked"),
        **more,
    }


def start(root: Path, **more: str) -> "subprocess.Popen[str]":
    """The flow, as `btcai run` runs it; without a network, like everything here."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=root, env=environment(root, **more),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(flow: "subprocess.Popen[str]") -> str:
    said, _ = flow.communicate(timeout=120)
    return said


def left(root: Path) -> list[str]:
    """Processes that work in the project, by what they run; Prefect's own server is not in its folder's business."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or [])
        if process.info["cwd"] == str(root) and ("count.py" in words or "dvc" in words or "flows.guard" in words):
            found.append(words)
    return found


def wait(ask: Callable[[], bool], limit_s: float = 40.0) -> None:
    give_up_at = time.monotonic() + limit_s
    while not ask():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def counted(root: Path) -> int:
    try:
        return int((root / "checkpoint").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


def results(root: Path) -> tuple[str, str]:
    return (root / "out" / "digest").read_text(encoding="utf-8"), (root / "dvc.lock").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which a run has ended that nobody disturbed."""
    root = tmp_path_factory.mktemp("done") / "project"
    make_project(root)
    said = finished(start(root))
    assert "'count': 'ran'" in said, said
    return root


@pytest.fixture
def undisturbed(done: Path) -> tuple[str, str]:
    """What that run left."""
    return results(done)


@pytest.fixture
def project(done: Path, tmp_path: Path) -> Path:
    """The same before it ran, with an older output; it now counts slowly enough to be killed."""
    root = tmp_path / "project"
    shutil.copytree(done, root)
    (root / "out" / "digest").write_text("older", encoding="utf-8")
    for name in ("dvc.lock", "quick"):
        (root / name).unlink()
    shutil.rmtree(root / ".dvc" / "cache" / "runs")  # or DVC would know the result
    shutil.rmtree(root / ".prefect", ignore_errors=True)
    (root / "pause").write_text("0.3", encoding="utf-8")
    return root


def test_a_flow_killed_in_a_stage_leaves_no_process_and_the_next_goes_on_to_the_same_dvc_lock(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    flow = start(project)
    wait(lambda: counted(project) >= 3)
    flow.kill()
    flow.communicate()
    wait(lambda: left(project) == [])
    reached = counted(project)
    assert 3 <= reached < 20
    (project / "pause").write_text("0", encoding="utf-8")
    said = finished(start(project))
    assert f"begins after {reached}" in said
    assert results(project) == undisturbed
    assert sorted(path.name for path in project.iterdir() if path.name.startswith(".out")) == []


def test_everything_killed_at_once_leaves_a_lock_that_the_next_run_gets_over(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    flow = start(project)
    wait(lambda: counted(project) >= 3)
    for process in (*psutil.Process(flow.pid).children(recursive=True), psutil.Process(flow.pid)):
        process.send_signal(signal.SIGKILL)
    flow.communicate()
    held = (project / RWLOCK).read_text(encoding="utf-8")
    assert "count" in held
    (project / RWLOCK).write_text(held[: len(held) // 2], encoding="utf-8")  # a kill while it was written
    (project / "pause").write_text("0", encoding="utf-8")
    said = finished(start(project))
    assert "was torn: a DVC was killed while it wrote it" in said
    assert results(project) == undisturbed


def test_a_stage_killed_for_memory_is_told_and_the_next_run_goes_on(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    flow = start(project)
    wait(lambda: counted(project) >= 3)
    (counting,) = [
        process for process in psutil.Process(flow.pid).children(recursive=True)
        if process.cmdline()[-1:] == ["count.py"]
    ]  # fmt: skip
    counting.send_signal(signal.SIGKILL)  # as the kernel does
    said = finished(flow)
    assert flow.returncode == 1
    assert "error: stage count failed: killed, likely out of memory (dmesg tells)" in said
    (project / "pause").write_text("0", encoding="utf-8")
    finished(start(project))
    assert results(project) == undisturbed


def test_two_flows_at_once(project: Path, undisturbed: tuple[str, str]) -> None:
    flow = start(project)
    wait(lambda: counted(project) >= 1)
    other = start(project)
    said = finished(other)
    assert other.returncode == 1
    assert f"error: only one run may write to {project}, and there is one: btcai run, process {flow.pid}" in said
    (project / "pause").write_text("0", encoding="utf-8")
    finished(flow)
    assert flow.returncode == 0
    assert results(project) == undisturbed
    assert not (project.parent / "asked").exists()  # no network was asked for by any of all this
