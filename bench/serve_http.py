"""The server in a process of its own, asked over the loopback: how much it answers."""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.line import Goal, Line
from bench.stopwatch import Stopwatch
from btcai import paths
from btcai.errors import ArtifactError
from btcai.features.pipeline import rows_of
from btcai.schema import BAR_NS, BUCKETS, Bars
from btcai.serving.live import KEPT_BARS

LOAD_GOALS = (Goal("value", ">=", 1_000.0),)

_START_S = 60.0
_SERVE = (
    "import sys; from pathlib import Path; from btcai.logs import handlers; from btcai.commands.serve import serve; "
    "handlers.setup(); "
)
_SERVE += "serve(port=int(sys.argv[2]), root=Path(sys.argv[1]), bucket=sys.argv[3:])"


@dataclass(frozen=True)
class Load:
    """How much is asked."""

    batch: int = 256
    batches: int = 20
    singles: int = 400


@contextmanager
def serving(root: Path, buckets: tuple[str, ...] = BUCKETS) -> Iterator["Running"]:
    """`btcai serve` on a free port of the loopback, ready; stopped by SIGTERM when the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (root / "serve.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-c", _SERVE, root, str(port), *buckets], stderr=log)
    running = Running(process, f"http://127.0.0.1:{port}", root / "serve.log")
    try:
        running.await_ready()
        yield running
    finally:
        running.stop()


@dataclass(frozen=True)
class Running:
    """A server's process and address."""

    process: "subprocess.Popen[bytes]"
    address: str
    log: Path

    def await_ready(self) -> None:
        """ArtifactError with the log's end where it does not get ready."""
        for _ in range(int(_START_S / 0.1)):
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.address}/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.1)
        raise ArtifactError(f"the server did not get ready: {self.log.read_text(encoding='utf-8')[-500:]}")

    def stop(self) -> int:
        """Its exit status, once what was in flight is answered."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def rows(bars: Bars) -> list[list[float]]:
    """Present bars as a body holds them: open_time in ms, open, high, low, close, volume."""
    there = bars.present
    stamps = (bars.close_ts_ns[there] - BAR_NS) // 1_000_000
    values = np.column_stack([bars.open, bars.high, bars.low, bars.close, bars.volume])[there]
    return [[stamp, *numbers] for stamp, numbers in zip(stamps.tolist(), values.tolist(), strict=True)]


def accounts(mark: float) -> tuple[dict[str, Any] | None, ...]:
    """Flat, invested, up since long ago, halted."""
    lot = {"btc": 30_000.0 / mark, "entry_price": 0.98 * mark}
    return (
        None,
        {"cash_usdt": 50_000.0, "lots": [lot]},
        {"cash_usdt": 100_000.0, "equity_start_usdt": 90_000.0, "decisions_since_trade": 12},
        {"cash_usdt": 60_000.0, "lots": [lot], "cool_down_bars": 5},
    )


def load_lines(stopwatch: Stopwatch, root: Path, bars: Bars, load: Load) -> Iterator[Line]:
    """Batches and single decisions by one client that waits for each answer; market half shared, and in the body."""
    given, mark = rows(rows_of(bars, slice(len(bars) - KEPT_BARS, None))), float(bars.close[bars.present][-1])
    described = accounts(mark)
    questions = [
        {"bucket": BUCKETS[k % len(BUCKETS)], "account": described[k // 4 % len(described)]} for k in range(load.batch)
    ]
    with copied(root) as project, serving(project) as running, httpx.Client(base_url=running.address) as client:
        told(client.post("/v1/bars", json={"bars": given}, timeout=60))
        took_ms: list[float] = []

        def batches(body: dict[str, Any], n: int) -> float:
            for _ in range(n):
                answers = told(client.post("/v1/decide/batch", json=body, timeout=60))["answers"]
                assert not any("error" in answer for answer in answers), answers
            return n * load.batch

        def singles() -> float:
            for k in range(load.singles):
                start = time.perf_counter()
                told(client.post("/v1/decide", json=questions[k % load.batch]))
                took_ms.append(1e3 * (time.perf_counter() - start))
            return load.singles

        shared, carried = {"questions": questions}, {"questions": questions, "bars": given}
        watched, single, whole = stopwatch.time(
            lambda: batches(shared, load.batches), singles, lambda: batches(carried, max(1, load.batches // 10))
        )
    where = f"over HTTP in batches of {load.batch}"
    yield Line(
        name=f"decisions {where} on a watched market",
        value=watched.per_second,
        unit="decisions/s",
        goals=LOAD_GOALS,
        more=watched.facts() | {"clients": 1},
    )
    yield Line(
        name=f"decisions {where}, {len(given):,} bars in each body",
        value=whole.per_second,
        unit="decisions/s",
        more=whole.facts() | {"clients": 1},
    )
    for said, percentile in (("median", 50), ("99th percentile", 99)):
        value = float(np.percentile(took_ms[-load.singles * stopwatch.repeats :], percentile))
        yield Line(name=f"one decision over HTTP, {said}", value=value, unit="ms", more=single.facts() | {"clients": 1})


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A copy of what a server reads of a project, to be changed."""
    with tempfile.TemporaryDirectory(prefix="btcai-bench-serve-") as folder:
        project = Path(folder)
        shutil.copytree(root / paths.CHAMPION, project / paths.CHAMPION)
        if (root / paths.REFLECTION).is_dir():
            shutil.copytree(root / paths.REFLECTION, project / paths.REFLECTION)
        yield project


def told(response: httpx.Response) -> dict[str, Any]:
    """The answer; AssertionError where it is none."""
    assert response.status_code == 200, f"{response.status_code} {response.text[:500]}"
    answer: dict[str, Any] = response.json()
    return answer
