"""A disk that is full while networks are trained, consolidated and kept: no half of one, and the same bits after all.

As in tests/code/test_faults_disk.py, with a network and a market that are small; what is trained is trained anew, from
the checkpoints of the time that the disk was full.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
from disk_sweep import Sweep, once
from export_fakes import change_manifest, loud_bundle, loud_network, market, scaler, splits, tiny_config
from registry_fakes import PARAMS

from btcai import outputs, paths, stages, usage, warming
from btcai.config import Config
from btcai.experiments.trials import Kept, Measured, Outcome, Trial
from btcai.machine import Machine
from btcai.params import changed, load_config
from btcai.schema import BUCKETS, Span
from btcai.training import importance, progressive, starts
from btcai.training.checkpoint import save_model

SHORT = splits(Span(2016, 7000), Span(7100, 9900))
LONG = splits(Span(2016, 7900), Span(8000, 13500))  # holds a lookback of the long bucket

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    return Sweep(monkeypatch, capsys)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A small network of few updates, a checkpoint after each; importance is measured on a handful of windows."""
    for name, value in {"STRETCHES": 2, "REPEATS": 1, "WINDOWS": importance.WINDOWS_AT_ONCE}.items():
        monkeypatch.setattr(importance, name, value)
    monkeypatch.setattr(outputs, "load_features", lambda root: (market(), SHORT, scaler()))
    monkeypatch.setattr(Machine, "require", lambda *_: None)
    return tiny_config()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an older output in every place."""
    root = tmp_path / "project"
    for folder in (paths.TRAIN / "scalping", paths.CONSOLIDATE):
        (root / folder).mkdir(parents=True)
        (root / folder / "metrics.json").write_text("older", encoding="utf-8")
    return root


def of_the_way(name: str) -> bool:
    """What training keeps on the way, and the record of how long it took."""
    return name.startswith(str(paths.CHECKPOINTS)) or name.endswith(usage.FILE)


def test_train(project: Path, sweep: Sweep, config: Config) -> None:
    tried = sweep(project, partial(stages.run_stage, "train@scalping", config), apart=of_the_way, every=4)
    assert tried.writes >= 20
    assert tried.errors >= 8


def test_consolidate(project: Path, sweep: Sweep, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it writes of each bucket; that it trains as `train` does, with its checkpoints, is tried there."""
    data = market(14_000)
    monkeypatch.setattr(outputs, "load_features", lambda root: (data, LONG, scaler()))
    once(monkeypatch, progressive, "validate")
    once(monkeypatch, importance, "feature_importance")
    for bucket in BUCKETS:
        save_model(loud_network(config, bucket), project / paths.TRAIN / bucket)
    profiles = {config.profile: config.budget.model_copy(update={"consolidate_ppo_updates": 0})}
    untaught = config.model_copy(update={"profiles": {**config.profiles, **profiles}})
    tried = sweep(project, partial(stages.run_stage, "consolidate", untaught), every=2)
    assert tried.writes > 20
    assert tried.errors > tried.writes // 2


def test_warm_start(project: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = starts.DataSeen(market="m", data_version="d" * 64, fitted_until_ts_ns=1, chosen_from_ts_ns=2, until_ts_ns=3)
    for bucket in BUCKETS:
        save_model(loud_network(tiny_config(), bucket), project / paths.CONSOLIDATE / bucket)
    bundle = loud_bundle(project / paths.CANDIDATE / "scalping")
    change_manifest(bundle, seen=asdict(seen))
    (project / paths.PARAMS).write_text(PARAMS.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(warming, "_bars_now", lambda root, market: "e" * 64)
    config = changed(load_config(PARAMS), {"data.market": "m"})

    def apart(name: str) -> bool:
        return name.endswith(starts.LOCK)

    tried = sweep(project, lambda root: warming.go_on(root, config), apart=apart, in_turn=True)
    assert tried.errors >= tried.writes > 10


def test_an_outcome_of_a_trial(project: Path, sweep: Sweep) -> None:
    trial = Trial(subject="history", share=1.0, seed=1, bucket="short", arm="ppo")
    path = Path("reports/ablation/history/trials.jsonl")

    def outcome(key: str) -> Outcome:
        return Outcome(key=key, seconds=1.0, measured=Measured(score=0.5, decisions=10, more={"a": 1.0}))

    Kept(project / path).add(trial, outcome("one"))
    tried = sweep(project, lambda root: Kept(root / path).add(trial, outcome("two")))
    assert tried.errors == 3
