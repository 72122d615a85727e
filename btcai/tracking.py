"""The record of runs and models in MLflow: one parent and four child runs, four registered models, their aliases.

The only module that imports mlflow, and only inside functions: nobody who decides or trains pays for it.
"""

import csv
import hashlib
import importlib.metadata
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from btcai import champions, paths
from btcai.champions import Edge, Standing
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.schema import BUCKETS

logger = logging.getLogger(__name__)

EXPERIMENT = "btcai"
STORE = Path("mlflow/mlflow.db")
ARTIFACTS = Path("mlflow/artifacts")
LOG_BATCH = 1000
"""Metrics one request may carry."""
PARAM_BATCH = 100


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What evaluation found about one bucket."""

    score: float
    edge: Edge
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What one run of the pipeline hands to the record, besides its files."""

    root: Path
    config: Config
    judged: Mapping[str, Judged]
    data_version: str
    code_version: str
    input_hash: str


def store_uri(root: Path) -> str:
    """Where runs and models are recorded: one SQLite file in the project."""
    return f"sqlite:///{(root / STORE).resolve()}"


def model_name(bucket: str) -> str:
    """A bucket's name in the model registry."""
    return f"btcai-{bucket}"


def register(root: Path, config: Config, judged: Mapping[str, Judged]) -> dict[str, Any]:
    """Record the candidates under `root`, promote those that win, write reports/register.json; returns its content.

    Idempotent by input_hash: the same inputs make no new run, version or ledger line. The promotion rule is asked every
    time, so going back to an earlier market brings its champion back.
    """
    submission = _submission(root, config, judged)
    client = _client(root)
    parent = _recorded(client, submission.input_hash) or _record(client, submission)
    report = {
        "input_hash": submission.input_hash,
        "data_version": submission.data_version,
        "code_version": submission.code_version,
        "parent_run_id": parent,
        "buckets": {bucket: _promote(client, submission, bucket) for bucket in BUCKETS},
    }
    trial = {key: report[key] for key in ("input_hash", "data_version", "code_version", "parent_run_id")} | {
        "recorded_unix_s": int(time.time()),
        "config": flat(config.model_dump(mode="json")),
        "scores": {bucket: _or_none(judged[bucket].score) for bucket in BUCKETS},
    }
    champions.append_trial(root / paths.TRIALS, trial)
    (root / paths.REGISTER).parent.mkdir(parents=True, exist_ok=True)
    (root / paths.REGISTER).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return report


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings -> one level, {"ppo.clip": "0.2"}; lists stay one value."""
    leaves: dict[str, str] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        leaves |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)}
    return leaves


def curve_points(path: Path, prefix: str) -> list[tuple[str, float, int]]:
    """A curves.csv -> (name, value, step): finite numbers; the step is the row, as phases restart their counter."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (f"{prefix}/{name}", number, step)
            for step, row in enumerate(csv.DictReader(file))
            for name, number in _numbers(row)
        ]


def _numbers(row: Mapping[str, str | None]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        try:
            number = float(text or "nan")
        except ValueError:  # a label such as the phase's name, not a curve
            continue
        if math.isfinite(number):
            yield name, number


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _submission(root: Path, config: Config, judged: Mapping[str, Judged]) -> Submission:
    """Everything that makes this run what it is goes into input_hash: settings, bundles, verdicts."""
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode())
    versions: dict[str, str] = {}
    for bucket in BUCKETS:
        manifest = root / paths.CANDIDATE / bucket / "manifest.json"
        if not manifest.is_file():
            raise ArtifactError(
                f"{manifest} is missing, so {bucket} cannot be registered; make it with: btcai stage export"
            )
        if bucket not in judged:
            raise ArtifactError(
                f"no verdict on {bucket}, so it cannot be registered; make one with: btcai stage evaluate"
            )
        digest.update(manifest.read_bytes())
        digest.update(f"{judged[bucket].score!r} {judged[bucket].edge}".encode())
        versions = json.loads(manifest.read_text(encoding="utf-8"))["versions"]
    return Submission(
        root=root,
        config=config,
        judged=judged,
        data_version=versions["data"],
        code_version=versions["code"],
        input_hash=digest.hexdigest(),
    )


