"""Prefect, MLflow, warnings and ours in one stream: each line once, and Prefect's own pages have theirs still."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

STORY = """
import json, logging, os, sys, warnings
from pathlib import Path

root = Path(sys.argv[1])
from btcai.logs import fields, handlers
handlers.setup_project(root)
from flows import settings
settings.apply(root)
from prefect import flow, get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.logging.handlers import APILogHandler, APILogWorker
from flows.pipeline import start_server

handed, emit = [], APILogHandler.emit
APILogHandler.emit = lambda self, record: (handed.append(self.format(record)), emit(self, record))[1]

@task
def stage():
    with fields.context(stage="features"):
        get_run_logger().info("from the task, %s", os.environ["SOME_TOKEN"])
        logging.getLogger("btcai.stages").info("from a stage")

@flow
def story():
    get_run_logger().warning("from the flow")
    get_run_logger().info("handed on", extra=handlers.RELAYED)
    logging.getLogger("flows.pipeline").info("from flows")
    warnings.warn("from warnings", stacklevel=1)
    stage()

start_server()
story()
APILogWorker.drain_all()
with get_client(sync_client=True) as client:
    print(json.dumps([handed, [log.message for log in client.read_logs()]]))

import mlflow
assert not logging.getLogger("mlflow").handlers
logging.getLogger("mlflow.tracking").info("from mlflow")
logging.getLogger("mlflow.tracking").warning("mlflow warns")
"""


@pytest.mark.slow
def test_prefect_mlflow_and_warnings_are_in_one_stream_once(tmp_path: Path, root: Path) -> None:
    (tmp_path / "params.yaml").write_text("logs: {level: INFO}\n", encoding="utf-8")
    script = tmp_path / "story.py"
    script.write_text(STORY, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(root), "SOME_TOKEN": "tok-en-value"}
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "logs" / "btcai.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    messages = Counter(record["message"] for record in records)
    expected = ["from the task, ***", "from a stage", "from the flow", "from flows", "from mlflow", "mlflow warns"]
    assert {message: messages[message] for message in expected} == dict.fromkeys(expected, 1)
    assert sum("UserWarning: from warnings" in message for message in messages) == 1
    assert messages["handed on"] == 0  # the child that said it has written it itself
    (by_task,) = [record for record in records if record["message"] == "from the task, ***"]
    assert (by_task["logger"], by_task["stage"]) == ("prefect.task_runs", "features")
    assert by_task["task_run_name"].startswith("stage")
    assert len({record["run"] for record in records}) == 1
    assert {record["logger"].partition(".")[0] for record in records} >= {"prefect", "mlflow", "py", "btcai", "flows"}

    handed, on_prefects_pages = json.loads(done.stdout.splitlines()[-1])
    for message in ("from the task, ***", "from the flow", "handed on"):
        assert handed.count(message) == 1
        assert message in on_prefects_pages  # its client sends twice what the server was slow to take

    console = done.stderr
    for message in ("from a stage", "from the flow", "from flows", "mlflow warns", "UserWarning: from warnings"):
        assert console.count(message) == 1, message
    assert "from mlflow" not in console  # of libraries the console shows what warns
    assert "tok-en-value" not in console + "".join(lines) + done.stdout
