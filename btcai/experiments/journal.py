"""The journal of Optuna's studies as a ledger of ours: a line is whole and on the disk, or the file is as it was.

Optuna's own refuses the whole of it after a kill or a full disk has left half a line, and waits for the lock of a
process that is gone.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from btcai.records.ledgers import append_line, lines_of


class Journal(BaseJournalBackend):
    """A line of JSON for each change of a study; one that is torn was never made."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Changes from this number on, the first being 0."""
        number = 0
        for line in lines_of(self._path):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if number >= log_number_from:
                yield found
            number += 1

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add them, all or none; DiskError where they cannot be written."""
        append_line(self._path, "\n".join(json.dumps(log) for log in logs))
