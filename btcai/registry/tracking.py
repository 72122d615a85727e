"""The registry in MLflow: what a run of the pipeline hands in, who is champion of each bucket, its files on disk."""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from btcai import paths
from btcai.config import Config
from btcai.environment import QUIET
from btcai.errors import ArtifactError
from btcai.params import flat
from btcai.records import champions, lineage, promotions, versions
from btcai.records.champions import Standing
from btcai.records.trials import append_trial
from btcai.registry import place, recording, succession
from btcai.registry.recording import model_name
from btcai.registry.submission import History, Judged, Submission
from btcai.schema import BUCKETS

logger = logging.getLogger(__name__)

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Of each request to a server that is away: four tries of 20 s, with waits between them 105 s in all. One that falls
silent in the middle costs up to five of that, since MLflow goes on to close a model and a run, or to look for a bundle
in other places. MLflow's own are eight tries of 120 s."""


@contextmanager
def store_errors() -> Iterator[None]:
    """ArtifactError, in one line, where the store fails: a full disk, a damaged or locked database, a server away."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if isinstance(error, OSError) and not place.is_away(error):
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "sqlite3" in line), lines[0])  # SQLAlchemy wraps it in advice
        mend = "see that the server runs and has room" if place.server() else "free the disk or mend the store"
        raise ArtifactError(
            f"the registry in {place.shown()} could not be read or written: {reason}; {mend}, "
            "then go on with: btcai run"
        ) from error


@store_errors()
def register(
    root: Path, config: Config, judged: Mapping[str, Judged], history: History, results: str
) -> dict[str, Any]:
    """Record the candidates under `root`, promote those that win, write reports/register.json; returns its content.

    `results` describes the run on MLflow's page, markdown. Idempotent by input_hash: the same inputs make no new run,
    version or ledger line, and the same report. The promotion rule is asked every time, so going back to an earlier
    market, or to earlier costs or spans, brings its champion back.
    """
    submission = _submission(root, config, judged, history, results)
    with succession.alone(root):
        return _register(submission)


def _register(submission: Submission) -> dict[str, Any]:
    root, judged, client = submission.root, submission.judged, _client(submission.root)
    parent = recording.recorded(client, submission.input_hash) or recording.record(client, submission)
    report = {
        "input_hash": submission.input_hash,
        "data_version": submission.history.data_version,
        "code_version": submission.code_version,
        "judged_on": submission.judged_on,
        "parent_run_id": parent,
        "page": f"#/experiments/{client.get_run(parent).info.experiment_id}/runs/{parent}",
        "buckets": {bucket: _promote(client, submission, bucket) for bucket in BUCKETS},
    }
    trial = {key: value for key, value in report.items() if key not in ("buckets", "page")} | {
        "recorded_unix_s": int(time.time()),
        "market": submission.history.market,
        "tested_ts_ns": submission.history.tested_ts_ns,
        "config": flat(submission.config),
        "scores": {bucket: _or_none(judged[bucket].score) for bucket in BUCKETS},
        "sharpes": {bucket: _or_none(judged[bucket].metrics.get("sharpe", math.nan)) for bucket in BUCKETS},
    }
    append_trial(root / paths.TRIALS, trial)
    _write(root / paths.REGISTER, report)
    _write(root / paths.REGISTERED, {"input_hash": submission.input_hash})
    return report


def _write(path: Path, record: Mapping[str, Any]) -> None:
    """JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _submission(root: Path, config: Config, judged: Mapping[str, Judged], history: History, results: str) -> Submission:
    """Everything that makes this run what it is goes into input_hash: settings, bundles, what was learned for them,
    verdicts, their terms.

    Where it was made (the commit, the locks, the libraries) is on record but does not: another commit of the same
    bundles is the same run.
    """
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
        for file in sorted((root / paths.REFLECTION / bucket).glob("*")):
            digest.update(file.read_bytes())
        digest.update(f"{judged[bucket].score!r} {judged[bucket].edge}".encode())
        made_from = json.loads(manifest.read_text(encoding="utf-8"))["versions"]
        if made_from["data"] != history.data_version:
            raise ArtifactError(
                f"a bundle must be of the bars in {paths.FEATURES}, {bucket}'s was made from others "
                f"({made_from['data'][:12]}, not {history.data_version[:12]}); make it again with: btcai run"
            )
    terms = versions.judged_on(config, history.data_version)
    digest.update(terms.encode())
    return Submission(
        root=root,
        config=config,
        judged=judged,
        history=history,
        results=results,
        code_version=made_from["code"],
        judged_on=terms,
        input_hash=digest.hexdigest(),
        lineage=lineage.tags(root),
    )


