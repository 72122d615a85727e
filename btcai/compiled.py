"""The one way this package compiles: numba, cached on disk, without the GIL, IEEE arithmetic.

numba keys its disk cache on the file of the function alone: after an edit of what it calls, or of a constant that was
compiled in, a cached caller would go on with the old code. So every function carries a checksum of its own folder with
all below it, of those whose functions are called from others and of schema.py: any edit there recompiles, and a mere
touch does not.
"""

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

LINE = 8
"""float64 in a cache line of 64 bytes."""

_CALLED = ("features", "market")

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile on the first call; the Python function's signature and docstring stay."""
    return _compiled(function)


def inlined(function: Function) -> Function:
    """For small steps of a hot loop, which allocate nothing: merged into the loop that calls them.

    Without this the arrays of a named tuple are copied and counted (atomic reference counts) at every call, ten times
    the work of the step itself. _nrt=False turns the counting off; a function that allocates then fails to compile.
    """
    return _compiled(function, forceinline=True, _nrt=False)


def stepping(function: Function) -> Function:
    """For loops over accounts, which allocate nothing either: no counted references, for threads to contend for."""
    return _compiled(function, _nrt=False)


def summing(function: Function) -> Function:
    """For sums over many float32 in any order, which allocate nothing: vectorised, the last bits are the machine's own.

    Loops over numbers side by side should touch two or three arrays each: with more the compiler does not vectorise.
    """
    return _compiled(function, fastmath={"reassoc", "contract"}, forceinline=True, _nrt=False)


def cache_lines(n: int) -> NDArray[np.float64]:
    """n zeros whose first lies on a cache line, so that rows of LINE numbers, or of a multiple, share none."""
    room = np.zeros(n + LINE)
    start = -room.ctypes.data // room.itemsize % LINE
    return room[start : start + n]


def _prefetch(context: Any, column: Any, row: Any) -> Any:
    """prefetch(column, row): begin to load column[row] into the cache; takes no time and cannot fail.

    What thousands of accounts read of a market lies far apart, and waiting for it was three fifths of a step.
    """

    build: Any = cgutils

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        column_type, _ = signature.args
        view = context.make_array(column_type)(context, builder, arguments[0])
        (stride,) = build.unpack_tuple(builder, view.strides)
        address = build.pointer_add(builder, view.data, builder.mul(arguments[1], stride), ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        hint = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = build.get_or_insert_function(builder.module, hint, "llvm.prefetch.p0")
        builder.call(function, [address, flag(0), flag(3), flag(1)])  # to read, keep in every level, data
        return context.get_dummy_value()

    return types.void(column, types.intp), emit


prefetch: Any = intrinsic(_prefetch)


def _compiled(function: Function, **options: bool | set[str]) -> Function:
    jit: Any = numba.njit  # its stubs do not know every option
    dispatcher = jit(cache=True, nogil=True, error_model="numpy", **options)(function)
    if (store := getattr(dispatcher, "_cache", None)) is not None and hasattr(store, "_cache_file"):
        file, stamp = store._cache_file, _stamp(Path(function.__code__.co_filename).parent)
        # numba compares versions before it unpickles an index, stamps after: a record that has another name by now
        # could not be unpickled
        file._source_stamp, file._version = stamp, (file._version, stamp)
    return dispatcher  # type: ignore[no-any-return]


@cache
def _stamp(own: Path) -> tuple[int, int]:
    """Of what may be compiled into a function of a file in the folder `own`: (checksum, bytes)."""
    package = Path(__file__).parent
    folders = {own, *(package / name for name in _CALLED)}
    below = (source for folder in folders for source in folder.rglob("*.py"))
    sources = [Path(__file__), package / "schema.py", *below]
    checksum = size = 0
    for source in sorted(sources):
        text = source.read_bytes()
        checksum, size = zlib.crc32(text, checksum), size + len(text)
    return checksum, size
