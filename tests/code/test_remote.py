"""A DVC remote gives back every byte: what another clone, or this one after a disk was lost, goes on from."""

import shutil
from pathlib import Path

import pytest
from scratch_checkout import bars, cached, checkout, committed, dvc, git


@pytest.mark.slow
def test_a_local_remote_restores_a_lost_cache_and_fills_another_clone(tmp_path: Path) -> None:
    root, store = tmp_path / "project", tmp_path / "store"
    checkout(root)
    bars(root, "the bars")
    dvc(root, "remote", "add", "--default", "--local", "store", str(store))
    committed(root)
    dvc(root, "push", "--quiet")
    assert "Cache and remote 'store' are in sync" in dvc(root, "status", "--cloud")

    held = cached(root)
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "data")
    dvc(root, "pull", "--quiet")
    assert cached(root) == held
    assert (root / "data" / "simulated" / "2024-01.parquet").read_text(encoding="utf-8") == "the bars"
    assert "up to date" in dvc(root, "status")

    clone = tmp_path / "deeper" / "clone"
    clone.parent.mkdir()
    git(root, "clone", "--quiet", str(root), str(clone))
    dvc(clone, "remote", "add", "--default", "--local", "store", str(store))
    dvc(clone, "pull", "--quiet")
    assert (clone / "data" / "simulated" / "2024-01.parquet").read_text(encoding="utf-8") == "the bars"
    assert "up to date" in dvc(clone, "status")
