"""The flow for real, in a project of its own: killed in a stage, a stage killed for memory, no network, two at once."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from scratch_checkout import checkout

from btcai.environment import child_environment
from btcai.operation import processes
from btcai.operation.dvc_locks import RWLOCK

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = Path(__file__).resolve().parents[1] / "offline"

pytestmark = pytest.mark.slow

RUN = """
import os, sys
from pathlib import Path
from btcai.logs import handlers
from btcai.errors import BtcaiError
handlers.setup(None, None)
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
from btcai.operation import run_lock
from btcai.errors import BtcaiError
from btcai.files import whole
kept = Path("checkpoint")
done = int(kept.read_text()) if kept.is_file() else 0
print(f"begins after {done}", flush=True)
digest = hashlib.sha256(b"".join(str(n).encode() for n in range(done)))
held = run_lock.alone(Path.cwd(), "btcai stage count")  # as the command does
try:
    held.__enter__()
except BtcaiError as error:
    sys.exit(f"error: {error}")
with whole(Path("out")) as draft:
    for number in range(done, 20):
        (draft / f"{number}").write_text("half")
        while number >= int(Path("until").read_text()):
            Path("waits").touch()
            time.sleep(0.02)
        digest.update(str(number).encode())
        Path("checkpoint.new").write_text(str(number + 1))
        Path("checkpoint.new").replace(kept)
        print(f"count {number}", flush=True)
    for half in draft.iterdir():
        half.unlink()
    (draft / "digest").write_text(digest.hexdigest())
kept.unlink()
held.__exit__(None, None, None)
"""


def count_until(root: Path, number: int) -> None:
    """There the stage waits, and leaves the file `waits`."""
    (root / "until.new").write_text(f"{number}", encoding="utf-8")
    (root / "until.new").replace(root / "until")


def go_on(root: Path) -> None:
    """To the end."""
    count_until(root, 20)


def make_project(root: Path) -> None:
    """Two stages: one that is quick, one that counts to twenty and remembers how far it came."""
    checkout(root)
    (root / "count.py").write_text(COUNTING, encoding="utf-8")
    go_on(root)
    stages = {
        "quick": {"cmd": "echo 1 > quick", "outs": ["quick"]},
        "count": {"cmd": f"{shlex.quote(sys.executable)} count.py", "deps": ["quick", "count.py"], "outs": ["out"]},
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
    said, _ = flow.communicate(timeout=600)
    return said


def at_work(root: Path) -> list[psutil.Process]:
    """Processes whose folder is the project's."""
    return [one for one in psutil.process_iter(["cmdline", "cwd"]) if one.info["cwd"] == str(root)]


def left(root: Path) -> list[str]:
    """Those of stages, by what they run; Prefect's own server is not in its folder's business."""
    found = [" ".join(process.info["cmdline"] or []) for process in at_work(root)]
    return [words for words in found if "count.py" in words or "dvc" in words or "flows.guard" in words]


