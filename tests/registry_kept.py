"""MLflow's registry as far as a change of champion goes, in one JSON file: quick, and it outlives a killed process."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException

from btcai.inference.bundle import file_sha256, load_bundle
from btcai.records.champions import MANIFEST, MODEL_CARD

BUCKET = "short"
NAME = f"btcai-{BUCKET}"


class KeptRegistry:
    """The client's methods that btcai calls; every write is one file replaced, as MLflow's are one transaction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "registry.json"

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text(encoding="utf-8")))

    def _write(self, state: dict[str, Any]) -> None:
        draft = self.path.with_name("registry.json.new")
        draft.write_text(json.dumps(state), encoding="utf-8")
        os.replace(draft, self.path)

    def get_registered_model(self, name: str) -> Any:
        assert name == NAME
        state = self._read()
        return SimpleNamespace(name=name, aliases=state["aliases"], tags=state["tags"])

    def search_registered_models(self, filter_string: str) -> list[Any]:
        return [SimpleNamespace(name=NAME)] if filter_string == f"name = '{NAME}'" else []

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        state = self._read()
        state["aliases"][alias] = int(version)
        self._write(state)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        state = self._read()
        del state["aliases"][alias]
        self._write(state)

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        state = self._read()
        state["tags"][key] = value
        self._write(state)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        state = self._read()
        del state["tags"][key]
        self._write(state)

    def get_model_version(self, name: str, version: str) -> Any:
        tags = self._read()["versions"][version]
        return SimpleNamespace(name=name, version=int(version), tags=tags, run_id=f"run{version}")

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(lifecycle_stage="active"))

    def search_model_versions(self, query: str, page_token: str | None = None) -> Any:
        assert query == f"name = '{NAME}'"
        return Page(self.get_model_version(NAME, number) for number in self._read()["versions"])

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[Any]:
        folder = self.folder / run_id / (path or "")
        found = folder.iterdir() if folder.is_dir() else []
        return [SimpleNamespace(path=str(one.relative_to(self.folder / run_id))) for one in found]

    def download_artifacts(self, run_id: str, path: str, dst_path: str) -> str:
        source = self.folder / run_id / path
        if not source.exists():
            raise MlflowException(f"no {path}")
        if source.is_dir():
            return str(shutil.copytree(source, Path(dst_path) / path))
        return str(shutil.copy(source, dst_path))


class Page(list[Any]):
    """The only page."""

    token = None


def kept_registry(folder: Path, scores: dict[int, float], aliases: dict[str, int]) -> KeptRegistry:
    """Versions of one bucket with these scores on equal terms, each with a bundle of its own and a card."""
    from export_fakes import hand_made_bundle  # with torch, which who only reads the registry need not wait for

    versions = {}
    for number, score in scores.items():
        bundle = folder / f"run{number}" / "bundle"
        hand_made_bundle(bundle, BUCKET, mean=0.001 * number, versions={"data": "d1", "code": "c1"})
        (bundle.parent / MODEL_CARD).write_text(f"card of {number}", encoding="utf-8")
        versions[str(number)] = {
            "data_version": "d1",
            "code_version": "c1",
            "judged_on": "t1",
            "score": repr(score),
            "edge": "none",
            "model_version": load_bundle(bundle).version,
            "manifest_sha256": file_sha256(bundle / MANIFEST),
        }
    (folder / "registry.json").write_text(
        json.dumps({"aliases": aliases, "tags": {}, "versions": versions}), encoding="utf-8"
    )
    return KeptRegistry(folder)
