"""Secrets: the environment first, then the keyring; a keyring that is away holds nothing; values are never shown."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import KeyringLocked, PasswordDeleteError
from typer.testing import CliRunner

from btcai import redaction, secrets
from btcai.commands.secrets import app
from btcai.errors import ConfigError
from btcai.params import load_config

ROOT = Path(__file__).resolve().parents[2]


class Kept(KeyringBackend):
    """A keyring in memory."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.held:
            raise PasswordDeleteError(username)
        del self.held[service, username]


class Locked(Kept):
    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked("the keyring is\nlocked")


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in secrets.KNOWN:
        monkeypatch.delenv(secrets.variable(name), raising=False)
    before = set(redaction._values)
    yield
    redaction._values.intersection_update(before)


def use(backend: KeyringBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", backend)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    backend = Kept()
    use(backend, monkeypatch)
    return backend


def test_the_environment_goes_before_the_keyring(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.held["btcai", "SERVE_TOKEN"] = "from the keyring"
    assert (secrets.secret("SERVE_TOKEN"), secrets.source("SERVE_TOKEN")) == ("from the keyring", "keyring")
    monkeypatch.setenv("BTCAI_SERVE_TOKEN", "from outside")
    assert (secrets.secret("SERVE_TOKEN"), secrets.source("SERVE_TOKEN")) == ("from outside", "environment")


def test_a_variable_that_is_empty_means_none(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.held["btcai", "SERVE_TOKEN"] = "from the keyring"
    monkeypatch.setenv("BTCAI_SERVE_TOKEN", "")
    assert (secrets.secret("SERVE_TOKEN"), secrets.source("SERVE_TOKEN")) == (None, None)


def test_what_was_found_is_never_logged_from_then_on(kept: Kept) -> None:
    kept.held["btcai", "EXCHANGE_KEY"] = "k3y-of-mine"
    assert secrets.secret("EXCHANGE_KEY") == "k3y-of-mine"
    assert redaction.redact("sent k3y-of-mine") == "sent ***"


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (null.Keyring(), ""),
        (fail.Keyring(), "NoKeyringError: No recommended backend was available"),
        (Locked(), "KeyringLocked: the keyring is locked"),
    ],
)
def test_a_keyring_that_is_null_missing_or_locked_holds_nothing(
    backend: KeyringBackend, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(backend, monkeypatch)
    with caplog.at_level(logging.DEBUG, "btcai"):
        assert secrets.secret("NOTIFY_URL") is None
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (1 if said else 0)
    assert all(f"no secret from the system's keyring: {said}" in line for line in lines)


def test_without_the_keyring_library_there_is_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with caplog.at_level(logging.DEBUG, "btcai"):
        assert secrets.secret("NOTIFY_URL") is None
    assert "no secret from the system's keyring: ModuleNotFoundError" in caplog.text
    monkeypatch.setenv("BTCAI_NOTIFY_URL", "json://127.0.0.1/hook")
    assert secrets.secret("NOTIFY_URL") == "json://127.0.0.1/hook"
    with pytest.raises(ConfigError, match="set BTCAI_NOTIFY_URL instead"):
        secrets.store("NOTIFY_URL", "json://127.0.0.1/hook")


@pytest.mark.parametrize(
    "name", ["PASSWORD", "REMOTE_SECRET_ACCESS_KEY", "remote_a_password", "REMOTE_A__PASSWORD", ""]
)
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be one of EXCHANGE_KEY, .* or like REMOTE_NAME_SECRET_ACCESS_KEY"):
        secrets.secret(name)


def test_secrets_of_remotes_are_known_by_their_pattern(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTCAI_REMOTE_COLD_STORE_SECRET_ACCESS_KEY", "abcdef/123")
    monkeypatch.setenv("BTCAI_REMOTE_OTHER", "no secret")
    assert secrets.secret("REMOTE_COLD_STORE_SECRET_ACCESS_KEY") == "abcdef/123"
    assert "REMOTE_COLD_STORE_SECRET_ACCESS_KEY" in secrets.names()
    assert "REMOTE_OTHER" not in secrets.names()


def test_set_from_a_pipe_list_and_forget_show_no_value(kept: Kept) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["set", "SMTP_PASSWORD"], input="pa55word here\n")
    assert (done.exit_code, done.output) == (0, "SMTP_PASSWORD is in the keyring\n")
    assert kept.held == {("btcai", "SMTP_PASSWORD"): "pa55word here"}
    listed = runner.invoke(app, ["list"]).output
    assert [line for line in listed.splitlines() if "SMTP_PASSWORD" in line and "keyring" in line]
    assert "pa55word" not in listed
    assert all(name in listed for name in secrets.KNOWN)
    assert runner.invoke(app, ["forget", "SMTP_PASSWORD"]).output == "SMTP_PASSWORD is no longer in the keyring\n"
    assert kept.held == {}
    assert runner.invoke(app, ["forget", "SMTP_PASSWORD"]).output == "SMTP_PASSWORD was not in the keyring\n"


def test_at_a_terminal_the_value_is_asked_for_without_showing_it(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object, object]] = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def prompt(text: str, *, hide_input: bool, confirmation_prompt: bool) -> str:
        asked.append((text, hide_input, confirmation_prompt))
        return "typed-in"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("typer.prompt", prompt)
    app(["set", "SERVE_TOKEN"], standalone_mode=False)
    assert asked == [("SERVE_TOKEN (not shown)", True, True)]
    assert kept.held == {("btcai", "SERVE_TOKEN"): "typed-in"}


def test_forget_says_where_a_variable_still_sets_it(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTCAI_SERVE_TOKEN", "from outside")
    said = CliRunner().invoke(app, ["forget", "SERVE_TOKEN"]).output
    assert said == "SERVE_TOKEN was not in the keyring\nBTCAI_SERVE_TOKEN still sets it\n"


@pytest.mark.parametrize("backend", [null.Keyring(), fail.Keyring(), Locked()])
def test_a_keyring_that_keeps_nothing_is_said_when_something_is_stored(
    backend: KeyringBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(backend, monkeypatch)
    with pytest.raises(ConfigError, match=r"keyring .*set BTCAI_SERVE_TOKEN instead") as raised:
        secrets.store("SERVE_TOKEN", "t0ken-value")
    assert "t0ken-value" not in str(raised.value)


def test_a_secret_too_short_to_be_hidden_is_refused(kept: Kept) -> None:
    with pytest.raises(ConfigError, match="must have at least 6 characters, had 5") as raised:
        secrets.store("SERVE_TOKEN", "12a45")
    assert "12a45" not in str(raised.value)
    assert kept.held == {}


def test_importing_does_not_import_keyring() -> None:
    code = "import sys; from btcai import secrets; secrets.names(); sys.exit('keyring' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("logs: {smtp_password: hunter2-secret}", "logs.smtp_password"),
        ("exchange_api_key: hunter2-secret", "exchange_api_key"),
        ("data: {market: simulated, token: hunter2-secret}", "data.token"),
        ("extra: [{deep: {secret: hunter2-secret}}]", "extra.deep.secret"),
    ],
)
def test_a_secret_in_the_settings_is_refused_with_a_remedy_and_not_repeated(
    line: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    section = line.partition(":")[0]
    kept = [one for one in (ROOT / "params.yaml").read_text(encoding="utf-8").split("\n\n") if f"{section}:" not in one]
    path.write_text("\n\n".join(kept) + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="btcai secrets set NAME") as raised:
        load_config(path)
    assert f"found {name};" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_no_file_of_the_project_is_read_for_a_secret(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that other tools read secrets from, in the folder where a command runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("BTCAI_SERVE_TOKEN=from a file\n", encoding="utf-8")
    (tmp_path / "secrets.json").write_text(json.dumps({"SERVE_TOKEN": "from a file"}), encoding="utf-8")
    assert secrets.secret("SERVE_TOKEN") is None
