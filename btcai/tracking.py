"""The registry in MLflow: what a run of the pipeline hands in, who is champion of each bucket, its files on disk."""

import hashlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from btcai import champions, paths, recording, versions
from btcai.champions import Standing
from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.recording import Judged, Submission, model_name
from btcai.schema import BUCKETS

logger = logging.getLogger(__name__)

STORE = Path("mlflow/mlflow.db")
ARTIFACTS = Path("mlflow/artifacts")


def store_uri(root: Path) -> str:
    """Where runs and models are recorded: one SQLite file in the project."""
    return f"sqlite:///{(root / STORE).resolve()}"


def register(root: Path, config: Config, judged: Mapping[str, Judged]) -> dict[str, Any]:
    """Record the candidates under `root`, promote those that win, write reports/register.json; returns its content.

    Idempotent by input_hash: the same inputs make no new run, version or ledger line. The promotion rule is asked every
    time, so going back to an earlier market, or to earlier costs or spans, brings its champion back.
    """
    submission = _submission(root, config, judged)
    client = _client(root)
    parent = recording.recorded(client, submission.input_hash) or recording.record(client, submission)
    report = {
        "input_hash": submission.input_hash,
        "data_version": submission.data_version,
        "code_version": submission.code_version,
        "judged_on": submission.judged_on,
        "parent_run_id": parent,
        "buckets": {bucket: _promote(client, submission, bucket) for bucket in BUCKETS},
    }
    trial = {key: value for key, value in report.items() if key != "buckets"} | {
        "recorded_unix_s": int(time.time()),
        "config": recording.flat(config.model_dump(mode="json")),
        "scores": {bucket: _or_none(judged[bucket].score) for bucket in BUCKETS},
    }
    champions.append_trial(root / paths.TRIALS, trial)
    (root / paths.REGISTER).parent.mkdir(parents=True, exist_ok=True)
    (root / paths.REGISTER).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return report


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _submission(root: Path, config: Config, judged: Mapping[str, Judged]) -> Submission:
    """Everything that makes this run what it is goes into input_hash: settings, bundles, verdicts, their terms."""
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode())
    made_from: dict[str, str] = {}
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
        made_from = json.loads(manifest.read_text(encoding="utf-8"))["versions"]
    terms = versions.judged_on(config, made_from["data"])
    digest.update(terms.encode())
    return Submission(
        root=root,
        config=config,
        judged=judged,
        data_version=made_from["data"],
        code_version=made_from["code"],
        judged_on=terms,
        input_hash=digest.hexdigest(),
    )


def _client(root: Path) -> Any:
    """A client of this project's own store; also points mlflow's global functions at it, which log_model needs."""
    import mlflow

    (root / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(store_uri(root))
    mlflow.set_registry_uri(store_uri(root))
    client = mlflow.MlflowClient()
    if client.get_experiment_by_name(recording.EXPERIMENT) is None:
        client.create_experiment(recording.EXPERIMENT, artifact_location=(root / ARTIFACTS).resolve().as_uri())
    return client


def _promote(client: Any, submission: Submission, bucket: str) -> dict[str, Any]:
    """Ask the rule, move the aliases, place the champion's files; returns what register.json says of the bucket."""
    name = model_name(bucket)
    candidate = recording.candidate(client, bucket, submission.input_hash)
    before = _champion(client, bucket)
    champion, reason = champions.promotion(candidate, before, recording.standings(client, bucket))
    client.set_registered_model_alias(name, "challenger", str(candidate.version))
    if champion is not None and champion != before:
        if before is not None:
            client.set_registered_model_alias(name, "previous", str(before.version))
        client.set_registered_model_alias(name, "champion", str(champion.version))
    if champion is not None:
        _place(champion, submission.root)
    promoted = candidate == champion != before
    logger.info("%s version %d %s: %s", name, candidate.version, "promoted" if promoted else "not promoted", reason)
    return {
        **asdict(candidate),
        "score": _or_none(candidate.score),
        "model": name,
        "aliases": {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()},
        "promoted": promoted,
        "reason": reason,
    }


def _champion(client: Any, bucket: str) -> Standing | None:
    name = model_name(bucket)
    if "champion" not in client.get_registered_model(name).aliases:
        return None
    return recording.standing(bucket, client.get_model_version_by_alias(name, "champion"))


def _place(champion: Standing, root: Path) -> None:
    """Bring models/champion/BUCKET in line with the registry, from the bundle kept in the champion's run."""
    import mlflow

    folder = root / paths.CHAMPION / champion.bucket
    if champions.is_placed(champion, folder):
        return
    with tempfile.TemporaryDirectory() as scratch:
        bundle = mlflow.artifacts.download_artifacts(run_id=champion.run_id, artifact_path="bundle", dst_path=scratch)
        champions.place_champion(Path(bundle), champion, folder)
