"""The champion of the day beside what is judged: walked by its own settings at today's costs, left out where it is the
candidate itself or cannot be walked."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import FakePolicy, make_market
from export_fakes import change_manifest, loud_bundle, settings

from btcai import judging, outputs, paths
from btcai.evaluation.backtest import backtest
from btcai.evaluation.incumbents import Incumbent, is_same, walk_incumbents
from btcai.evaluation.robustness import cost_variants
from btcai.inference.bundle import Encoded
from btcai.market.rules import make_rules
from btcai.records import champions
from btcai.records.champions import Standing, place_champion
from btcai.schema import Action, Float32Array, Span

CONFIG, MARKET, SPAN = settings(), make_market(1_500, seed=4), Span(700, 1_500)
BUCKET = CONFIG.buckets["scalping"]


@dataclass(kw_only=True)
class Shifted(FakePolicy):
    """Whose forecasts are moved by a share of their deviation, as another form of one network moves them a little."""

    frac: float = 0.0

    def encode(self, features: Float32Array) -> Encoded:
        said = super().encode(features)
        return replace(said, mean=(said.mean + self.frac * said.std).astype(np.float32))


@pytest.mark.slow
def test_a_champion_walks_by_its_own_settings_at_todays_costs() -> None:
    own = BUCKET.model_copy(update={"max_lots": 2})
    champion = Incumbent(policy=FakePolicy(always=Action.BUY), settings=own, note="made from other bars")
    walked = walk_incumbents({"scalping": champion}, {"scalping": FakePolicy()}, MARKET, SPAN, CONFIG)["scalping"]
    costs = cost_variants(CONFIG.market)
    assert list(walked) == list(costs)
    assert walked["base"].n_lots.max() == 2
    assert {one.note for one in walked.values()} == {"made from other bars"}
    rules = [make_rules(own, CONFIG.market, CONFIG.risk, costs["base"])]
    (alone,) = backtest(champion.policy, MARKET, SPAN, own, rules, CONFIG.sizing, CONFIG.market.equity_usdt)
    assert np.array_equal(walked["base"].equity_usdt, alone.equity_usdt)


def test_the_candidate_itself_is_left_out_whatever_its_form_and_other_settings_are_another_champion() -> None:
    judged, almost = {"scalping": FakePolicy()}, Shifted(frac=5e-4)
    same = Incumbent(policy=almost, settings=BUCKET)
    assert walk_incumbents({"scalping": same}, judged, MARKET, SPAN, CONFIG) == {}
    other = replace(same, settings=BUCKET.model_copy(update={"stop_loss_frac": 0.01}))
    assert list(walk_incumbents({"scalping": other}, judged, MARKET, SPAN, CONFIG)) == ["scalping"]


@pytest.mark.parametrize(
    "other",
    [Shifted(frac=0.01), FakePolicy(always=Action.HOLD), FakePolicy(patch_bars=2), FakePolicy(horizons_bars=(3, 12))],
    ids=["other forecasts", "another head", "another clock", "other horizons"],
)
def test_two_policies_are_told_apart_by_what_they_say_and_do(other: FakePolicy) -> None:
    assert not is_same(other, FakePolicy(), MARKET, SPAN)
    assert not is_same(FakePolicy(), other, MARKET, SPAN)
    assert is_same(other, replace(other), MARKET, SPAN)


def test_a_champion_whose_forecasts_are_nan_is_no_candidate_that_speaks() -> None:
    assert not is_same(Shifted(frac=np.nan), FakePolicy(), MARKET, SPAN)
    assert not is_same(FakePolicy(), Shifted(frac=np.nan), MARKET, SPAN)


def test_a_champion_without_a_decision_on_the_span_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    slow = FakePolicy(patch_bars=28)  # 4,032 bars back
    found = walk_incumbents(
        {"scalping": Incumbent(policy=slow, settings=BUCKET)}, {"scalping": FakePolicy()}, MARKET, SPAN, CONFIG
    )
    assert found == {}
    assert "the champion of scalping is left out: scalping needs 4032 bars" in caplog.text


STANDING = Standing(
    bucket="scalping", version=3, data_version="d" * 64, code_version="c", judged_on="j", score=0.1, edge="none",
    run_id="r",
)  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loud_bundle(tmp_path_factory.mktemp("bundle") / "scalping")


@pytest.fixture
def project(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(outputs, "tested_ts_ns", lambda root: (1000, 2000))
    place_champion(bundle, STANDING, tmp_path / paths.CHAMPION / "scalping")
    return tmp_path


@pytest.mark.parametrize(("until", "marked"), [(999, False), (1000, True), (None, True)])
def test_whole_champions_are_found_and_those_that_saw_the_span_are_marked(
    project: Path, until: int | None, marked: bool
) -> None:
    change_manifest(project / paths.CHAMPION / "scalping", seen=until and {"until_ts_ns": until})
    (found,) = judging.incumbents(project).items()
    assert found[0] == "scalping"
    assert found[1].settings == BUCKET
    assert found[1].note == ("may have been chosen on bars of this span" if marked else "")


def test_without_a_whole_champion_nothing_is_judged_beside(project: Path, tmp_path: Path) -> None:
    folder = project / paths.CHAMPION / "scalping"
    (folder / "head.onnx").write_bytes(b"cut short")
    assert not champions.is_whole(folder)
    assert judging.incumbents(project) == {}
    shutil.rmtree(folder)
    assert judging.incumbents(project) == {}


def test_a_champion_of_other_features_is_skipped_and_named(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_manifest(project / paths.CHAMPION / "scalping", feature_names=["mask"])
    assert judging.incumbents(project) == {}
    assert "the champion of scalping is not judged beside: a bundle must be made for this btcai's" in caplog.text
