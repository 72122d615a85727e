"""No secret reaches a handler, wherever in a record it is: of ours or of others."""

import io
import json
import logging
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from btcai import cli, redaction
from btcai.errors import ArtifactError
from btcai.logs import fields, handlers
from btcai.logs.settings import LogSettings

logger = logging.getLogger("btcai.somewhere")

ALPHABET = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), include_characters="\n\t")
SECRETS = st.text(ALPHABET, min_size=6, max_size=24).map(lambda text: f"{text}#7q")
"""Ends so that it is no word of the format itself, as a level's name would be."""
FILES = ("btcai.log", "btcai.jsonl")


class Shown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return f"<shown {self.text}>"

    __repr__ = __str__


EXTRAS: dict[str, Callable[[str], object]] = {
    "extra": lambda secret: secret,
    "nested": lambda secret: {"deep": [(secret, Shown(secret))]},
    "key": lambda secret: {secret: 1},
}
MESSAGES: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "message": lambda secret: (f"before {secret} after",),
    "argument": lambda secret: ("%s and %s", 1, secret),
    "mapping": lambda secret: ("%(shown)s", {"shown": 1, "hidden": secret}),
    "repr": lambda secret: ("%r in %r", secret, {"of": [secret]}),
    "object": lambda secret: (Shown(secret),),
    "misfit": lambda secret: ("%d and %d", secret),
    "bytes": lambda secret: ("%r", secret.encode()),
    "json": lambda secret: ("%s %s", json.dumps({"of": secret}), json.dumps(secret, ensure_ascii=False)),
}
POSITIONS = [*MESSAGES, *EXTRAS, "exception", "cause", "key_error", "context", "stack", "function", "warning"]