def read_client(root: Path) -> Any:
    """A client to read the store with; ArtifactError where this clone never recorded anything there."""
    if place.server() is None and not (root / paths.MLFLOW_DB).is_file():
        raise ArtifactError(f"no registry yet ({paths.MLFLOW_DB} is missing); make one with: btcai run")
    client = _connected(root)
    if place.server() is not None and not _is_ours(client, root):
        raise ArtifactError(
            f"no registry yet ({place.shown()} has no experiment {place.name()}); make one with: "
            "btcai stage register, after btcai run"
        )
    return client


def _connected(root: Path) -> Any:
    """A client of the store; also points mlflow's global functions at it, which log_model needs."""
    import mlflow

    os.environ.update(QUIET)
    if place.server() is not None:
        for variable, value in PATIENCE.items():
            os.environ.setdefault(variable, value)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # store_errors says it in one line
    mlflow.set_tracking_uri(place.uri(root))
    mlflow.set_registry_uri(place.uri(root))
    return mlflow.MlflowClient()


def _client(root: Path) -> Any:
    """A client to write with: the store and the experiment are made where they are missing."""
    if place.server() is not None:
        client = _connected(root)
        if not _is_ours(client, root):
            client.create_experiment(place.name(), tags={place.CLONE_TAG: place.clone(root)})
        return client
    (root / place.ARTIFACTS).mkdir(parents=True, exist_ok=True)
    client = _connected(root)
    if client.get_experiment_by_name(place.OWN) is None:
        client.create_experiment(place.OWN, artifact_location=(root / place.ARTIFACTS).resolve().as_uri())
    return client


def _is_ours(client: Any, root: Path) -> bool:
    """Whether the server has this clone's experiment; ArtifactError where one of its name is another clone's.

    Two clones of one name would judge their versions beside each other's and take each other's champions.
    """
    experiment = client.get_experiment_by_name(place.name())
    if experiment is None:
        return False
    owner, me = experiment.tags.get(place.CLONE_TAG, "somebody else"), place.clone(root)
    if owner != me:
        raise ArtifactError(
            f"the experiment {place.name()} on {place.shown()} must be this clone's ({me}), is that of {owner}: their "
            f"champions would change places; choose a name of your own: export {place.NAME}=NAME. Where it is this "
            f"clone, whose {place.CLONE} was lost, write that line there"
        )
    return True


def _promote(client: Any, submission: Submission, bucket: str) -> dict[str, Any]:
    """Ask the rule, make its choice champion unless one is held by hand; returns what register.json says of it."""
    name, root = model_name(bucket), submission.root
    candidate = recording.candidate(client, bucket, submission.input_hash)
    succession.mend(client, root, bucket)
    held, before = succession.seats(client, bucket).pinned, succession.champion(client, bucket)
    chosen, reason = succession.rule(client, bucket, candidate, before)
    champion = chosen if held is None else succession.version(client, bucket, held)
    client.set_registered_model_alias(name, "challenger", str(candidate.version))
    if champion is not None:
        _install(client, root, champion, before, reason)
    if held is not None:
        reason += f"; {_held(root, bucket, held, chosen)}"
        logger.warning("%s: %s", name, reason)
    logger.info("%s version %d: %s; %s", name, candidate.version, reason, _change(before, champion))
    return {
        **asdict(candidate),
        "score": _or_none(candidate.score),
        "model": name,
        "aliases": {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()},
        "pinned": held,
        "reason": reason,
    }


def _install(client: Any, root: Path, champion: Standing, before: Standing | None, reason: str) -> None:
    """Bring models/champion/BUCKET and the aliases in line with the choice, where they are not."""
    if champion != before:
        succession.install(client, root, champion, kind="rule", because=reason, pin=None)
    elif not champions.is_placed(champion, root / paths.CHAMPION / champion.bucket):
        damaged = "its files were missing or damaged"
        succession.install(client, root, champion, kind="restore", because=damaged, pin=None)


def _held(root: Path, bucket: str, held: int, chosen: Standing | None) -> str:
    """What the rule may not undo, and how to let it."""
    change = promotions.pins(root / paths.PROMOTIONS).get(bucket)
    by = f" by {change.who} ({change.because})" if change else ""
    wanted = f", the rule would choose {chosen.version}" if chosen and chosen.version != held else ""
    return f"version {held} is held{by}{wanted}; release it with: btcai registry unpin {bucket} --because TEXT"


def _change(before: Standing | None, champion: Standing | None) -> str:
    """What became of the champion, for the log."""
    if champion is None:
        return "no champion yet"
    if before is None or before.version == champion.version:
        return f"champion is version {champion.version}"
    terms = " judged on other terms" if before.judged_on != champion.judged_on else ""
    return f"champion is version {champion.version} now, after version {before.version}{terms}"
