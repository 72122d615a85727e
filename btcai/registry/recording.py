"""One run of the pipeline written to MLflow: a parent run, a child run per bucket, a version per registered model."""

import csv
import hashlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from btcai import paths, usage
from btcai.errors import ArtifactError
from btcai.inference.bundle import file_sha256
from btcai.params import flat
from btcai.records import lineage
from btcai.records.champions import MANIFEST, MODEL_CARD, Standing
from btcai.registry import cards, packaging, place, self_check
from btcai.registry.submission import Submission
from btcai.schema import BUCKETS, RAW_COLUMNS

logger = logging.getLogger(__name__)

LOG_BATCH = 1000
"""Metrics one request may carry."""
PARAM_BATCH = 100
DIGEST = 36
"""Characters of a dataset's digest; DVC's hash of a folder just fits."""

Point = tuple[str, float, int, int]
"""name, value, step, Unix time in ms"""


def model_name(bucket: str) -> str:
    """A bucket's name in the model registry."""
    return f"{place.name()}-{bucket}"


def registered_buckets(client: Any) -> list[str]:
    """The buckets that have a registered model of this clone's name."""
    return [bucket for bucket in BUCKETS if client.search_registered_models(f"name = '{model_name(bucket)}'")]


def of_bucket(settings: Mapping[str, str], bucket: str) -> dict[str, str]:
    """The settings that concern a bucket: all but those of the other buckets."""
    others = tuple(f"buckets.{name}." for name in BUCKETS if name != bucket)
    return {key: value for key, value in settings.items() if not key.startswith(others)}


def params_sha256(settings: Mapping[str, str]) -> str:
    """One name for a bucket's settings."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()


def curve_points(path: Path, prefix: str) -> list[Point]:
    """A curves.csv -> points: finite numbers; the step is the row, as phases restart their counter."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (f"{prefix}/{name}", number, step, _now_ms())
            for step, row in enumerate(csv.DictReader(file))
            for name, number in _numbers(row)
        ]


def usage_points(path: Path) -> list[Point]:
    """A system.csv -> points, at their own times: what MLflow's own monitor would have logged during the training."""
    return [
        (f"system/{name}", value, step, int(row["unix_s"] * 1000))
        for step, row in enumerate(usage.read(path))
        for name, value in row.items()
        if name not in ("unix_s", "elapsed_s")
    ]


def _now_ms() -> int:
    return int(time.time() * 1000)


def _numbers(row: Mapping[str, str | None]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        try:
            number = float(text or "nan")
        except ValueError:  # a label such as the phase's name, not a curve
            continue
        if math.isfinite(number):
            yield name, number


def _runs(client: Any, input_hash: str) -> list[Any]:
    experiment = client.get_experiment_by_name(place.name())
    return list(client.search_runs([experiment.experiment_id], f"tags.input_hash = '{input_hash}'"))


def _versions(client: Any, bucket: str, input_hash: str) -> list[Any]:
    query = f"name = '{model_name(bucket)}' and tag.input_hash = '{input_hash}'"
    return list(client.search_model_versions(query))


def candidate(client: Any, bucket: str, input_hash: str) -> Standing:
    """The version that these inputs registered."""
    return standing(bucket, _versions(client, bucket, input_hash)[0])


def every_version(client: Any, bucket: str) -> list[Any]:
    """Every registered version of a bucket, as MLflow has it, the newest first."""
    query, page, found = f"name = '{model_name(bucket)}'", None, []
    while True:
        versions = client.search_model_versions(query, page_token=page)
        found += versions
        page = versions.token
        if not page:
            return sorted(found, key=lambda one: -int(one.version))


def standings(client: Any, bucket: str) -> list[Standing]:
    """Every registered version of a bucket."""
    return [standing(bucket, version) for version in every_version(client, bucket)]


def downloaded(client: Any, standing: Standing, name: str, into: Path) -> Path:
    """A copy of what a version's run keeps; ArtifactError where it does not.

    Any other failure, of a server that is away or of this disk, raises its own error: it must not cost a champion its
    place.
    """
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(standing.run_id, name, str(into)))
    except (MlflowException, OSError) as error:
        if not _is_lost(client, standing.run_id, name):
            raise
        raise ArtifactError(
            f"{standing.bucket} version {standing.version} has no {name} in run {standing.run_id}: {error}; make "
            "another version with: btcai run"
        ) from error


