"""What numba's disk cache is keyed on: every source that may be compiled into a function."""

import subprocess
import sys
from pathlib import Path

import pytest

from btcai.compiled import _stamp


def stamp(folder: Path) -> tuple[int, int]:
    _stamp.cache_clear()
    return _stamp(folder)


def test_an_edit_below_a_functions_folder_recompiles_it_and_a_touch_does_not(tmp_path: Path) -> None:
    called = tmp_path / "references" / "called.py"
    called.parent.mkdir()
    called.write_text("STEP = 1\n", encoding="utf-8")
    before = stamp(tmp_path)
    called.touch()
    assert stamp(tmp_path) == before
    called.write_text("STEP = 2\n", encoding="utf-8")
    assert stamp(tmp_path) != before


MODULE = """
from typing import NamedTuple
import sys
from btcai.compiled import compiled
class {name}(NamedTuple):
    x: float
@compiled
def doubled(record):
    return 2.0 * record.x
print(doubled({name}(3.0)), sum(doubled._cache_hits.values()) if hasattr(doubled, "_cache_hits") else -1)
"""


@pytest.mark.slow
def test_a_record_that_was_renamed_is_compiled_anew(tmp_path: Path) -> None:
    """Its old name is in the cache, on the same line of the same file."""
    for name in ("Before", "After"):
        (tmp_path / "renamed.py").write_text(MODULE.format(name=name), encoding="utf-8")
        for hits in (0, 1):  # the second process finds what the first one compiled
            done = subprocess.run(
                [sys.executable, "-c", "import renamed"], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.stdout.split() == ["6.0", str(hits)], done.stderr
