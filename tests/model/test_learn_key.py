"""What a kept run of `btcai bench learn` depends on: all code and settings that made it, and nothing else."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learning_tasks import SMALL, settings

from bench import learn, learn_key
from bench.learn_jobs import SHUFFLED
from bench.learn_runs import LINEAR, NO_PREDICTION, OURS, SAME_NETWORK, SB3, Job, Marking, Runs
from btcai.config import Config

PATCHES = {"scalping": 1, "long": 28}


def job(market: str = "easy, hidden", learner: str = OURS, seconds: float = 0.3) -> Job:
    return Job(part="hidden", market=market, learner=learner, seed=0, seconds=seconds)


def test_code_and_settings_are_in_the_key_and_comments_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(rate: str, inner: str) -> str:
        (tmp_path / "bench").mkdir(exist_ok=True)
        (tmp_path / "bench/outer.py").write_text('"""Doc."""\nfrom bench.inner import a\n', encoding="utf-8")
        (tmp_path / "bench/inner.py").write_text(inner, encoding="utf-8")
        learn_key._tree.cache_clear()
        learn_key._code.cache_clear()
        return learn_key.key(("bench.outer",), {"rate": rate})

    monkeypatch.setattr(learn_key, "_ROOT", tmp_path)
    first = found("1", "def a():\n    return 1\n")
    assert found("1", 'def a():\n    """Doc."""\n    return 1  # one\n') == first
    assert found("2", "def a():\n    return 1\n") != first
    assert found("1", "def a():\n    return 2\n") != first
    monkeypatch.undo()
    learn_key._tree.cache_clear()
    learn_key._code.cache_clear()


MARKS = {"bench.learn_runs", *(f"btcai.yardstick.{name}" for name in ("paths", "scoring", "trading", "drift"))}
"""Modules that every run depends on."""


def test_a_run_depends_on_what_trains_simulates_and_marks_it() -> None:
    found = {learner: learn_key.closure(modules) for learner, modules in learn._CODE.items()}
    own = {
        OURS: {"bench.learn_ours", "bench.learn_budget", "bench.learn_controls", "btcai.yardstick.interaction",
               "btcai.training.yardstick", "btcai.training.trainer", "btcai.agent.ppo", "btcai.models.trunk",
               "btcai.market.kernel"},
        SB3: {"bench.learn_rivals", "bench.references.sb3_rival", "bench.references.sb3_market"},
        SAME_NETWORK: {"bench.learn_same_network", "bench.references.sb3_network", "btcai.models.trunk"},
        LINEAR: {"bench.learn_rivals", "btcai.yardstick.baselines"},
    }  # fmt: skip
    for learner, modules in own.items():
        assert modules | MARKS <= found[learner], learner


def test_a_change_of_our_learner_leaves_the_runs_of_rivals_valid() -> None:
    ours = ("btcai.training", "btcai.agent", "bench.learn_ours", "bench.learn_controls", "bench.learn_jobs")
    for rival, more in ((SB3, ("btcai.models",)), (LINEAR, ("btcai.models",)), (SAME_NETWORK, ())):
        assert not [name for name in learn_key.closure(learn._CODE[rival]) if name.startswith((*ours, *more))], rival


def test_settings_change_the_keys_of_those_who_use_them() -> None:
    config, size = settings(), learn.Size()
    before = learn.keys(config, size)

    def changed(config: Config = config, size: learn.Size = size) -> set[str]:
        return {learner for learner, found in learn.keys(config, size).items() if found != before[learner]}

    assert changed(config.model_copy(update={"ppo": config.ppo.model_copy(update={"clip": 0.25})})) == {
        OURS, NO_PREDICTION
    }  # fmt: skip
    longer = config.buckets | {"long": config.buckets["long"].model_copy(update={"patch_bars": 27})}
    assert changed(config.model_copy(update={"buckets": longer})) == {OURS, NO_PREDICTION}
    assert changed(config.model_copy(update={"model": SMALL})) == {OURS, NO_PREDICTION, SAME_NETWORK}
    assert changed(size=replace(size, marking=Marking(paths=9))) == before.keys()
    assert changed(size=replace(size, train_decisions=9)) == before.keys()


@contextmanager
def modules_run() -> Iterator[set[str]]:
    """Modules of ours of which something ran meanwhile."""
    found: set[str] = set()

    def profile(frame: Any, *_: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if name.split(".")[0] in ("bench", "btcai"):
            found.add(name)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.mark.slow
def test_every_learner_is_trained_and_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.references.sb3_rival.BRIEF", {"n_steps": 2, "batch_size": 16})
    config = settings().model_copy(update={"model": SMALL})
    size = learn.Size(train_decisions=8_000, marking=Marking(paths=2, decisions=800), pilots=(1, 2))
    runs = Runs(tmp_path / "runs.jsonl", learn.keys(config, size))
    train = learn._learners(config, size, runs, PATCHES)
    found = {}
    for learner in (OURS, NO_PREDICTION, SB3, SAME_NETWORK, LINEAR):
        asked = job(learner=learner, seconds=0.0 if learner == LINEAR else 0.3)
        with modules_run() as run:
            found[learner] = train(asked)
        code = learn._CODE[OURS if learner == NO_PREDICTION else learner]
        assert run - learn_key.closure(code) - learn_key._BY_VALUE == {"bench.learn"}, learner
        assert runs.of(runs.add(asked, found[learner], 0.0).job) is not None
    assert found[OURS].ppo_updates >= 1
    assert found[NO_PREDICTION].pretrain_updates == 0
    assert len(found[SAME_NETWORK].curve) == 1
    assert found[LINEAR].score > 0.5
    assert abs(train(job(market=SHUFFLED)).score) < 4
