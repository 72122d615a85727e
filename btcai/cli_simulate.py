"""Simulated markets: the default one, and markets that things happen to; what they are like beside another."""

from pathlib import Path
from typing import Annotated

import typer

from btcai.console import show, show_change


def simulate(
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            help="What happens, several together: news, volatility, flash_crash, drought, outages, funding, trends, "
            "ranges, collapse."
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, help="Of bars; without it, as many as the default market has.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of chance; without it, the default market's.")] = None,
    parameters: Annotated[
        Path | None, typer.Option(help="JSON: what the market is like, where not as the default.", readable=False)
    ] = None,
    swap: Annotated[bool, typer.Option("--swap", help="With funding rates, as a perpetual swap has them.")] = False,
    market: Annotated[
        str | None, typer.Option(help="Its folder under data/, simulated_...; without one, named by the scenarios.")
    ] = None,
) -> None:
    """Write a simulated market and put it into use: without options the default one, the same bits everywhere.

    One of the same name is replaced.
    """
    from btcai import acquisition, datasets

    root = Path.cwd()
    what = acquisition.Simulation(
        scenarios=tuple(scenario or ()), days=days, seed=seed, parameters=parameters, swap=swap
    )
    if what == acquisition.Simulation() and market is None:
        name, written = datasets.SIMULATED, datasets.simulate(root)
    else:
        name = market or what.market
        written = acquisition.simulate_other(root, what, name)
    typer.echo(written)
    show_change("data.market", *datasets.use(root, name))


def facts(
    markets: Annotated[list[str], typer.Argument(metavar="MARKET...", help="Folders under data/.")],
) -> None:
    """Print stylised facts of markets and Bitcoin's bands: tails, memory of volatility, variance ratios."""
    from btcai import paths, summary
    from btcai.data.store import read_market
    from btcai.simulator.facts import stylised_facts

    show(summary.facts_view({market: stylised_facts(read_market(paths.DATA, market)) for market in markets}))
