"""Keys and passwords: from the environment, else from the system's keyring; never from a file of the project.

Whatever is found is never logged from then on (redaction.py).
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

from btcai.errors import ConfigError
from btcai.redaction import SHORTEST, remember

logger = logging.getLogger(__name__)

SERVICE: Final = "btcai"
"""Under which the keyring keeps them."""

KNOWN: Final[Mapping[str, str]] = {
    "EXCHANGE_KEY": "the exchange's API key, for private calls",
    "EXCHANGE_SECRET": "the secret that belongs to EXCHANGE_KEY",
    "NOTIFY_URL": "where notices go: apprise URLs, separated by spaces or commas",
    "SERVE_TOKEN": "what clients of btcai serve must show",
    "SMTP_PASSWORD": "of logs.smtp_user in params.yaml, for mails about critical records",
}
REMOTES: Final = re.compile(
    r"REMOTE_[A-Z0-9]+(?:_[A-Z0-9]+)*_(?:ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|CONNECTION_STRING|PASSWORD)"
)
"""Of a remote storage called NAME: REMOTE_NAME_ACCESS_KEY_ID and so on."""

Source = Literal["environment", "keyring"]
T = TypeVar("T")


def secret(name: str) -> str | None:
    """The variable BTCAI_`name`, else the keyring's entry `name` of the service btcai; None where there is neither.

    A variable that is there and empty means none, and the keyring is not asked. ConfigError for an unknown name. A
    keyring that is missing or fails holds nothing; the log says so at level DEBUG.
    """
    found = _found(name)
    if found is None:
        return None
    remember(found[0])
    return found[0]


def source(name: str) -> Source | None:
    """Where `secret` would find it."""
    found = _found(name)
    return found and found[1]


def store(name: str, value: str) -> None:
    """Put it into the keyring; ConfigError where there is none that keeps it."""
    _check(name)
    if len(value) < SHORTEST:
        raise ConfigError(f"{name} must have at least {SHORTEST} characters, had {len(value)}; logs cannot hide less")
    remember(value)
    try:
        import keyring

        keyring.set_password(SERVICE, name, value)
        kept = keyring.get_password(SERVICE, name) == value
    except Exception as error:  # backends raise what they like
        raise ConfigError(f"no keyring kept {name} ({_one_line(error)}); set {variable(name)} instead") from None
    if not kept:  # the null backend takes everything and keeps nothing
        raise ConfigError(f"the system's keyring did not keep {name}; set {variable(name)} instead")


def forget(name: str) -> bool:
    """Take it out of the keyring; False where it was not there."""
    _check(name)
    if _asked(lambda keyring: keyring.get_password(SERVICE, name)) is None:
        return False
    try:
        import keyring

        keyring.delete_password(SERVICE, name)
    except Exception as error:
        raise ConfigError(f"the keyring still holds {name} ({_one_line(error)}); remove it with its own tool") from None
    return True


def names() -> list[str]:
    """All that are known, and those of remotes that the environment sets."""
    prefix = variable("")
    remotes = {name.removeprefix(prefix) for name in os.environ if name.startswith(prefix)}
    return sorted({*KNOWN, *(name for name in remotes if REMOTES.fullmatch(name))})


def purpose(name: str) -> str:
    """What it is for."""
    return KNOWN.get(name, "a remote storage")


def variable(name: str) -> str:
    """Of the environment."""
    return f"BTCAI_{name}"


def _found(name: str) -> tuple[str, Source] | None:
    _check(name)
    if (value := os.environ.get(variable(name))) is not None:
        return (value, "environment") if value else None
    held = _asked(lambda keyring: keyring.get_password(SERVICE, name))
    return (held, "keyring") if isinstance(held, str) and held else None


def _asked(question: Callable[[Any], T]) -> T | None:
    """What the module keyring says; None where it is missing or its backend fails."""
    try:
        import keyring

        return question(keyring)
    except Exception as error:  # backends raise what they like: D-Bus errors, OSError, RuntimeError
        logger.debug("no secret from the system's keyring: %s", _one_line(error))
        return None


def _check(name: str) -> None:
    if name not in KNOWN and not REMOTES.fullmatch(name):
        raise ConfigError(
            f"a secret must be one of {', '.join(KNOWN)} or like REMOTE_NAME_SECRET_ACCESS_KEY, was {name!r}"
        )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
