"""A folder is replaced whole or stays as it was, whatever goes wrong and wherever a process is killed."""

import errno
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import Disk, watched

from btcai import files
from btcai.errors import DiskError
from btcai.files import replaced, whole


def tree(folder: Path) -> dict[str, str]:
    """Everything in and beside the folder, by its path from the parent."""
    top = folder.parent
    return {str(path.relative_to(top)): path.read_text(encoding="utf-8") for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    held = tmp_path / "held"
    held.mkdir()
    (held / "a").write_text("old a", encoding="utf-8")
    (held / "b").write_text("old b", encoding="utf-8")
    return held


def test_the_draft_replaces_every_file(folder: Path) -> None:
    with whole(folder) as draft:
        (draft / "a").write_text("new a", encoding="utf-8")
    assert tree(folder) == {"held/a": "new a"}


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with whole(tmp_path / "x" / "y") as draft:
        (draft / "a").write_text("1", encoding="utf-8")
    assert tree(tmp_path / "x") == {"x/y/a": "1"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interruption_leaves_the_old_files_and_nothing_beside(folder: Path, error: type[BaseException]) -> None:
    before = tree(folder)

    def interrupted() -> None:
        with whole(folder) as draft:
            (draft / "a").write_text("new a", encoding="utf-8")
            raise error

    with pytest.raises(error):
        interrupted()
    assert tree(folder) == before


def test_a_full_disk_is_one_line_that_says_the_folder_is_as_it_was(folder: Path) -> None:
    before = tree(folder)
    with pytest.raises(DiskError, match=r"held could not be written: .*No space left.*; it is as it was"):
        with whole(folder):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert tree(folder) == before


def test_a_write_past_the_limit_of_the_file_system_loses_nothing(folder: Path) -> None:
    before = tree(folder)
    script = (
        "import sys; from pathlib import Path; from btcai.files import replaced, whole\n"
        "with whole(Path(sys.argv[1])) as draft: (draft / 'a').write_bytes(bytes(100_000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert done.returncode == 1
    assert "DiskError: " in done.stderr
    assert "File too large" in done.stderr
    assert tree(folder) == before


def test_what_a_kill_between_the_two_renames_left_comes_back(folder: Path) -> None:
    before = tree(folder)
    folder.rename(folder.with_name(".held.old"))
    (folder.parent / ".held.new").mkdir()
    (folder.parent / ".held.new" / "a").write_text("half", encoding="utf-8")
    with pytest.raises(ValueError, match="stop"), whole(folder):
        raise ValueError("stop")
    assert tree(folder) == before


def test_an_error_that_is_not_the_disks_keeps_its_own_words(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), whole(folder):
        (folder / "nowhere").read_text(encoding="utf-8")


def test_an_old_folder_that_cannot_be_removed_is_never_put_back_over_a_newer_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)

    def second(draft: Path) -> None:
        (draft / "a").write_text("second", encoding="utf-8")

    with replaced(folder, second):
        pass
    with pytest.raises(DiskError, match=r"\.held\.old could not be removed"), replaced(folder, second):
        pass
    assert (folder / "a").read_text(encoding="utf-8") == "second"


def test_files_are_on_the_disk_before_the_names_change_and_the_names_before_it_returns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = files.sync, files._rename_in
    monkeypatch.setattr(files, "sync", lambda path: (done.append(f"sync {path.name}"), sync(path)))
    monkeypatch.setattr(files, "_rename_in", lambda draft, held: (done.append("rename"), rename(draft, held)))
    with whole(folder) as draft:
        (draft / "a").write_text("new a", encoding="utf-8")
    assert done == ["sync a", "sync .held.new", "rename", f"sync {folder.parent.name}"]
    done.clear()
    files.write_bytes(folder / "b", b"new b")
    assert done == ["sync held"]
    assert tree(folder) == {"held/a": "new a", "held/b": "new b"}


def test_what_is_removed_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "starts" / "one"
    folder.mkdir(parents=True)
    (folder / "a").write_text("12345", encoding="utf-8")
    assert files.bytes_of(tmp_path) == 5
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda path, ignore_errors: None)  # a kill before anything is unlinked
        files.remove(folder)
    assert not folder.exists()
    files.settle(folder)
    assert list(folder.parent.iterdir()) == []


def test_a_file_that_could_not_be_written_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_bytes(b"old")
    with watched(Disk(tmp_path, 1, "full")), pytest.raises(OSError, match="too large"):
        files.write_bytes(tmp_path / "kept" / "a", b"x" * 1_000)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "a").read_bytes() == b"old"
