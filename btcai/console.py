"""How views reach the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


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
