"""A disk that is full at any write of any command: what was there is whole, one line says so, and it goes on after.

Each command's every write is tried twice: refused once, and from then on no room for a byte (tests/faults.py). What
computes is done once and kept; what writes is the command's own.
"""

import errno
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from disk_sweep import MODES, Sweep, locks, once, one_line
from export_fakes import frame, hand_made_bundle, loud_bundle, market
from faults import Disk, Mode, contents, watched

from btcai import acquisition, cli, datasets, judging, outputs, paths, stages, unsealing
from btcai.config import Config
from btcai.errors import BtcaiError
from btcai.files import NO_ROOM, whole, write_bytes
from btcai.params import load_config, set_param
from btcai.records import champions
from btcai.records.champions import Standing
from btcai.records.openings import Opening, looks, opened
from btcai.records.trials import append_trial
from btcai.records.versions import judged_on
from btcai.schema import BUCKETS, SealedSpan, Span

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # with torch, matplotlib and Great Expectations together


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    return Sweep(monkeypatch, capsys)


@pytest.fixture
def config() -> Config:
    """params.yaml with short horizons, so that a short market has all its spans."""
    shipped = load_config(ROOT / paths.PARAMS)
    horizons = {"scalping": (3, 12), "short": (3, 12), "medium": (12, 36), "long": (12, 36)}
    changed = {name: one.model_copy(update={"horizons_bars": horizons[name]}) for name, one in shipped.buckets.items()}
    fractions = {"train_frac": 0.25, "valid_frac": 0.15, "test_frac": 0.45, "test_folds": 2}
    splits = shipped.splits.model_copy(update=fractions)
    return shipped.model_copy(update={"buckets": changed, "splits": splits})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with bars, and an older output in the place of every stage's; DVC writes data.dvc and nothing else."""
    from btcai.data.store import write_market

    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(ROOT / paths.PARAMS, root)
    set_param(root / paths.PARAMS, "data.market", "simulated")
    write_market(root / paths.DATA, "simulated", frame(16_000))
    (root / datasets.PIN).write_text("pinned", encoding="utf-8")
    (root / ".dvc" / "tmp").mkdir(parents=True)
    for folder in (paths.VALIDATION, paths.FEATURES, paths.TRAIN / "scalping", paths.EVALUATION, paths.CANDIDATE,
                   paths.REFLECTION, paths.DRIFT):  # fmt: skip
        (root / folder).mkdir(parents=True)
        (root / folder / "metrics.json").write_text("older", encoding="utf-8")

    def asked(root: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        if arguments[0] == "add":
            write_bytes(root / datasets.PIN, b"pinned anew")
        return 0

    monkeypatch.setattr(datasets, "_dvc", asked)
    return root


def test_settings(project: Path, sweep: Sweep) -> None:
    assert sweep(project, lambda root: set_param(root / paths.PARAMS, "profile", "full")).errors >= 2


def test_import_of_bars(project: Path, sweep: Sweep, tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    frame(16_000).tail(600).to_csv(file, index=False)
    tried = sweep(project, lambda root: acquisition.import_files(root, [file], "mine", "5m"), apart=locks)
    assert tried.errors >= tried.writes > 8


def test_a_market_that_is_made_again(project: Path, sweep: Sweep) -> None:
    what = acquisition.Simulation(days=3, seed=1)
    (project / paths.DATA / "simulated_own").mkdir()
    (project / paths.DATA / "simulated_own" / "2022-01.parquet").write_bytes(b"older")

    def make(root: Path) -> None:
        acquisition.simulate_other(root, what, "simulated_own")

    tried = sweep(project, make, apart=locks, in_turn=True)
    assert tried.errors >= tried.writes > 4


@pytest.mark.filterwarnings("ignore")  # Great Expectations warns of its own deprecations
def test_validate(project: Path, sweep: Sweep, config: Config) -> None:
    tried = sweep(project, partial(stages.run_stage, "validate", config), every=9)
    assert tried.errors > 2 * tried.writes // 9


def test_features(project: Path, sweep: Sweep, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from btcai.features import pipeline

    once(monkeypatch, pipeline, "build_market")
    tried = sweep(project, partial(stages.run_stage, "features", config))
    assert tried.errors > tried.writes


def test_evaluate(project: Path, sweep: Sweep, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from report_fakes import FOLDS, baselines, evidence, judge, losing_buckets

    from btcai.report import report

    buckets = losing_buckets()
    found = evidence(judge(buckets, baselines(), FOLDS), buckets)
    monkeypatch.setattr(judging, "gather_evidence", lambda config, root: found)
    once(monkeypatch, report, "draw")
    tried = sweep(project, partial(stages.run_stage, "evaluate", config))
    assert tried.errors > tried.writes
    assert tried.writes > 40


def test_export(project: Path, sweep: Sweep, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from btcai.training import export
    from btcai.training.starts import DataSeen

    def write(*arguments: Any, seen: object) -> None:
        hand_made_bundle(arguments[-1], arguments[1])

    saw = DataSeen(market="m", data_version="d", fitted_until_ts_ns=1, chosen_from_ts_ns=2, until_ts_ns=3)
    monkeypatch.setattr(outputs, "seen", lambda root: saw)
    monkeypatch.setattr(outputs, "load_features", lambda root: (None, None, None))
    monkeypatch.setattr(outputs, "data_version", lambda root: "d")
    monkeypatch.setattr(export, "export_bundle", write)
    tried = sweep(project, partial(stages.run_stage, "export", config))
    assert tried.errors > tried.writes


def test_reflect(project: Path, sweep: Sweep, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from btcai import reflection
    from btcai.features.splits import Splits
    from btcai.schema import Span

    spans = Splits(
        train=Span(2016, 6000), valid=Span(6100, 8500), test=Span(8600, 9500), folds=(Span(8600, 9500),),
        sealed=SealedSpan(9600, 10_000),
    )  # fmt: skip
    shutil.rmtree(project / paths.CANDIDATE)
    for bucket in BUCKETS:
        loud_bundle(project / paths.CANDIDATE / bucket, "scalping")
    monkeypatch.setattr(outputs, "load_features", lambda root: (market(), spans, None))
    monkeypatch.setattr(outputs, "data_version", lambda root: "d")
    once(monkeypatch, reflection, "reflect")
    tried = sweep(project, partial(stages.run_stage, "reflect", config))
    assert tried.errors > tried.writes


def test_drift(project: Path, sweep: Sweep, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from btcai.watch import drift, fit

    shutil.rmtree(project / paths.CANDIDATE)
    shutil.rmtree(project / paths.FEATURES)
    stages.run_stage("features", config, project)
    week = config.model_copy(update={"drift": config.drift.model_copy(update={"window_days": 1})})
    once(monkeypatch, drift, "measure_drift")
    once(monkeypatch, fit, "measure_fit")
    tried = sweep(project, partial(stages.run_stage, "drift", week))
    assert tried.errors > tried.writes


def test_the_pages_of_a_validation(project: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations' own, each write of them: of one that was half drawn nothing is left."""
    from btcai.data.data_docs import write_data_docs
    from btcai.data.store import read_market
    from btcai.data.validation import examine

    bars = read_market(project / paths.DATA, "simulated")

    def draw(root: Path) -> None:
        context = examine(bars)[1]
        with whole(root / paths.VALIDATION) as out:
            write_data_docs(context, out / "data_docs")

    tried = sweep(project, draw, every=11)
    assert tried.writes > 40
    assert tried.errors > 2 * tried.writes // 11


def test_a_look_at_the_sealed_span(
    project: Path, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was opened counts, once it is on record, whatever became of its report; a report is whole or not there."""
    from evaluation_fakes import make_market
    from report_fakes import FOLDS, baselines, judge, losing_buckets

    from btcai.features.splits import Splits

    test = Span(2_000, 3_000)
    splits = Splits(
        train=Span(0, 1_000), valid=Span(1_000, 2_000), test=test, folds=(test,), sealed=SealedSpan(3_001, 4_000)
    )
    judgement = judge(losing_buckets(), baselines(), FOLDS)
    standing = Standing(
        bucket="any", version=1, data_version="d", code_version="c", judged_on=judged_on(config, "d"), score=0.0,
        edge="none", run_id="r",
    )  # fmt: skip
    monkeypatch.setattr(outputs, "load_whole", lambda root: (make_market(4_000), splits, None))
    monkeypatch.setattr(outputs, "data_version", lambda root: "d")
    monkeypatch.setattr(judging, "earlier_trials", lambda *_: [])
    monkeypatch.setattr(unsealing, "read_meta", lambda folder: {"market": "btcusdt"})
    monkeypatch.setattr(unsealing, "load_bundle", lambda folder: SimpleNamespace(version=f"v-{folder.name}"))
    monkeypatch.setattr(champions, "read_standing", lambda folder: standing)
    monkeypatch.setattr(unsealing, "assess", lambda *_: SimpleNamespace(judgement=judgement))

    def look(number: int | None, mode: Mode) -> Disk:
        with watched(Disk(project, number, mode)) as disk:
            unsealing.unseal(project, config, "a new champion", 1_700_000_000)
        return disk

    writes = len(look(None, "refused").writes)
    first, opened_so_far, errors = contents(project / paths.SEALED / "1"), 1, 0
    assert set(first) == {"table.csv", "metrics.json"}
    for mode, number in [(mode, number) for mode in MODES for number in range(1, writes + 1)]:
        try:
            look(number, mode)
        except (BtcaiError, OSError) as error:
            errors += 1
            one_line(error, monkeypatch, capsys)
        on_record = looks(project / paths.OPENINGS)
        assert len(on_record) - opened_so_far in (0, 1), (mode, number)
        opened_so_far = len(on_record)
        found = [folder for folder in (project / paths.SEALED).iterdir() if not folder.name.startswith(".")]
        assert all(contents(folder)["table.csv"] == first["table.csv"] for folder in found)
        assert all(contents(folder).keys() == first.keys() for folder in found)
    assert errors >= writes >= 5
    look(None, "refused")
    assert len(looks(project / paths.OPENINGS)) == opened_so_far + 1
    assert (project / paths.SEALED / str(opened_so_far + 1) / "metrics.json").is_file()


def trial(root: Path) -> None:
    append_trial(root / paths.TRIALS, {"input_hash": "b", "config": {"profile": "quick"}})


def test_a_line_of_the_ledger_of_trials(project: Path, sweep: Sweep) -> None:
    append_trial(project / paths.TRIALS, {"input_hash": "a"})
    assert sweep(project, trial).errors == 3


LOOK = Opening(
    market="btcusdt", data_version="d1", first_ts_ns=1_000, last_ts_ns=2_000, opened_unix_s=1_700_000_000,
    because="a new champion", models={"scalping": "abc"},
)  # fmt: skip


def test_a_line_of_the_ledger_of_openings(project: Path, sweep: Sweep) -> None:
    def look(root: Path) -> None:
        opened(SealedSpan(100, 200), LOOK, root / paths.OPENINGS)

    look(project)
    assert sweep(project, look).errors == 3
    assert looks(project / paths.OPENINGS) == [LOOK, LOOK]


def test_a_disk_error_that_is_not_about_room_is_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(OSError, match="Input/output"):
        cli.main()
    assert errno.EIO not in NO_ROOM
