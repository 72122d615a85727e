"""A project as the stages before `register` leave it, and what they hand to the record."""

import shutil
from pathlib import Path
from typing import Any

from export_fakes import hand_made_bundle, market, newest_bars

from btcai import paths, usage
from btcai.config import Config
from btcai.params import load_config
from btcai.registry import tracking
from btcai.registry.submission import History, Judged
from btcai.schema import BUCKETS

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
SYSTEM_ROW = "1700000000.5,5.0,50.0,4000.0,25.0,99.0,800.0"


def project(root: Path, weight: float = 1.0, data_version: str = "d1") -> Config:
    """What the stages before `register` leave: a bundle a bucket, curves, and what the machine did meanwhile."""
    config = load_config(PARAMS)
    for bucket in BUCKETS:
        versions = {"data": data_version, "code": "c1"}
        shutil.rmtree(root / paths.CANDIDATE / bucket, ignore_errors=True)
        hand_made_bundle(root / paths.CANDIDATE / bucket, bucket, mean=0.001 * weight, versions=versions)
        trained = root / paths.TRAIN / bucket
        trained.mkdir(parents=True, exist_ok=True)
        (trained / "curves.csv").write_text("phase,update,loss\npretrain,0,2.5\nppo,0,1.5\n", encoding="utf-8")
        (trained / usage.FILE).write_text(f"{','.join(usage.COLUMNS)}\n{SYSTEM_ROW}\n", encoding="utf-8")
    reports = root / paths.EVALUATION
    reports.mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "table.csv", "equity.png", "training_long.png"):
        (reports / name).write_text(name, encoding="utf-8")
    shutil.copy(PARAMS, root / paths.PARAMS)
    return config


def history(data_version: str = "d1") -> History:
    bars = newest_bars(market().bars, 9000, 8000)
    return History(
        market="simulated",
        rows=8000,
        first="2022-01-01T00:00:00Z",
        last="2022-01-28T18:35:00Z",
        data_version=data_version,
        dvc_md5="0123456789abcdef0123456789abcdef.dir" if data_version == "d1" else None,
        tested_ts_ns=(int(bars.close_ts_ns[-200]), int(bars.close_ts_ns[-1])),
        unsealed=bars,
    )


def judged(score: float, edge: Any = "none") -> dict[str, Judged]:
    metrics = {"sharpe": 0.1, "cagr": float("nan")}
    return {bucket: Judged(score=score, edge=edge, metrics=metrics, verdict="no edge shown") for bucket in BUCKETS}


def register(root: Path, config: Config, score: float, edge: Any = "none", data_version: str = "d1") -> dict[str, Any]:
    return tracking.register(root, config, judged(score, edge), history(data_version), "| the | table |")
