"""`btcai explain`: the reasons of a decision now, or of a trade of the last evaluation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btcai.commands.decide import champion_folder, read_account, recent_bars
from btcai.commands.project import project_root
from btcai.console import show
from btcai.errors import DataError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from btcai.explanation import ExplainedTrade


def explain(
    trade: Annotated[
        int | None, typer.Argument(help="Number of a trade in reports/evaluation/trades.csv.", show_default=False)
    ] = None,
    bucket: Annotated[str | None, typer.Option(help="scalping, short, medium or long.")] = None,
    bars: Annotated[
        Path | None,
        typer.Option(help="Explain a decision now, on recent bars: a file or a market's folder.", readable=False),
    ] = None,
    account: Annotated[Path | None, typer.Option(help="With --bars: JSON as btcai decide reads it.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON instead of a screen: facts of returns are log returns.")
    ] = False,
) -> None:
    """Every step to a decision: what the market shows, the forecast, the policy, size, limits, and what is done.

    A trade is explained as it was entered and as it was left. What the account
    held besides is not on record, and what is assumed is said.
    """
    if trade is not None:
        if bars is not None or account is not None:
            raise DataError(f"a trade is explained on its own bars, was given {bars or account}; leave it out")
        _past(trade, bucket, as_json)
    elif bars is not None and bucket is not None:
        _now(bucket, bars, account, as_json)
    else:
        raise DataError(
            "explain needs a trade's number, or --bucket and --bars for a decision now; see: btcai explain --help"
        )


def _now(bucket: str, bars: Path, account: Path | None, as_json: bool) -> None:
    import time

    from btcai import summary
    from btcai.data.store import to_grid
    from btcai.explanation import explain_decision
    from btcai.inference.bundle import load_bundle
    from btcai.reasoning.components import EQUAL_WEIGHTS
    from btcai.reasoning.records import reasoning_json
    from btcai.reasoning.view import rendered
    from btcai.reflection import learned_for

    folder, holdings = champion_folder(Path.cwd(), bucket), read_account(account)
    bundle = load_bundle(folder)
    told = str(account) if account else f"flat with {bundle.manifest.equity_usdt:,.0f} USDT (no --account given)"
    memory, weights = learned_for(bundle.version, folder)
    reasoning = explain_decision(bundle, to_grid(recent_bars(bars)), holdings, told, memory, weights or EQUAL_WEIGHTS)
    if as_json:
        typer.echo(reasoning_json(reasoning))
        return
    show(rendered(reasoning))
    typer.echo(f"Its bar: {summary.bar_age(reasoning.close_ts_ns, time.time_ns(), bundle.patch_bars)}.")


def _past(number: int, bucket: str | None, as_json: bool) -> None:
    from btcai.explanation import explain_trade, trade_json

    explained = explain_trade(project_root(), number, bucket)
    if as_json:
        typer.echo(trade_json(explained))
    else:
        show(trade_view(explained))


def trade_view(explained: "ExplainedTrade") -> "RenderableType":
    """The trade, the chain at its entry and the chain at its exit."""
    from rich.console import Group
    from rich.text import Text

    from btcai.explanation import agrees
    from btcai.reasoning.view import rendered
    from btcai.reasoning.words import lasting, number, signed_percent
    from btcai.schema import BAR_NS

    trade = explained.trade
    held = lasting((trade.exit_ts_ns - trade.entry_ts_ns) // BAR_NS)
    how = "bought" if trade.btc > 0 else "sold short"
    outcome = (
        f"Trade {trade.number} of {trade.bucket}: {abs(trade.btc):.5f} BTC {how} at {number(trade.entry_price, 2)}, "
        f"left by {explained.left_by} at {number(trade.exit_price, 2)} USDT after {held}; "
        f"{signed_percent(trade.net_return)} after all costs, {number(trade.profit_usdt, 2)} USDT."
    )
    parts: list[RenderableType] = [Text(outcome, style="bold"), Text("\nAs it was entered", style="bold")]
    if not agrees(explained):
        parts.append(Text("The account of the backtest decided otherwise than the one assumed here.", style="yellow"))
    parts += [rendered(explained.entry), Text("\nAs it was left", style="bold")]
    if explained.exit is None:
        parts.append(Text("The bar that left it came before the next decision."))
    else:
        parts.append(rendered(explained.exit))
    return Group(*parts)
