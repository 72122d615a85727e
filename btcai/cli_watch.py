"""`btcai drift`: are the newest bars like those that were trained on?"""

from pathlib import Path
from typing import Annotated

import typer

from btcai.console import show


def drift(
    days: Annotated[int, typer.Option(min=1, help="The newest days, held against windows as long.")] = 28,
    check: Annotated[bool, typer.Option("--check", help="Exit with 3 where the bars have drifted.")] = False,
) -> None:
    """Hold the newest bars against the training span: each feature's distribution, and volatility.

    Beside each figure stands what windows of the training span show among
    themselves. Report: reports/drift. Needs features: btcai stage features.
    """
    from btcai import paths, stages
    from btcai.files import whole
    from btcai.schema import BARS_PER_DAY
    from btcai.watch.drift import DRIFTED, measure_drift
    from btcai.watch.report import drift_view, write_drift

    data, splits, _ = stages.load_features(Path.cwd())
    found = measure_drift(data.features, data.feature_names, data.mark, splits.train, days * BARS_PER_DAY)
    with whole(Path.cwd() / paths.DRIFT) as out:
        write_drift(out, found, data.bars.close_ts_ns)
    show(drift_view(found, data.bars.close_ts_ns))
    if check and found.has_drifted:
        raise typer.Exit(DRIFTED)
