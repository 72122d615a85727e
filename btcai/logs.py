"""Logging, set up once from the edge: a console for people, a file, and JSON lines for machines.

The files only grow. Several processes share them (a run and its stages), and one that rotated would carry off the
file under the others' hands; delete them between commands when they are too long.
"""

import json
import logging
import math
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from btcai.errors import ConfigError

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LEVEL_VARIABLE: Final = "BTCAI_LOG_LEVEL"
PACKAGES: Final = ("btcai", "flows")
"""Whose records are handled; libraries keep their own logging."""

_HANDLER_PREFIX = "btcai-"
_LINE = "%(asctime)s.%(msecs)03dZ %(levelname)-8s %(name)s: %(message)s"
_STAMP = "%Y-%m-%dT%H:%M:%S"
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonFormatter(logging.Formatter):
    """One record -> one JSON object in one line: ts, level, logger, message, extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "ts": stamp.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD_FIELDS:
                line.setdefault(key, _plain(value))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, allow_nan=False)


class _AppendHandler(logging.FileHandler):
    """Each record is one write at the file's end, so that lines of several processes never mix."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            assert self.stream is not None  # open from the start
            os.write(self.stream.fileno(), f"{self.format(record)}{self.terminator}".encode())
        except OSError as error:  # a full disk: say so once, and let the work fail or go on by itself
            self.setLevel(sys.maxsize)
            sys.stderr.write(f"warning: {self.baseFilename} takes no more lines: {error}\n")
        except Exception:  # as every handler of the standard library does
            self.handleError(record)


def setup(level: str | None = None, folder: Path | None = None, *, json_lines: bool = True) -> None:
    """Send the records of btcai and flows to stderr and, given a folder, to btcai.log and btcai.jsonl in it.

    level is one of LEVELS; None takes it from BTCAI_LOG_LEVEL, else INFO. Call it from a program's edge only. A second
    call replaces what the first one set up. Times are UTC. Several processes may share the folder.
    """
    threshold = _checked_level(level)
    handlers = [_console_handler()]
    if folder is not None:
        handlers += _file_handlers(folder, json_lines)
    for name in PACKAGES:
        logger = logging.getLogger(name)
        _remove_ours(logger)
        logger.setLevel(threshold)
        logger.propagate = False  # an orchestrator's root handler would print each record again
        for handler in handlers:
            logger.addHandler(handler)


def _checked_level(level: str | None) -> str:
    asked = level if level is not None else os.environ.get(LEVEL_VARIABLE) or "INFO"
    if asked.upper() not in LEVELS:
        source = "--log-level" if level is not None else LEVEL_VARIABLE
        raise ConfigError(f"the log level must be one of {', '.join(LEVELS)}, was {asked!r}; mend {source}")
    return asked.upper()


def _console_handler() -> logging.Handler:
    """Coloured lines on a terminal (rich heeds NO_COLOR), whole plain lines into a pipe or a file."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console  # slow to import, and only a terminal needs it
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
        handler.setFormatter(_utc_formatter("%(asctime)sZ %(message)s", "%H:%M:%S"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_utc_formatter(_LINE, _STAMP))
    handler.set_name(f"{_HANDLER_PREFIX}console")
    return handler


def _file_handlers(folder: Path, json_lines: bool) -> list[logging.Handler]:
    formatters: dict[str, logging.Formatter] = {"btcai.log": _utc_formatter(_LINE, _STAMP)}
    if json_lines:
        formatters["btcai.jsonl"] = _JsonFormatter()
    handlers: list[logging.Handler] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, formatter in formatters.items():
            file = _AppendHandler(folder / name, encoding="utf-8")
            file.setFormatter(formatter)
            file.set_name(f"{_HANDLER_PREFIX}{name}")
            handlers.append(file)
    except OSError as error:
        for opened in handlers:
            opened.close()
        raise ConfigError(f"logs must be writable, was {error}; free the path or give another folder") from error
    return handlers


def _utc_formatter(line: str, stamp: str) -> logging.Formatter:
    formatter = logging.Formatter(line, stamp)
    formatter.converter = time.gmtime
    return formatter


def _remove_ours(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        if (handler.get_name() or "").startswith(_HANDLER_PREFIX):
            logger.removeHandler(handler)
            handler.close()


def _plain(value: object) -> object:
    """What JSON can hold: numbers that are not finite become text, anything unknown its str()."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
