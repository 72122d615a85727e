"""The command line: each command a thin layer over one plain function, heavy imports inside."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from btcai.errors import ArtifactError, BtcaiError, DataError
from btcai.files import NO_ROOM

if TYPE_CHECKING:
    from rich.console import RenderableType

    from btcai.config import Config

app = typer.Typer(
    name="btcai",
    help="An AI trading system for Bitcoin: four timeframes, one progressive training, honest results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Get bars, choose the market in use.", no_args_is_help=True)
app.add_typer(data_app, name="data")
registry_app = typer.Typer(help="What is registered, and what each champion was made from.", no_args_is_help=True)
app.add_typer(registry_app, name="registry")

INTERRUPTED = 130
EXTRAS = "pip install 'btcai[operate]'"


def main() -> None:
    """Entry point: what the user can mend is one line on stderr, exit code 1; tracebacks go to the debug log."""
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BtcaiError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _fail(f"{error}: what was not finished is as it was; free the disk or mend its permissions, then run it again")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("btcai", "flows")):  # ours: a bug, not something to install
            raise
        _fail(f"{error}; install it with: {EXTRAS}")


def _fail(text: str) -> NoReturn:
    logging.getLogger(__name__).debug("failed", exc_info=True)
    typer.echo(f"error: {' '.join(text.split())}", err=True)
    sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"btcai {version('btcai')}")
        raise typer.Exit


@app.callback()
def _common(
    log_level: Annotated[
        str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", envvar="BTCAI_LOG_LEVEL")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    from btcai import logs
    from btcai.environment import telemetry_off

    telemetry_off()
    if log_level:
        os.environ[logs.LEVEL_VARIABLE] = log_level  # the stages' processes follow
    logs.setup(log_level, Path("logs") if _settings_path().is_file() else None)


@data_app.command("simulate")
def data_simulate() -> None:
    """Write the simulated market (the same bits everywhere) and put it into use."""
    from btcai import datasets

    typer.echo(datasets.simulate(_project()))
    _show_change("data.market", *datasets.use(_project(), datasets.SIMULATED))


@data_app.command("import")
def data_import(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", readable=False, help="One file or several, judged and imported as one."),
    ],
    market: Annotated[str, typer.Option(help="Name of the market: its folder under data/.")] = "btcusdt",
    timeframe: Annotated[str, typer.Option(help="Of the bars in the files.")] = "5m",
) -> None:
    """Import 5-minute bars and put them into use: all of them, or nothing changes.

    Files: parquet, feather, CSV or JSON (plain or gzipped), or a zip of CSV
    files, as Binance's archive, freqtrade and ccxt write them. What a file is,
    its first bytes tell.

    Columns: the opening time in UTC (timestamp, open_time, date, datetime or
    time), open, high, low, close, volume; others are ignored. Where they have
    no names: ccxt's 6 (CSV or JSON lists) or Binance's 12.

    Times: stamps, ISO text, or numbers of s, ms, us or ns since 1970.

    Gaps are fine. One bad bar refuses the import and is named by file and row.
    """
    from btcai import datasets

    done = datasets.import_files(_project(), files, market, timeframe)
    typer.echo(done.printed())
    _show_change("data.market", done.old_market, done.market)


@data_app.command("use")
def data_use(market: Annotated[str, typer.Argument(help="A folder under data/.")]) -> None:
    """Put a market that is there into use."""
    from btcai import datasets

    _show_change("data.market", *datasets.use(_project(), market))


@data_app.command("status")
def data_status() -> None:
    """What bars are there, which are in use, whether data.dvc pins them."""
    from btcai import datasets

    config, root = _config(), _project()
    for line in datasets.status(root, config):
        typer.echo(line)


@app.command()
def stage(name: Annotated[str, typer.Argument(help="As in dvc.yaml: validate, features, train@scalping, ...")]) -> None:
    """Run one stage of dvc.yaml in this process."""
    from btcai.stages import run_stage

    run_stage(name, _config(), _project())


@app.command()
def run(
    profile: Annotated[str | None, typer.Option(help="quick, standard or full: how much each bucket trains.")] = None,
    force: Annotated[bool, typer.Option(help="Run every stage, changed or not.")] = False,
) -> None:
    """Run the pipeline: every stage that something changed for, under Prefect."""
    from btcai import datasets

    root = _project()
    if profile is not None:
        _set("profile", profile)
    config = _config()
    for note in datasets.ready(root, config):
        typer.echo(f"note: {note}", err=True)
    from flows import settings

    settings.apply(root)
    from flows.pipeline import run as run_flow

    states = run_flow(root, force=force)
    ran = [name for name, state in states.items() if state == "ran"]
    typer.echo(f"ran {', '.join(ran)}" if ran else "nothing had changed: every stage is up to date")
    _report(root, trained=True)


@app.command()
def report() -> None:
    """Print the results again and where the report, the models and the pages are."""
    _report(_project(), trained=False)


@app.command()
def decide(
    bucket: Annotated[str, typer.Option(help="scalping, short, medium or long.")],
    bars: Annotated[Path, typer.Option(help="Recent 5-minute bars, any file that data import reads.", readable=False)],
    account: Annotated[
        Path | None,
        typer.Option(
            help="JSON: cash_usdt; if they are not the defaults: lots [{btc, entry_price}], equity_start_usdt, "
            "peak_equity_usdt, day_start_equity_usdt, decisions_since_trade, cool_down_bars, halt (daily or drawdown), "
            "order_pending."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")] = False,
) -> None:
    """Decide with the champion at the newest bar on the bucket's clock, under the halts and limits of the backtest."""
    import time

    from btcai import inference, summary
    from btcai.champions import read_standing
    from btcai.data.sources import read_bars
    from btcai.data.store import to_grid

    folder = champion_folder(_project(), bucket)
    holdings = _read_account(account)
    bundle = inference.load_bundle(folder)
    decision = inference.decide(bundle, to_grid(read_bars(bars)), holdings)
    standing = read_standing(folder)
    if as_json:
        typer.echo(summary.decision_json(decision, standing))
    else:
        age = summary.bar_age(decision.close_ts_ns, time.time_ns(), bundle.patch_bars)
        told = str(account) if account else "flat (no --account given)"
        _print(summary.decision_view(decision, standing, told, age))


