"""Nothing that this project loads can run code: no pickle is read, none is written."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_fakes import project, register

from btcai import paths
from btcai.registry import place

UNPICKLES = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle")
"""Modules whose reading runs what was written."""
READS = {
    "read_pickle",
    "to_pickle",
    "read_hdf",
    "unsafe_load",
    "full_load",
    "UnsafeLoader",
    "FullLoader",
    "Tuner.restore",
}
"""Of pandas, of PyYAML (whose unsafe loaders call what a file names), and Tuner.restore of Ray, which unpickles."""
PICKLED = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt")


def offences(path: Path) -> Iterator[str]:
    """Where a file of code would unpickle something."""
    text = path.read_text(encoding="utf-8")
    if not any(word in text for word in (*UNPICKLES, *READS, "torch", "allow_pickle")):
        return  # nothing of it can be in the tree
    for node in ast.walk(ast.parse(text, str(path))):
        place = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] in UNPICKLES for alias in node.names):
            yield f"{place} imports {node.names[0].name}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLES:
            yield f"{place} imports {node.module}"
        elif isinstance(node, ast.Attribute) and {node.attr, ".".join(ast.unparse(node).split(".")[-2:])} & READS:
            yield f"{place} calls {node.attr}"
        elif isinstance(node, ast.Call) and (said := _loads(node)):
            yield f"{place} calls {said}"


def _loads(call: ast.Call) -> str:
    """Of torch.load and np.load, what makes them unpickle; numpy refuses it unless told otherwise."""
    given = {
        word.arg: ast.unparse(word.value) for word in call.keywords if word.arg in ("weights_only", "allow_pickle")
    }
    loads = isinstance(call.func, ast.Attribute) and call.func.attr == "load"
    if loads and ast.unparse(call.func).startswith("torch.") and given.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    return "something with allow_pickle" if given.get("allow_pickle", "False") != "False" else ""


CODE = "import pickle\nfrom joblib import load\npd.read_pickle(a)\ntorch.load(a)\nnp.load(a, allow_pickle=True)\n"
CODE += "yaml.load(a, yaml.UnsafeLoader)\ntune.Tuner.restore(a)\n"


def test_each_way_to_unpickle_is_found(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(CODE + "np.load(a)\ntorch.load(a, weights_only=True)\n", encoding="utf-8")
    assert sorted(line.split(" ")[0] for line in offences(path)) == [f"code.py:{number}" for number in range(1, 8)]


@pytest.mark.parametrize("package", ["btcai", "flows", "bench"])
def test_no_code_unpickles(root: Path, package: str) -> None:
    files = sorted((root / package).rglob("*.py"))
    assert files
    assert [line for path in files for line in offences(path)] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_registered_models_and_champions_hold_no_pickle(tmp_path: Path) -> None:
    register(tmp_path, project(tmp_path), 0.1)
    files = [file for folder in (place.ARTIFACTS, paths.CHAMPION) for file in (tmp_path / folder).rglob("*")]
    assert any(file.suffix == ".onnx" for file in files)
    assert [file for file in files if file.suffix in PICKLED] == []
    started = [file for file in files if file.is_file() and file.read_bytes()[:1] == b"\x80"]  # as every pickle since 2
    assert started == []
