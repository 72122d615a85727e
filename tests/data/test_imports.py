"""An import is whole or has not been: bars, data.dvc and params.yaml change together."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from btcai import acquisition, datasets, paths
from btcai.data.frame import BAR_MS, make_frame
from btcai.data.store import market_status, read_market, write_market
from btcai.errors import ConfigError, DataError
from btcai.params import load_config, set_param

ROOT = Path(__file__).resolve().parents[2]
FIRST_MS = 1_672_531_200_000  # 2023-01-01T00:00:00Z
PINNED = b"outs:\n- path: data\n"


def bars(first: int, count: int, *, close: float = 11.0) -> pd.DataFrame:
    values = np.tile([10.0, 12.0, 9.0, close, 1.0], (count, 1))
    return make_frame(FIRST_MS + (first + np.arange(count)) * BAR_MS, values)


def write_csv(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file, what DVC and git keep for themselves left out."""
    found = [path for path in sorted(root.rglob("*")) if path.is_file() and not {".git", ".dvc"} & set(path.parts)]
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that holds ten bars, where DVC does nothing but write data.dvc."""
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(ROOT / paths.PARAMS, root)
    set_param(root / paths.PARAMS, "data.market", "simulated")
    write_market(root / paths.DATA, "btcusdt", bars(0, 10))
    (root / datasets.PIN).write_bytes(PINNED)

    def asked(root: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        if arguments[0] == "add":
            (root / datasets.PIN).write_bytes(PINNED + b"# new\n")
        return 0

    monkeypatch.setattr(datasets, "_dvc", asked)
    return root


def run_import(project: Path, *files: Path, market: str = "btcusdt") -> acquisition.Imported:
    return acquisition.import_files(project, files, market, "5m")


def test_the_report_counts_what_was_read_dropped_sorted_and_added(project: Path, tmp_path: Path) -> None:
    one = write_csv(tmp_path / "one.csv", pd.concat([bars(8, 4), bars(8, 1), bars(20, 1)]))
    other = write_csv(tmp_path / "other.csv", bars(11, 2))
    done = run_import(project, one, other)
    assert dict(done.figures) == {
        "files": "2",
        "rows read": "8",
        "repeated rows, dropped": "2",
        "rows out of order, sorted": "1",
        "bars added": "4",
        "bars now held": "14",
        "first to last": "2023-01-01T00:00:00Z to 2023-01-01T01:40:00Z",
        "gaps": "1, 7 bars missing",
        "bars without volume": "0",
        "version": market_status(project / paths.DATA, "btcusdt")["content_sha256"][:12],
    }
    assert done.printed().splitlines()[:2] == ["btcusdt:", "  files                      2"]


def test_too_few_bars_are_imported_with_a_note_and_refused_by_a_run(project: Path, tmp_path: Path) -> None:
    (note,) = run_import(project, write_csv(tmp_path / "more.csv", bars(10, 5))).notes
    assert note.startswith("nothing can be trained yet: 15 bars are too few for these splits: train has")
    with pytest.raises(DataError, match=r"^15 bars are too few"):
        datasets.check_enough(project, load_config(project / paths.PARAMS))


def test_missing_bars_count_as_bars_of_the_grid(project: Path) -> None:
    write_market(project / paths.DATA, "simulated", pd.concat([bars(0, 1), bars(300_000, 1)]))
    datasets.check_enough(project, load_config(project / paths.PARAMS))


def test_a_second_import_touches_nothing(project: Path, tmp_path: Path) -> None:
    first, second = write_csv(tmp_path / "a.csv", bars(0, 30)), write_csv(tmp_path / "b.csv", bars(5, 20))
    run_import(project, first)
    before = contents(project)
    done = run_import(project, second, first)
    assert dict(done.figures)["bars added"] == "0"
    assert (done.old_market, done.market) == ("btcusdt", "btcusdt")
    assert contents(project) == before


def test_bars_that_disagree_with_those_on_disk_are_shown_beside_them(project: Path, tmp_path: Path) -> None:
    before = contents(project)
    other = write_csv(tmp_path / "other.csv", bars(9, 2, close=11.5))
    shown = r"on disk \(.*close 11\.0.*\) and data row 1 of .*other\.csv \(.*close 11\.5.*\).*--market"
    with pytest.raises(DataError, match=shown):
        run_import(project, other)
    assert contents(project) == before


def test_one_bad_file_among_good_ones_imports_nothing(project: Path, tmp_path: Path) -> None:
    before = contents(project)
    good, bad = write_csv(tmp_path / "good.csv", bars(10, 5)), write_csv(tmp_path / "bad.csv", bars(15, 5, close=-1.0))
    with pytest.raises(DataError, match=r"bad\.csv: close must be above 0, was -1\.0 in data row 1"):
        run_import(project, good, bad)
    assert contents(project) == before


@pytest.mark.parametrize("market", ["btcusdt", "ethusdt"], ids=["a market that is there", "a new market"])
@pytest.mark.parametrize("error", [DataError("dvc add failed"), KeyboardInterrupt(), OSError(28, "No space left")])
@pytest.mark.parametrize("step", ["pin", "set_param"])
def test_a_failure_after_the_bars_are_written_takes_everything_back(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, market: str, error: BaseException, step: str
) -> None:
    before = contents(project)
    module = datasets if step == "pin" else acquisition
    through: Callable[..., object] = getattr(module, step)

    def failing(*arguments: object) -> None:
        through(*arguments)  # it has done its work when it fails
        raise error

    monkeypatch.setattr(module, step, failing)
    with pytest.raises(DataError if isinstance(error, OSError) else type(error)):
        run_import(project, write_csv(tmp_path / "more.csv", bars(10, 5)), market=market)
    assert contents(project) == before


def test_a_first_import_that_fails_leaves_no_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project / paths.DATA)
    (project / datasets.PIN).unlink()
    before = contents(project)

    def failing(root: Path) -> None:
        (root / datasets.PIN).write_bytes(b"half")
        raise DataError("dvc add failed")

    monkeypatch.setattr(datasets, "pin", failing)
    with pytest.raises(DataError, match="dvc add failed"):
        run_import(project, write_csv(tmp_path / "more.csv", bars(10, 5)))
    assert contents(project) == before
    assert not (project / paths.DATA).exists()


def test_broken_settings_are_found_before_a_bar_is_read(project: Path, tmp_path: Path) -> None:
    (project / paths.PARAMS).write_text("profile: [\n")
    with pytest.raises(ConfigError, match="valid YAML"):
        run_import(project, tmp_path / "none.csv")


FULL_DISK = """
import resource, sys
from pathlib import Path
from btcai import acquisition, datasets, errors
from btcai.errors import BtcaiError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
datasets._dvc = lambda root, *arguments, allowed=(0,): (root / "data.dvc").write_text("x" * 100) and 0
try:
    acquisition.import_files(Path.cwd(), [Path(sys.argv[1])], "btcusdt", "5m")
