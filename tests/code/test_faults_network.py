"""Without a network: no stage asks for one, and what needs one says so and keeps what is there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scratch_checkout import checkout

from btcai import paths
from btcai.environment import child_environment

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent

pytestmark = pytest.mark.slow

STAGES = """
import socket, sys
from pathlib import Path
from btcai import cli, paths, stages
from btcai.config import Config
from btcai.data.store import write_market
from btcai.params import load_config
from btcai.simulator.bars import simulate_bars
import registry_fakes
root = Path.cwd()
config = registry_fakes.project(root)
write_market(root / paths.DATA, config.data.market, simulate_bars(150_000, seed=3))
for name in ("validate", "features"):
    stages.run_stage(name, config, root)
registry_fakes.register(root, config, 0.1)
"""

UPDATE = """
from pathlib import Path
from btcai import acquisition
from btcai.fetch.patience import Patience
_, stopped = acquisition.update(Path.cwd(), Patience(tries=2, sleep=lambda seconds: None), lambda done, wanted: None)
print(stopped)
"""

ASKING = "import socket; socket.create_connection(('example.org', 443), timeout=5)"


def offline(root: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """A process that reaches this machine alone; what it asked for beside is in root/asked."""
    search = os.pathsep.join(
        [str(TESTS / "offline"), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []), str(TESTS)]
    )
    more = {"PYTHONPATH": search, "OFFLINE_NOTES": str(root / "asked"), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=child_environment() | more, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip


def test_who_asks_for_a_network_is_found_out(tmp_path: Path) -> None:
    done = offline(tmp_path, "-c", ASKING)
    assert done.returncode
    assert "Temporary failure in name resolution" in done.stderr
    assert "asked for the address of example.org" in (tmp_path / "asked").read_text(encoding="utf-8")


def test_no_stage_of_validation_features_or_the_registry_asks_for_a_network(tmp_path: Path) -> None:
    done = offline(tmp_path, "-c", STAGES)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / paths.REGISTER).read_text(encoding="utf-8"))["buckets"]
    assert not (tmp_path / "asked").exists()


def test_an_update_without_a_network_says_so_and_keeps_the_bars(tmp_path: Path) -> None:
    from btcai.data.store import write_market
    from btcai.fetch.origin import Origin, write_origin
    from btcai.params import set_param
    from btcai.simulator.bars import simulate_bars

    root = tmp_path / "project"
    checkout(root)
    shutil.copy(ROOT / paths.PARAMS, root)
    set_param(root / paths.PARAMS, "data.market", "binance_btcusdt")
    folder = root / paths.DATA / "binance_btcusdt"
    write_market(root / paths.DATA, "binance_btcusdt", simulate_bars(600, seed=3))
    write_origin(folder, Origin(exchange="binance", symbol="BTC/USDT", timeframe="5m", url=None, archive=False))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = offline(root, "-c", UPDATE)
    assert done.returncode == 0, done.stderr
    assert "binance failed 2 times in a row" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "asked for the address of api.binance.com" in (root / "asked").read_text(encoding="utf-8")