def _client(root: Path) -> Any:
    """A client of this project's own store; also points mlflow's global functions at it, which log_model needs."""
    import mlflow

    (root / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(store_uri(root))
    mlflow.set_registry_uri(store_uri(root))
    client = mlflow.MlflowClient()
    if client.get_experiment_by_name(EXPERIMENT) is None:
        client.create_experiment(EXPERIMENT, artifact_location=(root / ARTIFACTS).resolve().as_uri())
    return client


def _runs(client: Any, input_hash: str) -> list[Any]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return list(client.search_runs([experiment.experiment_id], f"tags.input_hash = '{input_hash}'"))


def _versions(client: Any, bucket: str, input_hash: str) -> list[Any]:
    query = f"name = '{model_name(bucket)}' and tag.input_hash = '{input_hash}'"
    return list(client.search_model_versions(query))


def _recorded(client: Any, input_hash: str) -> str | None:
    """The finished parent run of these inputs; what a killed attempt left behind is removed."""
    runs = _runs(client, input_hash)
    for run in runs:
        if run.data.tags.get("role") == "parent" and run.info.status == "FINISHED":
            return str(run.info.run_id)
    for run in runs:
        client.delete_run(run.info.run_id)
    for bucket in BUCKETS:
        for version in _versions(client, bucket, input_hash):
            client.delete_model_version(version.name, version.version)
    return None


def _record(client: Any, submission: Submission) -> str:
    """One parent run, a child run and a model version per bucket. FINISHED last, so that a killed attempt is known."""
    settings = flat(submission.config.model_dump(mode="json"))
    parent = _start(
        client, submission, f"{submission.config.data.market} {submission.config.profile}", {"role": "parent"}
    )
    _log_params(client, parent, settings)
    _log_metrics(client, parent, [(f"score/{b}", j.score, 0) for b, j in submission.judged.items()])
    for bucket in BUCKETS:
        child = _start(client, submission, bucket, {"role": bucket, "mlflow.parentRunId": parent})
        others = tuple(f"buckets.{name}." for name in BUCKETS if name != bucket)
        _log_params(client, child, {key: value for key, value in settings.items() if not key.startswith(others)})
        _log_results(client, submission, bucket, child)
        _register_version(client, submission, bucket, child)
        client.set_terminated(child)
        logger.info("recorded %s as run %s", bucket, child)
    client.set_terminated(parent)
    return parent


def _start(client: Any, submission: Submission, name: str, tags: dict[str, str]) -> str:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    experiment = client.get_experiment_by_name(EXPERIMENT)
    run = client.create_run(experiment.experiment_id, tags=tags | _version_tags(submission), run_name=name)
    market = submission.config.data.market
    source = json.dumps({"uri": str(paths.DATA / market)})
    dataset = Dataset(name=market, digest=submission.data_version[:32], source_type="local", source=source)
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    return str(run.info.run_id)


def _version_tags(submission: Submission) -> dict[str, str]:
    return {
        "input_hash": submission.input_hash,
        "data_version": submission.data_version,
        "code_version": submission.code_version,
    }


def _log_params(client: Any, run_id: str, settings: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    params = [Param(key, value) for key, value in settings.items()]
    for first in range(0, len(params), PARAM_BATCH):
        client.log_batch(run_id, params=params[first : first + PARAM_BATCH])


def _log_metrics(client: Any, run_id: str, points: list[tuple[str, float, int]]) -> None:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    metrics = [Metric(name, value, now_ms, step) for name, value, step in points if math.isfinite(value)]
    for first in range(0, len(metrics), LOG_BATCH):
        client.log_batch(run_id, metrics=metrics[first : first + LOG_BATCH])


def _log_results(client: Any, submission: Submission, bucket: str, run_id: str) -> None:
    """Curves of both training stages, evaluation's figures, the bundle as it is."""
    root, judged = submission.root, submission.judged[bucket]
    points = curve_points(root / paths.TRAIN / bucket / "curves.csv", "train")
    points += curve_points(root / paths.CONSOLIDATE / bucket / "curves.csv", "consolidate")
    points += [(f"evaluation/{name}", value, 0) for name, value in judged.metrics.items()]
    _log_metrics(client, run_id, [*points, ("evaluation/score", judged.score, 0)])
    client.set_tag(run_id, "edge", judged.edge)
    client.log_artifacts(run_id, str(root / paths.CANDIDATE / bucket), "bundle")


def _register_version(client: Any, submission: Submission, bucket: str, run_id: str) -> None:
    """policy.onnx as a model of the run and a version of the registered model, everything about it in its tags."""
    import mlflow
    import onnx
    from mlflow.exceptions import MlflowException

    graph = onnx.load(str(submission.root / paths.CANDIDATE / bucket / "policy.onnx"))
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.onnx.log_model(
            graph,
            name="policy",
            signature=_signature(graph),
            save_as_external_data=False,  # the default empties the graph in memory
            onnx_execution_providers=["CPUExecutionProvider"],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("onnx", "onnxruntime")],
        )
    try:
        client.create_registered_model(model_name(bucket))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    judged = submission.judged[bucket]
    tags = _version_tags(submission) | {"edge": judged.edge, "score": repr(judged.score)}
    client.create_model_version(
        model_name(bucket), logged.model_uri, run_id=run_id, tags=tags, model_id=logged.model_id
    )


def _signature(graph: Any) -> Any:
    """The graph's own input and output names, as the pyfunc flavour feeds them."""
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(values: Any) -> Any:
        return Schema(
            [
                TensorSpec(
                    onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
                    tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim),
                    value.name,
                )
                for value in values
            ]
        )

    return ModelSignature(inputs=schema(graph.graph.input), outputs=schema(graph.graph.output))


