"""params.yaml: read and validated, and single settings changed, in memory or in the file."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from btcai import paths
from btcai.config import Config
from btcai.errors import ConfigError


def changed(config: Config, changes: Mapping[str, object]) -> Config:
    """`config` with "section.name" -> value changed, validated; ConfigError where params.yaml has no such key."""
    raw = config.model_dump()
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = raw
        for section in sections:
            place = place.get(section, {})
        if name not in place:
            raise ConfigError(f"a setting must be one of params.yaml, was {key}; write it as section.name")
        place[name] = value
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{_broken(error)}; give another value") from error


def flat(config: Config) -> dict[str, str]:
    """Every setting by one name, {"ppo.clip": "0.2"}, as records have them; lists stay one value."""
    return _leaves(config.model_dump(mode="json"))


def _leaves(section: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    leaves: dict[str, str] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        leaves |= _leaves(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)}
    return leaves


def require_project(root: Path) -> None:
    """ConfigError where root is no project's folder, or its params.yaml is gone."""
    if (root / paths.PARAMS).is_file():
        return
    folder = root.absolute()
    if (root / "dvc.yaml").is_file():
        raise ConfigError(f"no {paths.PARAMS} in {folder}; restore it with: git checkout {paths.PARAMS}")
    raise ConfigError(f"no {paths.PARAMS} in {folder}: this is no btcai project; go to the project's folder")


def load_config(path: Path) -> Config:
    """Read and validate params.yaml; ConfigError in one line names every broken key."""
    require_project(path.parent)
    return _parse(path, path.read_text(encoding="utf-8"), f"mend it, or compare with: git diff {path}")


def _parse(path: Path, text: str, remedy: str) -> Config:
    """Validate `text` under the name of the file it belongs to."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} must be valid YAML: {' '.join(str(error).split())}; {remedy}") from error
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_broken(error)}; {remedy}") from error


def _broken(error: ValidationError) -> str:
    """Every broken key with its rule and value."""
    return "; ".join(
        f"{'.'.join(map(str, loc)) or 'file'}: {rule.removeprefix('Value error, ')}{_met(value)}"
        for loc, rule, value in ((item["loc"], item["msg"], item["input"]) for item in error.errors())
    )


def _met(value: object) -> str:
    """The value that broke a rule; a whole section says nothing that its rule does not."""
    return "" if isinstance(value, dict) else f", was {value!r:.60}"


def set_param(path: Path, key: str, value: str) -> tuple[str, str]:
    """Set one scalar of params.yaml in place, keeping comments; returns (old, new).

    `key` is "name" or "section.name". The result is validated before the file is replaced, in one step.
    """
    section, _, name = key.rpartition(".")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    inside = not section
    for number, line in enumerate(lines):
        if section and re.match(r"\S", line):
            inside = line.startswith(f"{section}:")
        match = re.match(rf"(\s*{re.escape(name)}:\s*)(\S+)(.*)$", line, re.DOTALL)
        if match and inside and line[:1].isspace() == bool(section):
            lines[number] = f"{match[1]}{value}{match[3]}"
            text = "".join(lines)
            _parse(path, text, f"{path.name} keeps {key}: {match[2]}; give another value")
            _replace(path, text)
            return match[2], value
    raise ConfigError(f"{path} has no {key}; restore it with: git checkout {path}")


def _replace(path: Path, text: str) -> None:
    """Write the file so that a reader, or a kill, meets the old text or the new one; two writers share no draft."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        shutil.copymode(path, draft)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
