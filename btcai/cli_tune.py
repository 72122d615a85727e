"""The commands that compare settings: each a thin layer, imported and run only when asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btcai.console import progress, show

if TYPE_CHECKING:
    from btcai.config import Config
    from btcai.experiments.running import Subject

On = Annotated[str, typer.Option(help="two_scale (the yardstick's market of that name) or market (the one in use).")]
Buckets = Annotated[str, typer.Option(help="Comma-separated; all four without.")]


def ablate(
    on: On = "two_scale",
    arms: Annotated[str, typer.Option(help="Comma-separated; all of them without.")] = "",
    buckets: Buckets = "",
    seeds: Annotated[int, typer.Option(min=1, help="Of each arm.")] = 5,
    shares: Annotated[str, typer.Option(help="Of the full budget, comma-separated; two or more tell steps.")] = "0.25",
    left: Annotated[bool, typer.Option("--left", help="Only say what is left to train, and what is known.")] = False,
) -> None:
    """Compare choices: an arm changes params.yaml, is trained with several seeds and held against what is there.

    Resumable: a training is kept as soon as it is done, and the next call
    makes only what is missing. Report: reports/ablation.
    """
    from btcai import paths
    from btcai.experiments import report, running
    from btcai.experiments.arms import ARMS
    from btcai.experiments.trials import Kept

    root = Path.cwd()
    config, folder = _config(root), root / paths.ABLATION / on
    subject = _subject(on, config, root)
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
            _on_record(root, subject, plan.keys[trial], {"arm": trial.arm})
        with progress("ablate") as advance:
            wanted = len(plan.left)
            for done, trial in enumerate(running.make(config, plan, subject), start=1):
                _on_record(root, subject, plan.keys[trial], {"arm": trial.arm})
                advance(done, wanted)
        report.write(plan.done, folder, config.seed)
    if plan.done:
        show(report.view(plan.done, config.seed))


def tune(
    on: On = "two_scale",
    settings: Annotated[str, typer.Option(help="Of params.yaml, comma-separated; all that show there without.")] = "",
    buckets: Buckets = "",
    trials: Annotated[int, typer.Option(min=1, help="In all, those of earlier calls included.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Of each trial.")] = 1,
    share: Annotated[float, typer.Option(help="Of the full budget.")] = 0.25,
) -> None:
    """Search settings with Optuna, the present ones first; params.yaml stays as it is.

    Resumable: every trial is kept in reports/tuning as soon as it is done.
    One of the market in use counts in the ledger of configurations tried,
    journal/trials.jsonl: an edge found among many must be the larger.
    """
    from btcai import paths
    from btcai.experiments import tuning, tuning_report

    root = Path.cwd()
    config, folder = _config(root), root / paths.TUNING / on
    subject = _subject(on, config, root)
    search = tuning.Search(
        settings=tuple(_listed(settings)) or tuning.seen_by(subject, config),
        buckets=_buckets(buckets),
        seeds=seeds,
        share=_share(str(share)),
    )
    study = tuning.open_study(config, subject, search, folder)
    for trial in tuning.ended(study):  # where an earlier call was killed before it could
        _on_record(root, subject, f"{study.study_name}-{trial.number}", trial.params)
    with progress("tune") as advance:
        for trial in tuning.tune(config, subject, search, study, trials):
            _on_record(root, subject, f"{study.study_name}-{trial.number}", trial.params)
            advance(len(tuning.ended(study)), trials)
    tuning_report.write(study, folder)
    show(tuning_report.view(study))


def _subject(on: str, config: "Config", root: Path) -> "Subject":
    from btcai import paths, stages
    from btcai.errors import ConfigError
    from btcai.experiments.history import History
    from btcai.experiments.two_scale import Size, TwoScale

    if on == TwoScale.name:
        return TwoScale(config, Size(), root / paths.ABLATION / "teachers")
    if on == History.name:
        data = stages.load_features(root)
        return History(config, *data, stages.data_version(root), root / paths.ABLATION / "teachers")
    raise ConfigError(
        f"--on must be {TwoScale.name} or {History.name}, was {on}; run: btcai ablate --on {TwoScale.name}"
    )


def _on_record(root: Path, subject: "Subject", key: str, tried: dict[str, object]) -> None:
    """Whatever was tried on the market in use is one more configuration that saw it."""
    from btcai import champions, paths
    from btcai.experiments.history import History

    if subject.name == History.name:
        champions.append_trial(root / paths.TRIALS, {"input_hash": key, "tried": tried, "terms": subject.terms})


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
