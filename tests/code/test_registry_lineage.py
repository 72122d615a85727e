"""What a checkout says of itself: its commit, whether its code is the commit's, DVC's own hashes."""

import subprocess
from pathlib import Path

import pytest

from btcai import paths
from btcai.records import lineage

BARS_MD5 = "3660d846ecf510babb6aa21d1309691d.dir"
"""What DVC 3.67.1 names the folder that `bars` writes (dvc add)."""


def bars(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("one\n", encoding="utf-8")
    (folder / "sub" / "a.txt").write_text("two\n", encoding="utf-8")
    (folder / "ä.txt").write_text("ü", encoding="utf-8")
    return folder


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", *who, *arguments], cwd=root, check=True, text=True, capture_output=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    for name in ("code.py", "params.yaml", "dvc.lock", "requirements.lock"):
        (tmp_path / name).write_text("first", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_a_checkout_names_its_commit(checkout: Path) -> None:
    tags = lineage.tags(checkout)
    assert tags["git_commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert tags["git_dirty"] == "false"
    # sha256 of "first"
    assert tags["requirements_lock_sha256"] == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
    assert "data_dvc_md5" not in tags  # there is no data.dvc
    assert "numpy 2." in tags["libraries"]


@pytest.mark.parametrize(
    ("name", "dirty"), [("code.py", "true"), ("params.yaml", "false"), ("dvc.lock", "false"), ("new.py", "false")]
)
def test_only_code_that_the_record_does_not_keep_makes_it_dirty(checkout: Path, name: str, dirty: str) -> None:
    (checkout / name).write_text("second", encoding="utf-8")
    assert lineage.tags(checkout)["git_dirty"] == dirty


def test_without_git_the_rest_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "git_commit" not in lineage.tags(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    tags = lineage.tags(tmp_path)
    assert "git_commit" not in tags
    assert tags["python"].startswith("3.11")


def test_the_pin_of_the_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 12ab.dir\n  path: data\n", encoding="utf-8")
    assert lineage.tags(tmp_path)["data_dvc_md5"] == "12ab.dir"


def test_a_folders_hash_is_dvcs(tmp_path: Path) -> None:
    assert lineage.folder_md5(bars(tmp_path / "bars")) == BARS_MD5


def lock(root: Path, features_md5: str) -> None:
    (root / "dvc.lock").write_text(
        "stages:\n  features:\n    deps:\n    - path: data/btcusdt\n      md5: 34cd.dir\n"
        f"    outs:\n    - path: artifacts/features\n      md5: {features_md5}\n",
        encoding="utf-8",
    )


def test_the_markets_hash_is_the_one_that_the_features_were_made_from(tmp_path: Path) -> None:
    bars(tmp_path / paths.FEATURES)
    lock(tmp_path, BARS_MD5)
    assert lineage.market_md5(tmp_path, "btcusdt") == "34cd.dir"
    assert lineage.market_md5(tmp_path, "simulated") is None


@pytest.mark.parametrize("text", ["", "stages:\n", "- 1\n", "a: [", "stages:\n  validate: {}\n"])
def test_a_lock_that_tells_nothing_gives_no_hash(tmp_path: Path, text: str) -> None:
    bars(tmp_path / paths.FEATURES)
    assert lineage.market_md5(tmp_path, "btcusdt") is None
    (tmp_path / "dvc.lock").write_text(text, encoding="utf-8")
    assert lineage.market_md5(tmp_path, "btcusdt") is None


def test_a_lock_of_other_features_gives_no_hash(tmp_path: Path) -> None:
    bars(tmp_path / paths.FEATURES)
    lock(tmp_path, "00.dir")
    assert lineage.market_md5(tmp_path, "btcusdt") is None
