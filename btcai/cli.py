"""The command line: each command a thin layer over one plain function, heavy imports inside."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from btcai.commands import (
    bench,
    decide,
    doctor,
    explain,
    fetch,
    judge,
    operate,
    registry,
    secrets,
    serve,
    simulate,
    train,
    tune,
    watch,
)
from btcai.commands.project import project_root, writing
from btcai.console import show, show_change
from btcai.errors import BtcaiError
from btcai.files import NO_ROOM
from btcai.operation import endings

if TYPE_CHECKING:
    from btcai.config import Config

app = typer.Typer(
    name="btcai",
    help="An AI trading system for Bitcoin: four timeframes, one progressive training, honest results.\n\n"
    "Exit codes: 0 done, 1 an error, 2 wrong words on the command line, 3 and 4 where a command's help says so, "
    "130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Get bars, choose the market in use.", no_args_is_help=True)
app.add_typer(data_app, name="data", rich_help_panel="Data")
app.add_typer(simulate.app, name="simulate", rich_help_panel="Data")
app.add_typer(judge.sealed_app, name="sealed", rich_help_panel="Judge")
app.add_typer(registry.app, name="registry", rich_help_panel="Operate")
app.add_typer(secrets.app, name="secrets", rich_help_panel="Operate")

INTERRUPTED = 130
EXTRAS = "pip install -e '.[operate]'"


def main() -> None:
    """Entry point: what the user can mend is one line on stderr, exit code 1; tracebacks go to the debug log."""
    try:
        with endings.lost_interrupts_repeated():
            app()
    except SystemExit as end:
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):  # Typer says nothing of it
            typer.echo("interrupted: what was finished is kept; the same command goes on from there", err=True)
        raise
    except BtcaiError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _fail(f"{error}: what was not finished is as it was; free the disk or mend its permissions, then run it again")
    except (MemoryError, RuntimeError) as error:
        if not endings.out_of_memory(error):
            raise
        said = str(error).partition("\n")[0] or "no more could be had"
        _fail(f"out of memory: {said}; what was not finished is as it was; {endings.MORE_MEMORY}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("btcai", "flows", "bench")):  # ours: a bug, not something to install
            raise
        _fail(f"{error}; install it with: {EXTRAS}")


def _fail(text: str) -> NoReturn:
    from btcai.redaction import redact

    logging.getLogger(__name__).debug("failed", exc_info=True)
    typer.echo(f"error: {redact(' '.join(text.split()))}", err=True)
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
    from btcai.environment import telemetry_off
    from btcai.logs import handlers

    telemetry_off()
    if log_level:
        os.environ[handlers.LEVEL_VARIABLE] = log_level  # the stages' processes follow
    handlers.setup_project(_project(), log_level)


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
    from btcai import acquisition

    with writing("btcai data import") as root:
        done = acquisition.import_files(root, files, market, timeframe)
    typer.echo(done.printed())
    show_change("data.market", done.old_market, done.market)


data_app.command("fetch")(fetch.fetch)
data_app.command("update")(fetch.update)


@data_app.command("use")
def data_use(market: Annotated[str, typer.Argument(help="A folder under data/.")]) -> None:
    """Put a market that is there into use."""
    from btcai import datasets

    with writing("btcai data use") as root:
        show_change("data.market", *datasets.use(root, market))


@data_app.command("status")
def data_status() -> None:
    """What bars are there, which are in use, whether data.dvc pins them."""
    from btcai import datasets

    config, root = _config(), _project()
    for line in datasets.status(root, config):
        typer.echo(line)


@data_app.command("folds")
def data_folds(
    groups: Annotated[int, typer.Option(min=2, help="Parts that the bars before the sealed span are cut into.")] = 6,
    test_groups: Annotated[int, typer.Option(min=1, help="Of them, tested at a time.")] = 2,
) -> None:
    """Print walk-forward and combinatorial folds of the market in use: purged, embargoed, the sealed span left out."""
    from btcai import datasets

    typer.echo(datasets.folds(_project(), _config(), groups, test_groups))


@app.command(rich_help_panel="Run")
def stage(name: Annotated[str, typer.Argument(help="As in dvc.yaml: validate, features, train@scalping, ...")]) -> None:
    """Run one stage of dvc.yaml in this process."""
    from contextlib import nullcontext

    from btcai.logs import fields
    from btcai.stages import run_stage

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts: the one that writes
    with fields.context(stage=name), writing(f"btcai stage {name}") if first else nullcontext():
        run_stage(name, _config(), _project())


@app.command(rich_help_panel="Run")
def run(
    profile: Annotated[
        str | None,
        typer.Option(
            help="quick, standard or full: how much each bucket trains. Written to params.yaml, whose profile (quick, "
            "as delivered) is the default."
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Run every stage, changed or not.")] = False,
) -> None:
    """Run the pipeline: every stage that something changed for, under Prefect."""
    from btcai import datasets

    with writing("btcai run --force" if force else "btcai run", pauses=True) as root:
        if profile is not None:
            _set("profile", profile)
        for note in datasets.ready(root, _config()):
            typer.echo(f"note: {note}", err=True)
        from flows import settings

        settings.apply(root)
        from flows import pipeline

        try:
            states = pipeline.run(root, force=force)
        except pipeline.Stopped as stopped:
            typer.echo(str(stopped), err=True)
            raise typer.Exit(INTERRUPTED) from None
    ran = [name for name, state in states.items() if state == "ran"]
    typer.echo(f"ran {', '.join(ran)}" if ran else "nothing had changed: every stage is up to date")
    _report(root, trained=True)


@app.command(rich_help_panel="Run")
def report() -> None:
    """Print the results again and where the report, the models and the pages are."""
    _report(project_root(), trained=False)


_PANELS = {
    "Decide": (decide.decide, explain.explain, serve.serve),
    "Judge": (watch.drift, judge.refit, bench.bench, bench.features),
    "Train": (train.warm_start, tune.ablate, tune.tune),
    "Operate": (
        *(operate.up, operate.status, operate.pause, operate.resume, operate.cancel),
        *(operate.down, doctor.doctor),
    ),
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def _report(root: Path, *, trained: bool) -> None:
    from btcai import summary
    from btcai.operation import services
    from btcai.outputs import read_metrics

    results = summary.results_view(read_metrics(root))
    if trained and (table := summary.trained_view(root)):
        show(table)
    show(results)
    show(summary.places_view(root, services.pages(root)))


def _project() -> Path:
    return Path.cwd()


def _settings_path() -> Path:
    from btcai import paths

    return _project() / paths.PARAMS


def _config() -> "Config":
    from btcai.params import load_config

    return load_config(_settings_path())


def _set(key: str, value: str) -> None:
    from btcai.params import set_param

    _config()
    show_change(key, *set_param(_settings_path(), key, value))


if __name__ == "__main__":
    main()
