"""A process is found again by its id and start, whatever the clock is set to; whoever has its id now is not."""

import os
import re
from pathlib import Path

import psutil
import pytest

from btcai.operation import processes


@pytest.fixture(params=[-7200, -1, 1, 6, 7200])
def clock_moved_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """The clock is set by so much, by which Linux moves the time of its own start (btime) in /proc/stat."""
    moved_s: int = request.param
    before_s = psutil.Process().create_time()
    text = Path("/proc/stat").read_text(encoding="utf-8")
    moved = re.sub(r"(?m)^btime (\d+)$", lambda found: f"btime {int(found[1]) + moved_s}", text)
    (tmp_path / "stat").write_text(moved, encoding="utf-8")
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert psutil.Process().create_time() - before_s == pytest.approx(moved_s, abs=1e-3)
    return moved_s


STARTED_S = processes.started_s()


@pytest.mark.usefixtures("clock_moved_s")
def test_a_process_is_found_though_the_clock_was_set_since() -> None:
    assert processes.started_s() == STARTED_S
    assert processes.find(os.getpid(), STARTED_S) == psutil.Process()


@pytest.mark.parametrize("other_s", [-3600.0, -0.2, 0.2, 3600.0])
def test_one_of_another_start_is_another_that_has_its_id_now(other_s: float) -> None:
    assert processes.find(os.getpid(), STARTED_S + other_s) is None
