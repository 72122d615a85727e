"""`btcai tune`: a search that goes on where it was, and whose trials are all kept."""

import json
import re
from pathlib import Path

import optuna
import pytest
from learning_tasks import settings
from rich.console import Console

from btcai.config import Config
from btcai.errors import ConfigError
from btcai.experiments import tuning_report
from btcai.experiments.trials import Measured
from btcai.experiments.tuning import PRESENT, SPACE, Search, ended, is_present, open_study, seen_by, tune
from btcai.params import changed


class Hill:
    """A score with its top at clip .3 and alpha .5; every bucket's is the same but the last one's, which is lower."""

    name, terms = "hill", {"top": 0.3}

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.fail_at = fail_at

    def sees(self, one: Config, other: Config) -> bool:
        return one.ppo.clip != other.ppo.clip or one.transfer.alpha != other.transfer.alpha

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        self.asked.append((bucket, seed))
        if len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        off = (config.ppo.clip - 0.3) ** 2 + (config.transfer.alpha - 0.5) ** 2
        return Measured(score=1.0 - off - (0.1 if bucket == "long" else 0.0), decisions=1, more={})


SEARCH = Search(settings=("ppo.clip", "transfer.alpha"), buckets=("scalping", "long"), seeds=1, share=0.25)


def scores(folder: Path, trials: int, subject: Hill | None = None) -> list[float]:
    subject = subject or Hill()
    study = open_study(settings(), subject, SEARCH, folder)
    list(tune(settings(), subject, SEARCH, study, trials))
    return [float(trial.value or 0.0) for trial in ended(study)]


@pytest.mark.parametrize("name", SPACE)
def test_every_setting_to_tune_is_one_of_params_yaml_and_its_ends_are_valid(name: str) -> None:
    for value in (SPACE[name].low, SPACE[name].high):
        assert changed(settings(), {name: value}) is not None


def test_the_settings_as_they_are_come_first_and_a_better_one_is_found(tmp_path: Path) -> None:
    found = scores(tmp_path, 15)
    present = 1.0 - (settings().transfer.alpha - 0.5) ** 2 - (settings().ppo.clip - 0.3) ** 2
    assert found[0] == pytest.approx(present - 0.05)
    assert max(found) > found[0]
    assert len(found) == 15


def test_a_search_goes_on_where_it_was_and_finds_the_same(tmp_path: Path) -> None:
    whole = scores(tmp_path / "whole", 8)
    assert scores(tmp_path / "parts", 3) == whole[:3]
    with pytest.raises(KeyboardInterrupt):
        scores(tmp_path / "parts", 8, Hill(fail_at=4))  # in the middle of the second of its trials
    assert sorted(scores(tmp_path / "parts", 8)) == sorted(whole)


def test_settings_as_they_are_that_were_interrupted_are_tried_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        scores(tmp_path, 3, Hill(fail_at=2))
    study = open_study(settings(), Hill(), SEARCH, tmp_path)
    study.ask()  # a second one that a kill left running
    found = list(tune(settings(), Hill(), SEARCH, study, 3))
    assert [is_present(trial) for trial in found].count(True) == 1
    assert len(ended(study)) == 3


def test_settings_as_they_are_are_tried_once_though_a_kill_left_them_running(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        scores(tmp_path, 3, Hill(fail_at=2))  # all of its settings are known, and it has no score
    found = scores(tmp_path, 3)
    study = open_study(settings(), Hill(), SEARCH, tmp_path)
    present = (settings().ppo.clip, settings().transfer.alpha)
    tried = [(trial.params["ppo.clip"], trial.params["transfer.alpha"]) for trial in ended(study)]
    assert tried.count(present) == 1
    assert len(found) == 3


def test_what_does_not_show_on_the_subject_is_refused(tmp_path: Path) -> None:
    assert seen_by(Hill(), settings()) == ("ppo.clip", "transfer.alpha")
    blind = Search(settings=("ppo.clip", "ppo.gae_lambda"), buckets=("long",), seeds=1, share=0.25)
    with pytest.raises(ConfigError, match=r"ppo.gae_lambda does not show on hill: leave it out of --settings"):
        open_study(settings(), Hill(), blind, tmp_path)


def test_another_search_does_not_go_on_with_this_one(tmp_path: Path) -> None:
    scores(tmp_path, 2)
    other = Search(settings=("ppo.clip",), buckets=("scalping", "long"), seeds=1, share=0.25)
    assert not ended(open_study(settings(), Hill(), other, tmp_path))


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a setting to tune must be one of .*, was ppo.nothing"):
        Search(settings=("ppo.nothing",), buckets=("scalping",), seeds=1, share=0.5)


def test_the_report_holds_every_trial(tmp_path: Path) -> None:
    scores(tmp_path, 4)
    study = open_study(settings(), Hill(), SEARCH, tmp_path)
    tuning_report.write(study, tmp_path)
    lines = (tmp_path / "trials.csv").read_text("utf-8").splitlines()
    assert len(lines) == 5
    assert "params_transfer.alpha" in lines[0]
    assert (tmp_path / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "studies.log").read_text("utf-8").splitlines()[0])


def test_the_table_is_whole_at_80_columns_with_the_best_trials_beside_each_other() -> None:
    places = {name: optuna.distributions.FloatDistribution(one.low, one.high) for name, one in SPACE.items()}
    params = {name: one.low for name, one in SPACE.items()}
    study = optuna.create_study(direction="maximize")
    for number, score in enumerate((-9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.5)):
        marks = {} if number else {PRESENT: True}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=places, value=score, user_attrs=marks))
    console = Console(width=80)
    with console.capture() as capture:
        console.print(tuning_report.view(study, Path("reports/tuning/two_scale")))
    text = capture.get()
    assert "…" not in text
    head, _, score, *rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.strip()]
    assert head == ["trial", "5", "4", "3", "2", "1", "as is"]
    assert score == ["score", "5.0000", "4.0000", "3.0000", "2.0000", "1.0000", "-9.0000"]
    assert {name: float(low) for name, low, *_ in rows[:-1]} == pytest.approx(params)
    assert "all 7 trials: reports/tuning/two_scale/trials.csv" in text
