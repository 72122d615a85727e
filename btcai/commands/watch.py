"""`btcai drift`: are the newest bars like those that were trained on?"""

from typing import Annotated

import typer

from btcai.console import show


def drift(
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 3 where training again is due, 4 where to look first.")
    ] = False,
) -> None:
    """Hold the newest bars against those trained on: features, volatility, the forecasts' loss.

    Beside each figure stands what windows of the training span show among
    themselves (of forecasts: the test span's). Limits: drift in
    params.yaml. Report: reports/drift. Needs features: btcai stage features.
    """
    from btcai import paths, stages
    from btcai.commands.project import writing
    from btcai.params import load_config
    from btcai.watch.report import finding_view
    from btcai.watch.verdict import EXIT_CODES

    with writing("btcai drift") as root:
        finding = stages.newest_bars(load_config(root / paths.PARAMS), root)
    show(finding_view(finding))
    if check and finding.verdict != "steady":
        raise typer.Exit(EXIT_CODES[finding.verdict])
