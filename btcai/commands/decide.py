"""`btcai decide`: the champion's decision at the newest bar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from btcai.console import show
from btcai.errors import ArtifactError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from btcai.inference.decision import Considered
    from btcai.market.rules import Rules

BARS = "Recent 5-minute bars: any file that data import reads, or a market's folder under data/."
AS_JSON = "One line of JSON instead of a table: log returns, quantiles at 5, 10, 25, 50, 75, 90 and 95 %."


def decide(
    bucket: Annotated[str, typer.Option(help="scalping, short, medium or long.")],
    bars: Annotated[Path, typer.Option(help=BARS, readable=False)],
    account: Annotated[
        Path | None,
        typer.Option(
            help="JSON: cash_usdt; if they are not the defaults: lots [{btc, entry_price}], equity_start_usdt, "
            "peak_equity_usdt, day_start_equity_usdt, decisions_since_trade, cool_down_bars, halt (daily or drawdown), "
            "order_pending (entry or exit; a halt drops an entry: cancel it). After a deposit or withdrawal, scale the "
            "three equities as the equity changed."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=AS_JSON)] = False,
) -> None:
    """Decide with the champion at the newest bar on the bucket's clock, under the halts and limits of the backtest."""
    import time

    from btcai import summary
    from btcai.data.store import to_grid
    from btcai.inference.bundle import load_bundle
    from btcai.inference.decision import consider
    from btcai.records.champions import read_standing, seen_of

    folder = champion_folder(Path.cwd(), bucket)
    holdings = read_account(account)
    bundle, standing, seen = load_bundle(folder), read_standing(folder), seen_of(folder)  # before a run swaps them
    considered = consider(bundle, to_grid(recent_bars(bars)), holdings)
    decision = considered.decision
    if as_json:
        typer.echo(summary.decision_json(decision, standing))
    else:
        age = summary.bar_age(decision.close_ts_ns, time.time_ns(), bundle.patch_bars)
        told = (
            f"{account}{_beyond_stops(considered, bundle.manifest.rules)}" if account else "flat (no --account given)"
        )
        market = (seen or {}).get("market", "")
        show(summary.decision_view(decision, standing, told, age=age, market=market))


def recent_bars(path: Path) -> "pd.DataFrame":
    """Raw bars of a file, or of a market's folder as data/ holds them; DataError as each is read."""
    from btcai.data.sources import read_bars
    from btcai.data.store import read_market

    place = path.absolute()
    return read_market(place.parent, place.name) if place.is_dir() else read_bars(path)


def _beyond_stops(considered: "Considered", rules: "Rules") -> str:
    """What the rules would have done before this close, in words."""
    from btcai.reasoning.steps import lots_past_stop

    passed = lots_past_stop(considered.account, considered.lots, float(considered.data.mark[-1]), rules)
    held = "a lot lies beyond its stop: it" if passed == 1 else f"{passed} lots lie beyond their stops: they"
    return f"; {held} would have been closed by now" if passed else ""


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
