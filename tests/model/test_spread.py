"""Pieces of work made elsewhere: the bytes of those made here, a killed worker's again and none twice."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from refitting_fakes import small
from spread_run import ASKED, CONFIG, made

from btcai import usage
from btcai.config import Config
from btcai.errors import ConfigError
from btcai.experiments import on_ray
from btcai.experiments.known_answer import KnownAnswer, Size
from btcai.experiments.refitting import Plan, refit
from btcai.experiments.running import Cell, spread_cells
from btcai.experiments.spread import Files, Piece, bring, code_here, elsewhere, here, packed
from btcai.experiments.trials import Measured
from btcai.experiments.tuning import Search, open_study, tune
from btcai.machine import Machine
from btcai.paths import WEIGHTS

SECONDS = 240
"""At most; on an idle machine it takes a tenth."""
TINY = Size(pretrain_updates=4, ppo_updates=4, train_decisions=6_000, mark_paths=2, mark_decisions=2_000)


def as_far_away(shared: Any, pieces: Sequence[Piece]) -> Iterator[tuple[int, Any]]:
    """What a cluster does, in this process: all that a piece has to do with another place passes through pickle."""
    for number, piece in reversed(list(enumerate(pieces))):
        given = pickle.loads(pickle.dumps((piece.work, shared, packed(piece.folder), code_here())))
        value, files = pickle.loads(pickle.dumps(elsewhere(*given)))
        bring(files, piece.folder)
        yield number, value


def counted(by: int, shared: int, folder: Path) -> int:
    """Leaves a folder and a file that says it is done; goes on from a first half."""
    first = folder / "first" / "half"
    if not first.is_file():
        first.parent.mkdir()
        first.write_text(str(shared), encoding="utf-8")
    (folder / "done").write_text(f"{first.read_text(encoding='utf-8')}+{by}", encoding="utf-8")
    return shared + by


def test_a_piece_made_elsewhere_leaves_what_it_leaves_here(tmp_path: Path) -> None:
    for name, run in (("here", here), ("away", as_far_away)):
        pieces = [Piece(work=partial(counted, by), folder=tmp_path / name / str(by), memory_bytes=1e6) for by in (1, 2)]
        for piece in pieces:
            piece.folder.mkdir(parents=True)
        assert dict(run(40, pieces)) == {0: 41, 1: 42}
    assert packed(tmp_path / "here") == packed(tmp_path / "away")
    assert packed(tmp_path / "here")["2/done"] == b"40+2"


def test_a_piece_goes_on_elsewhere_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "half").write_text("7", encoding="utf-8")
    (tmp_path / ".draft").touch()
    value, files = elsewhere(partial(counted, 2), 40, packed(tmp_path), code_here())
    assert (value, files) == (42, {"done": b"7+2"})
    bring(files, tmp_path)
    bring({"done": b"made twice"}, tmp_path)
    assert (tmp_path / "done").read_bytes() == b"7+2"


def test_a_machine_with_other_code_is_refused() -> None:
    with pytest.raises(ConfigError, match="all machines must run the same btcai"):
        elsewhere(partial(counted, 2), 40, {}, "0" * 64)


@pytest.mark.slow
def test_cells_are_marked_after_their_teachers_alike_here_and_elsewhere(tmp_path: Path) -> None:
    config = CONFIG
    subjects = [KnownAnswer(config, TINY, tmp_path / name) for name in ("here", "away")]
    cells = [Cell(config=config, bucket=bucket, seed=0, share=0.5) for bucket in ("scalping", "short")]
    wanted = [subjects[0].run(cell.config, cell.bucket, cell.seed, cell.share) for cell in cells]
    found = {number: measured for number, measured, _ in spread_cells(subjects[1], cells, as_far_away)}
    assert [found[number] for number in (0, 1)] == wanted
    files = [packed(subject.folder) for subject in subjects]
    assert files[0] == files[1]
    assert list(files[0]) == [f"scalping-0/{WEIGHTS}"]


class Known:
    """Scores by heart: the nearer clip is to .3 the better, each seed apart."""

    name, terms, seen_ts_ns = "known", None, None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def memory_bytes(self, bucket: str) -> float:
        return 1e6

    def sees(self, one: Config, other: Config) -> bool:
        return one != other

    def kept_in(self, folder: Path) -> "Known":
        return Known(folder)

    def teach(self, bucket: str, seed: int) -> None:
        (self.folder / f"{bucket}-{seed}").mkdir()

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        return Measured(score=-abs(config.ppo.clip - 0.3) * (1 + 0.1 * seed), decisions=1, more={})


def test_a_search_finds_the_same_elsewhere(tmp_path: Path) -> None:
    search = Search(settings=("ppo.clip",), buckets=("scalping",), seeds=3, share=0.5)
    found = []
    for name, run in (("here", None), ("away", as_far_away)):
        study = open_study(CONFIG, Known(tmp_path), search, tmp_path / name)
        found.append([(one.params, one.value) for one in tune(CONFIG, Known(tmp_path), search, study, 4, run)])
    assert found[0] == found[1]
    clip, score = found[0][0][0]["ppo.clip"], found[0][0][1]
    assert score == pytest.approx(-abs(clip - 0.3) * 1.1)  # the mean of 1, 1.1 and 1.2
    assert len({value for _, value in found[0]}) == 4


def timeless(files: Files) -> Files:
    """Without what says how long it took."""
    return {place: content for place, content in files.items() if not place.endswith(usage.FILE)}


@pytest.mark.slow
def test_a_fold_trained_elsewhere_has_the_bytes_of_one_trained_here(tmp_path: Path) -> None:
    config, data, splits = small()
    plan = Plan.forward(splits, 1, config.purge_bars, config.splits.embargo_bars)
    for name, run in (("here", here), ("away", as_far_away)):
        assert list(refit(config, data, plan, tmp_path / name, "d1", run)) == [0]
    found, wanted = (timeless(packed(tmp_path / name)) for name in ("away", "here"))
    assert found == wanted
    assert len([place for place in found if place.endswith(WEIGHTS)]) == 4


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra scale is not installed")
def test_a_worker_killed_in_the_middle_costs_nothing_but_time(tmp_path: Path) -> None:
    made(tmp_path / "here", 0)
    for _ in range(3):
        with TemporaryDirectory(prefix="s") as name:  # the names of Ray's sockets may have no more than 107 characters
            away = Path(name)
            victim = one_killed(away)
            begun = [line.split() for line in (away / "begun").read_text(encoding="utf-8").splitlines()]
            lost = [cell for pid, cell in begun if int(pid) == victim][-1]
            assert outcomes(away) == outcomes(tmp_path / "here")
            assert packed(away / "teachers") == packed(tmp_path / "here" / "teachers")
            assert list((away / "t").iterdir()) == []
        counted = Counter(cell for _, cell in begun)
        if counted != Counter(cells()):
            break  # else this process was held up, and the victim had ended its training when it was killed
    assert counted == Counter([*cells(), lost])  # it alone began twice


def one_killed(away: Path) -> int:
    """Make the cells on workers of which one is killed: its process id."""
    (away / "t").mkdir()
    program = Path(__file__).parents[1] / "spread_run.py"
    environment = {**os.environ, "TMPDIR": str(away / "t"), "PYTHONWARNINGS": "ignore"}
    running = subprocess.Popen([sys.executable, str(program), str(away), "3"], env=environment, stderr=subprocess.PIPE)
    try:
        victim = second_begun(away / "begun", running)
        with suppress(ProcessLookupError):  # where this process was held up until the end
            os.kill(victim, signal.SIGKILL)
        _, errors = running.communicate(timeout=SECONDS)
    finally:
        running.kill()
    assert running.returncode == 0, errors[-2000:]
    return victim


def cells() -> list[str]:
    """As Told names them, each once."""
    alpha = CONFIG.transfer.alpha
    return [f"short-{seed}-{share}" for seed in range(ASKED.seeds) for share in (alpha, 0.0)]


def second_begun(begun: Path, running: "subprocess.Popen[bytes]") -> int:
    """The process of the second training that began, as soon as it has."""
    end = time.monotonic() + SECONDS
    has_ended = False
    while time.monotonic() < end and not has_ended:
        has_ended = running.poll() is not None
        lines = begun.read_text(encoding="utf-8").splitlines() if begun.is_file() else []
        if len(lines) > 1:
            return int(lines[1].split()[0])
        time.sleep(0.02)
    raise AssertionError(f"no second training began in {SECONDS} s; exit status {running.poll()}")


def outcomes(folder: Path) -> dict[str, Any]:
    """What each trial is worth, by its name; no trial is kept twice."""
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {json.dumps(line["trial"]): line["outcome"]["measured"] for line in lines}
    assert len(found) == len(lines)
    return found


def test_pieces_at_a_time_have_memory_for_each_and_more_workers_than_that_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_ray, "machine", lambda: Machine(cores=16, memory_bytes=8_000_000_000))
    assert on_ray.room_for(None, 2, 1e9, 20) == 8  # cores bind
    assert on_ray.room_for(None, 2, 3e9, 20) == 2  # memory does
    assert on_ray.room_for(5, 2, 3e9, 2) == 5  # two pieces alone are under way
    with pytest.raises(ConfigError, match=r"training in 3 processes needs 9\.0 GB.*gives 8\.0 GB.*or processes"):
        on_ray.room_for(3, 2, 3e9, 20)
    with pytest.raises(ConfigError, match=r"training needs 9\.0 GB"):
        on_ray.room_for(None, 2, 9e9, 20)


def test_a_piece_needs_the_memory_of_its_bars() -> None:
    on = KnownAnswer(CONFIG, Size(), Path())
    assert on.memory_bytes("long") == pytest.approx(0.6e9 + 400 * 200_000 * 28)  # 2.44 GB were measured
    assert on.memory_bytes("scalping") < 1e9


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--ray needs Ray.*install the extra scale"), on_ray.cluster("local", 2, 1):
        pass


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra scale is not installed")
@pytest.mark.parametrize("address", ["closed", "nonsense"])
def test_a_cluster_that_does_not_answer_is_named(address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}" if address == "closed" else address
    with pytest.raises(ConfigError, match=f"{where} does not answer.*ray start --head"), on_ray.cluster(where, 2, 1):
        pass


def test_workers_without_a_cluster_are_refused() -> None:
    with on_ray.cluster(None, None, 2) as run:
        assert run is None
    with pytest.raises(ConfigError, match="--workers must be given with --ray, was 3"), on_ray.cluster(None, 3, 2):
        pass
