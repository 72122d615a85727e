"""Logging, set up once from the edge: a console for people, files that rotate, JSON lines for machines, one stream.

What is logged by btcai, by flows, by libraries (Prefect, MLflow), through `warnings`, and exceptions that nobody
caught all go to the same handlers. See docs/logging.md.
"""

import logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from btcai import redaction
from btcai.errors import ConfigError
from btcai.logs.fields import begin
from btcai.logs.format import CONSOLE_LINE, FILE_LINE, STAMP, FileFormatter, JsonFormatter, TextFormatter, make_record
from btcai.logs.settings import LEVELS, LogSettings

LEVEL_VARIABLE: Final = "BTCAI_LOG_LEVEL"
PACKAGES: Final = ("btcai", "flows")
"""Whose records are handled from the level on; those of libraries from WARNING, of Prefect and MLflow from INFO."""
FOLDER: Final = "logs"
"""Of a project."""
RELAYED: Final[Mapping[str, object]] = {"relayed": True}
"""`extra` of a line of a child's output that is handed on: the child itself has written it to the files."""

_HANDLER_PREFIX = "btcai-"


def setup_project(root: Path, level: str | None = None) -> None:
    """setup as the section `logs` of root/params.yaml has it; outside a project there is a console alone."""
    path = root / "params.yaml"
    if path.is_file():
        setup(level, root / FOLDER, read_settings(path))
    else:
        setup(level)


def read_settings(path: Path) -> LogSettings:
    """The section `logs` of params.yaml; ConfigError where it breaks a rule.

    A file that is no YAML has the defaults: whatever needs its settings says what is wrong with it.
    """
    import yaml

    try:
        with path.open("rb") as file:
            found = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return LogSettings()
    try:
        return LogSettings.of(found.get("logs") if isinstance(found, dict) else None)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: logs: {error}; mend it, see docs/logging.md") from error


def setup(level: str | None = None, folder: Path | None = None, settings: LogSettings | None = None) -> None:
    """Send all records to stderr and, given a folder, to btcai.log and btcai.jsonl in it; times are UTC.

    level is one of LEVELS and goes before BTCAI_LOG_LEVEL, which goes before the settings. Call it from a program's
    edge only. A second call replaces what the first one set up. Several processes may share the folder.
    """
    settings = settings or LogSettings()
    console_level, file_level = _checked_levels(level, settings)
    redaction.remember_environment(os.environ)
    begin()
    console = _console_handler(console_level)
    written = _file_handlers(folder, settings, file_level) if folder is not None else []
    handlers = [console, *written]
    lowest = min(handler.level for handler in handlers)
    logging.setLogRecordFactory(make_record)
    for name in PACKAGES:
        logger = logging.getLogger(name)
        _replace_ours(logger, handlers)
        logger.setLevel(lowest)
        logger.propagate = False  # an orchestrator's root handler would print each record again
    _replace_ours(logging.getLogger(), handlers)  # Prefect leaves a root alone that has handlers of others
    _adopt_mlflow()
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _checked_levels(level: str | None, settings: LogSettings) -> tuple[str, str]:
    """Of the console and of the files."""
    asked = level if level is not None else os.environ.get(LEVEL_VARIABLE)
    if not asked:
        return settings.level, settings.file_level or settings.level
    if asked.upper() not in LEVELS:
        source = "--log-level" if level is not None else LEVEL_VARIABLE
        raise ConfigError(f"the log level must be one of {', '.join(LEVELS)}, was {asked!r}; mend {source}")
    return asked.upper(), asked.upper()


def _console_handler(level: str) -> logging.Handler:
    """Coloured lines on a terminal (rich heeds NO_COLOR), whole plain lines into a pipe or a file."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console  # slow to import, and only a terminal needs it
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
        handler.setFormatter(TextFormatter("%(asctime)sZ %(message)s", "%H:%M:%S"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(TextFormatter(CONSOLE_LINE, STAMP))
    handler.addFilter(_is_for_console)
    handler.setLevel(level)
    handler.set_name(f"{_HANDLER_PREFIX}console")
    return handler


def _file_handlers(folder: Path, settings: LogSettings, level: str) -> list[logging.Handler]:
    from btcai.logs.files import SharedFile

    formatters: dict[str, logging.Formatter] = {"btcai.log": FileFormatter(FILE_LINE, STAMP)}
    if settings.json_lines:
        formatters["btcai.jsonl"] = JsonFormatter()
    handlers: list[logging.Handler] = []
    try:
        for name, formatter in formatters.items():
            file = SharedFile(folder / name, settings)
            file.setFormatter(formatter)
            handlers.append(file)
    except OSError as error:
        for opened in handlers:
            opened.close()
        raise ConfigError(f"logs must be writable, was {error}; free the path or give another folder") from error
    for handler, name in zip(handlers, formatters, strict=True):
        handler.set_name(f"{_HANDLER_PREFIX}{name}")
        handler.setLevel(level)
        handler.addFilter(lambda record: not getattr(record, "relayed", False))
    return [*handlers, *_mail_handlers(folder, settings)]


def _mail_handlers(folder: Path, settings: LogSettings) -> list[logging.Handler]:
    if not settings.email_to:
        return []
    from functools import partial

    from btcai.logs.mail import MailHandler
    from btcai.secrets import secret

    handler = MailHandler(folder, settings, partial(secret, "SMTP_PASSWORD"))
    handler.setFormatter(FileFormatter(FILE_LINE, STAMP))
    handler.set_name(f"{_HANDLER_PREFIX}mail")
    return [handler]


def _replace_ours(logger: logging.Logger, handlers: list[logging.Handler]) -> None:
    for handler in list(logger.handlers):
        if (handler.get_name() or "").startswith(_HANDLER_PREFIX):
            logger.removeHandler(handler)
            handler.close()
    for handler in handlers:
        logger.addHandler(handler)


def _is_for_console(record: logging.LogRecord) -> bool:
    """Ours all; of libraries what warns, unless a console of their own on the root logger prints it.

    A child's line that goes to Prefect's page is printed by who hands it on.
    """
    if record.name.partition(".")[0] in PACKAGES:
        return True
    if record.levelno < logging.WARNING or getattr(record, "relayed", False):
        return False
    return not any(
        isinstance(handler, logging.StreamHandler)
        and handler.stream in (sys.stdout, sys.stderr)
        and handler.level <= record.levelno
        and not (handler.get_name() or "").startswith(_HANDLER_PREFIX)
        for handler in logging.getLogger().handlers
    )


def _adopt_mlflow() -> None:
    """MLflow gives its logger a console of its own as it is imported, unless this says not to."""
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    logger = logging.getLogger("mlflow")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.INFO)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("btcai").critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_type is SystemExit or found.exc_value is None:
        return
    name = found.thread.name if found.thread is not None else "a thread"
    logging.getLogger("btcai").critical(
        "uncaught %s in %s",
        found.exc_type.__name__,
        name,
        exc_info=(found.exc_type, found.exc_value, found.exc_traceback),
    )
