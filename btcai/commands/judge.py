"""The commands that judge beyond the stage `evaluate`: each a thin layer, imported and run only when asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btcai.commands.project import features_unchanged, project_root, writing
from btcai.console import progress, show

if TYPE_CHECKING:
    from btcai.config import Config

sealed_app = typer.Typer(help="The span that nothing was chosen on: open it, on record.", no_args_is_help=True)


def refit(
    combinatorial: Annotated[
        bool, typer.Option("--combinatorial", help="Every choice of test groups, in place of walking forward.")
    ] = False,
    groups: Annotated[int, typer.Option(min=3, help="Parts that the bars before the sealed span are cut into.")] = 6,
    test_groups: Annotated[
        int | None, typer.Option(min=1, help="Of them, tested at a time; with --combinatorial, 2.", show_default=False)
    ] = None,
    left: Annotated[bool, typer.Option("--left", help="Only say what is left to do, and what is known.")] = False,
    ray: Annotated[
        str | None,
        typer.Option("--ray", help="Train on a Ray cluster: its address, or local for workers of this machine."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Folds at a time with --ray.", show_default="as there is room for")
    ] = None,
) -> None:
    """Train all four buckets anew on each fold and judge them on bars they never saw, purged and embargoed.

    The profile in use says how much is trained. Resumable: a bucket is kept
    as soon as it is trained. Report: reports/folds.
    """
    from btcai import outputs, paths
    from btcai.agent.shards import SHARDS
    from btcai.errors import ConfigError
    from btcai.experiments import on_ray, refitting, refitting_report
    from btcai.experiments.report import about
    from btcai.experiments.spread import here
    from btcai.records.trials import append_trial

    if test_groups is not None and not combinatorial:
        raise ConfigError("--test-groups needs --combinatorial: walking forward tests one group at a time")
    root = Path.cwd()
    with features_unchanged(root):
        config, version = _config(root), outputs.data_version(root)
        data, splits, _ = outputs.load_features(root)
    if combinatorial and test_groups is None:
        test_groups = 2
    plan = refitting.planned(config, splits, data.warmup_bars, groups, test_groups)
    folder = root / paths.FOLDS
    found = refitting.outcomes(config, plan, folder / "trained", version)
    seconds = refitting.seconds_left(config, plan, folder / "trained", version)
    typer.echo(f"{sum(one is None for one in found)} of {len(found)} folds are left{about(seconds)}")
    if not left:
        key = refitting.plan_key(config, plan, version)
        terms = {"data_version": version}
        trial: dict[str, object] = {"input_hash": key, "tried": {"refit": plan.name}, "terms": terms}
        trial |= {"market": config.data.market, "tested_ts_ns": [int(data.bars.close_ts_ns[bar]) for bar in (0, -1)]}
        with (
            writing("btcai refit", part=paths.FOLDS),
            progress("folds") as advance,
            on_ray.cluster(ray, workers, max(config.threads, SHARDS)) as run,
        ):
            append_trial(root / paths.TRIALS, trial)  # before the first look, but not where it is refused
            folds = refitting.refit(config, data, plan, folder / "trained", version, run or here)
            for done, _ in enumerate(folds, start=1):
                advance(done, len(plan.folds))
        found = refitting.outcomes(config, plan, folder / "trained", version)
    known = [one for one in found if one is not None]
    if len(known) == len(found):
        rows = refitting.path_rows(plan, known)
        refitting_report.write(rows, plan, folder)
        show(refitting_report.view(rows))


@sealed_app.command("open")
def sealed_open(
    because: Annotated[str, typer.Option(help="Why; it is put on record with the time and the models.")],
) -> None:
    """Judge the champions on the sealed span, once more than before.

    Every look is on record in journal/openings.jsonl before anything is read:
    what is seen often proves nothing. Nothing is chosen by what is found.
    """
    import time

    from btcai.report.report import rich_table
    from btcai.unsealing import unseal

    with writing("btcai sealed open") as root:
        found = unseal(root, _config(root), because, int(time.time()))
    show(rich_table(found.judgement.judged_rows(), "Sealed span"))
    for verdict in found.judgement.verdicts:
        typer.echo(f"{verdict.bucket}: {verdict.text}")
    often = "once, now" if found.looks == 1 else f"{found.looks} times, this one too: expect luck"
    typer.echo(f"This time of the market was looked at {often}.")
    typer.echo(f"Trials judged earlier on it or a part of it, all counted as luck: {found.earlier_trials:,}.")
    typer.echo(f"Report: {found.folder.relative_to(root)}")


@sealed_app.command("list")
def sealed_list() -> None:
    """Every look at a sealed span that is on record."""
    from datetime import UTC, datetime

    from rich.table import Table

    from btcai import paths
    from btcai.records import openings

    table = Table("opened, UTC", "market", "bars from", "to", "because", "models")
    for one in openings.looks(project_root() / paths.OPENINGS):
        first, last = (
            f"{datetime.fromtimestamp(ts // 10**9, UTC):%Y-%m-%d}" for ts in (one.first_ts_ns, one.last_ts_ns)
        )
        models = ", ".join(f"{bucket} {version}" for bucket, version in one.models.items())
        table.add_row(
            f"{datetime.fromtimestamp(one.opened_unix_s, UTC):%Y-%m-%d %H:%M}",
            one.market,
            first,
            last,
            one.because,
            models,
        )
    show(table if table.row_count else "nothing that was sealed has been opened")


def _config(root: Path) -> "Config":
    from btcai import paths
    from btcai.params import load_config

    return load_config(root / paths.PARAMS)