except BtcaiError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow  # a process each
@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX")
@pytest.mark.parametrize(
    ("limit", "words"),
    [(50, "the import failed"), (3_000, "the import failed"), (10_000, "data/btcusdt could not be written")],
    ids=["copy of data.dvc", "copy of params.yaml", "bars"],
)
def test_a_disk_that_fills_takes_everything_back(project: Path, tmp_path: Path, limit: int, words: str) -> None:
    (project / datasets.PIN).write_bytes(PINNED * 3)
    frame = bars(10, 3_000).assign(volume=np.random.default_rng(1).random(3_000))  # 24 kB that nothing compresses
    before = contents(project)
    command = [sys.executable, "-c", FULL_DISK, str(write_csv(tmp_path / "more.csv", frame)), str(limit)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert words in done.stderr
    assert "File too large" in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert contents(project) == before


def test_dvc_looks_past_the_old_bars_that_wait_beside_the_new_ones() -> None:
    assert "/data/.*" in (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # DVC warns of its own deprecations
class TestWithDvcItself:
    @pytest.fixture
    def pinned(self, tmp_path: Path) -> Path:
        root = tmp_path / "project"
        root.mkdir()
        for name in (paths.PARAMS, ".dvcignore"):
            shutil.copy(ROOT / name, root)
        for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q", "-f"]):
            subprocess.run(command, cwd=root, check=True, capture_output=True)
        shutil.copy(ROOT / ".dvcignore", root)
        run_import(root, write_csv(tmp_path / "first.csv", bars(0, 10)))
        return root

    def test_data_dvc_names_the_months_and_nothing_that_waits(self, pinned: Path, tmp_path: Path) -> None:
        run_import(pinned, write_csv(tmp_path / "more.csv", bars(10, 5)))
        assert yaml.safe_load((pinned / datasets.PIN).read_text(encoding="utf-8"))["outs"][0]["nfiles"] == 1
        assert datasets.is_pinned(pinned)

    def test_dvc_that_fails_takes_everything_back(self, pinned: Path, tmp_path: Path) -> None:
        before = contents(pinned)
        config = pinned / ".dvc" / "config"
        config.write_text("[cache\n")
        with pytest.raises(DataError, match="dvc add data failed: configuration error"):
            run_import(pinned, write_csv(tmp_path / "more.csv", bars(10, 5)))
        assert contents(pinned) == before
        config.write_text("")
        assert datasets.is_pinned(pinned)


@pytest.mark.real
@pytest.mark.slow
def test_real_bars_import_whole_and_a_dirty_copy_adds_nothing(project: Path, real_bars_path: Path) -> None:
    figures = dict(run_import(project, real_bars_path, market="real").figures)
    assert (figures["bars now held"], figures["gaps"]) == ("341,552", "1, 16 bars missing")
    assert figures["bars without volume"] == "14"
    original = pd.read_parquet(real_bars_path)
    kept = read_market(project / paths.DATA, "real")
    np.testing.assert_array_equal(kept.iloc[:, 1:].to_numpy(), original.iloc[:, 1:].to_numpy())
    dirty = real_bars_path.with_name("dirty_btcusdt_5m_2023.csv.gz")
    if dirty.is_file():
        before = contents(project)
        again = dict(run_import(project, dirty, market="real").figures)
        assert (again["rows read"], again["repeated rows, dropped"]) == ("122,000", "16,336")
        assert again["bars added"] == "0"
        assert contents(project) == before
