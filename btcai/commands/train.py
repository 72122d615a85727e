"""The commands that say what is trained: each a thin layer, imported and run only when asked for."""

from typing import Annotated

import typer

from btcai.commands.project import writing
from btcai.console import show_change


def warm_start(
    off: Annotated[bool, typer.Option("--off", help="From scratch again.")] = False,
) -> None:
    """Let the next training go on from the networks of the last run, in place of from scratch.

    For new bars: while there are none, nothing changes. A bucket's network
    is kept as it is where training on gains nothing that is more than
    chance. Kept in models/starts, named in params.yaml.
    """
    from btcai import paths, warming
    from btcai.params import load_config

    with writing("btcai warm-start") as root:
        config = load_config(root / paths.PARAMS)
        old, new = warming.off(root) if off else warming.go_on(root, config)
    show_change(warming.SETTING, old, new)
    if old == new:
        typer.echo(f"{warming.SETTING} stays {new}" + ("" if off else ": there are no bars but those trained on"))
