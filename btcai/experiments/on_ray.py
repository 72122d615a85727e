"""Where pieces of work are made: on a Ray cluster; and who goes on from whom: Ray Tune's population-based scheduler.

A population trains on the cores of this machine. Ray decides and starts processes; rounds are population.Rounds' own,
and what Ray keeps is thrown away. All members end a round before any begins the next, and what is drawn is seeded at
each decision: the same scores give the same decisions, whatever the number of cores and whenever a search was killed.
Another version of Ray may decide otherwise.
"""

import logging
import os
import random
import secrets
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from btcai.environment import telemetry_off
from btcai.errors import BtcaiError, ConfigError
from btcai.experiments.population import QUARTILE, Population, Rounds, Settings, Step, explored
from btcai.experiments.ray_guards import deferred_sigint, kill_leftover_children, require_http2
from btcai.experiments.spread import Files, Piece, Runner, bring, code_here, elsewhere, packed
from btcai.machine import machine
from btcai.training.health import TrainingError

if TYPE_CHECKING:
    from ray.tune import Callback, RunConfig, Trainable, TuneConfig

PLAIN: Mapping[str, str] = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a GPU that params.yaml names stays in sight of members
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "token",  # of those who may give it work
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # SIGTERM ends it without an abort
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too it then listens on 127.0.0.1 alone
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # rounds are kept already
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends this command as it ends any other
}

LONGEST_FOLDER = 25
"""Characters: the names of Ray's sockets are some eighty longer, and may have no more than 107."""

NO_SCORE = -1e9
"""What Ray is told where training blew up: below any score."""

TRIES = 4
"""Of a piece whose workers die; one that fails by itself is not tried again, for it would fail again."""

LOCAL = "local"
"""In place of a cluster's address: one that is started here and ends with the command."""


def require(option: str = "--population") -> None:
    """ConfigError where Ray is not installed."""
    if find_spec("ray") is None:
        raise ConfigError(
            f"{option} needs Ray, which is not installed; install the extra scale with: pip install -e '.[scale]'"
        )


