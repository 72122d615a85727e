"""journal/promotions.jsonl: every change of who decides for a bucket, on record before it happens and after."""

import getpass
import logging
import os
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from btcai.errors import ConfigError
from btcai.records.ledgers import append_line, line_of, lines_of, record_of

logger = logging.getLogger(__name__)

Kind = Literal["rule", "promote", "rollback", "unpin", "restore"]
"""rule: by the promotion rule, in a run; restore: the same version's files again. The others are commands."""


@dataclass(frozen=True, kw_only=True)
class Seats:
    """Versions of one bucket by what they are; None where there is none."""

    champion: int | None = None
    previous: int | None = None
    pinned: int | None = None
    """Put there by hand: the promotion rule leaves it."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to change of one bucket; written whole before anything does."""

    kind: Kind
    bucket: str
    before: Seats
    after: Seats
    because: str
    model_version: str
    """Of the bundle that is champion afterwards: the hash over its graphs."""
    manifest_sha256: str
    who: str = field(default_factory=lambda: user())
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    began_unix_s: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A change as it is on record, and what became of it; None where a kill left that open."""

    change: Change
    outcome: str | None


def user() -> str:
    """Who runs this process, by the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"


def reasoned(because: str) -> str:
    """The reason without line breaks; ConfigError where there is none: the record would not say why."""
    if not because.strip():
        raise ConfigError("a change of champion needs a reason, was empty; give it: --because TEXT")
    return " ".join(because.split())


def begin(ledger: Path, change: Change) -> None:
    """Put a change on record, on the disk before this returns."""
    _append(ledger, {"event": "intent", **asdict(change)})


def end(ledger: Path, change: Change, outcome: str) -> None:
    """Put on record what became of it."""
    ended = {"event": "outcome", "id": change.id, "outcome": outcome, "ended_unix_s": int(time.time())}
    _append(ledger, ended)


def entries(ledger: Path) -> list[Entry]:
    """All that is on record, oldest first. A torn line is skipped: nothing is done before its line is whole.

    So is a damaged one: who decides is in files and aliases, which stay; the record alone has lost something.
    """
    changes: dict[str, Change] = {}
    outcomes: dict[str, str] = {}
    for number, line in enumerate(lines_of(ledger), start=1):
        try:
            found = record_of(line, f"{ledger} line {number}")
            if found.pop("event") == "intent":
                changes[found["id"]] = _change(found)
            else:
                outcomes[found["id"]] = str(found["outcome"])
        except (ValueError, LookupError, TypeError, AttributeError):
            logger.warning("%s line %d is torn or damaged and is skipped; see: btcai doctor", ledger, number)
    return [Entry(change=change, outcome=outcomes.get(name)) for name, change in changes.items()]


def open_change(ledger: Path, bucket: str) -> Change | None:
    """The bucket's newest change, where nothing says what became of it: its process was killed."""
    mine = [entry for entry in entries(ledger) if entry.change.bucket == bucket]
    return mine[-1].change if mine and mine[-1].outcome is None else None


def pins(ledger: Path) -> dict[str, Change]:
    """By bucket, the change by hand that the promotion rule may not undo."""
    held: dict[str, Change] = {}
    for entry in entries(ledger):
        change = entry.change
        if entry.outcome is not None and not entry.outcome.startswith("done"):
            continue
        if change.after.pinned is None:
            held.pop(change.bucket, None)
        elif change.kind in ("promote", "rollback"):
            held[change.bucket] = change
    return held


def _change(found: dict[str, Any]) -> Change:
    return Change(**found | {"before": Seats(**found["before"]), "after": Seats(**found["after"])})


def _append(ledger: Path, record: dict[str, Any]) -> None:
    append_line(ledger, line_of(record))
