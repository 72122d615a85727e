"""Notices reach people by webhook and by mail, are always in the log, and never hang or end a run."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from webhook import webhook

from btcai import redaction
from btcai.operation import notices
from btcai.operation.notices import notify

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise imports it


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTCAI_NOTIFY_URL", "")


@contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    """A port that speaks as much SMTP as one mail takes, and the lines that came."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb") as stream:
                answers = {"DATA": b"354 go on", ".": b"250 taken", "QUIT": b"221 bye"}
                in_text = False
                stream.write(b"220 hello\r\n")
                stream.flush()
                for raw in stream:
                    line = raw.decode().rstrip("\r\n")
                    came.append(line)
                    if in_text and line != ".":
                        continue
                    in_text = line.upper() == "DATA"
                    stream.write(answers.get(line.upper(), b"250 ok") + b"\r\n")
                    stream.flush()

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1], came


def test_without_an_address_a_notice_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert notify("failed", "btcai-refresh failed", "stage evaluate failed:\n  sum must be 2") is True
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "notice, failed: btcai-refresh failed: stage evaluate failed: sum must be 2"


def test_a_webhook_gets_title_body_and_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook() as (first, posted), webhook() as (second, posted_too):
        monkeypatch.setenv("BTCAI_NOTIFY_URL", f"{first}, {second}")
        assert notify("champion", "new champion: short", "short: version 3") is True
    assert posted == posted_too
    (message,) = posted
    assert (message["title"], message["message"], message["type"]) == (
        "btcai: new champion: short",
        "short: version 3",
        "success",
    )


def test_a_mail_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server() as (port, came):
        monkeypatch.setenv("BTCAI_NOTIFY_URL", f"mailto://127.0.0.1:{port}?from=btcai@example.com&to=me@example.com")
        assert notify("no data", "no new bars of btcusdt for 30 h", "try: btcai data update") is True
    assert any(line.upper().startswith("RCPT TO:<ME@EXAMPLE.COM>") for line in came)
    assert any("no new bars of btcusdt for 30 h" in line for line in came)


@pytest.mark.parametrize("address", ["not an address", "json://127.0.0.1:1", "nosuchservice://x"])
def test_an_address_that_takes_nothing_is_told_in_the_log_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    monkeypatch.setenv("BTCAI_NOTIFY_URL", address)
    assert notify("drift", "the newest bars have drifted", "mean distance") is False
    assert "was not taken by every address of NOTIFY_URL: refused or not reached" in caplog.text


def test_a_refusal_is_not_taken_for_a_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook(500) as (address, posted):
        monkeypatch.setenv("BTCAI_NOTIFY_URL", address)
        assert notify("failed", "x", "y") is False
    assert len(posted) == 1


def test_a_server_that_never_answers_holds_a_run_up_for_the_limit_at_most(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices, "LIMIT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("BTCAI_NOTIFY_URL", f"json://127.0.0.1:{silent.getsockname()[1]}")
        assert notify("failed", "x", "y") is False
    assert "was not taken by every address of NOTIFY_URL: no answer in 0 s" in caplog.text


def test_a_plugin_that_raises_ends_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import apprise

    def broken(*_: object, **__: object) -> bool:
        raise RuntimeError("a plugin's own fault")

    monkeypatch.setattr(apprise.Apprise, "notify", broken)
    monkeypatch.setenv("BTCAI_NOTIFY_URL", "json://127.0.0.1:1")
    assert notify("failed", "x", "y") is False
    assert "a plugin's own fault" in caplog.text


def test_no_secret_leaves_by_a_notice_or_by_what_a_plugin_logs_of_an_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redaction, "_values", set(redaction._values))
    monkeypatch.setattr(redaction, "_known", redaction._known)
    with webhook() as (address, posted):
        monkeypatch.setenv("BTCAI_NOTIFY_URL", f"{address}, slack://TokenAAAA/x")
        assert notify("failed", "run of apiKey=AbC123 failed", "GET https://ann:pa55word@host") is False
    assert redaction.redact("Could not load Slack URL: slack://TokenAAAA/x") == "Could not load Slack URL: ***"
    (message,) = posted
    assert message["title"] == "btcai: run of apiKey=*** failed"
    assert message["message"] == "GET https://***@host"
    assert "AbC123" not in caplog.text
