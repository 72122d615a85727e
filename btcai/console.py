"""How views reach the terminal."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


logger = logging.getLogger(__name__)


def show(view: "RenderableType") -> None:
    """Print a view; a pipe has no width, so that it gets whole lines instead of 80 columns."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(view)


def show_change(key: str, old: str, new: str) -> None:
    """Say that a setting has changed, where it has."""
    if old != new:
        print(f"{key}: {old} -> {new}")  # noqa: T201


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A live bar in a terminal, moved by (done, wanted); elsewhere a line of the log for every tenth."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, said = Console(stderr=True), 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as live:
        shown = live.add_task(what, total=None)

        def advance(done: int, wanted: int) -> None:
            nonlocal said
            live.update(shown, completed=done, total=wanted)
            if not console.is_terminal and 10 * done // wanted > said:
                said = 10 * done // wanted
                logger.info("%s: %d of %d", what, done, wanted)

        yield advance