@contextmanager
def cluster(address: str | None, workers: int | None, threads: int) -> Iterator[Runner | None]:
    """Yields what makes pieces on a Ray cluster, `workers` at a time, each with so many threads; None without address.

    address: LOCAL, or of a cluster that runs already, as RAY_AUTH_TOKEN lets one in; btcai must be installed on all of
    its machines, with the same code. Nothing else need be shared: pieces travel with what they rest on. workers: as
    many as there is room for without.
    """
    if address is None:
        if workers is not None:
            raise ConfigError(f"--workers must be given with --ray, was {workers} alone; add --ray {LOCAL}")
        yield None
        return
    require("--ray")
    if address == LOCAL:
        with _running(threads * (workers or max(1, machine().cores // threads)), 1) as folder:
            yield partial(_made_here, workers=workers, threads=threads, scratch=folder.parent)
    else:
        with _joined(address) as cpus:
            yield partial(_made, at_once=workers or max(1, cpus // threads), threads=threads)


def _made_here(
    shared: Any, pieces: Sequence[Piece], *, workers: int | None, threads: int, scratch: Path
) -> Iterator[tuple[int, Any]]:
    """The same on this machine alone, as many at a time as it has memory for; ConfigError where `workers` are more."""
    if pieces:
        at_once = room_for(workers, threads, max(piece.memory_bytes for piece in pieces), len(pieces))
        yield from _made(shared, pieces, at_once=at_once, threads=threads, scratch=scratch)


def room_for(asked: int | None, threads: int, bytes_each: float, wanted: int) -> int:
    """How many of so many trainings this machine makes at a time; ConfigError where it has no memory for that many."""
    found = machine()
    at_once = asked or found.at_once(threads, bytes_each)
    found.require(bytes_each, "training", min(at_once, wanted))
    return at_once


def _made(
    shared: Any, pieces: Sequence[Piece], *, at_once: int, threads: int, scratch: Path | None = None
) -> Iterator[tuple[int, Any]]:
    """The pieces as they end, each brought back before it is yielded; no more than at_once are under way."""
    import ray

    remote = ray.remote(num_cpus=threads, max_retries=TRIES - 1)(elsewhere)
    given, code, left = ray.put(shared), code_here(), list(enumerate(pieces))
    under_way: dict[Any, int] = {}
    try:
        while left or under_way:
            while left and len(under_way) < at_once:
                number, piece = left.pop(0)
                under_way[remote.remote(piece.work, given, packed(piece.folder), code, scratch)] = number
            [done], _ = ray.wait(list(under_way), num_returns=1)
            number = under_way.pop(done)
            value, files = _fetched(done)
            bring(files, pieces[number].folder)
            yield number, value
    finally:
        for reference in under_way:
            ray.cancel(reference, force=True)


def _fetched(reference: Any) -> tuple[Any, Files]:
    """What a piece came to; what it raised, as here."""
    import ray

    try:
        found: tuple[Any, Files] = ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise TrainingError(
            f"a worker must outlive its piece, {TRIES} of them died with one; look for what killed them (memory?), "
            "give fewer --workers, then run it again: what was done is kept"
        ) from error
    except ray.exceptions.RayTaskError as error:
        raise _as_here(error) from error
    return found


def _as_here(error: BaseException) -> BaseException:
    """What was raised elsewhere, where that is something that the command line has a line for."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BtcaiError | OSError | MemoryError) else error


def evolve(
    rounds: Rounds,
    reopen: Callable[[], Rounds],
    population: Population,
    begin: list[dict[str, float]],
    seed: int,
    threads: int,
    at_once: int,
    told: Callable[[Step], None],
) -> None:
    """Train the population; `told` hears of each round as soon as it is kept, in this process.

    reopen: opens the same rounds in another process; begin: each member's first settings; threads: of a member;
    at_once: members that train at a time.
    """
    require()
    with _running(threads * at_once, population.members) as results:
        from ray import tune
        from ray.exceptions import RayActorError

        # it misses the files that PLAIN keeps it from; what fails is raised below
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        done = tune.Tuner(
            tune.with_resources(_member(reopen), {"cpu": threads}),
            param_space={"settings": tune.grid_search(begin)},
            tune_config=_choosing(seed),
            run_config=_kept_in(results, population.generations, _listener(rounds, told)),
        ).fit()
        for error in done.errors:
            if isinstance(error, RayActorError):
                raise TrainingError(
                    "a member must outlive its round, its process was killed; look for what killed it (memory?), give "
                    "a smaller --at-once, then run it again: rounds that ended are kept"
                ) from error
            raise _as_here(error)


def _choosing(seed: int) -> "TuneConfig":
    """Of a generation the worst quarter goes on from the best one, with settings near those."""
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    class Seeded(PopulationBasedTraining):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            random.seed(f"{seed} {result['training_iteration']}")  # Ray draws from it elsewhere too, and by the clock
            return super().on_trial_result(tune_controller, trial, result)

    rng = np.random.default_rng(seed)

    def explore(config: dict[str, Settings]) -> dict[str, Settings]:
        return {**config, "settings": explored(config["settings"], rng)}

    scheduler = Seeded(
        time_attr="training_iteration",
        perturbation_interval=1,
        quantile_fraction=QUARTILE,
        custom_explore_fn=explore,
        log_config=False,
        synch=True,
    )
    return tune.TuneConfig(metric="score", mode="max", scheduler=scheduler, reuse_actors=True)


def _kept_in(results: Path, generations: int, listener: "Callback") -> "RunConfig":
    from ray import tune

    return tune.RunConfig(
        name="population",
        storage_path=str(results),
        stop={"training_iteration": generations},
        callbacks=[listener],
        failure_config=tune.FailureConfig(fail_fast=True),
        verbose=0,
    )


def _member(reopen: Callable[[], Rounds]) -> "type[Trainable]":
    """A member in a process of its own; what Ray copies from one to another is the name of a round."""
    from ray.tune import Trainable

    class Member(Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._rounds = reopen()
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._settings: Settings = new_config["settings"]
            self._round: str | None = None
            return True

        def step(self) -> dict[str, Any]:
            done = self._rounds.after(self._round, self._settings)
            self._round = done.id
            return {"round": done.id, "score": NO_SCORE if done.score is None else done.score}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            Path(checkpoint_dir, "round").write_text(self._round or "", encoding="utf-8")

        def load_checkpoint(self, checkpoint: Any) -> None:
            self._round = Path(checkpoint, "round").read_text(encoding="utf-8") or None

    return Member


def _listener(rounds: Rounds, told: Callable[[Step], None]) -> "Callback":
    from ray.tune import Callback

    class Listener(Callback):
        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if (found := rounds.known(result["round"])) is not None:
                told(Step(member=trials.index(trial), round=found))

        def __reduce__(self) -> tuple[type[Callback], tuple[()]]:
            """For Ray, which writes down what it was given: nobody reads that."""
            return Callback, ()

    return Listener()


@contextmanager
def _running(cpus: int, members: int) -> Iterator[Path]:
    """Ray on this machine alone, its files in a folder that goes with it; yields one for results."""
    telemetry_off()
    os.environ.update(PLAIN)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(members)  # the first generation waits for all of them
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())  # else Ray keeps one in the home directory
    import ray

    short = len(tempfile.gettempdir()) <= LONGEST_FOLDER or os.name != "posix"
    with tempfile.TemporaryDirectory(prefix="btcai-", dir=None if short else "/tmp") as folder:
        try:
            with deferred_sigint():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=0,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    # Ray's worker is a line of bash: of a folder with a blank in its name none would ever start
                    runtime_env={"py_executable": shlex.quote(sys.executable)},
                    _temp_dir=folder,
                )
            yield Path(folder) / "results"
        finally:
            with kill_leftover_children():
                ray.shutdown()


@contextmanager
def _joined(address: str) -> Iterator[int]:
    """A cluster that goes on running afterwards; yields how many cores it has."""
    telemetry_off()
    try:  # Ray itself asks for minutes, and ends the process
        require_http2(address)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--ray must be {LOCAL} or HOST:PORT of a Ray cluster, {address} does not answer ({error}); start one "
            f"with: ray start --head, or use --ray {LOCAL}"
        ) from error
    import ray

    try:
        with deferred_sigint():
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        yield int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()
