"""btcai doctor: what is wrong here, and the command that mends it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btcai.console import show

if TYPE_CHECKING:
    from rich.table import Table

    from btcai.doctor.findings import Finding

COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    mend: Annotated[bool, typer.Option("--mend", help="Do what can be mended without harm, then look again.")] = False,
) -> None:
    """Examine the installation, the project and its champions; exit code 1 where something is wrong.

    Every line that is not ok names the command that mends it. Nothing is
    changed without --mend.
    """
    from btcai.doctor import checkup

    found = checkup.examine(Path.cwd())
    if mend:
        for line in checkup.mend(found):
            typer.echo(line, err=True)
        found = checkup.examine(Path.cwd())
    if as_json:
        typer.echo(checkup.as_json(found))
    else:
        show(_table(found))
    if not checkup.is_sound(found):
        raise typer.Exit(1)


def _table(findings: "list[Finding]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in ("check", "", "seen", "mend it with"):
        table.add_column(head, overflow="fold")
    for one in findings:
        table.add_row(one.check, Text(one.status, COLOURS[one.status]), Text(one.said), Text(one.remedy))
    return table
