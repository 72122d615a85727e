"""What a check says: one line, and the command that mends it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from btcai.errors import BtcaiError

logger = logging.getLogger(__name__)

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's; fix: what `--mend` may do by itself, where that harms nothing."""

    check: str
    status: Status
    said: str
    remedy: str = ""
    fix: Callable[[], object] | None = None


Check = Callable[[], Iterable[Finding]]


def ok(check: str, said: str) -> Finding:
    return Finding(check=check, status="ok", said=said)


def warning(check: str, said: str, remedy: str, fix: Callable[[], object] | None = None) -> Finding:
    return Finding(check=check, status="warning", said=said, remedy=remedy, fix=fix)


def error(check: str, said: str, remedy: str, fix: Callable[[], object] | None = None) -> Finding:
    return Finding(check=check, status="error", said=said, remedy=remedy, fix=fix)


def looked(checks: Mapping[str, Check]) -> Iterator[Finding]:
    """Every check's findings; one that cannot look says why, and the others look all the same."""
    for name, check in checks.items():
        try:
            yield from check()
        except (BtcaiError, OSError) as failure:
            logger.debug("%s failed", name, exc_info=True)
            yield error(name, " ".join(str(failure).split()), "mend what it names, then ask again: btcai doctor")
        except Exception as failure:  # whatever is broken, here or in a library: that is when a doctor is asked
            logger.debug("%s failed", name, exc_info=True)
            said = f"the check itself failed: {type(failure).__name__}: {' '.join(str(failure).split())}"
            yield error(name, said, "where it failed: btcai --log-level DEBUG doctor; report that")
