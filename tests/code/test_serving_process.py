"""The server as a process: killed and started again, stopped while it answers, and what it never imports."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from export_fakes import market
from learned_fakes import learn
from serving_fakes import HELD, champion, cut, plain, raw_rows

from bench.serve_http import Running, serving
from btcai import paths
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import load_bundle
from btcai.inference.decision import decide

pytestmark = pytest.mark.slow

STOP = 9_000
BARS = raw_rows(STOP, 144 + WARMUP_BARS)


def told(running: Running, path: str, body: object) -> dict[str, object]:
    response = httpx.post(f"{running.address}{path}", json=body, timeout=30)
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def test_killed_and_started_again_it_serves_from_the_folder_and_a_market_is_what_its_bars_say(tmp_path: Path) -> None:
    made = champion(tmp_path, "scalping")
    wanted = plain(decide(load_bundle(made), cut(market().bars, STOP + 1, 2_300), HELD)) | {"intervals": "adaptive"}
    asked = {"bucket": "scalping", "account": HELD}
    with serving(tmp_path, ("scalping",)) as running:
        told(running, "/v1/bars", {"bars": BARS})
        told(running, "/v1/bars", {"bars": raw_rows(STOP + 1, 1)})
        assert told(running, "/v1/decide", asked) == wanted
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(10)
    with serving(tmp_path, ("scalping",)) as running:
        lost = httpx.post(f"{running.address}/v1/decide", json=asked)
        assert (lost.status_code, "POST /v1/bars" in lost.text) == (404, True)
        told(running, "/v1/bars", {"bars": raw_rows(STOP + 1, 144 + WARMUP_BARS)})
        assert told(running, "/v1/decide", asked) == wanted


def test_told_to_stop_it_answers_what_is_in_flight_and_ends_well(tmp_path: Path) -> None:
    champion(tmp_path, "scalping")
    body = json.dumps({"questions": [{"bucket": "scalping", "account": HELD}] * 4_000, "bars": BARS}).encode()
    statuses: list[int] = []
    sent, go_on = threading.Semaphore(0), threading.Event()

    def all_but_a_byte() -> Iterator[bytes]:
        yield body[:-1]
        sent.release()
        go_on.wait(60)
        yield body[-1:]

    with serving(tmp_path, ("scalping",)) as running:

        def ask() -> None:
            headers = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
            address = f"{running.address}/v1/decide/batch"
            response = httpx.post(address, content=all_but_a_byte(), headers=headers, timeout=120)
            assert len(response.json()["answers"]) == 4_000, response.text
            statuses.append(response.status_code)

        askers = [threading.Thread(target=ask) for _ in range(12)]
        for asker in askers:
            asker.start()
        for _ in askers:
            assert sent.acquire(timeout=60)
        assert httpx.get(f"{running.address}/health", timeout=60).status_code == 200  # taken after all of them
        running.process.send_signal(signal.SIGTERM)
        _until_said(running, "requests in flight are answered first")
        go_on.set()
        assert running.process.wait(120) == 0
        for asker in askers:
            asker.join()
    assert statuses == [200] * 12


def test_told_twice_it_stops_at_once_and_no_error_is_logged(tmp_path: Path) -> None:
    champion(tmp_path, "scalping")
    statuses: list[int] = []
    with serving(tmp_path, ("scalping",)) as running:
        body = {"questions": [{"bucket": "scalping", "account": HELD}] * 4_000, "bars": BARS}

        def ask() -> None:
            try:
                statuses.append(httpx.post(f"{running.address}/v1/decide/batch", json=body, timeout=60).status_code)
            except httpx.TransportError:
                statuses.append(0)

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        with _half_asked(running):  # so that something is in flight, however fast the batches are answered
            while not _busy(running):
                time.sleep(0.01)
            running.process.send_signal(signal.SIGTERM)
            _until_said(running, "requests in flight are answered first")
            assert running.stop() == 0
        for asker in askers:
            asker.join()
    said = running.log.read_text(encoding="utf-8")
    assert len(statuses) == 3
    assert set(statuses) <= {200, 500, 0}  # answered in time, or cut off
    assert "stopping at once" in said
    assert "ERROR" not in said
    assert "Traceback" not in said


def test_told_again_when_it_has_stopped_already_it_ends_well_all_the_same(tmp_path: Path) -> None:
    champion(tmp_path, "scalping")
    with serving(tmp_path, ("scalping",)) as running:
        while running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        assert running.process.returncode == 0


@contextmanager
def _half_asked(running: Running) -> Iterator[None]:
    """Meanwhile one request waits for the rest of its body."""
    address = urlsplit(running.address)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall(b"POST /v1/decide HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
        yield


def _until_said(running: Running, words: str) -> None:
    """Wait for it in the log."""
    for _ in range(6_000):
        if words in running.log.read_text(encoding="utf-8"):
            return
        time.sleep(0.01)
    raise AssertionError(running.log.read_text(encoding="utf-8"))


def _busy(running: Running) -> bool:
    """Whether all three batches have come."""
    text = httpx.get(f"{running.address}/metrics", timeout=60).text
    lines = [line for line in text.splitlines() if line.startswith('btcai_looks_total{bucket="scalping"')]
    return sum(float(line.rpartition(" ")[2]) for line in lines) >= 3


def test_serving_imports_no_torch_mlflow_or_prefect(tmp_path: Path) -> None:
    champion(tmp_path, "scalping")
    script = (
        "import asyncio, json, sys\n"
        "from pathlib import Path\n"
        "import btcai.commands.serve\n"
        "from btcai.serving.app import create_app\n"
        "from btcai.serving.metrics import Metrics\n"
        "from btcai.serving.server import run\n"
        "from btcai.serving.service import Service\n"
        "from btcai.serving.shelf import Shelf\n"
        "metrics = Metrics()\n"
        "service = Service(Shelf(Path('.'), ('scalping',)), metrics)\n"
        "service.shelf.refresh()\n"
        "create_app(service)\n"
        "heavy = [m for m in ('torch', 'mlflow', 'prefect', 'onnx') if m in sys.modules]\n"
        "print(json.dumps([service.readiness()[0], heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, []]


FIRST_USE = """
import gc, json, sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from serving_fakes import app_of, new_service, talk

