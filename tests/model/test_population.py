"""Rounds of real trainings, and populations on Ray: killed, gone on with, and the same again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pytest
from export_fakes import market, scaler, tiny_config
from population_run import ASKED, MADE, SPANS, open_subject

from btcai.experiments import known_answer
from btcai.experiments.history import History
from btcai.experiments.known_answer import KnownAnswer, Size
from btcai.models.actor_critic import ActorCritic
from btcai.params import changed
from btcai.paths import WEIGHTS
from btcai.training.yardstick import mark
from btcai.yardstick.scoring import Score
from btcai.yardstick.two_scale import TwoScaleMarket

TINY = Size(pretrain_updates=4, ppo_updates=4, train_decisions=6_000, mark_paths=2, mark_decisions=2_000)


@pytest.mark.slow
@pytest.mark.parametrize("on", ["two_scale", "market"])
def test_a_round_goes_on_with_other_settings_and_the_same_one_gives_the_same_bits(tmp_path: Path, on: str) -> None:
    config = tiny_config()
    subject = KnownAnswer(config, TINY, tmp_path) if on == "two_scale" else open_subject(tmp_path)
    begun = subject.train_round(config, "scalping", 0, 0.5, 1, None, tmp_path / "1")
    faster = changed(config, {"pretrain.learning_rate": 0.01})
    scores = [
        subject.train_round(one, "scalping", 0, 0.5, 2, tmp_path / "1", tmp_path / name)
        for name, one in (("2", config), ("again", config), ("faster", faster))
    ]
    assert np.isfinite([begun, *scores]).all()
    weights = {path.parent.name: path.read_bytes() for path in tmp_path.rglob(WEIGHTS)}
    assert weights["2"] == weights["again"]
    assert scores[0] == scores[1]
    assert len(set(weights.values())) == 3


def test_a_score_elsewhere_is_of_paths_that_nothing_was_chosen_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked: list[range] = []

    def noted(agent: ActorCritic, on: TwoScaleMarket, *, seeds: range, **given: Any) -> Score:
        marked.append(seeds)
        return mark(agent, on, seeds=seeds, **given)

    monkeypatch.setattr(known_answer, "mark", noted)
    config, subject = tiny_config(), KnownAnswer(tiny_config(), TINY, tmp_path)
    for seed in (0, 3):
        subject.train_round(config, "scalping", seed, 0.5, 1, None, tmp_path / str(seed))
        assert np.isfinite(subject.held_out(config, "scalping", seed, tmp_path / str(seed)))
    assert [len(seeds) for seeds in marked] == [TINY.mark_paths] * 4
    assert len(set().union(*marked)) == 4 * TINY.mark_paths
    # those of any seed that is tried lie below
    assert min(min(seeds) for seeds in marked[1::2]) == known_answer.HELD_OUT * TINY.mark_paths
    assert open_subject(tmp_path).held_out(config, "scalping", 0, tmp_path / "0") is None


@pytest.mark.slow
def test_rounds_on_the_market_in_use_read_nothing_after_the_validation_span(tmp_path: Path) -> None:
    data, stop, config = market(), SPANS.valid.stop, tiny_config()
    beyond = data.features.copy()
    beyond[stop:] = np.nan
    scores = []
    for name, one in (("whole", data), ("cut", replace(data, features=beyond))):
        subject = History(config, one, SPANS, scaler(), "data", tmp_path / name)
        subject.train_round(config, "scalping", 0, 1.0, 1, None, tmp_path / name / "1")
        scores.append(subject.train_round(config, "scalping", 0, 1.0, 2, tmp_path / name / "1", tmp_path / name / "2"))
    assert scores[0] == scores[1] < 0


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra scale is not installed")


KEPT = "rounds/*/[!.]*/round.json"
"""Of rounds that ended; a draft's name begins with a dot."""


