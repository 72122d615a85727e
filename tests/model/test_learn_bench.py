"""`btcai bench learn`: trainings are made once, goals are computed from them, time over the limit breaks a goal."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning_tasks import settings

from bench import learn, learn_ours
from bench.learn_budget import Pace, Updates, measure_pace
from bench.learn_jobs import FIRST_SEED, PARTS, SHUFFLED, Seconds, jobs
from bench.learn_ours import OurLearner
from bench.learn_runs import NO_PREDICTION, OURS, SAME_NETWORK, SB3, Job, Marking, Outcome, Run, Runs
from bench.line import Line
from bench.stopwatch import Stopwatch
from btcai.schema import Action
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.paths import YardstickMarket

PATCHES = {"scalping": 1, "long": 28}


@pytest.fixture(autouse=True)
def torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "set_up_torch", lambda _: torch.set_num_threads(1))


def job(**changed: Any) -> Job:
    given = {"part": "hidden", "market": "easy, hidden", "learner": OURS, "seed": 0, "seconds": 30.0}
    return Job(**(given | changed))


class Fake:
    """Learners that learn nothing: job -> score, in no time; `made` says what was asked of them."""

    def __init__(self, score: Callable[[Job], float], most: int = 10_000, used: float = 1.0) -> None:
        self.made: list[Job] = []
        self._score, self._most, self._used = score, most, used

    def __call__(self, asked: Job) -> Outcome:
        if len(self.made) == self._most:
            raise KeyboardInterrupt
        asked = replace(asked, seed=asked.seed - FIRST_SEED)
        self.made.append(asked)
        score = self._score(asked)
        behaved = {"long_frac": 0.5, "short_frac": 0.0} | {f"share_{action.name.lower()}": 0.25 for action in Action}
        curve = ((6.0, score / 2), (asked.seconds, score)) if asked.learner in (SB3, SAME_NETWORK) else ()
        return Outcome(score=score, mark_error=0.01, seconds_used=self._used * asked.seconds, curve=curve, more=behaved)


def measured(root: Path, fake: Fake, patch: pytest.MonkeyPatch, only: tuple[str, ...], seeds: int) -> dict[str, Line]:
    patch.setattr(learn, "_learners", lambda *_: fake)
    patch.setattr(learn, "draw", lambda *_: None)
    return {line.name: line for line in learn.lines(Stopwatch(seeds, patience_s=0), settings(), root, only)}


def good(asked: Job) -> float:
    """Seed 0: .995, seed 1: .997; the rival .9."""
    return 0.9 if asked.learner == SB3 else 0.995 + 0.002 * asked.seed


def test_a_second_call_trains_nothing_and_more_seeds_train_only_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, more = Fake(good), Fake(good), Fake(good)
    before = measured(tmp_path, first, monkeypatch, ("hidden",), 2)
    assert len(first.made) == 8
    assert measured(tmp_path, again, monkeypatch, ("hidden",), 2) == before
    assert again.made == []
    measured(tmp_path, more, monkeypatch, ("hidden",), 3)
    assert [made.seed for made in more.made] == [2, 2, 2, 2]


@pytest.mark.slow
def test_the_picture_is_drawn_of_the_runs_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(tmp_path, Fake(good), monkeypatch, ("rivals", "hidden"), 2)
    monkeypatch.undo()
    runs = Runs(tmp_path / learn.RUNS, learn.keys(settings(), learn.Size()))
    learn.draw(runs, Seconds(), tmp_path / "some.png")
    learn.draw(Runs(tmp_path / "none", {}), Seconds(), tmp_path / "none.png")
    some, none = ((tmp_path / name).read_bytes() for name in ("some.png", "none.png"))
    assert some.startswith(b"\x89PNG")
    assert len(some) > len(none)


def test_a_bench_that_was_killed_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, resumed = Fake(good, most=3), Fake(good)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, killed, monkeypatch, ("shown",), 1)
    found = measured(tmp_path, resumed, monkeypatch, ("shown",), 1)
    assert [made.market for made in killed.made + resumed.made] == [f"{level}, shown" for level in LEVELS]
    assert len(found) == 4


def test_another_part_shares_the_same_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(tmp_path, Fake(good), monkeypatch, ("hidden",), 2)
    longer = Fake(good)
    found = measured(tmp_path, longer, monkeypatch, ("long",), 2)
    assert {made.seconds for made in longer.made} == {120.0}
    assert "easy, hidden: ours, 30 s" in found  # a part whose runs are all there is shown too


def test_goals_are_on_the_lower_end_over_training_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(tmp_path, Fake(good), monkeypatch, ("rivals", "hidden"), 2)
    line = found["very_hard, hidden: ours, 30 s"]
    # mean .996, standard error .001, Student's t of one degree of freedom 12.706
    assert line.value == pytest.approx(0.996 - 12.706205 * 0.001)
    assert line.more["high"] == pytest.approx(0.996 + 12.706205 * 0.001)
    assert (line.goal, line.met) == ("value >= 0.95 after 30 s", True)
    assert line.reference_value == pytest.approx(0.9)
    assert found["easy, hidden: ours, 30 s"].met is False  # .983 < .99
    assert found["easy, hidden: stable-baselines3 PPO, 58 s"].more["mean_1"] == pytest.approx(0.45)


@pytest.mark.parametrize(("used", "met"), [(1.05, True), (1.06, False)])
def test_a_goal_is_missed_where_training_took_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: float, met: bool
) -> None:
    found = measured(tmp_path, Fake(lambda _: 1.0, used=used), monkeypatch, ("shown",), 2)
    assert found["easy, shown: ours, 10 s"].met is met


def test_one_seed_has_no_interval_and_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = measured(tmp_path, Fake(good), monkeypatch, ("interaction",), 1)["interaction: ours, 30 s"]
    assert (line.value, line.met, line.more["mean"]) == (None, None, 0.995)
    assert "--repeats" in str(line.note)


def test_decay_is_a_loss_seed_by_seed_whose_whole_interval_is_below_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds differ by .2 among each other: without pairing nothing could be seen. Student's t of 2 degrees: 4.3027."""
    change = {"easy": (-0.001, -0.003, 0.004), "medium": (0.01, 0.02, 0.03), "hard": (-0.01, -0.02, -0.03)}

    def trained(asked: Job) -> float:
        level = asked.market.partition(",")[0]
        return 0.2 * asked.seed + (change.get(level, (0.0,) * 3)[asked.seed] if asked.seconds == 120 else 0.0)

    found = measured(tmp_path, Fake(trained), monkeypatch, ("long",), 3)
    easy, medium, hard, same = (found[f"{level}, hidden: ours, 120 s less 30 s"] for level in LEVELS)
    half = 4.302653 * 0.01 / 3**0.5
    assert (hard.value, hard.more["low"]) == (pytest.approx(-0.02 + half), pytest.approx(-0.02 - half))
    assert (hard.more["mean"], hard.more["seeds_worse"], hard.met) == (pytest.approx(-0.02), 3, True)
    assert medium.more["mean_after"] == pytest.approx(0.22)
    assert (same.value, same.met) == (0.0, True)
    assert easy.met is True
    assert str(easy.note).endswith("it may be 0.0090 on average")  # 4.3027 * sqrt(13e-6) / sqrt(3)


