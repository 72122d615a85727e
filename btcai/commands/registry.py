"""The registry's commands: what is registered, who decides, what a champion was made from, what may go."""

from typing import TYPE_CHECKING, Annotated

import typer

from btcai.commands.project import project_root
from btcai.console import show

if TYPE_CHECKING:
    from btcai.registry.promotion import Done

app = typer.Typer(help="What is registered, who decides, what each champion was made from.", no_args_is_help=True)

Bucket = Annotated[str, typer.Argument(help="scalping, short, medium or long.")]
OneOrAll = Annotated[str | None, typer.Argument(help="scalping, short, medium or long; every one without.")]
Because = Annotated[str, typer.Option(help="Why; it is put on record with your name and the time.")]


@app.command("list")
def list_() -> None:
    """Every bucket's champion, challenger and previous champion, and who holds one by hand."""
    from btcai.registry import tracing, view

    show(view.shelves_view(tracing.shelves(project_root())))
    for line in _pins():
        typer.echo(line)


@app.command("show")
def show_(
    bucket: Bucket,
    params: Annotated[bool, typer.Option("--params", help="Every parameter, not only those that differ now.")] = False,
) -> None:
    """Trace a bucket's champion to its run, data, code, locks and settings, and say how to make it again."""
    from btcai import paths
    from btcai.operation import services
    from btcai.params import load_config
    from btcai.registry import tracing, view

    root = project_root()
    trace = tracing.trace(root, bucket, load_config(root / paths.PARAMS))
    show(view.trace_view(trace, all_params=params, pages=services.pages(root)["MLflow"]))


@app.command()
def using(
    what: Annotated[str, typer.Argument(help="First digits of a hash, a market's name, or a setting: ppo.clip=0.3")],
) -> None:
    """Which versions were made from these bars, this code or commit, these settings or locks: the way back."""
    from btcai.registry import tracing, view

    show(view.uses_view(tracing.using(project_root(), what), what))


@app.command()
def promote(
    bucket: Bucket,
    version: Annotated[int, typer.Argument(min=1, help="Of the registered model.")],
    because: Because,
) -> None:
    """Make a version champion and hold it there: no run puts another in its place until it is released.

    Files and registry change together or not at all. A version whose bundle
    is damaged, not the one on record or for other features is refused.
    """
    from btcai.registry import promotion

    _say(promotion.promote(project_root(), bucket, version, because))


@app.command()
def rollback(bucket: Bucket, because: Because) -> None:
    """Make the champion before this one champion again.

    It is held where the promotion rule would choose another. A second
    rollback undoes the first.
    """
    from btcai.registry import promotion

    _say(promotion.rollback(project_root(), bucket, because))


@app.command()
def unpin(bucket: Bucket, because: Because) -> None:
    """Give a bucket that is held by hand back to the promotion rule, whose choice is champion at once."""
    from btcai.registry import promotion

    _say(promotion.unpin(project_root(), bucket, because))


@app.command()
def history(bucket: OneOrAll = None) -> None:
    """Every change of champion on record: when, who, from what to what, why, and what became of it."""
    from btcai.registry import promotion, view

    show(view.history_view(promotion.history(project_root(), bucket)))


@app.command()
def verify(
    bucket: OneOrAll = None,
    mend: Annotated[
        bool, typer.Option("--mend", help="End an interrupted change and bring damaged files back from the record.")
    ] = False,
) -> None:
    """Is each champion on disk the one on record, whole, and does it decide as it did? Exit code 1 where not."""
    from btcai.registry import verification, view
    from btcai.schema import BUCKETS

    root = project_root()
    checks = verification.verify(root, bucket)
    if mend and not all(check.ok for check in checks):
        broken = {check.bucket for check in checks if not check.ok}
        for name in (name for name in BUCKETS if name in broken):
            for line in verification.mend(root, name):
                typer.echo(line)
        checks = verification.verify(root, bucket)
    show(view.checks_view(checks))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command()
def gc(
    keep: Annotated[int, typer.Option(min=1, help="The newest runs that stay beside those that are needed.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove old runs and models, and what only they need of DVC's cache; never of a DVC remote.

    Every version with an alias or held by hand stays, with its run, its bars
    and all that its dvc.lock names; so do the workspace, branches and tags.
    """
    from btcai.registry import garbage, view

    show(view.garbage_view(garbage.collect(project_root(), keep, dry=dry_run), dry=dry_run))


def _say(done: "Done") -> None:
    change, champion = done.change, done.champion
    before = f" after version {done.before.version}" if done.before and done.before != champion else ""
    typer.echo(f"{change.bucket}: champion is version {champion.version}{before}, model {change.model_version}")
    if done.before and done.before.judged_on != champion.judged_on:
        typer.echo("note: the two were judged on other bars, spans or costs: their scores do not compare")
    if champion.edge != "proven":
        typer.echo("note: no edge is proven for it, so it stays on paper")
    if change.after.pinned is not None:
        typer.echo(f"held until: btcai registry unpin {change.bucket} --because TEXT")


def _pins() -> list[str]:
    from btcai import paths
    from btcai.records import promotions

    pins = promotions.pins(project_root() / paths.PROMOTIONS)
    return [
        f"{bucket} is held at version {change.after.pinned} by {change.who}: {change.because} "
        f"(btcai registry unpin {bucket} --because TEXT)"
        for bucket, change in pins.items()
    ]
