"""What a record is about beyond its message: run, stage, bucket, fold, or any other name; children inherit it.

A thread that has set none of its own has the main thread's: workers of a pool do not know who started them.
"""

import functools
import inspect
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, ParamSpec, TypeVar

CONTEXT_VARIABLE: Final = "BTCAI_LOG_CONTEXT"
"""Carries the context into a child process, as one JSON object."""

P = ParamSpec("P")
R = TypeVar("R")

_own: ContextVar[Mapping[str, object] | None] = ContextVar("btcai_log_context", default=None)
_main: Mapping[str, object] = {}


def current() -> Mapping[str, object]:
    """The names in force here, outermost first."""
    own = _own.get()
    return _main if own is None else own


@contextmanager
def context(**names: object) -> Iterator[None]:
    """Records made within the block carry these names beside those around it; a value of None takes a name away.

    Around a `yield` of a generator it would be in force for whoever asked for the next value: close it before.
    """
    before = _own.get()
    _set({key: value for key, value in {**current(), **names}.items() if value is not None})
    try:
        yield
    finally:
        _set(before)


def bound(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: @bound(bucket="bucket_name") is context(bucket=...) of that argument around each call."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs).arguments
            with context(**{name: given.get(argument) for name, argument in names.items()}):
                return function(*args, **kwargs)

        return wrapped

    return decorate


def begin() -> None:
    """What this process inherits, and a `run` of its own where it inherits none. A second call changes nothing."""
    if "run" not in current():
        run = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
        _set({**current(), "run": run, **_inherited()})


def for_child() -> dict[str, str]:
    """The variable that carries the context into a child process; nothing where there is none."""
    names = current()
    return {CONTEXT_VARIABLE: json.dumps(dict(names), default=str)} if names else {}


def _set(names: Mapping[str, object] | None) -> None:
    global _main
    _own.set(names)
    if threading.current_thread() is threading.main_thread():
        _main = names or {}


def _inherited() -> dict[str, object]:
    """Whatever is not a JSON object was not ours."""
    try:
        found = json.loads(os.environ.get(CONTEXT_VARIABLE, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