def test_a_small_loss_of_every_seed_is_decay_and_that_of_one_seed_is_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(asked: Job) -> float:
        return 0.99 - 0.05 * asked.seed - (0.002 + 0.0001 * asked.seed) * (asked.seconds == 120)

    name = "easy, hidden: ours, 120 s less 30 s"
    assert measured(tmp_path / "many", Fake(trained), monkeypatch, ("long",), 5)[name].met is False
    one = measured(tmp_path / "one", Fake(trained), monkeypatch, ("long",), 1)[name]
    assert (one.value, one.met, one.more["mean"]) == (None, None, pytest.approx(-0.002))
    assert "--repeats" in str(one.note)


def test_a_constant_preference_neither_passes_nor_fails_the_control_without_skill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def z(asked: Job) -> float:
        return (1.0, math.nan)[asked.seed] if asked.market == SHUFFLED else 1.0

    name = f"{SHUFFLED}: ours, 30 s, timing skill when made to trade"
    line = measured(tmp_path, Fake(z), monkeypatch, ("controls",), 2)[name]
    assert (line.value, line.met, line.more["z_mean"]) == (None, None, 1.0)
    assert str(line.note).startswith("1 of 2 seeds prefer the same everywhere")
    again = Fake(z)
    assert measured(tmp_path, again, monkeypatch, ("controls",), 2)[name] == line  # a run without a z is kept
    assert again.made == []


def test_the_clock_of_the_same_network_stops_at_our_score_or_is_a_lower_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = measured(tmp_path / "a", Fake(lambda a: 0.8 if a.learner == SAME_NETWORK else 0.9), monkeypatch,
                    ("same_network",), 1)  # fmt: skip
    line = slow[f"medium, hidden: {SAME_NETWORK}, seconds to our score"]
    assert (line.value, line.reference_value, line.ratio) == (240.0, 30.0, 8.0)
    assert str(line.note).startswith("at least")
    best = slow[f"medium, hidden: {SAME_NETWORK}, seconds to its own best"]
    assert (best.value, best.reference_value, best.ratio) == (240.0, 5.0, 48.0)
    quick = measured(tmp_path / "b", Fake(lambda a: 0.9), monkeypatch, ("same_network",), 1)
    assert [line.note for line in quick.values()] == ["at most: it got there after the mark at 6 s"]


