"""The champions on the sealed span: on record before anything is judged, and only champions of these very terms."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluation_fakes import make_market
from report_fakes import FOLDS, baselines, judge, losing_buckets
from typer.testing import CliRunner

from btcai import cli, judging, outputs, paths, unsealing
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.evaluation.assessment import Assessment
from btcai.evaluation.judge import Judgement, Trials
from btcai.features import store
from btcai.features.splits import Splits
from btcai.params import load_config
from btcai.records import champions, openings
from btcai.records.champions import Standing
from btcai.records.trials import append_trial
from btcai.records.versions import judged_on
from btcai.schema import SealedSpan, Span
from btcai.unsealing import unseal

N = 4_000
SPLITS = Splits(
    train=Span(0, 1_000), valid=Span(1_000, 2_000), test=Span(2_000, 3_000),
    folds=(Span(2_000, 2_500), Span(2_500, 3_000)), sealed=SealedSpan(3_001, N),
)  # fmt: skip


def close_ts_ns(row: int) -> int:
    return int(make_market(N).bars.close_ts_ns[row])


@pytest.fixture
def config() -> Config:
    return load_config(Path(__file__).parents[2] / paths.PARAMS)


@pytest.fixture
def project(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    standing = Standing(
        bucket="any", version=1, data_version="d", code_version="c", judged_on=judged_on(config, "d"), score=0.0,
        edge="none", run_id="r",
    )  # fmt: skip
    monkeypatch.setattr(outputs, "load_whole", lambda root: (make_market(N), SPLITS, None))
    monkeypatch.setattr(outputs, "data_version", lambda root: "d")
    meta = {"market": "btcusdt", "data_version": "d"}
    for module in (store, unsealing):
        monkeypatch.setattr(module, "read_meta", lambda folder: meta)
    monkeypatch.setattr(unsealing, "load_bundle", named("v"))
    monkeypatch.setattr(champions, "read_standing", lambda folder: standing)
    return tmp_path


def named(version: str) -> Any:
    return lambda folder: SimpleNamespace(version=f"{version}-{folder.name}")


@cache
def judgement() -> Judgement:
    return judge(losing_buckets(), baselines(), FOLDS)


def assessed(seen: list[tuple[Splits, Trials]]) -> Any:
    def fake(policies: Any, data: Any, splits: Splits, config: Config, trials: Trials) -> Assessment:
        seen.append((splits, trials))
        nothing: Any = None
        return Assessment(results={}, beside={}, baselines={}, portfolio=nothing, judgement=judgement(), slices={})

    return fake


def test_a_look_is_on_record_even_where_judging_fails(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(unsealing, "assess", broken)
    with pytest.raises(RuntimeError):
        unseal(project, config, "a new champion", 1_700_000_000)
    [look] = openings.looks(project / paths.OPENINGS)
    assert (look.market, look.because) == ("btcusdt", "a new champion")
    assert look.models["scalping"] == "v-scalping"
    assert (look.first_ts_ns, look.last_ts_ns) == (close_ts_ns(3_001), close_ts_ns(3_999))


def test_the_sealed_span_is_judged_in_as_many_folds_and_the_looks_are_counted(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Splits, Trials]] = []
    monkeypatch.setattr(unsealing, "assess", assessed(seen))
    first, second = (unseal(project, config, "why not", 1_700_000_000) for _ in range(2))
    splits, trials = seen[0]
    assert splits.test == Span(3_001, N)
    assert splits.folds == (Span(3_002, 3_501), Span(3_501, N))  # a bar is left over, at the front
    assert (splits.train, splits.valid) == (SPLITS.train, SPLITS.valid)
    assert len(trials.sharpes) == first.earlier_trials == 0
    assert (first.looks, second.looks) == (1, 2)
    assert first.folder != second.folder
    assert (second.folder / "table.csv").is_file()
    assert '"looks": 2' in (second.folder / "metrics.json").read_text(encoding="utf-8")


def test_trials_count_where_they_were_judged_on_time_that_is_sealed_now(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the test span chose nothing here; one of other spans read its first bar, with two buckets."""
    for number, (market, first, last, version) in enumerate(
        [
            ("btcusdt", 2_000, 2_999, "d"),  # the test span, on these very bars
            ("btcusdt", 1_500, 3_000, "old"),  # up to the bar before the sealed span
            ("btcusdt", 1_500, 3_001, "old"),
            ("ethusdt", 3_001, 3_999, "other"),
        ]
    ):
        trial = {"market": market, "data_version": version, "tested_ts_ns": [close_ts_ns(first), close_ts_ns(last)]}
        sharpes = {"scalping": float(number), "long": None}
        append_trial(project / paths.TRIALS, {"input_hash": str(number), "sharpes": sharpes, **trial})
    seen: list[tuple[Splits, Trials]] = []
    monkeypatch.setattr(unsealing, "assess", assessed(seen))
    found = unseal(project, config, "a new champion", 1_700_000_000)
    np.testing.assert_array_equal(seen[0][1].sharpes, [np.nan, 2.0])  # by name: long, scalping
    assert (found.looks, found.earlier_trials) == (1, 2)
    record = json.loads((found.folder / "metrics.json").read_text(encoding="utf-8"))
    assert (record["looks"], record["earlier_trials"]) == (1, 2)


