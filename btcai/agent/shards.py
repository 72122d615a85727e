"""Work on the stretches of an update in shards, a thread each: the same bits whatever the number of threads.

Where processes train one network together (training/parallel.py) each computes the gradients of its own shards, and
the sums over shards are sums over processes: the same bits again. All else every process does for itself.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

SHARDS = 2
"""Equal parts of every minibatch. Their results are added in this order, so threads change nothing but the time."""

In = TypeVar("In")
Out = TypeVar("Out")

Part = Callable[[], tuple[Tensor, Tensor]]
"""Mean loss of one shard, and figures to report, without gradients."""


class Shards:
    """Threads that each compute on one core."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def map(self, function: Callable[[In], Out], parts: Iterable[In]) -> list[Out]:
        """The function of every part, in their order."""
        return list(self._pool.map(function, parts))

    def gradients(self, parameters: Sequence[nn.Parameter], parts: Sequence[Part]) -> Tensor:
        """Set .grad to the mean over parts, None where no part depends on a parameter; returns the mean figures."""

        def one(part: Part) -> list[Tensor | None]:
            loss, figures = part()
            return [figures, *torch.autograd.grad(loss, parameters, allow_unused=True)]

        figures, *found = self.sums(one, parts, parameters)
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = None if gradient is None else gradient.div_(len(parts))
        assert figures is not None
        return figures / len(parts)

    def sums(
        self, function: Callable[[In], Sequence[Tensor | None]], parts: Sequence[In], like: Sequence[Tensor] = ()
    ) -> list[Tensor | None]:
        """What the function gives of each part, added in their order; None where no part gives anything.

        Each process works on its share of the parts. like: tensors with the shapes of the last sums, where a part may
        give None.
        """
        rank, processes = place()
        share = len(parts) // processes
        found = self.map(function, parts[rank * share : (rank + 1) * share])
        sums = [_added(given) for given in zip(*found, strict=True)]
        return sums if processes == 1 else _over_processes(sums, like)


@contextmanager
def shards(threads: int = SHARDS) -> Iterator[Shards]:
    """For the time of a `with`; more threads than SHARDS are of no use."""
    with ThreadPoolExecutor(min(threads, SHARDS), initializer=_one_core) as pool:
        yield Shards(pool)


def place() -> tuple[int, int]:
    """This process's number among those that train together, from 0, and how many they are."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def _added(given: Sequence[Tensor | None]) -> Tensor | None:
    known = [one for one in given if one is not None]
    return sum(known[1:], start=known[0]) if known else None


def _over_processes(sums: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """The sums of all processes, added: in double precision, whose rounding to single is that of the single sum."""
    given = torch.tensor([0.0 if one is None else 1.0 for one in sums])
    dist.all_reduce(given)
    full = [torch.zeros_like(like[k - len(sums)]) if one is None else one for k, one in enumerate(sums)]
    for device in dict.fromkeys(one.device for one in full):
        here = [k for k, one in enumerate(full) if one.device == device]
        flat = torch.cat([full[k].flatten().double() for k in here])
        dist.all_reduce(flat)
        for k, added in zip(here, flat.split_with_sizes([full[k].numel() for k in here]), strict=True):
            full[k] = added.view_as(full[k]).to(full[k].dtype)
    return [one if count else None for one, count in zip(full, given.tolist(), strict=True)]


def _one_core() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
