"""The one way this package compiles: numba, cached on disk, without the GIL, IEEE arithmetic.

numba keys its disk cache on the file of the function alone: after an edit of execution.py a cached kernel.py would go
on charging the old costs. So every function here carries the stamp of the whole folder, and any edit recompiles.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile on the first call; the Python function's signature and docstring stay."""
    return _compiled(function)


def inlined(function: Function) -> Function:
    """For the market's own steps, which allocate nothing: merged into the loop that calls them.

    Without this the nine arrays of a market are copied and counted (atomic reference counts) at every call, ten times
    the work of the step itself. _nrt=False turns the counting off; a function that allocates then fails to compile.
    """
    return _compiled(function, forceinline=True, _nrt=False)


def _compiled(function: Function, **options: bool) -> Function:
    jit: Any = numba.njit  # its stubs do not know every option
    dispatcher = jit(cache=True, nogil=True, error_model="numpy", **options)(function)
    if (store := getattr(dispatcher, "_cache", None)) is not None and hasattr(store, "_cache_file"):
        store._cache_file._source_stamp = (_folder_stamp(), _stamp([Path(function.__code__.co_filename)]))
    return dispatcher  # type: ignore[no-any-return]


@cache
def _folder_stamp() -> tuple[int, int]:
    return _stamp(list(Path(__file__).parent.glob("*.py")))


def _stamp(sources: list[Path]) -> tuple[int, int]:
    """(newest change in ns, total bytes) of some sources."""
    stats = [source.stat() for source in sources]
    return max(stat.st_mtime_ns for stat in stats), sum(stat.st_size for stat in stats)
