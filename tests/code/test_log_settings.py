"""The section `logs` of params.yaml: what it sets, and what it refuses."""

import json
import logging
from pathlib import Path

import pytest

from btcai.config import Config
from btcai.errors import ConfigError
from btcai.logs import handlers
from btcai.logs.settings import LogSettings
from btcai.params import flat, load_config

logger = logging.getLogger("btcai.somewhere")


def json_records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "btcai.jsonl").read_text(encoding="utf-8").splitlines()]


def test_files_may_hold_more_than_the_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers.setup(None, tmp_path, LogSettings(level="WARNING", file_level="DEBUG"))
    logger.debug("detail")
    logger.warning("look")
    assert [record["message"] for record in json_records(tmp_path)] == ["detail", "look"]
    assert capsys.readouterr().err.count("\n") == 1


def test_settings_come_from_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTCAI_LOG_LEVEL", raising=False)
    (tmp_path / "params.yaml").write_text("seed: 7\nlogs: {level: ERROR, json_lines: false}\n", encoding="utf-8")
    handlers.setup_project(tmp_path)
    logger.warning("hidden")
    logger.error("shown")
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["btcai.log"]
    assert (tmp_path / "logs" / "btcai.log").read_text(encoding="utf-8").count("\n") == 1
    handlers.setup_project(tmp_path, "debug")
    assert logging.getLogger("btcai").level == logging.DEBUG


def test_outside_a_project_there_is_a_console_alone(tmp_path: Path) -> None:
    handlers.setup_project(tmp_path, "INFO")
    logger.info("console only")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ("{level: LOUD}", "level must be one of DEBUG, INFO, .* was 'LOUD'"),
        ("{rotate: yearly}", "rotate must be one of size, daily, weekly, monthly, was 'yearly'"),
        ("{max_mb: 0}", "max_mb must be above 0 where rotate is size"),
        ("{keep: -1}", "keep must be a number from 0 to 10000, was -1"),
        ("{keep: true}", "keep must be a number from 0 to 10000, was True"),
        ("{compress: 1}", "compress must be true or false, was 1"),
        ("{speed: 3}", "must hold compress, .* alone, was speed"),
        ("{email_to: [nobody]}", "email_to must be a list of addresses"),
        ("{email_to: [a@b.org]}", "smtp_host must be the name of a mail server"),
        ("{email_to: [a@b.org], smtp_host: 'u:p@mail'}", "smtp_host must be the name of a mail server"),
        ("{email_to: [a@b.org], smtp_host: mail, smtp_user: u, smtp_security: none}", "a password is sent"),
        ("[1]", "must be a section"),
    ],
)
def test_a_setting_that_breaks_a_rule_is_named(section: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"logs: {section}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"params.yaml: logs: .*{rule}.*docs/logging.md"):
        handlers.read_settings(path)


def test_broken_yaml_is_left_to_who_needs_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: [", encoding="utf-8")
    assert handlers.read_settings(path) == LogSettings()


def test_the_shipped_section_is_the_defaults(root: Path) -> None:
    assert handlers.read_settings(root / "params.yaml") == load_config(root / "params.yaml").logs == LogSettings()


def test_both_readers_of_the_settings_find_the_same(root: Path, tmp_path: Path) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    other = text.replace("rotate: size", "rotate: weekly").replace("email_to: []", "email_to: [ann@example.org]")
    path = tmp_path / "params.yaml"
    path.write_text(other.replace('smtp_host: ""', "smtp_host: mail.example.org"), encoding="utf-8")
    found = load_config(path).logs
    assert (found.rotate, found.email_to, found.smtp_host) == ("weekly", ("ann@example.org",), "mail.example.org")
    assert handlers.read_settings(path) == found


def test_settings_written_before_there_was_such_a_section_are_valid(root: Path) -> None:
    config = load_config(root / "params.yaml")
    assert Config.model_validate(config.model_dump()) == config


def test_how_it_is_logged_is_no_part_of_what_was_trained(root: Path) -> None:
    config = load_config(root / "params.yaml")
    louder = config.model_copy(update={"logs": LogSettings(level="DEBUG")})
    assert louder.model_dump() == config.model_dump()
    assert not [name for name in flat(louder) if name.startswith("logs")]
