"""`btcai bench train`: how fast the learner trains, everything included, beside stable-baselines3 with our network.

What teaches is the distinct decision time, so that is what is counted: times met, each once an update; encoder passes,
forward and backward, over them; env steps of the accounts that walk on them (one account over one bar). Every repeat
is a whole training: prediction for a share of it, then PPO with its validations.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from bench.line import Fact, Goal, Line
from bench.markets import trading_market
from bench.stopwatch import Stopwatch, Timing
from bench.train_memory import BARS
from bench.train_rival import MISSING, NAME, rival
from bench.train_runs import Subject, Trainings, account_decisions, epochs, feature_subjects, yardstick_subject
from btcai import paths
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.training.checkpoint import require_device, set_up_torch
from btcai.training.trainer import train_ppo

PARTS = ("yardstick", "features", "steps", "memory", "steps_1e8")
ON_REQUEST = ("steps_1e8",)
"""Parts that only --only asks for."""

LEAST_PER_SECOND = {"distinct decision times": 40_000.0, "encoder passes": 80_000.0, "env steps": 300_000.0}
"""On the yardstick; half of it on all features."""

FLAT = (Goal("ratio", "<=", 1.1),)
MEMORY = (Goal("value", "<=", 3.0),)

_FEWEST, _WINDOW = 10, 100  # updates of PPO behind each cost of an env step
_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured. seconds: of a training; pilots: updates of those that find out how many fill them."""

    train_decisions: int = 300_000
    seconds: float = 30.0
    pilots: tuple[int, int] = (8, 24)
    rival_steps: tuple[int, int] = (8, 32)
    """Decisions of each of its accounts between updates, least and most: it takes a second for a few hundred."""
    env_steps: tuple[int, ...] = (10**5, 10**6, 10**7)
    memory_updates: int = 9
    """Of each phase: enough to validate."""
    memory_bars: int = BARS


def lines(
    stopwatch: Stopwatch, config: Config, root: Path, only: tuple[str, ...] = PARTS, size: Size | None = None
) -> Iterator[Line]:
    """The parts `only`, each measured anew."""
    size = size or Size()
    require_device(config)
    set_up_torch(config)
    if "yardstick" in only:
        yield from _speed(stopwatch, config, yardstick_subject(config, size.train_decisions), size, 1.0, {})
    if "features" in only:
        bars, data = trading_market()
        for subject in feature_subjects(config, data).values():
            yield from _speed(stopwatch, config, subject, size, 0.5, {"bars": bars})
    if "steps" in only:
        yield _flatness(config, size, size.env_steps)
    if "memory" in only:
        yield from (_memory(bucket, root, size) for bucket in config.buckets)
    if "steps_1e8" in only:
        yield _flatness(config, size, (*size.env_steps, 10 * size.env_steps[-1]))


def _speed(
    stopwatch: Stopwatch, config: Config, subject: Subject, size: Size, share: float, facts: dict[str, Fact]
) -> Iterator[Line]:
    """Whole trainings in turns with updates of the rival, whose every env step is a decision time of its own."""
    trainings, other = Trainings(subject, config, size.seconds, size.pilots), rival(subject, config, size.rival_steps)
    ours, *theirs = stopwatch.time(trainings.run, *([other] if other else []))
    per_second = {
        "distinct decision times": ours.per_second,
        "encoder passes": trainings.median(lambda done: done.passes / done.seconds),
        "encoder passes while it is trained": trainings.median(lambda done: done.passes / done.encoder_seconds),
        "env steps": trainings.median(lambda done: done.env_steps / done.ppo_seconds),
    }
    decided = trainings.median(lambda done: done.account_decisions / done.ppo_seconds)
    beside = theirs[0].per_second if theirs else None
    references = {"distinct decision times": beside, "env steps": beside and beside * subject.task.patch_bars}
    notes = {
        "distinct decision times": "theirs: every env step of 64 accounts is a decision time of its own",
        "encoder passes": "forward and backward, of prediction and of PPO, over all seconds of a training",
        "encoder passes while it is trained": "forward and backward, over the seconds of the phases that make any",
        "env steps": f"of PPO alone: {config.ppo.agents} accounts on a time, a bar each; theirs likewise",
    }
    for name, value in per_second.items():
        reference = NAME if name in references else None
        yield Line(
            name=f"{subject.name}: {name}",
            value=value,
            unit="1/s",
            reference=reference,
            reference_value=references.get(name),
            goals=(Goal("value", ">=", share * LEAST_PER_SECOND[name]),) if name in LEAST_PER_SECOND else (),
            note=f"{notes[name]}; {MISSING}" if reference and not theirs else notes[name],
            more=_facts(ours, trainings, config) | {"account_decisions_per_s": decided} | facts,
        )


