"""Whether a process has ended."""

import time
from pathlib import Path


def gone(pid: int) -> bool:
    """True once the process has ended; a zombie that nobody reaps has ended too. Waits ten seconds for it."""
    for _ in range(200):
        try:
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):  # before it was opened, or while it was read
            return True
        if status.split(")")[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
