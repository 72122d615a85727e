"""Work on the stretches of an update in shards, a thread each: the same bits whatever the number of threads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
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

        def one(part: Part) -> tuple[tuple[Tensor | None, ...], Tensor]:
            loss, figures = part()
            return torch.autograd.grad(loss, parameters, allow_unused=True), figures

        found = self.map(one, parts)
        for parameter, *gradients in zip(parameters, *(gradient for gradient, _ in found), strict=True):
            known = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = sum(known[1:], start=known[0]).div_(len(parts)) if known else None
        return torch.stack([figures for _, figures in found]).mean(0)


@contextmanager
def shards(threads: int = SHARDS) -> Iterator[Shards]:
    """For the time of a `with`; more threads than SHARDS are of no use."""
    with ThreadPoolExecutor(min(threads, SHARDS), initializer=_one_core) as pool:
        yield Shards(pool)


def _one_core() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
