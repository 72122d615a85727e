"""`btcai decide`: the champion's decision at the newest bar."""

from pathlib import Path
from typing import Annotated, Any

import typer

from btcai.console import show
from btcai.errors import ArtifactError, DataError


def decide(
    bucket: Annotated[str, typer.Option(help="scalping, short, medium or long.")],
    bars: Annotated[Path, typer.Option(help="Recent 5-minute bars, any file that data import reads.", readable=False)],
    account: Annotated[
        Path | None,
        typer.Option(
            help="JSON: cash_usdt; if they are not the defaults: lots [{btc, entry_price}], equity_start_usdt, "
            "peak_equity_usdt, day_start_equity_usdt, decisions_since_trade, cool_down_bars, halt (daily or drawdown), "
            "order_pending (entry or exit; a halt drops an entry: cancel it). After a deposit or withdrawal, scale the "
            "three equities as the equity changed."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")] = False,
) -> None:
    """Decide with the champion at the newest bar on the bucket's clock, under the halts and limits of the backtest."""
    import time

    from btcai import summary
    from btcai.data.sources import read_bars
    from btcai.data.store import to_grid
    from btcai.inference.bundle import load_bundle
    from btcai.inference.decision import decide as decide_with
    from btcai.records.champions import read_standing

    folder = champion_folder(Path.cwd(), bucket)
    holdings = read_account(account)
    bundle = load_bundle(folder)
    decision = decide_with(bundle, to_grid(read_bars(bars)), holdings)
    standing = read_standing(folder)
    if as_json:
        typer.echo(summary.decision_json(decision, standing))
    else:
        age = summary.bar_age(decision.close_ts_ns, time.time_ns(), bundle.patch_bars)
        told = str(account) if account else "flat (no --account given)"
        show(summary.decision_view(decision, standing, told, age))


def champion_folder(root: Path, bucket: str) -> Path:
    """models/champion/BUCKET; an error names the buckets, or what to do where there is no champion."""
    from btcai import paths
    from btcai.params import require_project
    from btcai.schema import BUCKETS

    if bucket not in BUCKETS:
        raise ArtifactError(f"a bucket must be one of {', '.join(BUCKETS)}, was {bucket}; mend --bucket")
    folder = root / paths.CHAMPION / bucket
    if not folder.is_dir():
        require_project(root)
        raise ArtifactError(f"no champion for {bucket}; make one with: btcai run")
    return folder


def read_account(path: Path | None) -> dict[str, Any] | None:
    """The JSON object of --account; None without one."""
    import json

    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the account must be a JSON file, {path}: {error}; mend --account") from error
    if not isinstance(found, dict):
        raise DataError(f"the account must be one JSON object, {path} holds a {type(found).__name__}; mend the file")
    return found
