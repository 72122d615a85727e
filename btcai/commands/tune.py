"""The commands that compare settings: each a thin layer, imported and run only when asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btcai.commands.project import features_unchanged, writing
from btcai.console import progress, show

if TYPE_CHECKING:
    from btcai.config import Config
    from btcai.experiments.running import Subject

On = Annotated[
    str,
    typer.Option(
        help="A market of the yardstick (two_scale, easy .. very_hard, interaction) or market: the one in use."
    ),
]
Buckets = Annotated[str, typer.Option(help="Comma-separated; all four without.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", help="Train on a Ray cluster: its address, or local for workers of this machine."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Trainings at a time with --ray.", show_default="as there is room for")
]


def ablate(
    on: On = "two_scale",
    arms: Annotated[str, typer.Option(help="Comma-separated; all of them without.")] = "",
    buckets: Buckets = "",
    seeds: Annotated[int, typer.Option(min=1, help="Of each arm.")] = 5,
    shares: Annotated[str, typer.Option(help="Of the full budget, comma-separated; two or more tell steps.")] = "0.25",
    left: Annotated[bool, typer.Option("--left", help="Only say what is left to train, and what is known.")] = False,
    ray: Ray = None,
    workers: Workers = None,
) -> None:
    """Compare choices: an arm changes params.yaml, is trained with several seeds and held against what is there.

    Resumable: a training is kept as soon as it is done, and the next call
    makes only what is missing. Report: reports/ablation.
    """
    from btcai import paths
    from btcai.agent.shards import SHARDS
    from btcai.experiments import on_ray, report, running
    from btcai.experiments.arms import ARMS
    from btcai.experiments.subjects import open_subject
    from btcai.experiments.trials import Kept

    root = Path.cwd()
    config, folder = _config(root), root / paths.ABLATION / on
    with features_unchanged(root):
        subject = open_subject(on, config, root)
    asked = running.Asked(
        arms=tuple(_listed(arms)) or tuple(ARMS),
        buckets=_buckets(buckets),
        seeds=seeds,
        shares=tuple(_share(share) for share in _listed(shares)),
    )
    plan = running.plan(config, subject, asked, Kept(folder / "trials.jsonl"))
    show(report.left(plan))
    if not left:
        for trial in plan.done:  # where an earlier call was killed before it could
            _on_record(root, config, subject, plan.keys[trial], {"arm": trial.arm})
        with (
            writing("btcai ablate", part=paths.ABLATION / on),
            progress("ablate") as advance,
            on_ray.cluster(ray, workers, max(config.threads, SHARDS)) as run,
        ):
            wanted = len(plan.left)
            made = running.make_spread(config, plan, subject, run) if run else running.make(config, plan, subject)
            for done, trial in enumerate(made, start=1):
                _on_record(root, config, subject, plan.keys[trial], {"arm": trial.arm})
                advance(done, wanted)
        report.write(plan.done, folder, config.seed)
    if plan.done:
        show(report.view(plan.done, config.seed))


def tune(
    on: On = "two_scale",
    settings: Annotated[str, typer.Option(help="Of params.yaml, comma-separated; all that show there without.")] = "",
    buckets: Buckets = "",
    trials: Annotated[
        int | None, typer.Option(min=1, help="In all, those of earlier calls included.", show_default="20")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Of each trial or member.")] = 1,
    share: Annotated[float, typer.Option(help="Of the full budget: of a trial, or of a member's round.")] = 0.25,
    population: Annotated[
        int | None, typer.Option(min=2, help="Members that train in rounds, in place of trials.")
    ] = None,
    generations: Annotated[int | None, typer.Option(min=1, help="Rounds of each member.", show_default="5")] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Members that train at a time.", show_default="as cores allow")
    ] = None,
    ray: Ray = None,
    workers: Workers = None,
) -> None:
    """Search settings, the present ones first; params.yaml stays as it is.

    With Optuna, each trial a training; or, with --population, with Ray Tune
    while members train: after a round the worst quarter goes on from the
    weights of the best, with settings near theirs, and a schedule comes of it.

    Resumable: every trial or round is kept in reports/tuning as soon as it is
    done. One of the market in use counts in the ledger of configurations
    tried, journal/trials.jsonl: an edge found among many must be the larger.
    """
    _refuse_mixture(population, trials, generations, at_once, ray)
    if population is not None:
        _evolve(on, _listed(settings), _buckets(buckets), seeds, _share(str(share)), population, generations, at_once)
        return
    from btcai import paths
    from btcai.agent.shards import SHARDS
    from btcai.experiments import on_ray, tuning, tuning_report
    from btcai.experiments.subjects import open_subject

    root, trials = Path.cwd(), trials or 20
    config, folder = _config(root), root / paths.TUNING / on
    with features_unchanged(root):
        subject = open_subject(on, config, root)
    search = tuning.Search(
        settings=tuple(_listed(settings)) or tuning.seen_by(subject, config),
        buckets=_buckets(buckets),
        seeds=seeds,
        share=_share(str(share)),
    )
    study = tuning.open_study(config, subject, search, folder)
    for trial in tuning.ended(study):  # where an earlier call was killed before it could
        _on_record(root, config, subject, f"{study.study_name}-{trial.number}", trial.params)
    with (
        writing("btcai tune", part=paths.ABLATION / on),  # ablate's: both make this market's teachers
        progress("tune") as advance,
        on_ray.cluster(ray, workers, max(config.threads, SHARDS)) as run,
    ):
        for trial in tuning.tune(config, subject, search, study, trials, run):
            _on_record(root, config, subject, f"{study.study_name}-{trial.number}", trial.params)
            advance(len(tuning.ended(study)), trials)
    tuning_report.write(study, folder)
    show(tuning_report.view(study, folder.relative_to(root)))


def _refuse_mixture(
    population: int | None, trials: int | None, generations: int | None, at_once: int | None, ray: str | None
) -> None:
    """Options of the one search say nothing to the other."""
    from btcai.errors import ConfigError

    if population is not None and trials is not None:
        raise ConfigError(f"--trials must not be given with --population, was {trials}; give --generations")
    if population is not None and ray is not None:
        raise ConfigError("--ray must not be given with --population, which starts Ray itself; give --at-once")
    if population is None and (generations, at_once) != (None, None):
        raise ConfigError("--generations and --at-once must be given with --population; give it, or --trials alone")


def _evolve(
    on: str,
    settings: list[str],
    buckets: tuple[str, ...],
    seeds: int,
    share: float,
    members: int,
    generations: int | None,
    at_once: int | None,
) -> None:
    """`tune --population`."""
    from functools import partial

    from btcai import paths
    from btcai.experiments import evolution, on_ray, population_report
    from btcai.experiments.population import SPACE, Population, Round
    from btcai.experiments.subjects import open_subject
    from btcai.experiments.tuning import seen_by

    on_ray.require()
    root = Path.cwd()
    config, folder = _config(root), root / paths.TUNING / on
    with features_unchanged(root):
        subject = open_subject(on, config, root)
    asked = Population(
        members=members,
        generations=generations or 5,
        settings=tuple(settings) or seen_by(subject, config, SPACE),
        buckets=buckets,
        seeds=seeds,
        share=share,
    )
    with writing("btcai tune", part=paths.ABLATION / on), progress("tune") as advance:

        def told(one: Round, done: int, wanted: int) -> None:
            _on_record(root, config, subject, one.id, {**one.settings, "round": one.number, "after": one.before})
            advance(done, wanted)

        reopen = partial(open_subject, on, config, root)
        found = evolution.evolve(config, subject, reopen, asked, folder / "rounds", at_once, told)
    population_report.write(found, asked, folder)
    show(population_report.view(found))


def _on_record(root: Path, config: "Config", subject: "Subject", key: str, tried: dict[str, object]) -> None:
    """Whatever was tried on the market in use is one more configuration that saw it: config's, as the subject was
    opened. Another may be in use by now."""
    from btcai import paths
    from btcai.records.trials import append_trial

    if subject.seen_ts_ns is not None:
        trial = {"input_hash": key, "tried": tried, "terms": subject.terms, "market": config.data.market}
        append_trial(root / paths.TRIALS, trial | {"tested_ts_ns": subject.seen_ts_ns})


def _config(root: Path) -> "Config":
    from btcai import paths
    from btcai.params import load_config

    return load_config(root / paths.PARAMS)


def _buckets(text: str) -> tuple[str, ...]:
    from btcai.errors import ConfigError
    from btcai.schema import BUCKETS

    if unknown := sorted(set(_listed(text)) - set(BUCKETS)):
        raise ConfigError(f"--buckets must be among {', '.join(BUCKETS)}, was {', '.join(unknown)}")
    return tuple(_listed(text)) or BUCKETS


def _share(text: str) -> float:
    from btcai.errors import ConfigError

    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(
            f"a share of the full budget must be above 0 and at most 1, was {text}; give a quarter as .25"
        )
    return share


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
