"""Mails about critical records, against a mail server of the test's own on the loopback."""

import base64
import logging
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email import message_from_string, policy
from pathlib import Path

import pytest

from btcai import redaction
from btcai.logs import fields, handlers
from btcai.logs.mail import MailHandler, _subject
from btcai.logs.settings import LogSettings

logger = logging.getLogger("btcai.somewhere")


class Server(socketserver.ThreadingTCPServer):
    """Takes mails, refuses them (`refuses`), or says nothing at all (`hangs`)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.mails: list[str] = []
        self.logins: list[str] = []
        self.refuses = self.hangs = False
        self.asked, self.released = threading.Event(), threading.Event()

    @property
    def texts(self) -> list[str]:
        parsed = [message_from_string(mail, policy=policy.default).get_content() for mail in self.mails]
        return [text.replace("\r\n", "\n") for text in parsed]


class Conversation(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.asked.set()
        if self.server.hangs:
            self.server.released.wait()
            return
        self.say("220 loopback")
        while line := self.rfile.readline().decode().strip():
            verb = line.split(" ")[0].upper()
            if verb == "EHLO":
                self.say("250-loopback", "250 AUTH PLAIN")
            elif verb == "AUTH":
                self.server.logins.append(base64.b64decode(line.split(" ")[2]).decode())
                self.say("235 welcome")
            elif verb == "DATA":
                self.take_mail()
            elif verb == "MAIL" and self.server.refuses:
                self.say("451 not now")
            else:
                self.say("221 bye" if verb == "QUIT" else "250 fine")

    def take_mail(self) -> None:
        self.say("354 go on")
        lines: list[str] = []
        while (line := self.rfile.readline().decode()) != ".\r\n":
            lines.append(line)
        self.server.mails.append("".join(lines))
        self.say("250 taken")

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def settings(server: Server) -> LogSettings:
    return LogSettings(
        email_to=("ann@example.org", "bob@example.org"),
        smtp_host="127.0.0.1",
        smtp_port=server.server_address[1],
        smtp_user="btcai",
        smtp_security="none",
    )


def critical(text: str, level: int = logging.CRITICAL) -> logging.LogRecord:
    return logging.LogRecord("btcai", level, "f", 1, text, (), None)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def test_a_critical_record_is_mailed_with_the_password_and_lesser_ones_are_not(
    server: Server, settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTCAI_SMTP_PASSWORD", "pa55word")
    handlers.setup("INFO", tmp_path, settings)
    logger.error("bad")
    with fields.context(bucket="short"):
        logger.critical("worse: pa55word\nsecond line")
    until(lambda: server.mails)
    (mail,) = [message_from_string(text, policy=policy.default) for text in server.mails]
    assert (mail["To"], mail["From"]) == ("ann@example.org, bob@example.org", "ann@example.org")
    assert mail["Subject"].startswith("btcai: critical: ")
    assert "bucket short]: worse: ***\nsecond line" in server.texts[0]
    assert "bad" not in server.texts[0]
    assert server.logins == ["\0btcai\0pa55word"]
    until(lambda: (tmp_path / "mail.waiting").stat().st_size == 0)
    redaction._values.discard("pa55word")


def test_records_of_a_minute_are_one_mail(
    server: Server, settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, due = MailHandler(tmp_path, settings, lambda: None), threading.Event()
    handler.handle(critical("first"))
    until(lambda: server.mails)
    monkeypatch.setattr(handler, "_wait_s", lambda: 0.0 if due.is_set() else 0.05)  # the minute is over when we say
    for number in range(5):
        handler.handle(critical(f"later {number}"))
    due.set()
    until(lambda: len(server.mails) > 1)
    handler.close()
    assert server.texts[0].split() == ["first"]
    assert server.texts[1].split("\n\n")[:5] == [f"later {number}" for number in range(5)]


def test_two_processes_share_the_minute_and_the_next_one_sends_the_rest(
    server: Server, settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btcai.logs.mail.EXIT_GRACE_S", 60.0)
    one, other = (MailHandler(tmp_path, settings, lambda: None) for _ in range(2))
    one.handle(critical("first"))
    until(lambda: server.mails)
    other.handle(critical("second"))
    began = time.monotonic()
    one.close()
    other.close()
    assert time.monotonic() - began < 50  # nobody waits for the minute to end
    assert len(server.mails) == 1
    long_ago = time.time() - 61
    os.utime(tmp_path / "mail.sent", (long_ago, long_ago))
    MailHandler(tmp_path, settings, lambda: None)
    until(lambda: len(server.mails) == 2)
    assert server.texts[1].split() == ["second"]


def test_what_waits_is_sent_also_where_another_process_took_the_minute_meanwhile(
    server: Server, settings: LogSettings, tmp_path: Path
) -> None:
    (tmp_path / "mail.sent").touch()
    handler = MailHandler(tmp_path, settings, lambda: None, interval_s=0.5)
    handler.handle(critical("ours"))
    time.sleep(0.25)
    (tmp_path / "mail.sent").touch()  # as the other does, before ours may be sent
    until(lambda: server.mails)
    handler.close()
    assert server.texts[0].split() == ["ours"]


def test_a_mail_that_was_refused_is_kept_and_said_without_another_mail(
    server: Server, settings: LogSettings, tmp_path: Path
) -> None:
    server.refuses = True
    handlers.setup("INFO", tmp_path, settings)
    logger.critical("hear me")
    until(lambda: "no mail about" in (tmp_path / "btcai.log").read_text(encoding="utf-8"))
    assert b"hear me" in (tmp_path / "mail.waiting").read_bytes()
    server.refuses = False
    os.utime(tmp_path / "mail.sent", (0, 0))
    MailHandler(tmp_path, settings, lambda: None)
    until(lambda: server.mails)
    assert "hear me" in server.texts[0]


def test_a_server_that_hangs_stops_nobody(
    server: Server, settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btcai.logs.mail.EXIT_GRACE_S", 0.1)
    monkeypatch.setattr("btcai.logs.mail.TIMEOUT_S", 60.0)
    server.hangs = True
    handler = MailHandler(tmp_path, settings, lambda: None)
    handler.handle(critical("first"))
    assert server.asked.wait(60)
    began = time.monotonic()
    for number in range(100):
        handler.handle(critical(f"more {number}"))
    handler.close()
    assert time.monotonic() - began < 50
    assert (tmp_path / "mail.waiting").read_bytes().count(b"\n\n") == 101
    server.released.set()
    assert handler._thread is not None
    handler._thread.join(10)  # what it says of the failure belongs to this test


def test_what_waits_is_limited(settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btcai.logs.mail.MOST_BYTES", 1000)
    (tmp_path / "mail.sent").touch()
    handler = MailHandler(tmp_path, settings, lambda: None)
    for _ in range(50):
        handler.handle(critical("x" * 98))
    handler.close()
    assert (tmp_path / "mail.waiting").stat().st_size == 1000


def test_a_clock_that_was_put_back_does_not_silence_mails(
    server: Server, settings: LogSettings, tmp_path: Path
) -> None:
    (tmp_path / "mail.sent").touch()
    os.utime(tmp_path / "mail.sent", (0, time.time() + 86_400))
    MailHandler(tmp_path, settings, lambda: None).handle(critical("now"))
    until(lambda: server.mails)


def test_a_subject_is_one_short_line() -> None:
    assert _subject("a\x00b\tc\r\nTo: all") == "a b c "
    assert len(_subject("x" * 500)) == 120


@pytest.mark.slow
def test_an_exception_that_ends_a_process_is_mailed_before_it_is_gone(server: Server, tmp_path: Path) -> None:
    """Although every handler was closed before, as Prefect's dictConfig does while it is imported."""
    code = (
        "import logging.config, pathlib, sys; from btcai.logs import handlers, mail, settings;"
        "mail.EXIT_GRACE_S = 60.0;"
        "to = dict(email_to=('a@b.org',), smtp_host='127.0.0.1', smtp_port=int(sys.argv[2]), smtp_security='none');"
        "handlers.setup('INFO', pathlib.Path(sys.argv[1]), settings.LogSettings(**to));"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False});"
        "raise RuntimeError('the end')"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), str(server.server_address[1])]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(server.mails) == 1
    assert "RuntimeError: the end" in server.texts[0]


def test_half_a_character_that_waits_keeps_no_mail_back(server: Server, settings: LogSettings, tmp_path: Path) -> None:
    (tmp_path / "mail.waiting").write_bytes("first: café".encode()[:-1])
    MailHandler(tmp_path, settings, lambda: None, interval_s=0.05).handle(critical("second"))
    until(lambda: server.mails and (tmp_path / "mail.waiting").stat().st_size == 0)
    assert "first: caf" in message_from_string(server.mails[0], policy=policy.default).get_content()


def test_a_record_that_a_full_disk_takes_by_half_is_taken_back_and_said(
    settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mail.sent").touch()
    handler = MailHandler(tmp_path, settings, lambda: None)
    handler.handle(critical("whole"))
    write = os.write
    monkeypatch.setattr("btcai.logs.mail.os.write", lambda handle, data: write(handle, data[:3]))
    handler.handle(critical("half"))
    monkeypatch.undo()
    handler.close()
    assert (tmp_path / "mail.waiting").read_bytes() == b"whole\n\n"
    assert "No space left on device" in capsys.readouterr().err
