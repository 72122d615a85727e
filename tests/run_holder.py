"""Another process that holds a project, as a run of it does."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from btcai.operation import run_lock
root, flow_run_id, part = sys.argv[1:]
with run_lock.alone(Path(root), "btcai run", flow_run_id=flow_run_id or None, part=Path(part) if part else None):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_run(
    root: Path, *, flow_run_id: str = "", part: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """A process that has the project, or a part of it, as its own run; killed at the end."""
    command = [sys.executable, "-c", HOLD, str(root), flow_run_id, str(part or "")]
    with subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()
