"""docs/faults.md: every row names a test, and every test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
COLUMNS = ["fault", "what a user sees", "what is lost", "how it goes on", "tried by"]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:::(\w+))?`")


def rows() -> list[list[str]]:
    """Cells of the page's tables, without their heads."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row != COLUMNS and not set("".join(row)) <= set("-: ")]


@cache
def names_in(path: Path) -> set[str]:
    """Names of a file's tests; those of a class as Class::test."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return {name for name in names if name.rpartition("::")[2].startswith("test_")}


def test_the_page_has_its_columns_and_every_fault_asked_for() -> None:
    assert all(len(row) == len(COLUMNS) for row in rows())
    faults = " ".join(row[0] for row in rows()).lower()
    for asked in (
        "sigkill of the flow", "sigkill of the worker", "sigkill of a trainer", "sigkill of the server", "full disk",
        "corrupt bars", "corrupt bundle", "corrupt checkpoint", "corrupt mlflow database", "lock of dvc", "clock",
        "no network", "registry that hangs", "two flows at once", "poisoned", "out of memory",
    ):  # fmt: skip
        assert asked in faults, asked


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:50])
def test_a_row_names_tests_that_exist(row: list[str]) -> None:
    named = NAMED.findall(row[4])
    assert named, row[0]
    assert len(named) == row[4].count("::") - sum(bool(inner) for _, _, inner in named)
    for file, name, inner in named:
        assert (ROOT / file).is_file(), file
        assert (f"{name}::{inner}" if inner else name) in names_in(ROOT / file), f"{file}::{name}"