def _standing(bucket: str, version: Any) -> Standing:
    tags = version.tags
    return Standing(
        bucket=bucket,
        version=int(version.version),
        data_version=tags["data_version"],
        code_version=tags["code_version"],
        score=float(tags["score"]),
        edge="proven" if tags["edge"] == "proven" else "none",
        run_id=version.run_id,
    )


def _promote(client: Any, submission: Submission, bucket: str) -> dict[str, Any]:
    """Ask the rule, move the aliases, place the champion's files; returns what register.json says of the bucket."""
    name = model_name(bucket)
    candidate = _standing(bucket, _versions(client, bucket, submission.input_hash)[0])
    aliases = client.get_registered_model(name).aliases
    champion = _standing(bucket, client.get_model_version_by_alias(name, "champion")) if "champion" in aliases else None
    client.set_registered_model_alias(name, "challenger", str(candidate.version))
    promoted, reason = champions.promotion(candidate, champion)
    if promoted:
        if champion is not None:
            client.set_registered_model_alias(name, "previous", str(champion.version))
        client.set_registered_model_alias(name, "champion", str(candidate.version))
        champion = candidate
    if champion is not None:
        _place(champion, submission.root)
    logger.info("%s version %d %s: %s", name, candidate.version, "promoted" if promoted else "not promoted", reason)
    return {
        **asdict(candidate),
        "score": _or_none(candidate.score),
        "model": name,
        "aliases": {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()},
        "promoted": promoted,
        "reason": reason,
    }


def _place(champion: Standing, root: Path) -> None:
    """Bring models/champion/BUCKET in line with the registry, from the bundle kept in the champion's run."""
    import mlflow

    folder = root / paths.CHAMPION / champion.bucket
    if champions.is_placed(champion, folder):
        return
    with tempfile.TemporaryDirectory() as scratch:
        bundle = mlflow.artifacts.download_artifacts(run_id=champion.run_id, artifact_path="bundle", dst_path=scratch)
        champions.place_champion(Path(bundle), champion, folder)
