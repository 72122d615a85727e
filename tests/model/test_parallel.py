"""Two processes that train one network: the joined batch's gradients, one process's bits, one stop for both."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parallel_run import gradients, trained
from safetensors.torch import load_file
from small_project import small_project
from torch import Tensor

from btcai import outputs, paths, stages
from btcai.agent.shards import place
from btcai.errors import ConfigError
from btcai.experiments.spread import packed
from btcai.machine import Machine
from btcai.params import load_config
from btcai.paths import WEIGHTS
from btcai.schema import BUCKETS
from btcai.training import parallel

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "parallel_run.py"
SECONDS = 600
"""A hang takes longer."""


def torchrun(*program: str, root: Path | None = None) -> None:
    """Two processes of a program."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, "--master-port", str(port), *program],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def together(what: str, folder: Path) -> list[dict[str, Tensor]]:
    """Two processes of PROGRAM; what each left."""
    folder.mkdir(parents=True, exist_ok=True)
    torchrun(str(PROGRAM), what, str(folder))
    return [load_file(path) for path in sorted(folder.glob("rank-*.safetensors"))]


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_the_joined_batch(tmp_path: Path) -> None:
    first, second = together("gradients", tmp_path)
    torch.set_num_threads(1)
    expected = gradients()
    assert first.keys() == second.keys() == expected.keys()
    for name, wanted in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], wanted, rtol=0, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-2


@pytest.mark.slow
def test_two_processes_train_to_the_bits_of_one_and_stop_together(tmp_path: Path) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    alone.mkdir()
    trained(alone)
    assert together("stop", both) == []
    assert sorted(path.name for path in both.glob("stopped-*")) == ["stopped-0", "stopped-1"]
    told = {path.read_text(encoding="utf-8") for path in both.glob("stopped-*")}
    assert len(told) == 1
    assert "after update 2 of 4" in told.pop()
    assert not (both / "trained").exists()
    first, second = together("train", both)  # goes on from there
    wanted = load_file(alone / "trained" / WEIGHTS)
    for name, weight in wanted.items():
        assert torch.equal(weight, first[name]), name
        assert torch.equal(weight, second[name]), name
    written = {path.name: path.read_bytes() for path in (both / "trained").iterdir()}
    assert written == {path.name: path.read_bytes() for path in (alone / "trained").iterdir()}


@pytest.mark.slow
def test_the_stage_consolidate_in_two_processes_writes_the_bytes_of_one(tmp_path: Path) -> None:
    root = tmp_path / "project"
    config, out = small_project(root, 27_200), root / paths.CONSOLIDATE
    stages.run_stage("consolidate", config, root)
    alone = packed(out.rename(tmp_path / "alone"))
    torchrun("-m", "btcai.cli", "stage", "consolidate", root=root)
    assert packed(out) == alone
    assert not (root / paths.CHECKPOINTS / "consolidate").exists()
    metrics = [json.loads((out / bucket / "metrics.json").read_text(encoding="utf-8")) for bucket in BUCKETS]
    assert sum(found["rounds_kept"] for found in metrics) > 0


def test_a_process_alone_needs_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.joined("cuda"), parallel.written_once(tmp_path / "out") as out:
        assert place() == (0, 1)
        (out / "kept").touch()
    assert (tmp_path / "out" / "kept").exists()
    assert [parallel.any_of(asked) for asked in (True, False)] == [True, False]
    assert [parallel.of_first(content) for content in (b"x", None)] == [b"x", None]
    parallel.require_same(b"whatever")


def test_more_processes_than_shards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="must be 1 or 2, one for each shard of a minibatch, were 3"):
        with parallel.joined("cpu"):
            pass


@pytest.mark.parametrize("name", [name for name in stages.STAGES if name not in stages.TOGETHER])
def test_a_stage_that_is_not_shared_is_run_by_one_process_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=f"{name} was started in 2 processes, .*; run: btcai stage {name}"):
        stages.run_stage(name, load_config(ROOT / paths.PARAMS), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", stages.TOGETHER)
def test_two_processes_need_the_memory_of_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr(outputs, "load_features", lambda root: (range(1_000_000), None, None))
    small = Machine(cores=2, memory_bytes=2 * 10**9)  # enough for one: 1 GB and 700 bytes a bar
    monkeypatch.setattr("btcai.machine.machine", lambda: small)
    for variable in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(variable, "2")
    with pytest.raises(ConfigError, match=r"on 1,000,000 bars in 2 processes needs 3\.4 GB.*gives 2\.0 GB"):
        stages.run_stage(name, load_config(ROOT / paths.PARAMS), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_gpu_for_each_process_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="there are 1 for 2"), parallel.joined("cuda"):
        pass
