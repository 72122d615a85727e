"""The commands that measure and explain: each a thin layer, imported and run only when asked for."""

from pathlib import Path
from typing import Annotated

import typer

from bench import BENCHES
from btcai.console import show


def bench(
    name: Annotated[str, typer.Argument(help=f"{', '.join(BENCHES[:-1])} or {BENCHES[-1]}.")],
    repeats: Annotated[int, typer.Option(help="Timed repeats, of which the median counts; of learn: seeds.")] = 5,
    only: Annotated[
        str, typer.Option(help="Parts of it, comma-separated; without it, all. A wrong name is answered with theirs.")
    ] = "",
    table: Annotated[bool, typer.Option("--table", help="A table instead of JSON lines.")] = False,
) -> None:
    """Measure this machine, beside references: one JSON object a line, in the end kept in reports/bench/NAME.jsonl.

    Keys: name, value, unit, reference, reference_value, ratio, goal, met; then
    how it was measured. met is null where there is no goal, or no reference to
    hold it against. A missed goal is a result and no error. Leave the machine
    alone meanwhile: a line with "idle": false was measured beside other work.

    learn takes hours and may be broken off: the next call makes only the
    trainings that are missing.
    """
    from bench import harness
    from btcai import paths
    from btcai.params import load_config

    root = Path.cwd()
    lines = harness.run(name, repeats, load_config(root / paths.PARAMS), root, only)
    if table:
        show(harness.as_table(list(lines)))
        return
    for line in lines:
        typer.echo(harness.as_json(line))


def features() -> None:
    """Print the table of features in Markdown: names, formulas, units, sources and warm-ups."""
    from btcai.features.table import markdown

    typer.echo(markdown(), nl=False)