@registry_app.command("list")
def registry_list() -> None:
    """Every bucket's champion, challenger and previous champion."""
    from btcai import registry, registry_view

    _print(registry_view.shelves_view(registry.shelves(_project())))


@registry_app.command("show")
def registry_show(
    bucket: Annotated[str, typer.Argument(help="scalping, short, medium or long.")],
    params: Annotated[bool, typer.Option("--params", help="Every parameter, not only those that differ now.")] = False,
) -> None:
    """Trace a bucket's champion to its run, data, code, locks and settings, and say how to make it again."""
    from btcai import registry, registry_view

    _print(registry_view.trace_view(registry.trace(_project(), bucket, _config()), all_params=params))


def champion_folder(root: Path, bucket: str) -> Path:
    """models/champion/BUCKET; an error names the buckets, or the command that makes a champion."""
    from btcai import paths
    from btcai.schema import BUCKETS

    if bucket not in BUCKETS:
        raise ArtifactError(f"a bucket must be one of {', '.join(BUCKETS)}, was {bucket}; mend --bucket")
    folder = root / paths.CHAMPION / bucket
    if not folder.is_dir():
        raise ArtifactError(f"no champion for {bucket}; make one with: btcai run")
    return folder


def _read_account(path: Path | None) -> dict[str, Any] | None:
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


def _report(root: Path, *, trained: bool) -> None:
    from btcai import summary
    from btcai.stages import read_metrics

    results = summary.results_view(read_metrics(root))
    if trained and (table := summary.trained_view(root)):
        _print(table)
    _print(results)
    _print(summary.places_view(root))


def _print(view: "RenderableType") -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a pipe has no width: whole lines instead of 80 columns
        console = Console(width=200)
    console.print(view)


def _project() -> Path:
    return Path.cwd()


def _settings_path() -> Path:
    from btcai import paths

    return _project() / paths.PARAMS


def _config() -> "Config":
    from btcai.config import load_config

    return load_config(_settings_path())


def _set(key: str, value: str) -> None:
    from btcai.config import set_param

    _config()
    _show_change(key, *set_param(_settings_path(), key, value))


def _show_change(key: str, old: str, new: str) -> None:
    if old != new:
        typer.echo(f"{key}: {old} -> {new}")


if __name__ == "__main__":
    main()
