"""What settings are tried on: trainings as the pipeline's, marks as the yardstick's, nothing that is sealed."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_fakes import market, scaler, splits, tiny_config

from btcai.experiments import known_answer
from btcai.experiments.arms import SCRATCH, arm_config
from btcai.experiments.history import History
from btcai.experiments.known_answer import KnownAnswer, Size
from btcai.experiments.running import Asked, make, plan
from btcai.experiments.trials import Kept
from btcai.models.actor_critic import ActorCritic
from btcai.params import changed
from btcai.paths import WEIGHTS
from btcai.schema import BUCKETS, Bars, MarketData, Span
from btcai.training.yardstick import learn
from btcai.yardstick.two_scale import TwoScaleMarket

TINY = Size(pretrain_updates=4, ppo_updates=4, train_decisions=6_000, mark_paths=2, mark_decisions=2_000)
SPANS = splits(Span(2016, 7000), Span(7100, 9900))


def history(folder: Path, data: MarketData) -> History:
    return History(tiny_config(), data, SPANS, scaler(), "data", folder)


def test_a_budget_is_a_share_of_the_updates_and_never_nothing() -> None:
    budget = Size(pretrain_updates=800, ppo_updates=240).budget(0.25)
    assert (budget.pretrain_updates, budget.ppo_updates) == (200, 60)
    least = TINY.budget(0.001)
    assert (least.pretrain_updates, least.ppo_updates) == (1, 1)


@pytest.mark.slow
def test_the_two_scale_market_teaches_a_bucket_after_its_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[int, int | None, float]] = []  # patch of the student and its teacher, share of the trunk

    def noted(on: TwoScaleMarket, **given: Any) -> ActorCritic:
        teacher = given["teacher"]
        taught.append((on.patch_bars, teacher and teacher.stem.patch_bars, given["transfer"].alpha))
        return learn(on, **given)

    monkeypatch.setattr(known_answer, "learn", noted)
    config = tiny_config()
    subject = KnownAnswer(config, TINY, tmp_path)
    first = subject.run(config, "scalping", 0, 0.5)
    assert not list(tmp_path.rglob(WEIGHTS))  # the first has no teacher
    assert first.decisions == 2 * 4 * 128 + 2 * 4 * config.ppo.decisions
    second = subject.run(config, "short", 0, 0.5)
    assert [file.parent.name for file in tmp_path.rglob(WEIGHTS)] == ["scalping-0"]
    assert np.isfinite([first.score, second.score, second.more["mark_error"]]).all()
    again = KnownAnswer(config, TINY, tmp_path).run(config, "short", 0, 0.5)  # by the teacher that is there
    assert again == second
    subject.run(arm_config(config, SCRATCH), "short", 0, 0.5)
    alpha = config.transfer.alpha
    assert taught == [(1, None, alpha), (1, None, alpha), (2, 1, alpha), (2, 1, alpha), (2, 1, 0.0)]


@pytest.mark.slow
def test_other_settings_have_teachers_of_their_own(tmp_path: Path) -> None:
    for clip in (0.2, 0.3):
        config = tiny_config()
        config = config.model_copy(update={"ppo": config.ppo.model_copy(update={"clip": clip})})
        KnownAnswer(config, TINY, tmp_path).run(config, "short", 0, 0.25)
    assert len(list(tmp_path.rglob(WEIGHTS))) == 2


@pytest.mark.slow
def test_the_market_in_use_is_trained_and_judged_before_its_test_span(tmp_path: Path) -> None:
    data, stop = market(), SPANS.valid.stop
    beyond = data.features.copy()
    beyond[stop:] = np.nan  # nothing there may be read
    bars = {field.name: getattr(data.bars, field.name).copy() for field in fields(Bars)}
    for name in ("open", "high", "low", "close", "volume"):
        bars[name][stop:] *= 3.0
    mark = data.mark.copy()
    mark[stop:] *= 3.0
    other = replace(data, features=beyond, mark=mark, bars=Bars(**bars))
    found = [
        history(tmp_path / name, one).run(tiny_config(), "short", 3, 1.0)
        for name, one in (("whole", data), ("cut", other))
    ]
    assert found[0] == found[1]
    assert found[0].score < 0
    assert set(found[0].more) == {"valid_score", "valid_ic_h1", "valid_orders"}
    assert (tmp_path / "whole").is_dir()
    assert [file.parent.name for file in (tmp_path / "whole").rglob(WEIGHTS)] == ["scalping-3"]


@pytest.mark.slow
def test_a_comparison_on_the_market_in_use(tmp_path: Path) -> None:
    config, subject = tiny_config(), history(tmp_path / "teachers", market())
    asked = Asked(arms=(SCRATCH,), buckets=("short",), seeds=1, shares=(1.0,))
    kept = Kept(tmp_path / "trials.jsonl")
    assert len(list(make(config, plan(config, subject, asked, kept), subject))) == 2
    lines = (tmp_path / "trials.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["trial"]["arm"] for line in lines] == ["as configured", SCRATCH]
    again = plan(config, history(tmp_path / "teachers", market()), asked, Kept(tmp_path / "trials.jsonl"))
    assert not again.left


@pytest.mark.parametrize(
    ("changes", "encoder_every", "seen"),
    [
        ({"ppo.clip": 0.1}, 0, False),
        ({"transfer.policy": False}, 0, False),
        ({"transfer.alpha": 0.1}, 0, True),
        ({"pretrain.weight_decay": 0.0}, 0, True),
        ({"ppo.clip": 0.1}, 2, True),
        ({"ppo.encoder_every": 4}, 0, True),
    ],
)
def test_the_market_in_use_does_not_see_what_ppo_alone_reads(
    tmp_path: Path, changes: dict[str, float], encoder_every: int, seen: bool
) -> None:
    config = changed(tiny_config(), {"ppo.encoder_every": encoder_every})
    assert history(tmp_path, market()).sees(config, changed(config, changes)) == seen
    assert KnownAnswer(config, TINY, tmp_path).sees(config, changed(config, changes))


@pytest.mark.parametrize("name", ["two_scale", "very_hard", "interaction", "market"])
def test_terms_are_json(tmp_path: Path, name: str) -> None:
    subject = history(tmp_path, market()) if name == "market" else KnownAnswer(tiny_config(), TINY, tmp_path, name)
    assert subject.name == name
    assert json.loads(json.dumps(subject.terms)) == subject.terms


@pytest.mark.parametrize("name", [pytest.param("very_hard", marks=pytest.mark.slow), "interaction"])
def test_every_market_of_the_yardstick_can_be_tried_on(tmp_path: Path, name: str) -> None:
    config = tiny_config()
    found = KnownAnswer(config, TINY, tmp_path, name).run(config, "scalping", 0, 0.5)
    assert np.isfinite(found.score)
    assert KnownAnswer(config, TINY, tmp_path, name).run(config, "scalping", 0, 0.5) == found


@pytest.mark.slow
def test_a_shared_start_is_counted_among_the_decision_times(tmp_path: Path) -> None:
    config = tiny_config()
    shared = changed(config, {"meta.rounds": 1, "meta.inner_updates": 1})
    subject = KnownAnswer(config, TINY, tmp_path)
    plain, started = subject.run(config, "scalping", 0, 0.5), subject.run(shared, "scalping", 0, 0.5)
    one_update = config.pretrain.stretches * config.pretrain.decisions
    assert started.decisions - plain.decisions == 2 * len(BUCKETS) * one_update
