"""One run of the pipeline written to MLflow: a parent run, a child run per bucket, a version per registered model."""

import csv
import importlib.metadata
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btcai import paths
from btcai.champions import Edge, Standing
from btcai.config import Config
from btcai.schema import BUCKETS

logger = logging.getLogger(__name__)

EXPERIMENT = "btcai"
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
    judged_on: str
    input_hash: str


def model_name(bucket: str) -> str:
    """A bucket's name in the model registry."""
    return f"btcai-{bucket}"


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


def _runs(client: Any, input_hash: str) -> list[Any]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return list(client.search_runs([experiment.experiment_id], f"tags.input_hash = '{input_hash}'"))


def _versions(client: Any, bucket: str, input_hash: str) -> list[Any]:
    query = f"name = '{model_name(bucket)}' and tag.input_hash = '{input_hash}'"
    return list(client.search_model_versions(query))


def candidate(client: Any, bucket: str, input_hash: str) -> Standing:
    """The version that these inputs registered."""
    return standing(bucket, _versions(client, bucket, input_hash)[0])


def standings(client: Any, bucket: str) -> list[Standing]:
    """Every registered version of a bucket."""
    query, page, found = f"name = '{model_name(bucket)}'", None, []
    while True:
        versions = client.search_model_versions(query, page_token=page)
        found += [standing(bucket, version) for version in versions]
        page = versions.token
        if not page:
            return found


def recorded(client: Any, input_hash: str) -> str | None:
    """The finished parent run of these inputs; what a killed attempt left behind is removed."""
    runs = _runs(client, input_hash)
    for run in runs:
        if run.data.tags.get("role") == "parent" and run.info.status == "FINISHED":
            return str(run.info.run_id)
    for bucket in BUCKETS:  # versions first: none may outlive its run
        for version in _versions(client, bucket, input_hash):
            client.delete_model_version(version.name, version.version)
    for run in runs:
        client.delete_run(run.info.run_id)
    return None


def record(client: Any, submission: Submission) -> str:
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
        "judged_on": submission.judged_on,
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


def standing(bucket: str, version: Any) -> Standing:
    """A model version's tags as a standing; a version without terms on record compares with none."""
    tags = version.tags
    return Standing(
        bucket=bucket,
        version=int(version.version),
        data_version=tags["data_version"],
        code_version=tags["code_version"],
        judged_on=tags.get("judged_on", ""),
        score=float(tags["score"]),
        edge="proven" if tags["edge"] == "proven" else "none",
        run_id=version.run_id,
    )
