"""A disk that is full at any write of any command: what was there is whole, one line says so, and it goes on after.

Each command's every write is tried twice: refused once, and from then on no room for a byte (tests/faults.py). What
computes is done once and kept; what writes is the command's own.
"""

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from export_fakes import frame, hand_made_bundle, loud_bundle, market
from faults import Disk, Mode, contents, watched

from btcai import acquisition, cli, datasets, paths, stages
from btcai.champions import append_trial
from btcai.config import Config
from btcai.errors import BtcaiError
from btcai.files import NO_ROOM, write_bytes
from btcai.openings import Opening, looks, opened
from btcai.params import load_config, set_param
from btcai.schema import BUCKETS, SealedSpan

ROOT = Path(__file__).resolve().parents[2]
MODES: tuple[Mode, ...] = get_args(Mode)

pytestmark = pytest.mark.slow  # with torch, matplotlib and Great Expectations together


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What came of a command on a disk that filled: how many writes it has, how often it ended with an error."""

    writes: int
    errors: int


def one_line(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line makes of it."""

    def fails() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(cli, "app", fails)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told


class Sweep:
    """Lets each write of a command fail in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._told = partial(one_line, monkeypatch=monkeypatch, capsys=capsys)

    def __call__(
        self,
        root: Path,
        command: Callable[[Path], object],
        *,
        apart: Callable[[str], bool] = lambda name: False,
        in_turn: bool = False,
        every: int = 1,
    ) -> Tried:
        """`apart`: files that are no result of the command, by their path. `in_turn`: it ends with one of its results
        before it begins the next, so that a fault leaves some old and some new, each whole. `every`: 7 tries each
        seventh write of a slow command, and the last ones.
        """

        def held(folder: Path) -> dict[str, bytes]:
            return {name: text for name, text in contents(folder).items() if not apart(name)}

        undisturbed = root.with_name("undisturbed")
        shutil.copytree(root, undisturbed)
        with watched(Disk(undisturbed)) as disk:
            command(undisturbed)
        before, after, errors = held(root), held(undisturbed), 0
        assert disk.writes
        assert before != after
        for mode in MODES:
            for number in [*range(1, len(disk.writes) - 2, every), *range(len(disk.writes) - 1, len(disk.writes) + 1)]:
                try:
                    with watched(Disk(root, number, mode)):
                        command(root)
                except (BtcaiError, OSError) as error:
                    errors += 1
                    self._told(error)
                    now = held(root)
                    if in_turn and now != before:
                        assert now.keys() == after.keys()
                        assert all(text in (before.get(name), after[name]) for name, text in now.items())
                        now = renewed(root, before)
                    assert now.keys() == before.keys(), (mode, number, disk.writes[number - 1])
                    assert now == before, (mode, number, disk.writes[number - 1])
                else:  # it did without what it could not write, or had written all
                    assert held(root) == after, (mode, number, disk.writes[number - 1])
                    renewed(root, before)
        command(root)
        assert held(root) == after
        return Tried(writes=len(disk.writes), errors=errors)


def renewed(root: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """The folder with these files and no others."""
    shutil.rmtree(root)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return files


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


def once(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """What a function computes is computed once."""
    whole, kept = getattr(module, name), {}

    def remembered(*arguments: Any, **named: Any) -> Any:
        if name not in kept:
            kept[name] = whole(*arguments, **named)
        return kept[name]

    monkeypatch.setattr(module, name, remembered)


def locks(name: str) -> bool:
    return name.endswith("btcai.lock")


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
    monkeypatch.setattr(stages, "gather_evidence", lambda config, root: found)
    once(monkeypatch, report, "draw")
    tried = sweep(project, partial(stages.run_stage, "evaluate", config))
    assert tried.errors > tried.writes
    assert tried.writes > 40


def test_export(project: Path, sweep: Sweep, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from btcai.training import export
    from btcai.training.starts import Seen

    def write(*arguments: Any, seen: object) -> None:
        hand_made_bundle(arguments[-1], arguments[1])

    saw = Seen(market="m", data_version="d", fitted_until_ts_ns=1, chosen_from_ts_ns=2, until_ts_ns=3)
    monkeypatch.setattr(stages, "seen", lambda root: saw)
    monkeypatch.setattr(stages, "load_features", lambda root: (None, None, None))
    monkeypatch.setattr(stages, "data_version", lambda root: "d")
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
    monkeypatch.setattr(stages, "load_features", lambda root: (market(), spans, None))
    monkeypatch.setattr(stages, "data_version", lambda root: "d")
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