def wait(ask: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 400.0
    while not ask():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def wait_for_the_stage(root: Path) -> None:
    """Until it has counted as far as it is to, and waits."""
    wait((root / "waits").is_file)


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
def project(done: Path, tmp_path: Path) -> Iterator[Path]:
    """The same before it ran, with an older output; it now counts to three and waits."""
    root = tmp_path / "project"
    shutil.copytree(done, root)
    (root / "out" / "digest").write_text("older", encoding="utf-8")
    for name in ("dvc.lock", "quick"):
        (root / name).unlink()
    shutil.rmtree(root / ".dvc" / "cache" / "runs")  # or DVC would know the result
    count_until(root, 3)
    yield root
    processes.send(at_work(root), signal.SIGKILL)


def test_a_flow_killed_in_a_stage_leaves_no_process_and_the_next_goes_on_to_the_same_dvc_lock(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    flow = start(project)
    wait_for_the_stage(project)
    flow.kill()
    flow.communicate()
    wait(lambda: left(project) == [])
    go_on(project)
    said = finished(start(project))
    assert "begins after 3\n" in said
    assert results(project) == undisturbed
    assert sorted(path.name for path in project.iterdir() if path.name.startswith(".out")) == []


def test_everything_killed_at_once_leaves_a_lock_that_the_next_run_gets_over(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    flow = start(project)
    wait_for_the_stage(project)
    everything = (psutil.Process(flow.pid), *psutil.Process(flow.pid).children(recursive=True))
    for sign in (signal.SIGSTOP, signal.SIGKILL):  # or who is left would tidy up
        processes.send(everything, sign)
    flow.communicate()
    held = (project / RWLOCK).read_text(encoding="utf-8")
    assert "count" in held
    (project / RWLOCK).write_text(held[: len(held) // 2], encoding="utf-8")  # a kill while it was written
    go_on(project)
    said = finished(start(project))
    assert "was torn: a DVC was killed while it wrote it" in said
    assert results(project) == undisturbed


def test_a_stage_killed_for_memory_is_told_and_the_next_run_goes_on(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    flow = start(project)
    wait_for_the_stage(project)
    (counting,) = [
        process for process in psutil.Process(flow.pid).children(recursive=True)
        if process.cmdline()[-1:] == ["count.py"]
    ]  # fmt: skip
    counting.send_signal(signal.SIGKILL)  # as the kernel does
    said = finished(flow)
    assert flow.returncode == 1
    assert "error: stage count failed: killed, likely out of memory (dmesg tells)" in said
    go_on(project)
    finished(start(project))
    assert results(project) == undisturbed


def test_two_flows_at_once(project: Path, undisturbed: tuple[str, str]) -> None:
    flow = start(project)
    wait_for_the_stage(project)
    other = start(project)
    said = finished(other)
    assert other.returncode == 1
    assert f"error: only one command may write to {project}, and there is one: btcai run, process {flow.pid}" in said
    go_on(project)
    finished(flow)
    assert flow.returncode == 0
    assert results(project) == undisturbed
    assert not (project.parent / "asked").exists()  # no network was asked for by any of all this


def repro(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    """`dvc repro` in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", *arguments], cwd=root, env=environment(root),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_dvc_repro_beside_a_run_is_refused_and_the_run_ends_as_if_alone(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    flow = start(project)
    wait_for_the_stage(project)
    same = repro(project)
    said = finished(same)
    assert same.returncode != 0
    assert "is busy, it is being blocked by" in said  # DVC's own words: its stage works on these files
    go_on(project)
    finished(flow)
    assert flow.returncode == 0
    assert results(project) == undisturbed


def test_a_run_beside_dvc_repro_is_refused_by_the_stage_at_work(project: Path, undisturbed: tuple[str, str]) -> None:
    by_hand = repro(project)
    wait_for_the_stage(project)
    flow = start(project)
    said = finished(flow)
    assert flow.returncode == 1
    assert "there is one: btcai stage count, process " in said
    go_on(project)
    finished(by_hand)
    assert by_hand.returncode == 0
    assert results(project) == undisturbed


def test_a_stage_that_the_run_does_not_work_on_is_refused_under_dvc_repro_by_name_of_the_run(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    stages = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))
    stages["stages"]["other"] = {"cmd": f"{shlex.quote(sys.executable)} count.py", "outs": ["elsewhere"]}
    flow = start(project)
    wait_for_the_stage(project)
    (project / "dvc.yaml").write_text(yaml.safe_dump(stages), encoding="utf-8")
    other = repro(project, "-s", "other")
    said = finished(other)
    assert other.returncode != 0
    assert f"error: only one command may write to {project}, and there is one: btcai run, process {flow.pid}" in said
    go_on(project)
    finished(flow)
    assert results(project) == undisturbed


def test_a_dvc_command_that_holds_dvcs_lock_is_waited_for(project: Path, undisturbed: tuple[str, str]) -> None:
    from zc.lockfile import LockFile

    go_on(project)
    lock = LockFile(str(project / ".dvc" / "tmp" / "lock"))
    flow = start(project)
    wait(lambda: any("dvc" in words and "repro" in words for words in left(project)))
    time.sleep(6.0)  # DVC alone gives up after 3 s
    assert flow.poll() is None
    lock.close()
    finished(flow)
    assert results(project) == undisturbed


def test_a_stage_left_by_a_killed_run_keeps_the_next_out_until_it_ends(
    project: Path, undisturbed: tuple[str, str]
) -> None:
    flow = start(project)
    wait_for_the_stage(project)
    children = psutil.Process(flow.pid).children(recursive=True)
    (counting,) = [process for process in children if process.cmdline()[-1:] == ["count.py"]]
    for sign in (signal.SIGSTOP, signal.SIGKILL):  # all at once, the guard too: it would end the stage
        processes.send((psutil.Process(flow.pid), *(one for one in children if one != counting)), sign)
    flow.communicate()
    early = start(project)
    said = finished(early)
    assert early.returncode == 1
    assert f"a stage of a killed run still works in {project}: process {counting.pid} (" in said
    counting.send_signal(signal.SIGKILL)
    go_on(project)
    finished(start(project))
    assert results(project) == undisturbed