def test_champions_of_earlier_looks_are_trials_and_the_same_ones_again_are_not(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Splits, Trials]] = []
    monkeypatch.setattr(unsealing, "assess", assessed(seen))
    looks, earlier = [], []
    for version in ("v", "v", "w", "w"):
        monkeypatch.setattr(unsealing, "load_bundle", named(version))
        found = unseal(project, config, "another look", 1_700_000_000)
        looks.append(found.looks)
        earlier.append(found.earlier_trials)
    assert (looks, earlier) == ([1, 2, 3, 4], [0, 0, 4, 4])
    assert np.isnan(seen[-1][1].sharpes).all()


def test_models_that_were_shown_sealed_bars_are_trials_once_the_test_span_reaches_them(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is configured now may have been chosen by what they did there. Two looks at the same four count once."""
    monkeypatch.setattr(unsealing, "assess", assessed([]))
    for _ in range(2):
        unseal(project, config, "to know", 1_700_000_000)
    found = []
    for last in (3_000, 3_001):
        monkeypatch.setattr(outputs, "tested_ts_ns", lambda root, last=last: (close_ts_ns(2_000), close_ts_ns(last)))
        found.append(judging.earlier_trials(project, config))
    assert found[0] == []
    assert (len(found[1]), np.isnan(found[1]).all()) == (4, True)


def test_the_command_names_the_span_and_says_all_that_was_judged_on_it(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(Path(__file__).parents[2] / paths.PARAMS, project)
    monkeypatch.chdir(project)
    monkeypatch.setattr(unsealing, "assess", assessed([]))
    said = []
    for version in ("v", "w"):
        monkeypatch.setattr(unsealing, "load_bundle", named(version))
        shown = CliRunner().invoke(cli.app, ["sealed", "open", "--because", "to know"])
        assert shown.exit_code == 0, shown.output
        said.append(" ".join(shown.output.split()))
    assert all("Sealed span, pessimistic costs" in text and "Test span" not in text for text in said)
    assert "was looked at once, now. Trials judged earlier on it or a part of it, all counted as luck: 0." in said[0]
    assert "2 times, this one too: expect luck. Trials judged earlier" in said[1]
    assert "all counted as luck: 4. Report: reports/sealed/2" in said[1]


def test_a_champion_of_other_terms_is_not_shown_what_is_sealed(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = champions.read_standing(project)
    assert standing is not None
    for one in (None, replace(standing, judged_on="other spans")):
        monkeypatch.setattr(champions, "read_standing", lambda folder, one=one: one)
        with pytest.raises(ArtifactError, match="judge it first: btcai run"):
            unseal(project, config, "a new champion", 1_700_000_000)
    assert not (project / paths.OPENINGS).exists()
