"""What numba's disk cache is keyed on: every source that may be compiled into a function."""

from pathlib import Path

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
