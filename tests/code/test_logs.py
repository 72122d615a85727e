"""handlers.setup: levels, files, JSON lines, context, one stream for libraries, and that nothing doubles."""

import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from btcai.errors import ConfigError
from btcai.logs import fields, handlers
from btcai.logs.settings import LogSettings

logger = logging.getLogger("btcai.somewhere")


def json_records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "btcai.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_record_reaches_console_file_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers.setup("INFO", tmp_path)
    logger.info("trained %d updates", 24)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("Z INFO     btcai.somewhere: trained 24 updates\n")
    line = (tmp_path / "btcai.log").read_text(encoding="utf-8")
    place = r"btcai\.somewhere\.test_a_record_reaches_console_file_and_json:\d+ \[pid \d+, run \S+\]"
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT[\d:]{{8}}\.\d{{3}}Z INFO     {place}: trained 24 updates\n", line)
    (record,) = json_records(tmp_path)
    about = ["function", "line", "process", "thread", "elapsed_ms", "run"]
    assert list(record) == ["ts", "level", "logger", "message", *about]
    assert (record["message"], record["process"]) == ("trained 24 updates", os.getpid())
    assert (record["function"], record["thread"]) == ("test_a_record_reaches_console_file_and_json", "MainThread")


def test_the_documented_count_of_records_works_before_any_stage_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "logging.md").read_text(encoding="utf-8")
    (snippet,) = (part for part in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "read_json" in part)
    monkeypatch.chdir(tmp_path)
    handlers.setup("INFO", tmp_path / "logs")
    logger.info("no stage")
    exec(snippet, {})
    assert re.search(r"NaN +INFO +1\n", capsys.readouterr().out)
    with fields.context(stage="features"):
        logger.info("of a stage")
    exec(snippet, {})
    assert re.search(r"features +INFO +1\n", capsys.readouterr().out)


def test_level_hides_what_is_below_it(tmp_path: Path) -> None:
    handlers.setup("warning", tmp_path)
    logger.info("hidden")
    logger.warning("shown")
    assert [record["message"] for record in json_records(tmp_path)] == ["shown"]


def test_level_comes_from_the_environment_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTCAI_LOG_LEVEL", "ERROR")
    handlers.setup()
    assert logging.getLogger("btcai").level == logging.ERROR
    handlers.setup("DEBUG")
    assert logging.getLogger("btcai").level == logging.DEBUG
    monkeypatch.delenv("BTCAI_LOG_LEVEL")
    handlers.setup()
    assert logging.getLogger("btcai").level == logging.INFO


def test_unknown_level_is_refused_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"one of DEBUG, INFO, .* was 'LOUD'; mend --log-level"):
        handlers.setup("LOUD")
    monkeypatch.setenv("BTCAI_LOG_LEVEL", "quiet")
    with pytest.raises(ConfigError, match="was 'quiet'; mend BTCAI_LOG_LEVEL"):
        handlers.setup()


