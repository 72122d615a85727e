"""What a result depends on, as a short checksum: settings, and the code behind them. Comments and docs do not count."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("bench", "btcai")
_BY_VALUE = frozenset(
    {"btcai.config", *(f"btcai.config.{part}" for part in ("bucket", "learning", "market", "section")), "btcai.errors"}
)
"""Not followed: the settings in use are in the key by their values, and a message teaches nobody."""


def key(modules: tuple[str, ...], settings: object) -> str:
    """Twelve hex digits of JSON-able settings and of the modules with everything of ours that they import."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for module in sorted(closure(modules)):
        digest.update(_code(module).encode())
    return digest.hexdigest()[:12]


def closure(modules: tuple[str, ...]) -> set[str]:
    """The modules, and those of ours that they import, directly or not."""
    found: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module not in found | _BY_VALUE:
            found.add(module)
            todo += _imports(module)
    return found


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(module: str) -> list[str]:
    named: list[str] = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in named if name.split(".")[0] in _PACKAGES and _file(name).is_file()]


@cache
def _code(module: str) -> str:
    """The syntax tree as text, without docs: a file that was only reformatted or explained stays the same."""
    tree = ast.parse(ast.unparse(_tree(module)))  # a copy, to be changed
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
