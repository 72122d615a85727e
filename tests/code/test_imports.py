"""Which way imports go, as the contracts in pyproject.toml say."""

import subprocess
import sys
from pathlib import Path


def test_import_contracts_are_kept(root: Path) -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
