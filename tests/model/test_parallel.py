"""Two processes that train one network: the joined batch's gradients, one process's bits, one stop for both."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parallel_run import gradients, trained
from safetensors.torch import load_file
from torch import Tensor

from btcai.agent.shards import place
from btcai.errors import ConfigError
from btcai.training import parallel
from btcai.training.checkpoint import WEIGHTS

PROGRAM = Path(__file__).parents[1] / "parallel_run.py"
SECONDS = 120


def together(what: str, folder: Path) -> list[dict[str, Tensor]]:
    """Two processes of PROGRAM under torchrun; what each left."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, "--master-port", str(port), str(PROGRAM), what, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
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


def test_a_machine_without_a_gpu_for_each_process_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="there are 1 for 2"), parallel.joined("cuda"):
        pass
