"""`btcai data fetch`: an exchange's history into a market."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btcai.commands.project import writing
from btcai.console import progress, show_change
from btcai.errors import DataError

if TYPE_CHECKING:
    from btcai.acquisition import Imported

DAY = "YYYY-MM-DD"


def fetch(
    exchange: Annotated[
        str, typer.Option(help="As ccxt names it: binance, bybit, okx, kraken, coinbase, ...")
    ] = "binance",
    symbol: Annotated[str, typer.Option(help="BTC/USDT, or BTC/USDT:USDT for the perpetual swap.")] = "BTC/USDT",
    since: Annotated[
        datetime | None,
        typer.Option(metavar=DAY, formats=["%Y-%m-%d"], help="First day, UTC; without one, the market's first."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(metavar=DAY, formats=["%Y-%m-%d"], help="First day not to fetch, UTC; without one, now."),
    ] = None,
    timeframe: Annotated[str, typer.Option(help="Of the bars.")] = "5m",
    market: Annotated[str | None, typer.Option(help="Its folder under data/; without one, as binance_btcusdt.")] = None,
    archive: Annotated[
        bool, typer.Option(help="Take whole months and days from Binance's public archive first.")
    ] = True,
    url: Annotated[
        str | None, typer.Option(help="Another address of the exchange's API and archive: a proxy or a mirror.")
    ] = None,
) -> None:
    """Fetch 5-minute bars from an exchange and put them into use.

    Only what the market does not hold is asked for: the same command goes on
    after an interruption, brings what is new, and asks for gaps again.

    A perpetual swap's funding rates are fetched too. No account is needed.
    """
    from datetime import UTC

    from btcai import acquisition
    from btcai.data.sources import TIMEFRAMES, clock_ms
    from btcai.fetch.exchange import SETTLED_MS, check_exchange
    from btcai.fetch.fetching import Order
    from btcai.fetch.patience import Patience

    root = Path.cwd()
    if timeframe not in TIMEFRAMES:
        raise DataError(f"timeframe must be one of {', '.join(TIMEFRAMES)}, was {timeframe}; give 5m")
    check_exchange(exchange)
    name = market or acquisition.market_name(exchange, symbol)
    first = None if since is None else int(since.replace(tzinfo=UTC).timestamp() * 1000)
    now_ms = clock_ms() - SETTLED_MS  # bars younger than that may still change
    order = Order(
        exchange=exchange,
        symbol=symbol,
        timeframe=timeframe,
        market=name,
        since_ms=acquisition.first_ms(root, name) if first is None else first,
        until_ms=min(now_ms, int(until.replace(tzinfo=UTC).timestamp() * 1000)) if until else now_ms,
        archive=archive,
        url=url,
    )
    if order.since_ms >= order.until_ms:
        raise DataError("the first day must lie before the last and in the past; mend --since or --until")
    with writing("btcai data fetch"), progress(f"bars of {name}") as advance:
        _tell(*acquisition.fetch(root, order, Patience(), advance))


def update() -> None:
    """Bring the market in use up to now, from where it was fetched; one that was not fetched stays as it is."""
    from btcai import acquisition
    from btcai.fetch.patience import Patience

    with writing("btcai data update") as root, progress("bars of the market in use") as advance:
        found = acquisition.update(root, Patience(), advance)
    if found is None:
        typer.echo("the market in use was not fetched: nothing to bring; fetch one with: btcai data fetch")
    else:
        _tell(*found)


def _tell(done: "Imported", stopped: str) -> None:
    typer.echo(done.printed())
    show_change("data.market", done.old_market, done.market)
    if stopped:
        raise DataError(f"{stopped}; what had come is kept: run the same command again, it goes on from there")