def overloads():
    return sum(len(one.overloads) for one in gc.get_objects() if isinstance(one, Dispatcher))

bodies = json.loads(Path(sys.argv[2]).read_text())
app = app_of(new_service(Path(sys.argv[1]), "scalping", "medium"))
before = overloads()
answers = talk(app, *[("POST", path, body) for path, body in bodies])
print(json.dumps([before, overloads(), [one.status_code for one in answers]]))
"""
"""How many functions are compiled, or loaded as they were, before the first request and after the last."""


def test_what_is_compiled_on_first_use_is_compiled_before_a_server_is_ready(tmp_path: Path) -> None:
    """Where nothing is compiled yet, in a fresh checkout, the first request was answered after 5 s."""
    for bucket in ("scalping", "medium"):
        made = champion(tmp_path, bucket)
        learn(tmp_path / paths.CHAMPION / bucket / paths.LEARNED, load_bundle(made), 1.0)
    asked = [{"bucket": bucket, "account": HELD, "explain": True} for bucket in ("scalping", "medium")]
    bodies = [("/v1/bars", {"bars": raw_rows(STOP, 4_500)}), ("/v1/bars", {"bars": raw_rows(STOP + 1, 1)})]
    bodies += [("/v1/decide", body) for body in asked]
    bodies.append(("/v1/decide/batch", {"questions": [{"bucket": "scalping"}] * 8, "bars": raw_rows(STOP, 4_500)}))
    (tmp_path / "bodies.json").write_text(json.dumps(bodies), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE, tmp_path, tmp_path / "bodies.json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, after, statuses = json.loads(done.stdout.splitlines()[-1])
    assert statuses == [200] * 5
    assert before == after > 20


def test_beyond_the_loopback_nobody_listens(tmp_path: Path) -> None:
    champion(tmp_path, "scalping")
    with serving(tmp_path, ("scalping",)) as running:
        port = int(running.address.rpartition(":")[2])
        with pytest.raises(OSError, match="refused"), socket.create_connection((_own_address(), port), timeout=5):
            pass


def _own_address() -> str:
    """An address of this machine that is not the loopback's; asks nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback's")
        return str(probe.getsockname()[0])
