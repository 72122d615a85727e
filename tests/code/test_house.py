"""What keeps the project installable everywhere and its imports free of side effects."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from btcai.environment import TELEMETRY_OFF

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, object]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def lock(root: Path) -> str:
    return (root / "requirements.lock").read_text(encoding="utf-8")


def requirements(project: dict, *extras: str) -> set[str]:
    """Normalised names that pyproject asks for, without the project's own extras."""
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    names = {normal(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines}
    return names - {"btcai"}


@pytest.mark.parametrize("unwanted", ["+cpu", "+cu", "file:", "://", "nvidia", "--index-url", "--find-links"])
def test_lock_names_no_build_of_one_machine(lock: str, unwanted: str) -> None:
    assert unwanted not in lock


def test_lock_hashes_every_package_but_torch(lock: str) -> None:
    entries = [entry for entry in re.split(r"\n(?=\S)", lock) if not entry.startswith("#")]
    assert len(entries) > 200
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "torch" not in dict(PIN.findall(lock))


def test_every_dependency_is_pinned(root: Path, project: dict, lock: str) -> None:
    constraints = dict(PIN.findall((root / "constraints.txt").read_text(encoding="utf-8")))
    assert constraints == {"torch": "2.13.0"}
    pinned = {normal(name) for name, _ in PIN.findall(lock)} | set(constraints)
    assert requirements(project, *project["optional-dependencies"]) - pinned == set()


def test_lock_holds_what_any_torch_needs(lock: str) -> None:
    needed = {"filelock", "fsspec", "jinja2", "mpmath", "networkx", "setuptools", "sympy", "typing-extensions"}
    assert needed <= {normal(name) for name, _ in PIN.findall(lock)}


def test_every_import_is_a_declared_dependency(root: Path, project: dict) -> None:
    declared = requirements(project, "train", "report", "serve", "operate", "bench", "scale")
    peers = {"gym_trading_env", "vectorbt"}  # in an environment of their own: bench/peers.txt
    distributions = packages_distributions()
    undeclared = set()
    ours = ("bench", "btcai", "flows")
    for path in [path for package in ours for path in root.glob(f"{package}/**/*.py")]:
        for module in imported_roots(path) - set(sys.stdlib_module_names) - peers - set(ours):
            if not declared & {normal(name) for name in distributions.get(module, [module])}:
                undeclared.add(f"{path.relative_to(root)}: {module}")
    assert undeclared == set()


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.partition(".")[0])
    return roots


def test_make_turns_off_the_telemetry_that_the_code_turns_off(root: Path) -> None:
    exported = re.findall(r"^export (\w+) := (\S+)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert TELEMETRY_OFF.items() <= dict(exported).items()
    assert all(value.startswith("$(CURDIR)/") for name, value in exported if name not in TELEMETRY_OFF)


@pytest.mark.slow
def test_importing_onnxruntime_leaves_no_device_id(tmp_path: Path) -> None:
    code = "from btcai.environment import telemetry_off; telemetry_off(); import onnxruntime"
    kept = {name: value for name, value in os.environ.items() if name not in TELEMETRY_OFF and name != "CI"}
    subprocess.run([sys.executable, "-c", code], env={**kept, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


def test_mlflow_folder_holds_no_python(root: Path) -> None:
    """Registered models keep their code in mlflow/artifacts, at depths where it is no module of `mlflow`."""
    folder = root / "mlflow"
    assert (folder / "README.md").is_file()
    own = [path for path in folder.rglob("*.py") if path.relative_to(folder).parts[:2] != ("artifacts", "models")]
    assert own == []


@pytest.mark.parametrize("name", ["btcai/data/store.py", "btcai/models/trunk.py", "mlflow/README.md", "data.dvc"])
def test_code_is_not_ignored_by_git(root: Path, name: str) -> None:
    assert git_ignores(root, name) is False


@pytest.mark.parametrize(
    "name",
    [
        "data/simulated/2024-01.parquet",
        "models/champion/x.onnx",
        "mlflow/mlflow.db",
        ".venv/bin/python",
        "logs/btcai.log",
    ],
)
def test_what_the_pipeline_makes_is_ignored_by_git(root: Path, name: str) -> None:
    assert git_ignores(root, name) is True


def git_ignores(root: Path, name: str) -> bool:
    done = subprocess.run(["git", "check-ignore", "--no-index", "-q", name], cwd=root, check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 0


IMPORT_EVERYTHING = """
import logging, pathlib, pkgutil, sys, importlib
import btcai
names = [m.name for m in pkgutil.walk_packages(btcai.__path__, "btcai.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
loggers = [logging.getLogger(name) for name in ("btcai", "flows", *names)]
assert len(names) > 5, names
assert not any(logger.handlers or logger.level for logger in loggers), loggers
assert not list(pathlib.Path().iterdir()), list(pathlib.Path().iterdir())
"""


@pytest.mark.slow
def test_importing_every_module_does_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_EVERYTHING],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