class Run:
    """population_run.py in a session of its own; Ray's folder lies below `folder`."""

    def __init__(self, folder: Path, at_once: int) -> None:
        self.folder = folder
        temporary = folder / "t"
        temporary.mkdir(parents=True, exist_ok=True)
        program = Path(__file__).parents[1] / "population_run.py"
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(folder), str(at_once)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self) -> dict[str, Any]:
        """What it printed."""
        out, err = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, err[-2000:]
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def rounds(self) -> set[str]:
        """Those that are kept."""
        return {path.parent.name for path in self.folder.glob(KEPT)}

    def left(self) -> list[str]:
        """Processes of its that live: they have its folder in their environment, whatever they call themselves."""
        processes = psutil.process_iter(["environ", "name"])
        mine = str(self.folder / "t")
        return [one.info["name"] for one in processes if (one.info["environ"] or {}).get("TMPDIR") == mine]

    def listening(self) -> set[str]:
        """Addresses at which it and Ray's processes take connections."""
        found: set[str] = set()
        for process in (own := psutil.Process(self.process.pid), *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a worker that just ended
                taking = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
                found |= {one.laddr.ip.removeprefix("::ffff:") for one in taking}
        return found


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (done := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return done


@pytest.fixture(scope="module")
def short_path() -> Iterator[Path]:
    """The names of Ray's sockets may have no more than 107 characters."""
    with TemporaryDirectory(prefix="p") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def undisturbed(short_path: Path) -> tuple[Run, dict[str, Any]]:
    """On one core."""
    run = Run(short_path / "1", 1)
    return run, run.ended()


@pytest.mark.slow
@needs_ray
def test_the_worst_members_go_on_from_the_best_and_nothing_is_left_behind(
    undisturbed: tuple[Run, dict[str, Any]],
) -> None:
    run, found = undisturbed
    members = {name: member for member, _, name, *_ in found["steps"]}
    scores = {name: score for *_, name, _, score in found["steps"]}
    by_number = [[name for _, number, name, *_ in found["steps"] if number == n] for n in (1, 2, 3)]
    assert [len(names) for names in by_number] == [ASKED.members] * 3
    before = {name: origin for _, _, name, origin, _ in found["steps"]}
    for earlier, names in pairwise(by_number):  # a quarter of five is two; the others went on from themselves
        ranked = sorted(earlier, key=scores.__getitem__)
        moved = {members[name]: before[name] for name in names if members[name] != members[before[name]]}
        assert set(moved) == {members[name] for name in ranked[:2]}
        assert set(moved.values()) <= set(ranked[-2:])
    assert found["best"][-1] == max(by_number[2], key=scores.__getitem__)
    assert run.left() == []
    assert list((run.folder / "t").iterdir()) == []
    kept = {path.parent.parent.name for path in run.folder.rglob(WEIGHTS)}
    assert kept >= set(by_number[2])
    assert len(kept) <= ASKED.members + 2  # and those with the settings as they are


@pytest.mark.slow
@needs_ray
def test_a_population_that_is_killed_goes_on_and_ends_the_same_on_two_cores(
    short_path: Path, undisturbed: tuple[Run, dict[str, Any]]
) -> None:
    run = Run(short_path / "2", 2)
    assert wait_until(lambda: len(run.rounds()) >= ASKED.generations + 1 + 4, 600)  # in the second generation
    run.process.send_signal(signal.SIGSTOP)  # or it might end before it is killed
    try:
        seen, alive = run.listening(), len(run.left())
    finally:
        run.process.send_signal(signal.SIGKILL)  # or it would outlive this test
    run.process.communicate(timeout=600)
    assert seen == {"127.0.0.1"}
    assert alive > 3
    assert wait_until(lambda: run.left() == [], 600), run.left()
    known = {path: path.stat().st_mtime_ns for path in run.folder.glob(KEPT)}
    assert len(known) < MADE
    assert Run(short_path / "2", 2).ended() == undisturbed[1]
    assert {path: path.stat().st_mtime_ns for path in known} == known  # nothing that had ended was trained again
