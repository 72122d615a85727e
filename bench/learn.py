"""`btcai bench learn`: the learner on markets whose best policy is known, beside rivals, and the proof that it learns.

Every training is kept as soon as it is finished (reports/bench/learn_runs.jsonl), under a checksum of its settings and
of the learner's code: the next call makes only what is missing. Scores are marked on other paths than trained on,
paths of its own for every training seed, so an interval over seeds holds the luck of both. reports/bench/learn.png
shows them.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.learn_jobs import PARTS, Seconds, jobs, named_markets
from bench.learn_key import key
from bench.learn_lines import part_lines
from bench.learn_ours import PPO_ALONE, OurLearner
from bench.learn_picture import draw
from bench.learn_rivals import run_linear, run_sb3
from bench.learn_runs import LINEAR, NO_PREDICTION, OURS, SAME_NETWORK, SB3, Job, Marking, Outcome, Runs
from bench.learn_same_network import run_same_network
from bench.line import Line
from bench.stopwatch import Stopwatch
from btcai.config import Config
from btcai.training.checkpoint import set_up_torch
from btcai.yardstick.drift import LEVELS

__all__ = ["PARTS", "Size", "lines"]

logger = logging.getLogger("btcai.bench")

RUNS, PICTURE = Path("reports/bench/learn_runs.jsonl"), Path("reports/bench/learn.png")

_CODE = {
    OURS: ("bench.learn_ours", "btcai.yardstick.drift", "btcai.yardstick.interaction"),
    SB3: ("bench.learn_rivals", "btcai.yardstick.drift"),
    SAME_NETWORK: ("bench.learn_same_network", "btcai.yardstick.drift"),
    LINEAR: ("bench.learn_rivals", "btcai.yardstick.drift"),
}
"""What runs a learner and the markets that it is run on: its runs depend on these, with all that they import."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured. pilots: updates of the short and the longer trainings that the pace is measured with."""

    train_decisions: int = 300_000
    seconds: Seconds = field(default_factory=Seconds)
    marking: Marking = field(default_factory=Marking)
    pilots: tuple[int, int] = (8, 24)


def lines(
    stopwatch: Stopwatch, config: Config, root: Path, only: tuple[str, ...] = PARTS, size: Size | None = None
) -> Iterator[Line]:
    """Make what is missing of the parts `only`, with as many training seeds as the stopwatch has repeats.

    Yields the lines of every part whose runs are all there, whether it was asked for or not.
    """
    size = size or Size()
    patches = {name: bucket.patch_bars for name, bucket in config.buckets.items()}
    asked = {part: jobs(part, stopwatch.repeats, size.seconds, patches) for part in PARTS}
    runs = Runs(root / RUNS, keys(config, size))
    learn = _learners(config, size, runs, patches)
    set_up_torch(config)
    with _progress() as progress:
        task = progress.add_task("", total=len(_missing([job for part in only for job in asked[part]], runs)))
        for part in PARTS:
            for job in _missing(asked[part], runs) if part in only else []:
                progress.update(task, description=f"{part}: {job.market}, {job.learner}, seed {job.seed}")
                stopwatch.await_idle()
                outcome, others_cores = _watched(partial(learn, job))
                runs.add(job, outcome, others_cores)
                logger.info("%s, seed %d: %.4f", job.market, job.seed, outcome.score)
                progress.advance(task)
            if not _missing(asked[part], runs):
                yield from part_lines(part, asked[part], runs, size.seconds.rival)
    draw(runs, size.seconds, root / PICTURE)
    _tell_what_is_left(asked, runs)


def keys(config: Config, size: Size) -> dict[str, str]:
    """Learner -> checksum of everything that its runs depend on; the number of seeds is not among it."""
    patches = {name: bucket.patch_bars for name, bucket in config.buckets.items()}
    markets = {name: repr(market) for name, market in named_markets(patches).items()}
    anyones = {**asdict(size.marking), "train_decisions": size.train_decisions, "threads": config.threads}
    rivals = {**anyones, "markets": [markets[f"{level}, hidden"] for level in LEVELS]}
    sections = {name: getattr(config, name).model_dump() for name in ("model", "pretrain", "ppo")}
    buckets = {name: bucket.model_dump() for name, bucket in config.buckets.items()}
    ours = {**anyones, **sections, "buckets": buckets, "markets": markets}
    found = {
        OURS: key(_CODE[OURS], ours),
        SB3: key(_CODE[SB3], rivals),
        SAME_NETWORK: key(_CODE[SAME_NETWORK], {**rivals, "model": sections["model"]}),
        LINEAR: key(_CODE[LINEAR], rivals),
    }
    return found | {NO_PREDICTION: key(_CODE[OURS], [ours, PPO_ALONE])}


def _learners(config: Config, size: Size, runs: Runs, patches: dict[str, int]) -> Callable[[Job], Outcome]:
    """Job -> Outcome, by the job's learner."""
    markets, ours = named_markets(patches), OurLearner(config, size.marking, size.train_decisions, size.pilots, runs)

    def learn(job: Job) -> Outcome:
        market = markets[job.market]
        if job.learner == LINEAR:
            return run_linear(job, market, size.marking, size.train_decisions)
        if job.learner == SB3:
            return run_sb3(job, market, size.marking, size.train_decisions)
        if job.learner == SAME_NETWORK:
            return run_same_network(job, market, size.marking, size.train_decisions, config.model)
        return ours.run(job, market)

    return learn


def _missing(asked: list[Job], runs: Runs) -> list[Job]:
    """Jobs without a run, each once."""
    return list({job.identity: job for job in asked if runs.of(job) is None}.values())


def _watched(work: Callable[[], Outcome]) -> tuple[Outcome, float]:
    """What it returns, and cores that others kept busy meanwhile."""
    psutil.cpu_percent(None)
    cpu, start = time.process_time(), time.perf_counter()
    outcome = work()
    own = (time.process_time() - cpu) / (time.perf_counter() - start)
    return outcome, max(0.0, psutil.cpu_percent(None) / 100.0 * (psutil.cpu_count() or 1) - own)


def _tell_what_is_left(asked: dict[str, list[Job]], runs: Runs) -> None:
    left = {job.identity: job for part in PARTS for job in _missing(asked[part], runs)}.values()
    parts = Counter(job.part for job in left)
    minutes = sum(job.seconds for job in left) / 60
    named = ", ".join(f"{part} {n}" for part, n in parts.items())
    logger.info("left: %s", f"{named} (trainings; {minutes:.0f} min without marking them)" if left else "nothing")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