def _facts(ours: Timing, trainings: Trainings, config: Config) -> dict[str, Fact]:
    return ours.facts() | {
        "threads": config.threads,
        "device": config.device,
        "parameters": trainings.parameters,
        "encoder_epochs": trainings.median(lambda done: done.encoder_epochs),
        "head_epochs": trainings.median(lambda done: done.head_epochs),
        "agents": config.ppo.agents,
        "seconds": trainings.median(lambda done: done.seconds),
        "ppo_seconds": trainings.median(lambda done: done.ppo_seconds),
        "decision_times_per_s_of_ppo": trainings.median(lambda done: done.met / done.ppo_seconds),
    }


def _flatness(config: Config, size: Size, marks: tuple[int, ...]) -> Line:
    """Nanoseconds of PPO an env step at the last of `marks` (env steps) of a training, beside those at the first.

    Medians over the updates before each mark, those that validate apart. The training is begun again after its end, as
    far as the first mark, and the mean of both is the reference: the machine is not as fast all the time.
    """
    subject = yardstick_subject(config, size.train_decisions)
    steps = account_decisions(config) * subject.task.patch_bars
    ends = [max(_FEWEST, -(-mark // steps)) for mark in marks]
    took_s, epochs_of = _timed_ppo(subject, config, ends[-1], ends[-1])
    again_s, _ = _timed_ppo(subject, config, ends[-1], ends[0])

    def window(end: int) -> slice:
        return slice(max(1, end - _WINDOW), end)  # the first update measures the reward's unit too

    def cost_ns(took_s: list[float], end: int) -> float:
        return float(np.nanmedian(took_s[window(end)])) / steps * 1e9

    before, after = cost_ns(took_s, ends[0]), cost_ns(again_s, ends[0])
    costs = [cost_ns(took_s, end) for end in ends]
    more: dict[str, Fact] = {f"ns_at_1e{np.log10(mark):.0f}": cost for mark, cost in zip(marks, costs, strict=True)}
    more |= {"ns_of_the_reference_before": before, "ns_of_the_reference_after": after}
    for k, name in enumerate(("encoder", "head")):
        for at, end in (("first", ends[0]), ("last", ends[-1])):
            more[f"{name}_epochs_{at}"] = float(np.mean([found[k] for found in epochs_of[window(end)]]))
    return Line(
        name=f"{subject.name}: cost of an env step after {marks[-1]:,} of them",
        value=costs[-1],
        unit="ns",
        reference=f"after {marks[0]:,}, before and after it",
        reference_value=(before + after) / 2,
        goals=FLAT,
        more=more | {"updates": ends[-1], "updates_that_validate": int(np.isnan(took_s).sum())},
    )


def _timed_ppo(
    subject: Subject, config: Config, updates: int, first: int
) -> tuple[list[float], list[tuple[float, float]]]:
    """Of the first so many updates of a training without prediction: seconds, nan where it validated, and epochs."""
    took_s, epochs_of = [], []
    model = subject.new_model()
    with model.encoder_on(config.device):
        last = time.perf_counter()
        for row in islice(train_ppo(model, subject.task, config.ppo, updates, np.random.default_rng(0)), first):
            now = time.perf_counter()
            took_s.append(float("nan") if any(name.startswith("valid") for name in row) else now - last)
            epochs_of.append(epochs(row))
            last = now
    return took_s, epochs_of


def _memory(bucket: str, root: Path, size: Size) -> Line:
    """Of a whole process that builds the features and trains."""
    given = (bucket, str(size.memory_updates), str(root / paths.PARAMS), str(size.memory_bars))
    done = subprocess.run(
        [sys.executable, "-m", "bench.train_memory", *given], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed: the machine has too little memory"])[-1]
        raise ArtifactError(f"{bucket} must train in memory, said: {last}; free some memory, then run it again")
    bars, peak = map(int, done.stdout.split())
    return Line(name=f"peak memory, {bucket}, {bars:,} bars", value=peak / _GB, unit="GB", goals=MEMORY)
