"""A project whose market was fetched from an exchange on 127.0.0.1, under our own flow: only its training is a toy.

`validate`, `features`, `drift` and all that fetches are the real ones. The stage `learn` stands for the other nine: it
copies bundles made by hand to models/candidate and makes them champions. What the exchange has by now, a test says.
"""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from export_fakes import loud_bundle
from operated_project import deploy

from bench.loopback_exchange import LoopbackExchange
from btcai.data.frame import BAR_MS
from btcai.data.sources import clock_ms
from btcai.schema import BARS_PER_DAY, BUCKETS
from btcai.simulator.bars import simulate_bars

ROOT = Path(__file__).resolve().parents[1]
DAY_MS = BARS_PER_DAY * BAR_MS
HISTORY_DAYS, LATER_DAYS = 52, 3
USUAL_DAY = 12
"""A day of the training span: what it is like cannot be called strange."""
WILD = 2.5
"""Times the usual moves on the last day."""
HORIZONS_BARS = {"scalping": [2, 3, 4], "short": [4, 6, 8], "medium": [20, 30, 40], "long": [30, 40, 50]}

LEARN = """
import json, shutil
from pathlib import Path
from btcai.records.champions import Standing, place_champion
from btcai.schema import BUCKETS
from btcai import paths
lives = Path("learned")
number = len(lives.read_text().split()) + 1 if lives.exists() else 1
with lives.open("a") as file:
    file.write(f"{number}\\n")
for bucket in BUCKETS:
    shutil.copytree(Path("bundles") / bucket, paths.CANDIDATE / bucket)
    standing = Standing(
        bucket=bucket, version=number, data_version="d", code_version="c", judged_on="j", score=0.5, edge="none",
        run_id=f"run-{number}",
    )
    place_champion(paths.CANDIDATE / bucket, standing, paths.CHAMPION / bucket)
"""
ENTRY = """
from flows import pipeline
from flows.refresh import refresh
pipeline.publish = lambda root, states, before, after: None  # there is no evaluation to show
"""


def market_until(now_ms: int) -> pd.DataFrame:
    """Bars of HISTORY_DAYS, then two days that move as USUAL_DAY did and one by WILD times as much, up to now."""
    bars = simulate_bars((HISTORY_DAYS + LATER_DAYS) * BARS_PER_DAY, seed=11)
    values = bars[["open", "high", "low", "close"]].to_numpy(np.float64, copy=True)
    usual = np.log(values[USUAL_DAY * BARS_PER_DAY :][:BARS_PER_DAY] / values[USUAL_DAY * BARS_PER_DAY - 1, 3])
    for day, scale in zip(range(HISTORY_DAYS, HISTORY_DAYS + LATER_DAYS), (1.0, 1.0, WILD), strict=True):
        first = day * BARS_PER_DAY
        values[first : first + BARS_PER_DAY] = values[first - 1, 3] * np.exp(scale * usual)
        volume = bars["volume"].to_numpy()[USUAL_DAY * BARS_PER_DAY :][:BARS_PER_DAY]
        bars.loc[first : first + BARS_PER_DAY - 1, "volume"] = volume
    bars[["open", "high", "low", "close"]] = values
    last_ms = now_ms // BAR_MS * BAR_MS - BAR_MS
    stamps = last_ms - BAR_MS * np.arange(len(bars))[::-1]
    bars["open_time"] = pd.to_datetime(stamps, unit="ms", utc=True).astype(bars["open_time"].dtype)
    return bars


def exchange_now() -> LoopbackExchange:
    """Which has LATER_DAYS of bars to come: its clock stands still before them."""
    now_ms = clock_ms()
    return LoopbackExchange(bars=market_until(now_ms), now_ms=now_ms - LATER_DAYS * DAY_MS)


def make_project(root: Path, exchange: LoopbackExchange) -> None:
    """A git checkout with DVC, the market fetched, the flow deployed as ours is with only_if_drifted."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["splits"] |= {"train_frac": 0.42, "valid_frac": 0.06, "test_frac": 0.33, "test_folds": 2}
    for bucket, horizons in HORIZONS_BARS.items():
        params["buckets"][bucket]["horizons_bars"] = horizons
    params["drift"] |= {"window_days": 1, "stop_ks": 1.0, "stop_psi": 1000.0, "stop_volatility": 1000.0}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    (root / "learn.py").write_text(LEARN, encoding="utf-8")
    (root / "entry.py").write_text(ENTRY, encoding="utf-8")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": _stages()}, sort_keys=False), encoding="utf-8")
    deploy(root, "entry.py:refresh", only_if_drifted=True)
    for bucket in BUCKETS:
        loud_bundle(root / "bundles" / bucket, bucket)
    fetch = ["data", "fetch", "--no-archive", "--url", exchange.url, "--since", _first_day(exchange)]
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        [sys.executable, "-m", "btcai.cli", *fetch],
    ):
        done = subprocess.run(command, cwd=root, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _stages() -> dict[str, object]:
    """validate, features and drift as ours are, without our code as a dependency, and what stands for the others."""
    ours = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    kept = {name: ours[name] for name in ("validate", "features", "drift")}
    for stage in kept.values():
        stage["deps"] = [one for one in stage["deps"] if not one.startswith("btcai/")]
    learn = {
        "cmd": f"{shlex.quote(sys.executable)} learn.py",
        "deps": ["artifacts/features", "learn.py"],
        "outs": ["models/candidate"],
    }
    return {"validate": kept["validate"], "features": kept["features"], "learn": learn, "drift": kept["drift"]}


def _first_day(exchange: LoopbackExchange) -> str:
    """The first whole day of the bars."""
    return str((exchange.bars["open_time"].iloc[0] + pd.Timedelta(days=1)).date())
