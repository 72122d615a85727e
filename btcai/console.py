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