def test_setup_twice_writes_each_record_once(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    handlers.setup("INFO", tmp_path)
    logger.info("once")
    logging.getLogger("flows.pipeline").info("from a flow")
    assert [record["message"] for record in json_records(tmp_path)] == ["once", "from a flow"]
    assert len(logging.getLogger("btcai").handlers) == 3


def test_json_holds_extras_and_an_exception_in_one_line(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    try:
        raise ValueError("line one\nline two")
    except ValueError:
        logger.exception("failed", extra={"bucket": "short", "loss": float("nan"), "steps": [1, 2], "where": Path("x")})
    (record,) = json_records(tmp_path)
    assert (record["level"], record["bucket"], record["loss"]) == ("ERROR", "short", "nan")
    assert (record["steps"], record["where"]) == ([1, 2], "x")
    assert str(record["exception"]).endswith("ValueError: line one\nline two")


def test_extra_never_replaces_a_standard_field(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    logger.info("kept", extra={"level": "mine", "logger": "mine"})
    (record,) = json_records(tmp_path)
    assert (record["level"], record["logger"]) == ("INFO", "btcai.somewhere")


def test_times_are_utc_whatever_the_zone(tmp_path: Path) -> None:
    code = (
        "import logging, pathlib, sys; from btcai.logs.handlers import setup; setup('INFO', pathlib.Path(sys.argv[1]));"
        "r = logging.makeLogRecord({'name': 'btcai', 'levelno': 20, 'levelname': 'INFO', 'msg': 'm'});"
        "r.created, r.msecs = 86400.25, 250.0; logging.getLogger('btcai').handle(r)"
    )
    environment = {**os.environ, "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, capture_output=True)
    assert json_records(tmp_path)[0]["ts"] == "1970-01-02T00:00:00.250Z"
    assert (tmp_path / "btcai.log").read_text(encoding="utf-8").startswith("1970-01-02T00:00:00.250Z INFO")


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    handlers.setup("INFO")
    logger.info("console only")
    assert list(tmp_path.iterdir()) == []


def test_json_lines_may_be_left_out(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path, LogSettings(json_lines=False))
    logger.info("plain")
    assert [path.name for path in tmp_path.iterdir()] == ["btcai.log"]


def test_folder_that_is_a_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    taken = tmp_path / "logs"
    taken.touch()
    with pytest.raises(ConfigError, match=r"logs must be writable, was .*give another folder"):
        handlers.setup("INFO", taken)
    assert not logging.getLogger("btcai").handlers


def test_importing_leaves_what_takes_long_alone() -> None:
    code = "import sys; from btcai.logs import handlers; sys.exit('rich' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_full_disk_is_said_once_and_lines_follow_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers.setup("INFO", tmp_path, LogSettings(json_lines=False))

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        logger.info("one")
        logger.info("two")
    logger.info("three")
    shown = capsys.readouterr().err
    assert shown.count("btcai.log takes no more lines: [Errno 28] No space left on device") == 1
    assert shown.count("btcai.log takes lines again; 2 are missing") == 1
    assert "Traceback" not in shown
    assert (tmp_path / "btcai.log").read_text(encoding="utf-8").endswith(": three\n")


def test_half_a_line_is_taken_back_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers.setup("INFO", tmp_path, LogSettings(json_lines=False))
    logger.info("whole")
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
        logger.info("torn")
    logger.info("whole again")
    lines = (tmp_path / "btcai.log").read_text(encoding="utf-8").splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["whole", "whole again"]


def test_a_stack_shows_lines_around_and_names_of_locals_but_no_values(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    try:
        try:
            handlers.setup("LOUD" if (hidden_value := "v4lu3") else hidden_value)
        except ConfigError as error:
            raise RuntimeError("no logs") from error
    except RuntimeError:
        logger.exception("failed")
    (record,) = json_records(tmp_path)
    stack = record["stack"]
    assert isinstance(stack, list)
    assert [(part["cause"], part["error"]) for part in stack] == [
        (0, "RuntimeError"), (1, "ConfigError"), (1, "ConfigError"), (1, "ConfigError"),
    ]  # fmt: skip
    last = stack[-1]
    assert (last["file"].endswith("btcai/logs/handlers.py"), last["function"]) == (True, "_checked_levels")
    assert last["source"].startswith("raise ConfigError(")
    assert last["source"] in {line.strip() for line in last["around"]}
    assert len(last["around"]) == 7
    assert {"level", "settings", "asked", "source"} <= set(last["locals"])
    assert "around" not in stack[0]  # the test's own frame is not of the project's packages
    assert str(record["exception"]).count("Traceback") == 2


def test_a_stack_asked_for_without_an_exception_is_written(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    logger.info("here", stack_info=True)
    (record,) = json_records(tmp_path)
    assert "test_a_stack_asked_for" in str(record["called_from"])


def test_a_message_that_does_not_fit_its_arguments_is_logged_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers.setup("INFO", tmp_path)
    logger.info("%d of %d", 1)
    (record,) = json_records(tmp_path)
    assert str(record["message"]).startswith("%d of %d % (1,) (TypeError: ")
    assert "Traceback" not in capsys.readouterr().err


def test_warnings_are_logged_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers.setup("INFO", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)  # catch_warnings has put back what setup replaced
        warnings.warn("old name", DeprecationWarning, stacklevel=1)
    (record,) = json_records(tmp_path)
    assert (record["logger"], record["level"]) == ("py.warnings", "WARNING")
    assert "DeprecationWarning: old name" in str(record["message"])
    assert capsys.readouterr().err.count("DeprecationWarning: old name") == 1


def test_libraries_are_in_the_files_and_on_the_console_where_they_warn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers.setup("INFO", tmp_path)
    logging.getLogger("mlflow.tracking").info("created")
    logging.getLogger("somelibrary").info("chatter")
    logging.getLogger("somelibrary").warning("odd")
    assert [record["message"] for record in json_records(tmp_path)] == ["created", "odd"]
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()] == ["odd"]


def test_a_library_with_a_console_of_its_own_prints_each_line_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(theirs)
    handlers.setup("INFO", tmp_path)
    logging.getLogger("somelibrary").warning("odd")
    logger.warning("ours")
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()] == ["odd", "ours"]
    assert len(json_records(tmp_path)) == 2


def test_a_childs_line_that_is_handed_on_is_not_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers.setup("INFO", tmp_path)
    logging.getLogger("flows.pipeline").info("said by the child", extra=dict(handlers.RELAYED))
    logging.getLogger("prefect.task_runs").warning("for the page", extra=dict(handlers.RELAYED))
    assert json_records(tmp_path) == []
    said = capsys.readouterr().err
    assert "said by the child" in said
    assert "for the page" not in said


def test_files_go_on_after_logging_is_configured_by_another(tmp_path: Path) -> None:
    """dictConfig, which Prefect calls as it is imported, closes every handler there is."""
    import logging.config

    handlers.setup("INFO", tmp_path)
    logger.info("before")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    logger.info("after")
    assert [record["message"] for record in json_records(tmp_path)] == ["before", "after"]


def test_an_uncaught_exception_of_a_thread_is_critical(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    thread = threading.Thread(target=lambda: [][1], name="feed")
    thread.start()
    thread.join()
    (record,) = json_records(tmp_path)
    assert (record["level"], record["message"]) == ("CRITICAL", "uncaught IndexError in feed")
    assert record["stack"]


def test_an_uncaught_exception_is_critical_and_printed_once(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from btcai.logs import handlers; handlers.setup('INFO', pathlib.Path(sys.argv[1]));"
        "raise RuntimeError('nobody caught it')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: nobody caught it") == 1
    (record,) = json_records(tmp_path)
    assert (record["level"], record["message"]) == ("CRITICAL", "uncaught RuntimeError")
