"""`btcai up`, `down`, `status`, `pause`, `resume`, `cancel`: the services, and the run that works."""

import json
from pathlib import Path
from typing import Annotated

import typer

from btcai.commands.project import project_root
from btcai.console import show
from btcai.operation import services

NOT_UP = 3
"""Exit code of `btcai status` where not everything runs and answers."""


def up(
    prefect_port: Annotated[int, typer.Option(help="Of Prefect's pages and API.")] = services.PREFECT_PORT,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow's pages.")] = services.MLFLOW_PORT,
    mlflow: Annotated[bool, typer.Option(help="MLflow's server too.")] = True,
) -> None:
    """Start Prefect's server, its worker with the schedule of prefect.yaml, and MLflow's server, on this machine alone.

    What runs already stays as it is. They outlive the terminal: btcai down ends them.
    """
    from btcai.environment import child_environment

    root = _apply()

    def settle() -> None:
        _apply()  # the server's address, now that there is one
        from flows import control

        control.settle(root)

    typer.echo("starting what does not run yet: this takes up to a minute")
    services.up(
        root, child_environment(), prefect_port=prefect_port, mlflow_port=mlflow_port, with_mlflow=mlflow, settle=settle
    )
    _print_statuses(root, as_json=False)


def down() -> None:
    """End what up started, after the run that works: it goes on from its checkpoint next time. Leaves no process."""
    root = _apply()
    if services.prefect_api(root) is not None:
        from flows import control

        try:
            typer.echo(control.cancel_working(root))
        except control.NotUp as error:  # a server that hangs, or never came up whole: all the more it has to end
            typer.echo(f"the run at work was not asked to end: {error}")
    ended = services.down(root)
    typer.echo(f"ended: {', '.join(ended)}" if ended else "nothing was up")


def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Print what runs and answers, and where; exit code 3 where something does not."""
    if not _print_statuses(project_root(), as_json=as_json):
        raise typer.Exit(NOT_UP)


def pause() -> None:
    """Let the run that works stop at a checkpoint and wait, as Pause on Prefect's page does; no process stays."""
    root = _apply()
    from flows import control

    typer.echo(control.pause(root))


def resume() -> None:
    """Let a paused run go on from its checkpoint. As Resume on Prefect's page does."""
    _apply()
    from flows import control

    typer.echo(control.resume())


def cancel() -> None:
    """End the run that works and the paused ones; what was finished is kept. As Cancel on Prefect's page does."""
    root = _apply()
    from flows import control

    typer.echo(control.cancel(root))


def _apply() -> Path:
    """The project's folder, once Prefect's settings are those of it."""
    from flows import settings

    root = project_root()
    settings.apply(root)
    return root


def _print_statuses(root: Path, *, as_json: bool) -> bool:
    """Whether all of them run and answer."""
    from dataclasses import asdict

    from rich.table import Table

    from btcai.operation import run_lock

    found, holder = services.statuses(root), run_lock.holder(root)
    if as_json:
        run = None if holder is None else asdict(holder)
        typer.echo(json.dumps({"services": [asdict(one) for one in found], "run": run}, indent=1))
    else:
        heads = ["service", "state", "process", "address", *(["note"] if any(one.note for one in found) else [])]
        table = Table(*heads, pad_edge=False)
        for one in found:
            style = "green" if one.health == "up" else "bold red"
            pid = "" if one.pid is None else str(one.pid)
            cells = (one.name, f"[{style}]{one.health}[/{style}]", pid, one.url or "", one.note)
            table.add_row(*cells[: len(heads)])
        show(table)
        typer.echo(run_lock.at_work(root) or "no run at work")
    return all(one.health == "up" for one in found)