def test_collapse_is_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = measured(tmp_path / "sound", Fake(good), monkeypatch, ("collapse",), 5).values()
    assert (line.value, line.unit, line.met) == (0.0, "of 20", True)

    class Flat(Fake):
        def __call__(self, asked: Job) -> Outcome:
            outcome = super().__call__(asked)
            return replace(outcome, more={**outcome.more, "long_frac": 0.0}) if len(self.made) == 3 else outcome

    (line,) = measured(tmp_path / "flat", Flat(good), monkeypatch, ("collapse",), 5).values()
    assert (line.value, line.met, line.more["flat"], line.more["long_frac_least"]) == (1.0, False, 1, 0.0)


def test_every_part_has_its_markets_and_seeds() -> None:
    asked = {part: jobs(part, 5, Seconds(), PATCHES) for part in PARTS}
    counts = {"rivals": 60, "hidden": 20, "long": 40, "interaction": 5, "shown": 20, "buckets": 20}
    counts |= {"same_network": 5, "controls": 10, "curves": 24, "collapse": 20}
    assert {part: len(found) for part, found in asked.items()} == counts
    known = learn.named_markets(PATCHES)
    assert {one.market for found in asked.values() for one in found} <= known.keys()


outcomes = st.builds(
    Outcome,
    score=st.floats(-10, 2),
    mark_error=st.none() | st.floats(0, 1),
    seconds_used=st.floats(0, 1e4),
    pretrain_updates=st.integers(0, 10**6),
    curve=st.lists(st.tuples(st.floats(0, 1e3), st.floats(-1, 1))).map(tuple),
    more=st.dictionaries(st.text(max_size=5), st.floats(-1, 1)),
)


@given(outcome=outcomes)
def test_a_run_reads_back_as_it_was_written(outcome: Outcome) -> None:
    run = Run(job=job(), key="k", others_cores=0.5, outcome=outcome)
    assert Run.from_json(run.as_json()) == run


def test_a_line_cut_short_does_not_count_and_the_next_run_is_whole(tmp_path: Path) -> None:
    path, outcome = tmp_path / "runs.jsonl", Outcome(score=1.0, mark_error=None, seconds_used=1.0)
    runs = Runs(path, {OURS: "new"})
    runs.add(job(), outcome, 0.0)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"part": "hid')
    Runs(path, {OURS: "new"}).add(job(seed=1), outcome, 0.0)
    again = Runs(path, {OURS: "new"})
    assert [run.job.seed for run in again.like("easy, hidden", OURS, 30.0)] == [0, 1]
    assert Runs(path, {OURS: "other settings or code"}).of(job()) is None


def test_updates_fill_the_seconds_at_the_measured_pace() -> None:
    def took(updates: Updates) -> float:
        return 1.0 + 0.1 * updates.pretrain + 0.2 * updates.ppo

    pace = measure_pace(took, 8, 24)
    assert (pace.pretrain_s, pace.ppo_s, pace.fixed_s) == pytest.approx((0.1, 0.2, 1.0))
    # .97 * 30 = 29.1 s: 5.82 s of them 58 updates of prediction, the 22.3 s left after 1 s fixed 111 of PPO
    assert pace.updates(30.0, 0.2) == Updates(pretrain=58, ppo=111)
    assert pace.updates(0.1, 0.0) == Updates(pretrain=0, ppo=1)


def test_a_training_out_of_its_time_is_made_again_with_as_many_updates_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Updates] = []

    def timed(self: OurLearner, asked: Job, market: YardstickMarket, updates: Updates) -> tuple[None, float]:
        tried.append(updates)
        return None, 0.3 * updates.ppo

    monkeypatch.setattr(learn_ours, "measure_pace", lambda *_: Pace(pretrain_s=1.0, ppo_s=0.2, fixed_s=0.0))
    monkeypatch.setattr(OurLearner, "_timed", timed)
    monkeypatch.setattr(OurLearner, "_marked", lambda *_: (1.0, None, {}))
    runs = Runs(tmp_path / "runs.jsonl", {NO_PREDICTION: "k"})
    ours = OurLearner(settings(), Marking(), 1000, (1, 2), runs)
    market, asked = DriftMarket(level=LEVELS["easy"], shown=False), job(learner=NO_PREDICTION)
    made = ours.run(asked, market)
    # 29.1 s / .2 = 145 updates took 43.5 s, so 145 * 29.1 / 43.5 = 97
    assert [updates.ppo for updates in tried] == [145, 97]
    assert (made.ppo_updates, made.seconds_used) == (97, pytest.approx(29.1))
    runs.add(asked, made, 0.0)
    ours.run(job(learner=NO_PREDICTION, seed=1), market)
    OurLearner(settings(), Marking(), 1000, (1, 2), runs).run(job(learner=NO_PREDICTION, seed=2), market)
    assert [updates.ppo for updates in tried[2:]] == [97, 1, 97]  # as the seed before; in a new process caches first
    runs.add(job(learner=NO_PREDICTION, seed=3), replace(made, ppo_updates=50), 0.0)
    ours.run(job(learner=NO_PREDICTION, seed=4), market)
    assert [updates.ppo for updates in tried[5:]] == [50, 97]  # 15 s, then 50 * 29.1 / 15: there was time over
