"""Processes that train one network together, as torchrun starts them: each has its share of every minibatch.

    torchrun --standalone --nproc-per-node 2 -m btcai.cli stage train@scalping

They add up the gradients of their shards (agent/shards.py) and do all else alike, from the same seeds, so that their
weights stay equal and are the bits of one process. The first one reads and writes checkpoints and results; a stop that
any was asked for is one for all.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist

from btcai.agent.shards import SHARDS, place
from btcai.errors import ConfigError
from btcai.files import whole
from btcai.training.health import TrainingError

logger = logging.getLogger(__name__)


@contextmanager
def joined(device: str) -> Iterator[None]:
    """For the time of a `with` this process is one of those that torchrun started; alone where it started none.

    device: cpu (gloo), or cuda (nccl for what is on GPUs, one for each process). ConfigError where a minibatch has no
    shard for each, or the machine no GPU.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield
        return
    if SHARDS % processes:
        raise ConfigError(
            f"processes that train one network must be 1 or {SHARDS}, one for each shard of a minibatch, were "
            f"{processes}; start: torchrun --nproc-per-node {SHARDS}"
        )
    dist.init_process_group(_backend(device))
    logger.info("training as process %d of %d", dist.get_rank() + 1, processes)
    try:
        yield
        dist.barrier()  # what the first one wrote is in place before any goes on
    finally:
        dist.destroy_process_group()


def _backend(device: str) -> str:
    if device != "cuda":
        return "gloo"
    wanted, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if wanted > there:
        raise ConfigError(
            f"device cuda needs a GPU for each process of a machine, there are {there} for {wanted}; start fewer, or "
            "set device: cpu in params.yaml"
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return "cpu:gloo,cuda:nccl"


@contextmanager
def written_once(folder: Path) -> Iterator[Path]:
    """An empty draft of `folder`, as files.whole has it; what processes beside the first write is thrown away."""
    if place()[0] == 0:
        with whole(folder) as draft:
            yield draft
    else:
        with TemporaryDirectory(prefix="btcai-") as aside:
            yield Path(aside)


def any_of(asked: bool) -> bool:
    """Whether it is so in any process; all of them must ask at the same point."""
    if place()[1] == 1:
        return asked
    flag = torch.tensor([int(asked)])
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


def of_first(content: bytes | None) -> bytes | None:
    """What the first process has, in all of them."""
    if place()[1] == 1:
        return content
    size = torch.tensor([-1 if content is None else len(content)])
    dist.broadcast(size, 0)
    if size.item() < 0:
        return None
    held = torch.empty(int(size.item()), dtype=torch.uint8)
    if content is not None and place()[0] == 0:
        held = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    dist.broadcast(held, 0)
    return held.numpy().tobytes()


def require_same(state: bytes) -> None:
    """TrainingError where processes have come to hold different states: all of them raise it."""
    rank, processes = place()
    if processes == 1:
        return
    mine = torch.tensor([int.from_bytes(hashlib.sha256(state).digest()[:7], "big")])
    found = [torch.empty_like(mine) for _ in range(processes)]
    dist.all_gather(found, mine)
    if len({one.item() for one in found}) > 1:
        raise TrainingError(
            f"processes that train together must hold the same state, process {rank + 1} of {processes} differs from "
            "another; run them on machines of one kind, with the same code, settings and data, or train in one process"
        )
