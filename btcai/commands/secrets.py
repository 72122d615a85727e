"""`btcai secrets`: which keys and passwords there are and where they come from; their values are never shown."""

import sys
from typing import Annotated

import typer

from btcai.console import show

app = typer.Typer(help="Keys and passwords, kept by the system's keyring and never in a file.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="As btcai secrets list has it, or like REMOTE_NAME_SECRET_ACCESS_KEY.")]


@app.command("set")
def set_secret(name: Name) -> None:
    """Ask for a value, without showing it, and put it into the keyring; from a pipe its first line is taken."""
    from btcai import secrets

    if sys.stdin.isatty():
        value = typer.prompt(f"{name} (not shown)", hide_input=True, confirmation_prompt=True)
    else:
        value = sys.stdin.readline().rstrip("\r\n")
    secrets.store(name, value)
    typer.echo(f"{name} is in the keyring")


@app.command("list")
def list_secrets() -> None:
    """Every name, what it is for, and where its value would come from."""
    from rich.table import Table

    from btcai import secrets

    table = Table("name", "from", "variable", "for")
    for name in secrets.names():
        table.add_row(name, secrets.source(name) or "-", secrets.variable(name), secrets.purpose(name))
    show(table)


@app.command("forget")
def forget_secret(name: Name) -> None:
    """Take a value out of the keyring; a variable of the environment stays."""
    from btcai import secrets

    if not secrets.forget(name):
        typer.echo(f"{name} was not in the keyring")
    else:
        typer.echo(f"{name} is no longer in the keyring")
    if secrets.source(name) == "environment":
        typer.echo(f"{secrets.variable(name)} still sets it")
