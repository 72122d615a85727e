"""What records are about: contexts in blocks, arguments, threads and child processes."""

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from btcai.environment import child_environment
from btcai.logs import fields, handlers

logger = logging.getLogger("btcai.somewhere")


def json_records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "btcai.jsonl").read_text(encoding="utf-8").splitlines()]


def test_context_is_in_each_line_and_ends_with_its_block(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    with fields.context(stage="train@short", bucket="short"):
        with fields.context(fold=3, bucket="medium"):
            logger.info("inner")
        logger.info("outer", extra={"bucket": "said by the record"})
    logger.info("after")
    inner, outer, after = json_records(tmp_path)
    assert (inner["stage"], inner["bucket"], inner["fold"]) == ("train@short", "medium", 3)
    assert (outer["stage"], outer["bucket"]) == ("train@short", "said by the record")
    assert "fold" not in outer
    assert "stage" not in after
    text = (tmp_path / "btcai.log").read_text(encoding="utf-8").splitlines()
    assert text[0].endswith(", stage train@short, bucket medium, fold 3]: inner")


def test_bound_takes_the_context_from_an_argument(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)

    @fields.bound(bucket="name")
    def trained(level: int, name: str = "long") -> int:
        logger.info("training")
        return level

    assert (trained(1, "short"), trained(level=2)) == (1, 2)
    assert [record.get("bucket") for record in json_records(tmp_path)] == ["short", None]


def test_workers_of_a_pool_have_the_main_threads_context_or_their_own(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)

    def work() -> None:
        logger.info("shared")
        with fields.context(bucket="own"):
            logger.info("own")

    with ThreadPoolExecutor(1, thread_name_prefix="shard") as pool, fields.context(bucket="main"):
        pool.submit(work).result()
    shared, own = json_records(tmp_path)
    assert (shared["bucket"], own["bucket"], shared["thread"]) == ("main", "own", "shard_0")
    assert ", thread shard_0, run " in (tmp_path / "btcai.log").read_text(encoding="utf-8")


def test_a_child_process_inherits_run_and_context(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    code = (
        "import logging, pathlib, sys; from btcai.logs.handlers import setup; setup('INFO', pathlib.Path(sys.argv[1]));"
        "logging.getLogger('btcai').info('child')"
    )
    with fields.context(stage="features", nothing=None):
        run = fields.current()["run"]
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=child_environment(), check=True, capture_output=True
        )
    (record,) = json_records(tmp_path)
    assert (record["run"], record["stage"]) == (run, "features")
    assert "nothing" not in record


@pytest.mark.parametrize("text", ["[1]", "no json", ""])
def test_a_context_that_is_not_ours_is_no_context(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fields.CONTEXT_VARIABLE, text)
    assert fields._inherited() == {}