def _is_lost(client: Any, run_id: str, name: str) -> bool:
    """Whether the store answers, and does not list `name` or knows no such run: MLflow's client calls a file that is
    not there, and a server that failed at it, by the same names."""
    from mlflow.exceptions import MlflowException

    parent = PurePosixPath(name).parent
    try:
        listed = client.list_artifacts(run_id, None if parent == PurePosixPath() else str(parent))
    except (MlflowException, OSError) as error:
        return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"
    return name not in {one.path for one in listed}


def recorded(client: Any, input_hash: str) -> str | None:
    """The finished parent run of these inputs, whose versions are all there; what else is left of them is removed."""
    runs = _runs(client, input_hash)
    complete = all(_versions(client, bucket, input_hash) for bucket in BUCKETS)  # one may have been deleted by hand
    for run in runs if complete else ():
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
    name = f"{submission.history.market} {submission.config.profile}"
    parent = _start(client, submission, name, {"role": "parent", "mlflow.note.content": submission.results})
    settings = flat(submission.config)
    _log_params(client, parent, settings)
    _log_metrics(client, parent, [(f"score/{b}", j.score, 0, _now_ms()) for b, j in submission.judged.items()])
    _log_reports(client, submission, parent)
    for bucket in BUCKETS:
        began_s = time.monotonic()
        note = cards.version_card(submission, bucket)
        tags = {"role": bucket, "mlflow.parentRunId": parent, "mlflow.note.content": note}
        child = _start(client, submission, bucket, tags)
        _log_params(client, child, of_bucket(settings, bucket))
        _log_results(client, submission, bucket, child)
        version = _register_version(client, submission, bucket, child)
        client.set_terminated(child)
        taken_s = time.monotonic() - began_s
        logger.info("recorded %s version %s as run %s in %.1f s", model_name(bucket), version, child, taken_s)
    client.set_terminated(parent)
    return parent


def _start(client: Any, submission: Submission, name: str, tags: dict[str, str]) -> str:
    """A new run with its tags and its data. MLflow's pages show commit and source by the mlflow.source tags."""
    experiment = client.get_experiment_by_name(place.name())
    source = {"mlflow.source.name": "btcai stage register", "mlflow.source.type": "LOCAL"}
    if commit := submission.lineage.get("git_commit"):
        source["mlflow.source.git.commit"] = commit
    every = tags | source | _version_tags(submission)
    run = client.create_run(experiment.experiment_id, tags=every, run_name=name)
    client.log_inputs(run.info.run_id, [_dataset(submission)])
    return str(run.info.run_id)


