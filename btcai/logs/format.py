"""What a record looks like: one line for people, one JSON object for machines; secrets in neither (redaction.py)."""

import json
import linecache
import logging
import math
import time
import traceback
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, cast

from btcai.logs.fields import current
from btcai.redaction import redact, redact_word

CONSOLE_LINE: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-8s %(name)s: %(message)s"
FILE_LINE: Final = "%(asctime)s.%(msecs)03dZ %(levelname)-8s %(name)s.%(funcName)s:%(lineno)d [%(about)s]: %(message)s"
STAMP: Final = "%Y-%m-%dT%H:%M:%S"

OURS: Final = ("bench", "btcai", "flows")
"""Packages of whose frames a stack shows the lines around and the names of local variables."""
AROUND_LINES: Final = 3
MOST_FRAMES: Final = 50
MOST_CAUSES: Final = 8

_CONTEXT = "btcai_context"
_SAFE = "btcai_safe"  # the message and arguments in which no secret was found, or is left
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "about",
    _CONTEXT,
    _SAFE,
}


def make_record(
    name: str,
    level: int,
    pathname: str,
    line: int,
    message: object,
    args: object,
    exc_info: object,
    func: str | None = None,
    sinfo: str | None = None,
    **_: object,
) -> logging.LogRecord:
    """logging's record factory: with the context of where it was made, and no secret for any handler, ours or not.

    A message that does not fit its arguments is logged with both, in place of logging's own complaint on stderr.
    """
    record = logging.LogRecord(name, level, pathname, line, message, args, exc_info, func, sinfo)  # type: ignore[arg-type]
    setattr(record, _CONTEXT, current())
    _make_safe(record)
    setattr(record, _SAFE, (record.msg, record.args))
    if record.exc_info and record.exc_info[0]:
        record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
    if record.stack_info:
        record.stack_info = redact(record.stack_info)
    return record


def _make_safe(record: logging.LogRecord) -> None:
    """Message and arguments without secrets. The arguments keep their number and order, which some formatters need."""
    if isinstance(record.args, Mapping):  # of which the message may show a part
        record.args = _safe_args(record.args)
    try:
        text = record.getMessage()
    except Exception as error:  # whatever an argument's own __str__ raises
        text = f"{_text(record.msg)} % {_text(record.args)} ({type(error).__name__}: {_text(error)})"
        record.msg, record.args = redact(text), ()
        return
    if not isinstance(record.msg, str):
        record.msg, record.args = redact(text), ()
    elif redact(text) != text:
        record.args = _safe_args(record.args)
        if (safe := redact(now := record.getMessage())) != now:
            record.msg, record.args = safe, ()


def _is_safe(record: logging.LogRecord) -> bool:
    """Whether message and arguments are still those that make_record left, and there is nothing below them."""
    message, args = getattr(record, _SAFE, (None, None))
    return record.msg is message and record.args is args and not record.exc_info and not record.stack_info


@lru_cache(maxsize=8)
def _stamp(second: int, form: str) -> str:
    return time.strftime(form, time.gmtime(second))


class TextFormatter(logging.Formatter):
    """One record -> one line in UTC, its traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        head = f"{record.name} {record.funcName} {getattr(record, 'about', '')}"
        return text if _is_safe(record) and redact_word(head) == head else redact(text)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _stamp(int(record.created), datefmt or STAMP)


class FileFormatter(TextFormatter):
    """The same with function, line, process, thread and context."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        parts = [f"pid {record.process}"]
        if record.threadName != "MainThread":
            parts.append(f"thread {record.threadName}")
        parts += [f"{name} {value}" for name, value in _context_of(record).items()]
        record.about = ", ".join(parts)
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One record -> one JSON object in one line: what, where, what it is about, extra fields, exception, stack."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, object] = {
            "ts": f"{_stamp(int(record.created), STAMP)}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": redact_word(record.name),
            "message": message if _is_safe(record) else redact(message),
            "function": redact_word(record.funcName or ""),
            "line": record.lineno,
            "process": record.process,
            "thread": redact_word(record.threadName or ""),
            "elapsed_ms": round(record.relativeCreated, 1),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD_FIELDS:
                line.setdefault(redact_word(key), _plain(value))
        for key, value in _context_of(record).items():
            line.setdefault(redact_word(key), _plain(value))
        if record.exc_info and record.exc_info[1]:
            line["exception"] = redact(record.exc_text or self.formatException(record.exc_info))
            line["stack"] = [_plain(part) for part in stack_of(record.exc_info[1])]
        if record.stack_info:
            line["called_from"] = redact(record.stack_info)
        return _encode(line)


def stack_of(error: BaseException) -> Iterator[dict[str, object]]:
    """Frames of an exception and of its causes, outermost first, causes last; `cause` counts from 0, the exception.

    A frame of ours has the lines around it and its local variables' names; never their values, which may be secret.
    """
    found: BaseException | None = error
    for cause in range(MOST_CAUSES):
        if found is None:
            return
        frames = list(traceback.walk_tb(cast(TracebackType, found.__traceback__)))[-MOST_FRAMES:]
        for frame, line in frames:
            code = frame.f_code
            place = Path(code.co_filename)
            part: dict[str, object] = {
                "cause": cause,
                "error": type(found).__name__,
                "file": "/".join(place.parts[-3:]),
                "function": code.co_name,
                "line": line,
                "source": linecache.getline(code.co_filename, line).strip(),
            }
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] in OURS:
                lines = range(max(1, line - AROUND_LINES), line + AROUND_LINES + 1)
                part["around"] = [linecache.getline(code.co_filename, number).rstrip("\n") for number in lines]
                part["locals"] = [*code.co_varnames, *code.co_freevars]
            yield part
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _context_of(record: logging.LogRecord) -> Mapping[str, object]:
    return cast(Mapping[str, object], getattr(record, _CONTEXT, {}))


def _safe_args(args: object) -> tuple[object, ...] | Mapping[str, object]:
    if isinstance(args, Mapping):
        return {key: redact(value) if isinstance(value, str) else value for key, value in args.items()}
    return tuple(redact(value) if isinstance(value, str) else value for value in cast(tuple[object, ...], args or ()))


def _plain(value: object) -> object:
    """What JSON can hold: numbers that are not finite become text, anything unknown its str(); no secret."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {redact(_text(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return redact(_text(value))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # a value that cannot be told of does not stop the line
        return f"<{type(value).__name__}: {type(error).__name__}>"
