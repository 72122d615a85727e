"""`btcai ablate`: what is compared, what is left to train, and what the scores say, with figures worked by hand."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learning_tasks import settings
from statsmodels.stats.multitest import multipletests

from btcai.config import Config, TransferConfig
from btcai.errors import ConfigError
from btcai.experiments import report
from btcai.experiments.arms import ARMS, BASE, SCRATCH, arm_config
from btcai.experiments.running import Asked, Plan, make, plan, trial_key
from btcai.experiments.statistics import bootstrapped, chance_of, interquartile_mean, steps_ratio
from btcai.experiments.table import rows, steps
from btcai.experiments.trials import Kept, Measured
from btcai.params import changed
from btcai.reasoning.lessons import holm
from btcai.schema import BUCKETS


class Pretended:
    """Scores that are known beforehand, in place of trainings."""

    name = "pretended"

    def __init__(self, size: int = 1) -> None:
        self.terms = {"size": size}
        self.made = 0

    def sees(self, one: Config, other: Config) -> bool:
        return one != other

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        self.made += 1
        score = share + 0.01 * seed + (0.2 if config.transfer.alpha == 1.0 else 0.0)
        return Measured(score=score, decisions=round(1000 * share), more={})


def planned(folder: Path, asked: Asked, subject: Pretended | None = None) -> tuple[Plan, Pretended]:
    subject = subject or Pretended()
    return plan(settings(), subject, asked, Kept(folder / "trials.jsonl")), subject


ASKED = Asked(arms=(SCRATCH, "whole trunk"), buckets=("scalping", "short"), seeds=2, shares=(0.5, 0.25))


AS_CONFIGURED = {BASE}
"""Arms that change nothing of params.yaml as shipped: none but the one that means to."""


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_valid_change_of_the_settings(name: str) -> None:
    assert (arm_config(settings(), name) == settings()) == (name in AS_CONFIGURED)


def test_there_is_an_arm_for_every_choice_of_the_hand_over() -> None:
    told = {key.removeprefix("transfer.") for name, arm in ARMS.items() if name != SCRATCH for key in arm.changes}
    assert told >= set(TransferConfig.model_fields) - {"kickstart_frac"}
    assert set(ARMS[SCRATCH].changes) == {
        f"transfer.{key}" for key in TransferConfig.model_fields if key != "kickstart_frac"
    }


def test_an_unknown_arm_or_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"an arm must be one of as configured, .* was nothing"):
        arm_config(settings(), "nothing")
    with pytest.raises(ConfigError, match=r"a setting must be one of params.yaml, was ppo.nothing"):
        changed(settings(), {"ppo.nothing": 1})
    with pytest.raises(ConfigError, match=r"transfer.alpha: .* less than or equal to 1, was 2.0"):
        changed(settings(), {"transfer.alpha": 2.0})


def test_short_budgets_come_first_and_the_first_bucket_has_no_hand_over(tmp_path: Path) -> None:
    found, _ = planned(tmp_path, ASKED)
    told = [(trial.share, trial.seed, trial.bucket, trial.arm) for trial in found.left]
    assert told[:4] == [
        (0.25, 0, "scalping", BASE),
        (0.25, 0, "short", BASE),
        (0.25, 0, "short", SCRATCH),
        (0.25, 0, "short", "whole trunk"),
    ]
    assert len(told) == 16
    assert [share for share, *_ in told] == [0.25] * 8 + [0.5] * 8


def test_a_comparison_that_was_broken_off_goes_on_where_it_was(tmp_path: Path) -> None:
    first, subject = planned(tmp_path, ASKED)
    assert report.left(first) == "16 of 16 trainings are left"
    making = make(settings(), first, subject)
    done = [next(making) for _ in range(6)]
    making.close()
    with (tmp_path / "trials.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"trial": {"subject"')  # a kill in the middle of a line
    again, later = planned(tmp_path, ASKED)
    assert list(again.done) == done
    for trial, outcome in again.done.items():
        again.kept.add(trial, replace(outcome, seconds=15.0))
    # 6 trainings of a quarter took 15 s each; 2 of a quarter and 8 of a half are left: 270 s
    assert again.seconds_left == pytest.approx(270.0)
    assert report.left(again) == "10 of 16 trainings are left, about 4 minutes"
    assert len(list(make(settings(), again, later))) == later.made == 10
    whole, _ = planned(tmp_path, ASKED)
    assert (whole.left, len(whole.done)) == ([], 16)
    assert len((tmp_path / "trials.jsonl").read_text("utf-8").splitlines()) == 23  # 16, 6 again, one torn


def test_what_rests_on_other_settings_or_another_market_is_made_again(tmp_path: Path) -> None:
    config, subject = settings(), Pretended()
    key = trial_key(config, subject, BASE)
    assert key == trial_key(config, Pretended(), BASE) != trial_key(config, Pretended(size=2), BASE)
    assert key != trial_key(config, subject, "whole trunk")
    assert key != trial_key(changed(config, {"ppo.clip": 0.1}), subject, BASE)
    assert key == trial_key(changed(config, {"profile": "full", "drift.window_days": 3}), subject, BASE)
    found, _ = planned(tmp_path, ASKED)
    list(make(settings(), found, subject))
    assert len(planned(tmp_path, ASKED, Pretended(size=2))[0].left) == 16


def test_interquartile_mean_leaves_out_a_quarter_on_either_side() -> None:
    assert interquartile_mean(np.array([9.0, 1.0, 2.0, 3.0, -7.0])) == pytest.approx(2.0)
    assert interquartile_mean(np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 90.0]])).tolist() == [2.5, 0.5]


def test_an_interval_without_spread_is_a_point_and_one_with_covers_its_mean() -> None:
    assert bootstrapped(np.full((2, 5), 0.3), 0) == pytest.approx((0.3, 0.3, 0.3))
    found = bootstrapped(np.random.default_rng(1).normal(size=(1, 40)), 0)
    assert found.low < found.value < found.high


def test_an_interval_covers_as_often_as_it_says() -> None:
    # of 40 normal draws, whose interquartile mean is 0 in truth; 300 intervals of 95 %
    draws = np.random.default_rng(1).normal(size=(300, 1, 40))
    covered = [found.low < 0 < found.high for found in (bootstrapped(one, 0) for one in draws)]
    assert 0.9 < np.mean(covered) < 0.99


def test_buckets_are_resampled_apart() -> None:
    # two buckets without spread, far apart: resampled together their mean would vary
    scores = np.array([[0.0] * 5, [1.0] * 5])
    assert bootstrapped(scores, 0) == pytest.approx((0.5, 0.5, 0.5))


def test_chances_by_hand_and_after_holm() -> None:
    # of 1, 2, 3 the mean is 2, its standard error 1 / sqrt(3): t = 3.464, two-sided with 2 degrees .0742
    assert chance_of(np.array([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)
    assert [chance_of(np.array(same)) for same in ([0.0] * 5, [0.2] * 5, [3.0])] == [1.0, 0.0, 1.0]
    # the least of three times 3, the next times 2, the last as it is; never below the one before
    assert holm(np.array([0.03, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    chances = np.random.default_rng(0).random(20) ** 3
    assert holm(chances) == pytest.approx(multipletests(chances, method="holm")[1])


def test_steps_to_a_score_by_hand() -> None:
    # from scratch .2, .4, .6 with 1/4, 1/2, 1; the arm .4, .6, .7: it needs 1/2 for what scratch has with 1
    shares = np.array([0.25, 0.5, 1.0])
    base, arm = (np.repeat(np.array(curve)[:, None], 5, 1) for curve in ([0.2, 0.4, 0.6], [0.4, 0.6, 0.7]))
    assert steps_ratio(shares, base, arm, 2, 0) == pytest.approx((0.5, 0.5, 0.5))
    assert steps_ratio(shares, base, arm, 1, 0) == pytest.approx((0.5, 0.5, 0.5))  # .4 with 1/4 in place of 1/2
    assert steps_ratio(shares, arm, base, 2, 0).value == np.inf
    # .5 lies half-way between .4 and .6 in the logarithm of 1/4 and 1/2: 1/4 * sqrt(2), over 1
    halfway = np.repeat(np.array([0.2, 0.4, 0.5])[:, None], 5, 1)
    assert steps_ratio(shares, halfway, arm, 2, 0).value == pytest.approx(0.25 * 2**0.5)
    dipped = np.repeat(np.array([0.6, 0.5, 0.7])[:, None], 5, 1)  # the best so far counts
    assert steps_ratio(shares, base, dipped, 2, 0).value == 0.25


def test_gains_are_held_against_the_same_seeds(tmp_path: Path) -> None:
    found, subject = planned(tmp_path, replace(ASKED, seeds=5))
    list(make(settings(), found, subject))
    made = {(row.share, row.bucket, row.arm): row for row in rows(found.done, 0)}
    row = made[0.25, "short", "whole trunk"]
    assert row.gain == pytest.approx((0.2, 0.2, 0.2))  # whatever the seed, though scores differ by it
    assert (row.score.value, row.seeds, row.verdict) == (pytest.approx(0.47), 5, "better")
    assert made[0.25, "short", SCRATCH].verdict == "not told apart"
    assert made[0.25, "short", BASE].gain is None
    assert (0.25, "all", SCRATCH) not in made  # of one bucket only


def test_few_seeds_give_no_verdict(tmp_path: Path) -> None:
    found, subject = planned(tmp_path, ASKED)
    list(make(settings(), found, subject))
    assert {row.verdict for row in rows(found.done, 0) if row.arm != BASE} == {"too few seeds"}


def test_over_all_buckets_those_count_that_the_arm_can_differ_in(tmp_path: Path) -> None:
    arms = ("whole trunk", "learning rate by a controller")
    found, subject = planned(tmp_path, replace(ASKED, buckets=BUCKETS, arms=arms, seeds=5, shares=(0.25,)))
    making = make(settings(), found, subject)
    for _ in range(50):  # of 5 * 11: the last seed is not whole
        next(making)
    whole = {row.arm: row for row in rows(found.done, 0) if row.bucket == "all"}
    assert set(whole) == {BASE, *arms}
    assert (whole["whole trunk"].gain, whole["whole trunk"].seeds) == (pytest.approx((0.2, 0.2, 0.2)), 4)
    one = [trial for trial in found.done if trial.bucket == "long" and trial.arm == "whole trunk"]
    rest = {trial: outcome for trial, outcome in found.done.items() if trial not in one}
    assert "whole trunk" not in {row.arm for row in rows(rest, 0) if row.bucket == "all"}


def test_the_report_has_tables_steps_and_a_picture(tmp_path: Path) -> None:
    found, subject = planned(tmp_path, replace(ASKED, seeds=5))
    list(make(settings(), found, subject))
    report.write(found.done, tmp_path, 0)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        scores = list(csv.DictReader(file))
    assert {row["verdict"] for row in scores} == {"", "better", "not told apart"}
    with (tmp_path / "steps.csv").open(encoding="utf-8", newline="") as file:
        told = [row for row in csv.DictReader(file) if row["arm"] == "whole trunk" and row["share"] == "0.5"]
    # .52 from scratch with a half; the whole trunk has .47 with a quarter, .72 with a half
    assert [float(row["ratio"]) for row in told] == [pytest.approx(0.5 * 2 ** (0.05 / 0.25), rel=1e-4)]
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert len(steps(found.done, 0)) == 4


def test_what_was_kept_is_plain_json(tmp_path: Path) -> None:
    found, subject = planned(tmp_path, ASKED)
    next(make(settings(), found, subject))
    line = json.loads((tmp_path / "trials.jsonl").read_text("utf-8"))
    assert line["trial"] == {"subject": "pretended", "share": 0.25, "seed": 0, "bucket": "scalping", "arm": BASE}
    assert set(line["outcome"]) == {"key", "seconds", "measured"}
