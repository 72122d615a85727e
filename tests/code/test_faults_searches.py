"""Long searches that are interrupted, lose a member, run out of disk or are asked for what cannot be: told in a line,
nothing that had ended is lost, and the same command ends the same."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, get_args

import psutil
import pytest
from disk_sweep import Sweep, once, one_line
from faults import Disk, Mode, watched
from learning_tasks import settings
from refitting_fakes import small
from small_project import small_project

from btcai import paths, usage
from btcai.config import Config
from btcai.errors import BtcaiError, ConfigError, DataError
from btcai.experiments import on_ray, ray_guards, refitting, tuning_report
from btcai.experiments.refitting import GroupResult, Plan, planned
from btcai.experiments.trials import Measured
from btcai.experiments.tuning import Search, ended, open_study, tune
from btcai.params import changed
from btcai.training.pieces import least_bars

SECONDS = 400
"""At most; on an idle machine a tenth."""
SEARCH = Search(settings=("ppo.clip", "transfer.alpha"), buckets=("scalping",), seeds=1, share=0.25)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra scale is not installed")


class Hill:
    """A score with its top at clip .3 and alpha .5."""

    name, terms = "hill", {"top": 0.3}

    def sees(self, one: Config, other: Config) -> bool:
        return one.ppo.clip != other.ppo.clip or one.transfer.alpha != other.transfer.alpha

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        off = (config.ppo.clip - 0.3) ** 2 + (config.transfer.alpha - 0.5) ** 2
        return Measured(score=1.0 - off, decisions=1, more={})


def searched(folder: Path, trials: int = 3) -> None:
    """What `btcai tune` does."""
    study = open_study(settings(), Hill(), SEARCH, folder)
    list(tune(settings(), Hill(), SEARCH, study, trials))  # type: ignore[arg-type]
    tuning_report.write(study, folder)


def found(folder: Path) -> list[tuple[Any, ...]]:
    """Settings and score of each trial that ended, in order."""
    trials = ended(open_study(settings(), Hill(), SEARCH, folder))
    return sorted((*sorted(trial.params.items()), trial.value) for trial in trials)


@pytest.mark.slow
@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_search_whose_disk_fills_at_any_write_keeps_its_trials_and_ends_the_same(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning_report, "write", lambda study, folder: None)
    with watched(Disk(tmp_path / "whole")) as disk:
        searched(tmp_path / "whole")
    whole = found(tmp_path / "whole")
    opened = [number for number, name in enumerate(disk.writes, start=1) if name.startswith("open")]
    assert len(opened) > 10
    for number in opened:
        folder = tmp_path / f"{number}"
        with pytest.raises(BtcaiError) as error, watched(Disk(folder, number, mode)):
            searched(folder)
        told = one_line(error.value, monkeypatch, capsys)
        assert re.search("studies.log could not be written.*free the disk, then try again", told)
        kept = found(folder)
        assert all(trial in whole for trial in kept)
        assert len(kept) >= (number - 4) // 12  # a trial makes five changes, and each is a folder and a file
        searched(folder)
        assert found(folder) == whole


def test_half_a_line_of_a_journal_is_a_change_that_was_never_made(tmp_path: Path) -> None:
    searched(tmp_path / "whole")
    searched(tmp_path, 2)
    with (tmp_path / "studies.log").open("a", encoding="utf-8") as file:
        file.write('{"op_code": 6, "worker_')
    assert len(found(tmp_path)) == 2
    searched(tmp_path)
    assert found(tmp_path) == found(tmp_path / "whole")


def test_settings_as_they_are_that_wait_for_their_turn_are_not_asked_for_twice(tmp_path: Path) -> None:
    study = open_study(settings(), Hill(), SEARCH, tmp_path)
    going = tune(settings(), Hill(), SEARCH, study, 1)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "ask", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(going)
    searched(tmp_path, 3)
    assert len(set(found(tmp_path))) == 3


@pytest.mark.slow
def test_a_disk_that_fills_while_folds_are_trained_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, data, splits = small()
    plan = Plan.forward(splits, 2, config.purge_bars, config.splits.embargo_bars)

    def trained(market: object, its: object, scaler: object, bucket: str, *rest: Any) -> None:
        (rest[-1] / paths.WEIGHTS).write_bytes(bucket.encode() * 10)

    monkeypatch.setattr(refitting, "train_bucket", trained)
    monkeypatch.setattr(refitting, "load_policy", lambda *_: None)
    monkeypatch.setattr(refitting, "backtest", lambda *_: [None])
    monkeypatch.setattr(refitting, "_tested", lambda _: GroupResult(daily_returns=[0.1], trades=1))
    monkeypatch.setattr(refitting, "market_of", lambda *_: data)
    for name in ("fit_scaler", "_beside"):
        once(monkeypatch, refitting, name)
    root = tmp_path / "project"
    (root / "trained").mkdir(parents=True)

    def command(folder: Path) -> None:
        list(refitting.refit(config, data, plan, folder / "trained", "d1"))

    def of_the_way(name: str) -> bool:
        return name.endswith((usage.FILE, ".new")) or "/." in name

    (root / "trained" / "older").write_text("older", encoding="utf-8")
    tried = Sweep(monkeypatch, capsys)(root, command, apart=of_the_way, in_turn=True, every=3)
    assert tried.errors > tried.writes // 3


def answers(listening: socket.socket, answer: bytes) -> None:
    """Takes one connection, says that, and holds it until the other end goes."""
    line, _ = listening.accept()
    with line, suppress(ConnectionResetError):
        line.recv(100)
        line.sendall(answer)
        line.recv(100)


@needs_ray
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_an_address_where_something_else_than_ray_listens_is_refused_in_time(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_guards, "SECONDS_TO_ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        other, start = Thread(target=answers, args=(listening, answer)), time.monotonic()
        other.start()
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        said = f"--ray must be local or HOST:PORT.*{where} does not answer.*ray start"
        with pytest.raises(ConfigError, match=said), on_ray.cluster(where, 1, 2):
            pass
        assert time.monotonic() - start < 30  # Ray itself waits for minutes
        other.join()


def test_an_interrupt_while_ray_starts_is_heard_when_it_has() -> None:
    did: list[str] = []

    def started() -> None:
        with ray_guards.deferred_sigint():
            signal.raise_signal(signal.SIGINT)
            did.append("started")
        did.append("went on")

    with pytest.raises(KeyboardInterrupt):
        started()
    assert did == ["started"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_walk_forward_without_room_is_refused_before_any_training() -> None:
    config, data, splits = small()
    # (144 + 3072) decisions of long's 28 bars; of train and valid .6 / .73 are to train on, after a warm-up of 2,016:
    wide = changed(config, {"ppo.decisions": 3072})
    share = wide.splits.train_frac / (wide.splits.train_frac + wide.splits.valid_frac)
    least = -int(-(90_048 + 2016 + 1) // share) + 2 * 2016 + wide.purge_bars
    room, has = least + 3 * 2016, splits.test.stop - splits.train.first
    with pytest.raises(DataError, match=f"^4 groups need {room:,} bars before the sealed span, there are {has:,}; "):
        planned(wide, splits, data.warmup_bars, 4)


def test_as_many_groups_as_there_is_room_for_are_planned_and_one_more_is_refused() -> None:
    config, data, splits = small()
    has = splits.test.stop - splits.train.first
    groups = (has - least_bars(config, data.warmup_bars) - config.purge_bars) // 2016 + 1
    assert len(planned(config, splits, data.warmup_bars, groups).folds) == groups - 1
    with pytest.raises(DataError, match=f"^{groups + 1} groups need "):
        planned(config, splits, data.warmup_bars, groups + 1)


def test_a_choice_of_groups_that_leaves_too_little_to_train_or_to_test_on_is_refused_by_its_number() -> None:
    config, data, splits = small()
    wide = changed(config, {"ppo.decisions": 1024})  # (144 + 1024) * 28
    with pytest.raises(DataError, match="fold 1 of 15 must have 32,704 bars to train on, was 22,839; change --groups"):
        planned(wide, splits, data.warmup_bars, 6, 4)
    # the first group begins at the warm-up, and holds its own lookback of long: 144 * 28
    with pytest.raises(DataError, match="fold 1 of 18 must have 2,016 bars to test on, was "):
        planned(config, splits, data.warmup_bars, 18, 1)


ON = ("--on", "market", "--buckets", "scalping")
TUNE = ("tune", *ON, "--share", "1", "--settings", "pretrain.learning_rate")
COMMANDS = {
    "ablate": ("ablate", *ON, "--arms", "no weight decay", "--seeds", "1", "--shares", "1"),
    "tune": (*TUNE, "--trials", "2"),
    "population": (*TUNE, "--population", "4", "--generations", "1", "--at-once", "2"),
    "refit": ("refit", "--groups", "3", "--ray", "local", "--workers", "1"),
}
KEPT = {
    "ablate": "reports/ablation/market/trials.jsonl",
    "tune": "journal/trials.jsonl",
    "population": "reports/tuning/market/rounds/*/[!.]*/round.json",
    "refit": "reports/folds/trained/*/judged.json",
}
"""There once something has ended."""


class Run:
    """A command in a session of its own, in a project's folder."""

    def __init__(self, root: Path, name: str, temporary: Path) -> None:
        self.root, self.name, self.temporary = root, name, temporary
        command = [sys.executable, "-m", "btcai.cli", *COMMANDS[name]]
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True, **streams)

    def stopped_at_work(self) -> bool:
        """Wait until something is kept and hold it still there, until SIGCONT; False where it had ended well before."""
        end = time.monotonic() + SECONDS
        while not self.has_kept() and self.process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGSTOP)  # Popen's would ask first whether it has ended
            seen = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if seen is not None and seen.si_code == os.CLD_STOPPED:
                return True
        self.ended(0)
        return False

    def kill(self) -> None:
        """Whatever of it is left."""
        if self.process.poll() is None:
            self.process.kill()
        for process in self.living():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def has_kept(self) -> bool:
        """Whether something has ended."""
        return any(self.root.glob(KEPT[self.name]))

    def living(self) -> list[psutil.Process]:
        """Processes with its temporary folder in their environment, whatever they call themselves."""
        processes = psutil.process_iter(["environ", "name"])
        return [one for one in processes if (one.info["environ"] or {}).get("TMPDIR") == str(self.temporary)]

    def ended(self, code: int) -> str:
        """What it said on stderr, without its log."""
        _, errors = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == code, errors[-2000:]
        said = [line for line in errors.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT", line)]
        return "\n".join(said) + "\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("searches") / "project"
    small_project(root, 30_000)
    return root


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The names of Ray's sockets may have no more than 107 characters."""
    with TemporaryDirectory(prefix="f", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def held_at_work(project: Path, tmp_path: Path, temporary: Path) -> Iterator[Callable[[str], Run]]:
    """A run of a search that stands still in the middle; begun anew where this process was held up until it ended."""
    runs: list[Run] = []

    def begun(name: str) -> Run:
        while len(runs) < 3:
            root = tmp_path / f"{len(runs)}"
            shutil.copytree(project, root)
            runs.append(run := Run(root, name, temporary))
            if run.stopped_at_work():
                return run
        pytest.fail("it ended before it was seen at work, three times")

    yield begun
    for run in runs:
        run.kill()


def result(root: Path, name: str) -> Any:
    """What a search came to, without how long it took."""
    if name == "tune":
        with (root / paths.TUNING / "market" / "trials.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["value"]]  # the one that was broken off has none
        return [(row["value"], row["params_pretrain.learning_rate"]) for row in rows]
    texts = [path.read_text(encoding="utf-8") for path in sorted(root.glob(KEPT[name]))]
    if name == "ablate":
        lines = map(json.loads, texts[0].splitlines())
        return [(line["trial"], line["outcome"]["measured"]) for line in lines]
    return [{key: value for key, value in json.loads(text).items() if key != "seconds"} for text in texts]


@pytest.fixture(scope="module")
def undisturbed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """What each search comes to when nobody disturbs it."""

    @cache
    def found(name: str) -> Any:
        root = tmp_path_factory.mktemp("whole") / name
        shutil.copytree(project, root)
        with TemporaryDirectory(prefix="f", dir="/tmp") as folder:
            Run(root, name, Path(folder)).ended(0)
        return result(root, name)

    return found


@pytest.mark.slow
@pytest.mark.parametrize("whom", [os.kill, os.killpg], ids=["the process alone", "its group"])
@pytest.mark.parametrize(
    "name", ["ablate", "tune", pytest.param("population", marks=needs_ray), pytest.param("refit", marks=needs_ray)]
)
def test_ctrl_c_ends_a_search_in_one_line_and_the_same_command_goes_on_to_the_same_result(
    held_at_work: Callable[[str], Run],
    undisturbed: Callable[[str], Any],
    temporary: Path,
    name: str,
    whom: Callable[[int, int], None],
) -> None:
    whole = undisturbed(name)
    run = held_at_work(name)
    root = run.root
    whom(run.process.pid, signal.SIGINT)
    run.process.send_signal(signal.SIGCONT)
    assert run.ended(130) == "interrupted: what was finished is kept; the same command goes on from there\n"
    assert run.living() == []
    kept = {path: path.stat().st_mtime_ns for path in root.glob(KEPT[name]) if path.suffix == ".json"}
    Run(root, name, temporary).ended(0)
    assert result(root, name) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not [path for path in root.rglob(".*.new")]


@pytest.mark.slow
@needs_ray
def test_a_member_that_is_killed_is_told_in_one_line_and_the_same_command_goes_on(
    project: Path, tmp_path: Path, temporary: Path
) -> None:
    for attempt in range(3):
        shutil.copytree(project, tmp_path / f"{attempt}")
        run = Run(tmp_path / f"{attempt}", "population", temporary)
        struck = False
        while not struck and run.process.poll() is None:
            for one in run.living():
                if not struck and one.info["name"].startswith("ray::ResourceTrainable"):  # as Ray makes it
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
                        struck = True
            time.sleep(0.02)
        _, errors = run.process.communicate(timeout=SECONDS)
        if run.process.returncode:
            break  # else this process was held up: it saw none, or struck one that waited and was made anew
    assert run.process.returncode == 1
    assert "error: a member must outlive its round, its process was killed; look for" in errors
    assert run.living() == []
    kept = {path: path.stat().st_mtime_ns for path in run.root.glob(KEPT["population"])}
    assert kept  # those with the settings as they are
    Run(run.root, "population", temporary).ended(0)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(run.root.glob(KEPT["population"]))) == 4  # a member's each, the first as configured
