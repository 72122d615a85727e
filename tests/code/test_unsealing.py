"""The champions on the sealed span: on record before anything is judged, and only champions of these very terms."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluation_fakes import make_market
from report_fakes import FOLDS, baselines, judge, losing_buckets

from btcai import judging, outputs, paths, unsealing
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.evaluation.assessment import Assessment
from btcai.features.splits import Splits
from btcai.params import load_config
from btcai.records import champions, openings
from btcai.records.champions import Standing
from btcai.records.versions import judged_on
from btcai.schema import SealedSpan, Span
from btcai.unsealing import unseal

N = 4_000
SPLITS = Splits(
    train=Span(0, 1_000), valid=Span(1_000, 2_000), test=Span(2_000, 3_000),
    folds=(Span(2_000, 2_500), Span(2_500, 3_000)), sealed=SealedSpan(3_001, N),
)  # fmt: skip


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
    monkeypatch.setattr(judging, "earlier_trials", lambda root, config: [])
    monkeypatch.setattr(unsealing, "read_meta", lambda folder: {"market": "btcusdt"})
    monkeypatch.setattr(unsealing, "load_bundle", lambda folder: SimpleNamespace(version=f"v-{folder.name}"))
    monkeypatch.setattr(champions, "read_standing", lambda folder: standing)
    return tmp_path


def assessed(seen: list[Splits]) -> Any:
    def fake(policies: Any, data: Any, splits: Splits, config: Config, trials: Any) -> Assessment:
        seen.append(splits)
        found = judge(losing_buckets(), baselines(), FOLDS)
        nothing: Any = None
        return Assessment(results={}, beside={}, baselines={}, portfolio=nothing, judgement=found, slices={})

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


def test_the_sealed_span_is_judged_in_as_many_folds_and_the_looks_are_counted(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Splits] = []
    monkeypatch.setattr(unsealing, "assess", assessed(seen))
    first, second = (unseal(project, config, "why not", 1_700_000_000) for _ in range(2))
    assert seen[0].test == Span(3_001, N)
    assert seen[0].folds == (Span(3_002, 3_501), Span(3_501, N))  # a bar is left over, at the front
    assert (seen[0].train, seen[0].valid) == (SPLITS.train, SPLITS.valid)
    assert (first.looks, second.looks) == (1, 2)
    assert first.folder != second.folder
    assert (second.folder / "table.csv").is_file()
    assert '"looks": 2' in (second.folder / "metrics.json").read_text(encoding="utf-8")


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