class Everything(logging.Handler):
    """A handler of another's: keeps the message, the arguments and the standard library's own text of a record."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = ""
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.seen += f"{record.getMessage()}\n{record.args}\n{self.format(record)}\n"


def know(*secrets: str) -> None:
    """These and no others."""
    redaction._values.clear()
    redaction._known = None
    redaction.redact_word.cache_clear()
    redaction.remember(*secrets)


@pytest.fixture(autouse=True)
def secrets_as_they_were() -> Iterator[None]:
    before = set(redaction._values)
    know()
    yield
    know(*before)


def say(position: str, secret: str) -> None:
    """Log `secret` at a place of a record."""
    if position == "context":
        with fields.context(where=secret):
            logger.info("text")
    elif position in ("exception", "cause", "key_error"):
        say_exception(position, secret)
    elif position in ("stack", "function"):
        logger.handle(made(**{"stack": {"sinfo": f"Stack:\n  {secret}"}, "function": {"func": secret}}[position]))
    elif position == "warning":
        warnings.showwarning(secret, UserWarning, "file.py", 3)
    elif position in EXTRAS:
        logger.info("text", extra={"detail": EXTRAS[position](secret)})
    else:
        logger.info(*MESSAGES[position](secret))


def made(**fields: Any) -> logging.LogRecord:
    return logging.getLogRecordFactory()("btcai.somewhere", 20, "file.py", 3, "text", (), None, **fields)


def say_exception(position: str, secret: str) -> None:
    try:
        if position == "key_error":
            raise KeyError(secret)
        try:
            raise ValueError(f"told {secret}")
        except ValueError as error:
            if position == "exception":
                raise
            raise RuntimeError("clean") from error
    except Exception:
        logger.exception("failed")


def forms(secret: str) -> set[str]:
    """As it would be read: as it is, and as repr and JSON write it; the last also line by line."""
    quoted = {repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {secret, repr(secret.encode())[2:-1], *quoted}


@pytest.mark.parametrize("position", POSITIONS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=SECRETS)
def test_a_known_secret_reaches_no_handler(position: str, secret: str, tmp_path: Path) -> None:
    assume(secret.strip() == secret)
    know(secret)
    console, other = io.StringIO(), Everything()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stderr", console)
        handlers.setup("DEBUG", tmp_path, LogSettings())
        listeners = [logging.getLogger(name) for name in ("btcai", "py.warnings")]
        for listener in listeners:
            listener.addHandler(other)
        say(position, secret)
        for listener in listeners:
            listener.removeHandler(other)
    files = {name: (tmp_path / name).read_text(encoding="utf-8") for name in FILES}
    for where, text in {**files, "console": console.getvalue(), "other": other.seen}.items():
        assert text, where
        assert not [form for form in forms(secret) if form in text], (where, text)
    assert redaction.MASK in files["btcai.log"] + files["btcai.jsonl"] + other.seen
    for line in files["btcai.jsonl"].splitlines():
        assert json.loads(line)["level"]
    for name in FILES:
        (tmp_path / name).unlink()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.text(max_size=20), secret=SECRETS, after=st.text(max_size=20))
def test_whatever_is_around_a_secret_it_is_taken_out(before: str, secret: str, after: str) -> None:
    know(secret)
    assert secret not in redaction.redact(f"{before}{secret}{after}")


@settings(max_examples=60)
@given(text=st.text(max_size=60))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redaction.redact(text)
    assert redaction.redact(once) == once


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("GET https://ann:pa55word@host:8080/a", "GET https://***@host:8080/a"),
        ("https://ghp_0123456789@github.com/x", "https://***@github.com/x"),
        ("mysql+driver://u:p%40ss@db/x and http://a/b@c", "mysql+driver://***@db/x and http://a/b@c"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic YW5uOnB3'}", "{'Authorization': 'Basic ***'}"),
        ("header bearer abcdefgh12 sent", "header bearer *** sent"),
        ("/api?symbol=BTC&signature=0fe1&x=1", "/api?symbol=BTC&signature=***&x=1"),
        ("?apiKey=AbC123&a=b", "?apiKey=***&a=b"),
        ("?X-Amz-Signature=abc&X-Amz-Security-Token=def", "?X-Amz-Signature=***&X-Amz-Security-Token=***"),
        ('{"api_key": "k 1", "b": 2}', '{"api_key": ***, "b": 2}'),
        ("password='two words' then", "password=*** then"),
        ("X-MBX-APIKEY: 12ab34cd", "X-MBX-APIKEY: ***"),
        ("aws_secret_access_key = ab/cd+ef", "aws_secret_access_key = ***"),
        ("listenKey=pqia91ma19a5", "listenKey=***"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, left: str) -> None:
    assert redaction.redact(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "144 tokens in a window, token 3 of 144",
        "scalping: prediction 40/100, kl 0.01",
        "see http://127.0.0.1:4200/runs and mail ann@example.org",
        "no key for this; the key is the settings' hash: key=value pairs",
        "signature of the function, secrets are listed with btcai secrets list",
    ],
)
def test_plain_lines_stay_as_they_are(text: str) -> None:
    assert redaction.redact(text) == text


@pytest.mark.parametrize(
    "name", ["GITHUB_TOKEN", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "BTCAI_EXCHANGE_KEY", "apiKey"]
)
def test_names_of_secrets(name: str) -> None:
    assert redaction.looks_secret(name)


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "KEYBOARD", "MONKEYS", "HOME", "DB_PASSWORD_FILE", "SSH_AUTH_SOCK", "GAE_LAMBDA"]
)
def test_names_of_no_secrets(name: str) -> None:
    assert not redaction.looks_secret(name)


def test_variables_of_the_environment_that_look_like_secrets_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "tok-1234567")
    monkeypatch.setenv("SHORT_TOKEN", "true")
    handlers.setup("INFO", tmp_path)
    logger.info("sent tok-1234567, true")
    assert (tmp_path / "btcai.log").read_text(encoding="utf-8").endswith(": sent ***, true\n")


def test_a_changed_record_is_looked_at_again(tmp_path: Path) -> None:
    """makeLogRecord, as for records from a socket, and filters put texts into a record after it was made."""
    know("late-secret")
    handlers.setup("INFO", tmp_path)
    logger.handle(logging.makeLogRecord({"name": "btcai", "levelno": 20, "msg": "late-secret %s", "args": ("x",)}))
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in FILES]
    assert [("late-secret" in text, "*** x" in text) for text in texts] == [(False, True)] * 2


def test_arguments_keep_their_number_for_formatters_that_unpack_them() -> None:
    know("hidden-path")
    handlers.setup("INFO")
    record = logging.getLogRecordFactory()("uvicorn.access", 20, "f", 1, "%s %d", ("/a?x=hidden-path", 200), None)
    assert record.args == ("/a?x=***", 200)


def test_a_traceback_keeps_its_lines(tmp_path: Path) -> None:
    handlers.setup("INFO", tmp_path)
    try:
        raise ValueError("plain")
    except ValueError:
        logger.exception("failed")
        expected = traceback.format_exc().rstrip("\n")
    (record,) = [json.loads(line) for line in (tmp_path / "btcai.jsonl").read_text(encoding="utf-8").splitlines()]
    assert record["exception"] == expected


def test_a_long_line_is_looked_through_in_no_time() -> None:
    """No pattern may try every end from every start: at 0.5 MB that would take minutes."""
    text = "token" * 50_000 + " and ://" + "x" * 125_000 + " token" + " " * 125_000 + "."
    assert redaction.redact(text) == text


def test_an_error_line_on_the_terminal_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli._fail("GET https://ann:pa55word@host\n failed")
    assert capsys.readouterr().err == "error: GET https://***@host failed\n"


@pytest.mark.slow  # Prefect's import
def test_what_a_run_says_and_why_it_failed_show_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    from flows import pipeline

    pipeline.say("fetch: GET https://ann:pa55word@host")
    assert capsys.readouterr().err == "fetch: GET https://***@host\n"
    assert pipeline.reason(deque(["error: signature=0fe1 was refused"]), 1) == "signature=*** was refused"


@pytest.mark.slow  # Prefect's import
def test_a_table_that_cannot_be_made_ends_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flows import artifacts

    with pytest.raises(ArtifactError, match="metrics"):
        artifacts.results(tmp_path)
    artifacts.publish(tmp_path, {"fetch": "ran"}, {}, {})
