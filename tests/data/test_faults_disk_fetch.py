"""A disk that is full at any write of a fetch: bars are whole, and the same command brings the rest.

As in tests/code/test_faults_disk.py, with the real clients and an exchange on 127.0.0.1.
"""

import hashlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from disk_sweep import Sweep, locks
from faults import contents

from bench.loopback_exchange import LoopbackExchange, serving
from btcai import acquisition, datasets, paths
from btcai.data import sources
from btcai.data.frame import BAR_MS
from btcai.fetch.fetching import Order
from btcai.fetch.patience import Patience
from btcai.files import write_bytes
from btcai.params import set_param
from btcai.simulator.bars import simulate_bars

ROOT = Path(__file__).resolve().parents[2]
FIRST_MS = 1_640_995_200_000  # 2022-01-01T00:00:00Z
N_BARS = 600
PATIENT = Patience(tries=2, sleep=lambda seconds: None)

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    return Sweep(monkeypatch, capsys)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without bars; DVC's part is to write what data/ holds to data.dvc, and to tell whether it does."""
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(ROOT / paths.PARAMS, root)
    set_param(root / paths.PARAMS, "data.market", "simulated")
    (root / datasets.PIN).write_text("nothing yet", encoding="utf-8")

    def asked(root: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        held = hashlib.sha256(repr(contents(root / paths.DATA)).encode()).hexdigest()
        if arguments[0] == "add":
            write_bytes(root / datasets.PIN, held.encode())
        return int((root / datasets.PIN).read_text(encoding="utf-8") != held)

    monkeypatch.setattr(datasets, "_dvc", asked)
    return root


@pytest.fixture
def exchange() -> Iterator[LoopbackExchange]:
    bars = simulate_bars(N_BARS + 288, seed=3)
    with serving(LoopbackExchange(bars=bars, now_ms=FIRST_MS + N_BARS * BAR_MS + 60_000)) as served:
        yield served


def fetched(root: Path, *, url: str, symbol: str = "BTC/USDT") -> None:
    order = Order(
        exchange="binance", symbol=symbol, timeframe="5m", market="bars", since_ms=FIRST_MS,
        until_ms=FIRST_MS + N_BARS * BAR_MS, archive=False, url=url, request_ms=0.0,
    )  # fmt: skip
    acquisition.fetch(root, order, PATIENT, lambda done, wanted: None)


@pytest.mark.parametrize("symbol", ["BTC/USDT", "BTC/USDT:USDT"])
def test_a_fetch(project: Path, sweep: Sweep, exchange: LoopbackExchange, symbol: str) -> None:
    """Of a new market: its bars, where they are from, a swap's rates, data.dvc and params.yaml, one after the other."""
    tried = sweep(project, partial(fetched, url=exchange.url, symbol=symbol), apart=locks, in_turn=True)
    assert tried.errors >= tried.writes >= 8


def test_an_update(project: Path, sweep: Sweep, exchange: LoopbackExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(project, url=exchange.url)
    exchange.now_ms += 288 * BAR_MS
    monkeypatch.setattr(sources, "clock_ms", lambda: exchange.now_ms)

    def updated(root: Path) -> None:
        assert acquisition.update(root, PATIENT, lambda done, wanted: None) is not None

    tried = sweep(project, updated, apart=locks, in_turn=True)
    assert tried.errors >= tried.writes >= 4
