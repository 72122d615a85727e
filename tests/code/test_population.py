"""`btcai tune --population` without Ray: what a round is, what is kept of it, how settings move, what is reported."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_tasks import settings
from population_fakes import Slope, evolve_here
from typer.testing import CliRunner

from btcai.cli import app
from btcai.errors import ArtifactError, ConfigError
from btcai.experiments import evolution, on_ray, population_report, subjects
from btcai.experiments.evolution import BEST, IN_ONE_GO, UNCHANGED, Found, evolve
from btcai.experiments.population import (
    AT_START,
    SPACE,
    STEP,
    Population,
    Round,
    Rounds,
    Step,
    explored,
    first_settings,
    open_rounds,
    present_settings,
)
from btcai.experiments.tuning import Range
from btcai.params import changed

ASKED = Population(members=4, generations=3, settings=("ppo.clip",), buckets=("scalping", "long"), seeds=1, share=0.25)
TOP = {"ppo.clip": 0.3}


def opened(folder: Path, subject: Slope, asked: Population = ASKED) -> Rounds:
    return open_rounds(settings(), subject, asked, folder)


@pytest.mark.parametrize("name", SPACE)
def test_every_setting_that_moves_is_one_of_params_yaml_and_its_ends_are_valid(name: str) -> None:
    for value in (SPACE[name].low, SPACE[name].high):
        assert changed(settings(), {name: value}) is not None


def test_places_in_a_range_by_hand() -> None:
    even, by_factors = Range(2.0, 6.0), Range(1.0, 100.0, log=True)
    assert (even.place(3.0), even.at(0.25)) == (0.25, 3.0)
    assert by_factors.place(10.0) == pytest.approx(0.5)
    assert by_factors.at(0.5) == pytest.approx(10.0)


@given(st.sampled_from(sorted(SPACE)), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
def test_settings_never_leave_their_ranges(name: str, place: float, seed: int) -> None:
    range_ = SPACE[name]
    found = explored({name: range_.at(place)}, np.random.default_rng(seed))[name]
    assert range_.low <= found <= range_.high
    assert found == float(f"{found:.4g}")


def test_a_quarter_of_the_settings_is_drawn_anew_and_the_rest_moves_a_step() -> None:
    name, rng = "ppo.gae_lambda", np.random.default_rng(0)
    range_ = SPACE[name]
    moved = np.array([range_.place(explored({name: range_.at(0.5)}, rng)[name]) - 0.5 for _ in range(4000)])
    # evenly over the range a share of 1 - 6 STEP is further than three steps away; of the others 0.3 % are
    assert np.mean(np.abs(moved) > 3 * STEP) == pytest.approx(0.25 * (1 - 6 * STEP) + 0.75 * 0.0027, abs=0.02)
    # the median of |normal| is .674 steps; a quarter of even draws beside it moves it to .80
    assert np.median(np.abs(moved)) == pytest.approx(0.80 * STEP, abs=0.08 * STEP)


def test_members_begin_with_the_settings_as_they_are_and_with_some_near_them() -> None:
    begin = first_settings(settings(), replace(ASKED, settings=("ppo.clip", "pretrain.learning_rate")))
    assert begin[0] == {"ppo.clip": 0.3, "pretrain.learning_rate": 0.005}
    assert len({tuple(one.values()) for one in begin}) == 4
    assert begin == first_settings(settings(), replace(ASKED, settings=("pretrain.learning_rate", "ppo.clip")))


def test_a_round_goes_on_from_the_weights_of_another(tmp_path: Path) -> None:
    rounds = opened(tmp_path, Slope())
    first = rounds.after(None, TOP)
    assert (first.number, first.before, first.scores) == (1, None, {"scalping-0": 1.0, "long-0": 0.5})
    assert first.score == pytest.approx(0.75)
    second = rounds.after(first.id, {"ppo.clip": 0.2})  # adds nothing: 100 * .1^2 = 1
    third = rounds.after(second.id, TOP)
    assert [second.score, third.score] == pytest.approx([0.75, 1.5])
    assert rounds.lineage(third) == [first, second, third]
    assert rounds.held_out(third) == pytest.approx(1.0)


def test_a_round_that_is_known_is_not_trained_again(tmp_path: Path) -> None:
    subject = Slope()
    made = opened(tmp_path, subject).after(None, TOP)
    again = Slope()
    assert opened(tmp_path, again).after(None, TOP) == made
    assert (len(subject.made), again.made) == (2, [])
    more = replace(ASKED, generations=9)
    assert opened(tmp_path, again, more).all() == [made]  # more generations go on with what is there


def test_another_search_has_rounds_of_its_own(tmp_path: Path) -> None:
    known = opened(tmp_path, Slope()).after(None, TOP)
    for asked in (replace(ASKED, share=0.5), replace(ASKED, members=5), replace(ASKED, seeds=2)):
        other = opened(tmp_path, Slope(), asked)
        assert other.all() == []
        assert other.after(None, TOP).id != known.id
    assert opened(tmp_path, Slope("other")).all() == []


def test_weights_that_no_member_goes_on_from_are_removed_and_trained_again_where_they_are_needed(
    tmp_path: Path,
) -> None:
    subject = Slope()
    rounds = opened(tmp_path, subject)
    first = rounds.after(None, TOP)
    second = rounds.after(first.id, TOP)
    rounds.forget(2)
    assert [path.parent.parent.name for path in tmp_path.rglob("height")] == [second.id] * 2
    assert rounds.all() == [first, second]
    rounds.forget(3)
    subject.made.clear()
    third = rounds.after(second.id, TOP)  # both before it are trained again
    assert [number for bucket, _, number, _ in subject.made if bucket == "long"] == [1, 2, 3]
    assert third.score == pytest.approx(2.25)
    assert [one.score for one in rounds.all()] == [first.score, second.score, third.score]


def test_a_round_that_blew_up_has_no_score_and_nothing_goes_on_from_it(tmp_path: Path) -> None:
    subject = Slope(blows_up_at=0.5)
    rounds = opened(tmp_path, subject)
    blown = rounds.after(None, {"ppo.clip": 0.5})
    assert (blown.score, blown.scores) == (None, {})
    trained = len(subject.made)
    after = rounds.after(blown.id, TOP)
    assert (after.score, after.number, len(subject.made)) == (None, 2, trained)
    assert rounds.held_out(after) is None


def test_a_round_that_was_removed_by_hand_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"round nowhere must be in .*, was removed; remove that folder"):
        opened(tmp_path, Slope()).after("nowhere", TOP)


@pytest.mark.parametrize("name", [*sorted(AT_START), "ppo.nothing"])
def test_what_does_not_change_while_members_train_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"a setting of a population must be one of .*, was {name}; search"):
        replace(ASKED, settings=(name,))


def test_what_does_not_show_and_a_population_of_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ppo.gae_lambda does not show on slope: leave it out of --settings"):
        opened(tmp_path, Slope(), replace(ASKED, settings=("ppo.clip", "ppo.gae_lambda")))
    with pytest.raises(ConfigError, match=r"a population must have at least 2 members, was 1"):
        replace(ASKED, members=1)


def searched(folder: Path, subject: Slope, asked: Population = ASKED) -> tuple[Found, list[tuple[int, int]]]:
    """With the scheduler of population_fakes; what was told: how many rounds are done, and of how many."""
    told: list[tuple[int, int]] = []
    config = changed(settings(), {"ppo.clip": 0.2})
    found = evolve(config, subject, lambda: subject, asked, folder, None, lambda one, *done: told.append(done))
    return found, told


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "evolve", evolve_here)
    monkeypatch.setattr(on_ray, "require", lambda: None)


@pytest.mark.usefixtures("without_ray")
def test_a_search_is_held_against_the_settings_as_they_are(tmp_path: Path) -> None:
    found, told = searched(tmp_path, Slope())
    assert told == [(k, 16) for k in range(1, 17)]  # 3 rounds as they are, one in one go, 4 members' 3
    # at clip .2 nothing is climbed, so whatever is nearer to .3 is better
    assert [one.score for one in found.lines[UNCHANGED].rounds] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)
    assert [one.number for one in found.lines[IN_ONE_GO].rounds] == [1]
    best = found.lines[BEST]
    assert best.rounds[-1].score == max(step.round.score or 0.0 for step in found.steps if step.round.number == 3)
    assert best.rounds[-1].score > 0.0
    assert best.elsewhere == pytest.approx(best.rounds[-1].score - 0.5)
    assert found.lines[UNCHANGED].elsewhere == pytest.approx(-0.5)
    assert best.rounds[0].before is None
    assert [later.before for later in best.rounds[1:]] == [one.id for one in best.rounds[:-1]]


@pytest.mark.usefixtures("without_ray")
def test_the_training_in_one_go_has_the_budget_of_all_rounds(tmp_path: Path) -> None:
    subject = Slope()
    searched(tmp_path, subject)
    assert {share for *_, share in subject.made} == {0.25, 0.75}
    assert [(bucket, number) for bucket, _, number, share in subject.made if share == 0.75] == [
        ("scalping", 1),
        ("long", 1),
    ]


@pytest.mark.usefixtures("without_ray")
def test_a_search_that_was_broken_off_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = searched(tmp_path / "whole", Slope())
    broken = Slope()
    made = broken.train_round

    def killed(*given: object) -> float:
        if len(broken.made) == 21:  # in the middle of a round of the second generation
            raise KeyboardInterrupt
        return made(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(broken, "train_round", killed)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "parts", broken)
    later = Slope()
    again, told = searched(tmp_path / "parts", later)
    assert [(step.member, replace(step.round, seconds=0.0)) for step in again.steps] == [
        (step.member, replace(step.round, seconds=0.0)) for step in whole.steps
    ]
    assert told.count((0, 16)) == 10  # what an earlier call had kept: 3 + 1 as they are, 4 - 1, 3 of the second
    undisturbed = Slope()
    searched(tmp_path / "counted", undisturbed)
    # half a round was lost: its first bucket is trained again
    assert len(broken.made) - 1 + len(later.made) == len(undisturbed.made)


@pytest.mark.usefixtures("without_ray")
def test_weights_on_the_disk_are_bounded(tmp_path: Path) -> None:
    found, _ = searched(tmp_path, Slope(), replace(ASKED, generations=6))
    kept = {path.parent.parent.name for path in tmp_path.rglob("height")}
    newest = {step.round.id for step in found.steps if step.round.number == 6}
    ends = {found.lines[name].rounds[-1].id for name in (UNCHANGED, IN_ONE_GO)}
    assert kept == newest | ends


@pytest.mark.usefixtures("without_ray")
def test_a_population_that_blew_up_is_named(tmp_path: Path) -> None:
    subject = Slope()
    subject.blows_up_at = 0.2
    with pytest.raises(evolution.TrainingError, match="a member must end with a score, all of them blew up"):
        evolution._best([Step(member=0, round=opened(tmp_path, subject).after(None, {"ppo.clip": 0.2}))], 1)


def step(member: int, number: int, name: str, before: str | None, score: float | None, clip: float) -> Step:
    one = Round(
        id=name, before=before, number=number, settings={"ppo.clip": clip}, score=score, scores={}, seconds=1.25
    )
    return Step(member=member, round=one)


def test_the_report_says_who_went_on_from_whom(tmp_path: Path) -> None:
    steps = [
        step(1, 1, "b", None, 0.2, 0.4),
        step(0, 1, "a", None, 0.5, 0.3),
        step(0, 2, "c", "a", 0.6, 0.3),
        step(1, 2, "d", "a", None, 0.35),
    ]
    best = evolution.Line(rounds=[steps[1].round, steps[2].round], elsewhere=None)
    one = evolution.Line(rounds=[steps[1].round], elsewhere=0.4)
    found = Found(steps=steps, lines={BEST: best, UNCHANGED: best, IN_ONE_GO: one})
    population_report.write(found, ASKED, tmp_path)
    with (tmp_path / "population.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["round"], row["member"], row["went_on_from"], row["score"]) for row in csv.DictReader(file)]
    assert rows == [("1", "0", "", "0.5"), ("1", "1", "", "0.2"), ("2", "0", "0", "0.6"), ("2", "1", "0", "")]
    told = json.loads((tmp_path / "population.json").read_text("utf-8"))
    assert told["asked"]["members"] == 4
    assert [one["settings"]["ppo.clip"] for one in told["lines"][BEST]["rounds"]] == [0.3, 0.3]
    assert (told["lines"][BEST]["elsewhere"], told["lines"][IN_ONE_GO]["elsewhere"]) == (None, 0.4)
    assert (tmp_path / "population.png").read_bytes().startswith(b"\x89PNG")
    worth, schedule = population_report.view(found).renderables  # type: ignore[attr-defined]
    assert (worth.row_count, schedule.row_count, len(schedule.columns)) == (3, 2, 4)


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = "tune --on market --population 3 --generations 2 --settings ppo.clip --buckets long".split()


@pytest.mark.usefixtures("without_ray")
def test_every_round_that_saw_the_market_in_use_is_in_the_ledger(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "open_subject", lambda *_: Slope("market"))
    for _ in range(2):  # again: nothing new
        done = CliRunner().invoke(app, COMMAND, catch_exceptions=False)
        assert done.exit_code == 0
    assert BEST in done.output
    lines = [json.loads(line) for line in (project / "journal/trials.jsonl").read_text("utf-8").splitlines()]
    kept = [json.loads(path.read_text("utf-8")) for path in project.rglob("round.json")]
    assert sorted(line["input_hash"] for line in lines) == sorted(one["id"] for one in kept)
    assert {tuple(line["tested_ts_ns"]) for line in lines} == {(3, 8)}
    told = {(line["tried"]["round"], line["tried"]["ppo.clip"]) for line in lines}
    with (project / "reports/tuning/market/population.csv").open(encoding="utf-8", newline="") as file:
        rows = [(int(row["round"]), float(row["ppo.clip"])) for row in csv.DictReader(file)]
    assert (len(rows), set(rows) - told) == (6, set())
    (project / "journal/trials.jsonl").unlink()  # a kill before any was put on record
    CliRunner().invoke(app, COMMAND, catch_exceptions=False)
    assert len((project / "journal/trials.jsonl").read_text("utf-8").splitlines()) == len(lines)
    assert (project / "reports/tuning/market/population.json").is_file()


@pytest.mark.usefixtures("without_ray", "project")
def test_what_did_not_see_the_market_in_use_is_not_in_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "open_subject", lambda *_: Slope("two_scale"))
    assert CliRunner().invoke(app, COMMAND, catch_exceptions=False).exit_code == 0
    assert not Path("journal").exists()


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--population 4 --trials 3", "--trials must not be given with --population, was 3"),
        ("--generations 3", "--generations and --at-once must be given with --population"),
        ("--at-once 1", "--generations and --at-once must be given with --population"),
    ],
)
def test_options_of_the_other_search_are_refused(options: str, said: str) -> None:
    done = CliRunner().invoke(app, ["tune", *options.split()])
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)


@pytest.mark.usefixtures("project")
def test_where_ray_is_not_installed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, COMMAND)
    assert isinstance(done.exception, ConfigError)
    assert "install the extra scale with: pip install -e '.[scale]'" in str(done.exception)


def test_present_settings_lie_within_their_ranges() -> None:
    off = changed(settings(), {"ppo.weight_decay": 0.0})
    assert present_settings(off, replace(ASKED, settings=("ppo.weight_decay",))) == {"ppo.weight_decay": 0.02}
