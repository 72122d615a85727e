"""logs.setup: levels, files, JSON lines, and that nothing doubles."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from btcai import logs
from btcai.errors import ConfigError

logger = logging.getLogger("btcai.somewhere")


def json_records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "btcai.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_record_reaches_console_file_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("INFO", tmp_path)
    logger.info("trained %d updates", 24)
    line = (tmp_path / "btcai.log").read_text(encoding="utf-8")
    assert line.endswith("Z INFO     btcai.somewhere: trained 24 updates\n")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == line
    (record,) = json_records(tmp_path)
    assert list(record) == ["ts", "level", "logger", "message"]
    assert record["message"] == "trained 24 updates"


def test_level_hides_what_is_below_it(tmp_path: Path) -> None:
    logs.setup("warning", tmp_path)
    logger.info("hidden")
    logger.warning("shown")
    assert [record["message"] for record in json_records(tmp_path)] == ["shown"]


def test_level_comes_from_the_environment_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTCAI_LOG_LEVEL", "ERROR")
    logs.setup()
    assert logging.getLogger("btcai").level == logging.ERROR
    logs.setup("DEBUG")
    assert logging.getLogger("btcai").level == logging.DEBUG
    monkeypatch.delenv("BTCAI_LOG_LEVEL")
    logs.setup()
    assert logging.getLogger("btcai").level == logging.INFO


def test_unknown_level_is_refused_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"one of DEBUG, INFO, .* was 'LOUD'; mend --log-level"):
        logs.setup("LOUD")
    monkeypatch.setenv("BTCAI_LOG_LEVEL", "quiet")
    with pytest.raises(ConfigError, match="was 'quiet'; mend BTCAI_LOG_LEVEL"):
        logs.setup()


def test_setup_twice_writes_each_record_once(tmp_path: Path) -> None:
    logs.setup("INFO", tmp_path)
    logs.setup("INFO", tmp_path)
    logger.info("once")
    logging.getLogger("flows.pipeline").info("from a flow")
    assert [record["message"] for record in json_records(tmp_path)] == ["once", "from a flow"]
    assert len(logging.getLogger("btcai").handlers) == 3


def test_json_holds_extras_and_an_exception_in_one_line(tmp_path: Path) -> None:
    logs.setup("INFO", tmp_path)
    try:
        raise ValueError("line one\nline two")
    except ValueError:
        logger.exception("failed", extra={"bucket": "short", "loss": float("nan"), "steps": [1, 2], "where": Path("x")})
    (record,) = json_records(tmp_path)
    assert (record["level"], record["bucket"], record["loss"]) == ("ERROR", "short", "nan")
    assert (record["steps"], record["where"]) == ([1, 2], "x")
    assert str(record["exception"]).endswith("ValueError: line one\nline two")


def test_extra_never_replaces_a_standard_field(tmp_path: Path) -> None:
    logs.setup("INFO", tmp_path)
    logger.info("kept", extra={"level": "mine", "logger": "mine"})
    (record,) = json_records(tmp_path)
    assert (record["level"], record["logger"]) == ("INFO", "btcai.somewhere")


def test_times_are_utc_whatever_the_zone(tmp_path: Path) -> None:
    code = (
        "import logging, pathlib, sys; from btcai import logs; logs.setup('INFO', pathlib.Path(sys.argv[1]));"
        "r = logging.makeLogRecord({'name': 'btcai', 'levelno': 20, 'levelname': 'INFO', 'msg': 'm'});"
        "r.created, r.msecs = 86400.25, 250.0; logging.getLogger('btcai').handle(r)"
    )
    environment = {**os.environ, "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, capture_output=True)
    assert json_records(tmp_path)[0]["ts"] == "1970-01-02T00:00:00.250Z"
    assert (tmp_path / "btcai.log").read_text(encoding="utf-8").startswith("1970-01-02T00:00:00.250Z INFO")


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logs.setup("INFO")
    logger.info("console only")
    assert list(tmp_path.iterdir()) == []


def test_json_lines_may_be_left_out(tmp_path: Path) -> None:
    logs.setup("INFO", tmp_path, json_lines=False)
    logger.info("plain")
    assert [path.name for path in tmp_path.iterdir()] == ["btcai.log"]


def test_processes_that_share_the_files_lose_and_mix_no_line(tmp_path: Path) -> None:
    """4 processes x 300 lines of 6 kB: 7.2 MB, more than a rotating file would hold."""
    code = (
        "import logging, pathlib, sys; from btcai import logs; logs.setup('INFO', pathlib.Path(sys.argv[1]))\n"
        "for number in range(300): logging.getLogger('btcai').info(f'{sys.argv[2]} {number} ' + 'x' * 6000)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen([*command, name], stderr=subprocess.DEVNULL) for name in "abcd"]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0, 0]
    expected = {f"{name} {number} {'x' * 6000}" for name in "abcd" for number in range(300)}
    messages = [str(record["message"]) for record in json_records(tmp_path)]
    assert (len(messages), set(messages)) == (1200, expected)
    lines = (tmp_path / "btcai.log").read_text(encoding="utf-8").splitlines()
    assert {line.partition("btcai: ")[2] for line in lines} == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["btcai.jsonl", "btcai.log"]


def test_folder_that_is_a_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    taken = tmp_path / "logs"
    taken.touch()
    with pytest.raises(ConfigError, match=r"logs must be writable, was .*give another folder"):
        logs.setup("INFO", taken)
    assert not logging.getLogger("btcai").handlers


def test_importing_is_quick_and_leaves_rich_alone() -> None:
    code = "import sys; from btcai import logs; sys.exit('rich' in sys.modules or 'numpy' in sys.modules)"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.monotonic() - started < 1.0


def test_a_full_disk_is_said_once_and_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.setup("INFO", tmp_path, json_lines=False)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    logger.info("one")
    logger.info("two")
    shown = capsys.readouterr().err
    assert shown.count("btcai.log takes no more lines: [Errno 28] No space left on device") == 1
    assert "Traceback" not in shown