def _dataset(submission: Submission) -> Any:
    """The market as a dataset of the run: by DVC's hash where it is known, else by its content's."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    history = submission.history
    columns = [{"name": RAW_COLUMNS[0], "type": "datetime", "required": True}]
    columns += [{"name": name, "type": "double", "required": True} for name in RAW_COLUMNS[1:]]
    dataset = Dataset(
        name=history.market,
        digest=(history.dvc_md5 or history.data_version)[:DIGEST],
        source_type="local",
        source=json.dumps({"uri": (paths.DATA / history.market).as_posix()}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(
            {"num_rows": history.rows, "first_open_time": history.first, "last_open_time": history.last}
        ),
    )
    tags = {"mlflow.data.context": "training", "content_sha256": history.data_version}
    if history.dvc_md5:
        tags["dvc_md5"] = history.dvc_md5
    return DatasetInput(dataset, [InputTag(key, value) for key, value in tags.items()])


def _version_tags(submission: Submission) -> dict[str, str]:
    """What a run and a version are traced by; input_hash alone says whether they are the same."""
    history = submission.history
    found = {
        "input_hash": submission.input_hash,
        "data_version": history.data_version,
        "data_market": history.market,
        "data_rows": str(history.rows),
        "data_first": history.first,
        "data_last": history.last,
        "code_version": submission.code_version,
        "judged_on": submission.judged_on,
        **submission.lineage,
    }
    return found | ({"market_dvc_md5": history.dvc_md5} if history.dvc_md5 else {})


def _log_params(client: Any, run_id: str, settings: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    params = [Param(key, value) for key, value in settings.items()]
    for first in range(0, len(params), PARAM_BATCH):
        client.log_batch(run_id, params=params[first : first + PARAM_BATCH])


def _log_metrics(client: Any, run_id: str, points: Iterable[Point]) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(name, value, at_ms, step) for name, value, step, at_ms in points if math.isfinite(value)]
    for first in range(0, len(metrics), LOG_BATCH):
        client.log_batch(run_id, metrics=metrics[first : first + LOG_BATCH])


def _log_reports(client: Any, submission: Submission, run_id: str) -> None:
    """The pages and figures for people, and the files from which everything can be made again."""
    evaluation, validation = (submission.root / folder for folder in (paths.EVALUATION, paths.VALIDATION))
    pages = [evaluation / "index.html", evaluation / "table.csv", *sorted(evaluation.rglob("*.png"))]
    _log_files(client, run_id, pages, "report")
    _log_files(client, run_id, [validation / "index.html"], "validation")
    _log_files(client, run_id, [submission.root / name for name in lineage.KEPT], "lineage")


def _log_files(client: Any, run_id: str, files: Iterable[Path], folder: str) -> None:
    for file in files:
        if file.is_file():
            client.log_artifact(run_id, str(file), folder)


def _log_results(client: Any, submission: Submission, bucket: str, run_id: str) -> None:
    """Curves of both training stages, what they took of the machine, evaluation's figures, bundle and reflection."""
    root, judged = submission.root, submission.judged[bucket]
    points = curve_points(root / paths.TRAIN / bucket / "curves.csv", "train")
    points += curve_points(root / paths.CONSOLIDATE / bucket / "curves.csv", "consolidate")
    points += usage_points(root / paths.TRAIN / bucket / usage.FILE)
    figures = {**judged.metrics, "score": judged.score}
    points += [(f"evaluation/{name}", value, 0, _now_ms()) for name, value in figures.items()]
    _log_metrics(client, run_id, points)
    client.set_tag(run_id, "edge", judged.edge)
    _log_files(client, run_id, sorted((root / paths.EVALUATION).rglob(f"*{bucket}*.png")), "report")
    client.log_artifacts(run_id, str(root / paths.CANDIDATE / bucket), "bundle")
    if (learned := root / paths.REFLECTION / bucket).is_dir():
        client.log_artifacts(run_id, str(learned), paths.LEARNED)
    client.log_text(run_id, cards.full_card(submission, bucket, model_name(bucket)), MODEL_CARD)


def _register_version(client: Any, submission: Submission, bucket: str, run_id: str) -> str:
    """The bundle as a model of the run and a version of the registered model, everything about it in its tags."""
    import mlflow

    name, judged = model_name(bucket), submission.judged[bucket]
    settings = submission.config.buckets[bucket]
    with mlflow.start_run(run_id=run_id):
        logged = packaging.log_bundle(
            submission.root / paths.CANDIDATE / bucket, settings, judged.edge, submission.history.unsealed
        )
    with tempfile.TemporaryDirectory() as scratch:
        self_check.write(Path(scratch) / self_check.FOLDER, logged.bars, logged.answer)
        client.log_artifacts(run_id, str(Path(scratch) / self_check.FOLDER), self_check.FOLDER)
    _ensure_registered(client, name, cards.model_card(bucket, settings, name))
    made = client.create_model_version(
        name,
        logged.info.model_uri,
        run_id=run_id,
        tags={
            "edge": judged.edge,
            "score": repr(judged.score),
            "model_version": logged.version,
            "manifest_sha256": file_sha256(submission.root / paths.CANDIDATE / bucket / MANIFEST),
            "params_sha256": params_sha256(of_bucket(flat(submission.config), bucket)),
            **_version_tags(submission),
        },
        description=cards.full_card(submission, bucket, name),
        model_id=logged.info.model_id,
    )
    return str(made.version)


def _ensure_registered(client: Any, name: str, card: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=card)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_registered_model(name, description=card)


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
