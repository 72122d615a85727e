"""`btcai tune --population`: the whole of a search, beside trainings with the settings as they are."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from btcai.agent.shards import SHARDS
from btcai.config import Config
from btcai.experiments import on_ray
from btcai.experiments.population import (
    Population,
    Round,
    Rounds,
    Staged,
    Step,
    first_settings,
    open_rounds,
    present_settings,
)
from btcai.training.health import TrainingError

BEST, UNCHANGED, IN_ONE_GO = "best member", "as configured, in the same rounds", "as configured, in one go"
"""What led to the best member's last round, and what it is held against: as many rounds with the settings as they are,
and one with the budget of all of them."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Rounds that each went on from the one before; elsewhere: the last one's score where none was taken until the end,
    None where that cannot be told."""

    rounds: list[Round]
    elsewhere: float | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of a search: every round of every member, and BEST, UNCHANGED and IN_ONE_GO."""

    steps: list[Step]
    lines: dict[str, Line]


def evolve(
    config: Config,
    subject: Staged,
    reopen: Callable[[], Staged],
    population: Population,
    folder: Path,
    at_once: int | None,
    told: Callable[[Round, int, int], None],
) -> Found:
    """Make what is left of a search in `folder`; `told` hears of each round, how many are done, and how many wanted.

    reopen: opens the same subject in another process, so it can be pickled; at_once: members that train at a time, as
    many as there are cores for their threads, and memory, without.
    """
    rounds, threads = open_rounds(config, subject, population, folder), max(config.threads, SHARDS)
    each = max(map(subject.memory_bytes, population.buckets))
    at_once = on_ray.room_for(at_once, threads, each, population.members)
    one_go = replace(population, generations=1, share=population.share * population.generations)
    at_full_length = open_rounds(config, subject, one_go, folder)
    wanted, steps = (population.members + 1) * population.generations + 1, list[Step]()
    for one in (*rounds.all(), *at_full_length.all()):
        told(one, 0, wanted)  # where an earlier call was killed before it could
    unchanged: list[Round] = []
    for k in range(population.generations):  # first, for teachers are trained here and nowhere else
        unchanged.append(rounds.after(unchanged[-1].id if k else None, present_settings(config, population)))
        told(unchanged[-1], k + 1, wanted)
    whole = at_full_length.after(None, present_settings(config, population))

    def stepped(step: Step) -> None:
        steps.append(step)
        told(step.round, population.generations + 1 + len(steps), wanted)
        if len(steps) % population.members == 0:  # the generation has ended
            rounds.forget(step.round.number)

    told(whole, population.generations + 1, wanted)
    on_ray.evolve(
        rounds,
        partial(_reopened, reopen, rounds.folder, config, population),
        population,
        first_settings(config, population),
        config.seed,
        threads,
        at_once,
        stepped,
    )
    best = rounds.lineage(_best(steps, population.generations))
    made = {BEST: (rounds, best), UNCHANGED: (rounds, unchanged), IN_ONE_GO: (at_full_length, [whole])}
    lines = {name: Line(rounds=line, elsewhere=kept.held_out(line[-1])) for name, (kept, line) in made.items()}
    return Found(steps=steps, lines=lines)


def _reopened(reopen: Callable[[], Staged], folder: Path, config: Config, population: Population) -> Rounds:
    return Rounds(folder, config, reopen(), population)


def _best(steps: list[Step], generations: int) -> Round:
    """Of the last rounds."""
    last = [step.round for step in steps if step.round.number == generations and step.round.score is not None]
    if not last:
        raise TrainingError("a member must end with a score, all of them blew up; choose others with --settings")
    return max(last, key=lambda one: one.score or 0.0)
