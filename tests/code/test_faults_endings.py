"""Who was killed, and whose memory ran out, is told in a line that says what to do; nothing half-written is left."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import pytest
import yaml

from btcai import cli, paths
from btcai.environment import child_environment
from btcai.operation import endings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "killed, likely out of memory (dmesg tells)"),
        (137, "killed, likely out of memory (dmesg tells)"),
        (-6, "aborted, as a library does that gets no memory"),
        (-signal.SIGTERM, "ended by SIGTERM"),
        (139, "ended by SIGSEGV"),
    ],
)
def test_an_exit_code_of_who_was_killed_says_by_what(code: int, words: str) -> None:
    told = endings.killed(code)
    assert told is not None
    assert told.startswith(words)


@pytest.mark.parametrize("code", [0, 1, 2, 127, 128, 255])
def test_who_ended_by_itself_was_not_killed(code: int) -> None:
    assert endings.killed(code) is None


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("Failed to allocate memory for requested buffer of size 8"), True),
        (RuntimeError("CUDA error"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_whose_error_is_of_memory(error: Exception, full: bool) -> None:
    assert endings.out_of_memory(error) is full


class Deaf:
    """Where an interrupt is raised that Python drops."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_python_drops_is_heard_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[object] = []
    gc.collect()  # what other tests left
    monkeypatch.setattr(sys, "unraisablehook", others.append)
    before = sys.unraisablehook

    def command() -> None:
        with endings.lost_interrupts_repeated():
            Deaf()
            threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        command()
    assert (others, sys.unraisablehook) == ([], before)


def test_another_error_that_python_drops_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[type[BaseException]] = []
    gc.collect()
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: others.append(lost.exc_type))

    class Failing:
        def __del__(self) -> None:
            raise ValueError

    with endings.lost_interrupts_repeated():
        Failing()
    assert others == [ValueError]


def test_torch_says_it_as_is_thought() -> None:
    import torch

    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert endings.out_of_memory(found.value)


def test_a_full_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise MemoryError("Unable to allocate 36.0 GiB for an array with shape (9, 9)")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: out of memory: Unable to allocate 36.0 GiB for an array with shape (9, 9); what was not finished is as "
        "it was; give this machine or its container more memory, or use fewer bars, then run it again\n"
    )


def test_an_error_that_is_not_of_memory_is_a_bug_and_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


@pytest.mark.filterwarnings("ignore")  # Prefect warns of its own deprecations
@pytest.mark.slow
def test_the_flow_tells_a_stage_that_was_killed_from_one_that_failed() -> None:
    from flows.pipeline import reason

    dvc = "ERROR: failed to reproduce 'features': failed to run: btcai stage features, exited with {}"
    killed = reason(deque(["at work", dvc.format(-9)]), 255)
    assert killed.startswith("killed, likely out of memory")
    assert reason(deque(["at work", dvc.format(137)]), 255) == killed
    assert reason(deque(["error: a rule", dvc.format(1)]), 255) == "a rule"
    assert reason(deque(["at work", dvc.format(1)]), 255) == dvc.format(1).removeprefix("ERROR: ")
    assert reason(deque(), 7) == "exit code 7"


LIMITED = """
import resource, sys
from btcai import cli, stages
from btcai.data import store
from btcai.features import pipeline, scaling, splits, store as features
import numpy, pyarrow.parquet, numba, pandas, typer, rich
from btcai.logs import files as log_files
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[1]) * 2**20,) * 2)
sys.argv = ["btcai", "stage", "features"]
cli.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much is held")
@pytest.mark.parametrize("room_mb", [48, 160])
def test_a_stage_whose_memory_runs_out_ends_with_one_line_and_leaves_its_last_output(
    tmp_path: Path, room_mb: int
) -> None:
    from btcai.data.store import write_market
    from btcai.simulator.bars import simulate_bars

    settings = yaml.safe_load((ROOT / paths.PARAMS).read_text(encoding="utf-8"))
    settings["data"]["market"] = "simulated"
    (tmp_path / paths.PARAMS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    write_market(tmp_path / paths.DATA, "simulated", simulate_bars(150_000, seed=3))
    (tmp_path / paths.FEATURES).mkdir(parents=True)
    (tmp_path / paths.FEATURES / "meta.json").write_text("older", encoding="utf-8")
    script = [sys.executable, "-c", LIMITED, str(room_mb)]
    environment = child_environment() | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "BTCAI_LOG_LEVEL": "ERROR"}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert [path.name for path in (tmp_path / paths.FEATURES).iterdir()] == ["meta.json"]
    if done.returncode == 1:
        (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "out of memory" in error
        assert "Traceback" not in done.stderr
        assert os.listdir(tmp_path / "artifacts") == ["features"]
    else:  # a library in C++ that gets none aborts, and the flow says so
        assert done.returncode == -signal.SIGABRT, done.stderr
        assert "gets no memory" in (endings.killed(done.returncode) or "")
    script[-1] = "4000"
    again = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / paths.FEATURES / "features.npy").is_file()
    assert os.listdir(tmp_path / "artifacts") == ["features"]
