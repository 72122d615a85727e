"""`btcai simulate`: the default market, markets that things happen to, and how like a history a market is."""

from pathlib import Path
from typing import Annotated

import typer

from btcai.commands.project import project_root, writing
from btcai.console import progress, show, show_change
from btcai.errors import DataError

app = typer.Typer(help="Make markets, fit them to a history, hold them beside it.", no_args_is_help=True)


@app.command()
def market(
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
    name: Annotated[
        str | None,
        typer.Option("--market", help="Its folder under data/, simulated_...; without one, named by the scenarios."),
    ] = None,
) -> None:
    """Write a simulated market and put it into use: without options the default one, the same bits everywhere.

    One of the same name is replaced.
    """
    from btcai import acquisition, datasets

    what = acquisition.Simulation(
        scenarios=tuple(scenario or ()), days=days, seed=seed, parameters=parameters, swap=swap
    )
    with writing("btcai simulate market") as root:
        if what == acquisition.Simulation() and name is None:
            made, written = datasets.SIMULATED, datasets.simulate(root)
        else:
            made = name or what.market
            written = acquisition.simulate_other(root, what, made)
        typer.echo(written)
        show_change("data.market", *datasets.use(root, made))
        for note in acquisition.notes_of(root):
            typer.echo(f"note: {note}")


@app.command()
def fit(
    history: Annotated[str, typer.Argument(metavar="MARKET", help="A folder under data/: what to be like.")],
    out: Annotated[Path, typer.Option(help="JSON for: btcai simulate market --parameters")] = Path("market.json"),
    parameters: Annotated[
        Path | None, typer.Option(help="JSON to begin with; without it, the default market's.", readable=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Markets simulated at a time: more, less chance.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="At most; each simulates some 25 times as many markets.")] = 8,
) -> None:
    """Calibrate a simulated market to a history: its seasons, volatility, jumps, memory, ranges and volume.

    Drift is left as it was: years of bars do not tell it from nothing.
    """
    from btcai import paths
    from btcai.data.store import read_market
    from btcai.simulator.fitting import fit, trials
    from btcai.simulator.parameters import MarketParameters
    from btcai.watch.comparison import facts_view

    if not out.absolute().parent.is_dir():
        raise DataError(f"--out must lie in a folder that is there, was {out}; make the folder first")
    bars = read_market(project_root() / paths.DATA, history)
    start = MarketParameters.from_file(parameters) if parameters else MarketParameters()
    with progress(f"markets like {history}") as advance:
        found = fit(bars, start, tuple(range(seeds)), rounds, lambda done: advance(done, trials(rounds)))
    out.write_text(found.parameters.to_json(), encoding="utf-8")
    show(facts_view({history: found.history, "simulated": found.simulated}))
    typer.echo(
        f"distance {found.distance_before:.2f} -> {found.distance:.2f} half widths of a band; wrote {out}\n"
        f"try it: btcai simulate market --parameters {out} --market simulated_fitted, "
        f"then btcai simulate compare {history} simulated_fitted"
    )


@app.command()
def facts(
    markets: Annotated[list[str], typer.Argument(metavar="MARKET...", help="Folders under data/.")],
) -> None:
    """Print stylised facts of markets and Bitcoin's bands: tails, memory of volatility, variance ratios."""
    from btcai import paths
    from btcai.data.store import read_market
    from btcai.simulator.facts import stylised_facts
    from btcai.watch.comparison import facts_view

    data = project_root() / paths.DATA
    show(facts_view({market: stylised_facts(read_market(data, market)) for market in markets}))


@app.command()
def compare(
    history: Annotated[str, typer.Argument(metavar="MARKET", help="A folder under data/.")],
    simulated: Annotated[str, typer.Argument(metavar="SIMULATED", help="Another, to be told from it.")],
    window_days: Annotated[int, typer.Option(min=1, help="Of the windows that are told apart.")] = 1,
    giveaways: Annotated[int, typer.Option(min=0, help="How many features to name.")] = 8,
) -> None:
    """Facts of two markets side by side, and how well a classifier tells them apart: AUC, and by which features.

    Report: reports/simulation.
    """
    from btcai import paths
    from btcai.data.store import read_market, to_grid
    from btcai.features.pipeline import build_market
    from btcai.files import whole
    from btcai.schema import BARS_PER_DAY
    from btcai.simulator.facts import stylised_facts
    from btcai.watch.comparison import Comparison, comparison_view, write_comparison
    from btcai.watch.discriminator import discriminate

    root = project_root()
    if history == simulated:
        raise DataError(f"a market is compared with another one, was {history} twice; see: btcai data status")
    one, other = (read_market(root / paths.DATA, name) for name in (history, simulated))
    first, second = (build_market(to_grid(bars)).features for bars in (one, other))
    with progress("rounds of telling apart") as advance:
        told = discriminate(
            first, second, window_days * BARS_PER_DAY, giveaways, 0, lambda done: advance(done, giveaways + 1)
        )
    facts_of_both = stylised_facts(one), stylised_facts(other)
    found = Comparison(names=(history, simulated), facts=facts_of_both, discrimination=told)
    with whole(root / paths.SIMULATION) as out:
        write_comparison(out, found)
    show(comparison_view(found))
