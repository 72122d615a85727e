"""Hashes of what a result rests on: the same content in two clones is the same version."""

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from btcai.config import Config

PACKAGE = Path(__file__).parents[1]
MODEL_CODE = (
    "agent",
    "calibration.py",
    "compiled.py",
    "config",
    "data",
    "features",
    "market",
    "models",
    "schema.py",
    "training",
)
"""Files and packages of btcai that shape a bundle; `export` in dvc.yaml depends on them, and on inference,
which proves the bundle."""
JUDGING_CODE = ("compiled.py", "evaluation", "market")
"""Files and packages that turn decisions into a score."""
NO_PART_IN_JUDGING = frozenset(
    {
        "evaluation/assessment.py",
        "evaluation/baselines.py",
        "evaluation/crps.py",
        "evaluation/daily_scores.py",
        "evaluation/direction_skill.py",
        "evaluation/forecast_skill.py",
        "evaluation/forecasters.py",
        "evaluation/incumbents.py",
        "evaluation/portfolio.py",
        "evaluation/random_trades.py",
        "evaluation/reliability.py",
        "evaluation/review.py",
        "evaluation/rules_of_thumb.py",
        "evaluation/sizing_comparison.py",
        "evaluation/slices.py",
        "evaluation/stress.py",
        "evaluation/targets.py",
        "evaluation/voices.py",
        "evaluation/volatility_forecast.py",
    }
)
"""Files of JUDGING_CODE that no score passes through: another colour in a figure must not make scores incomparable."""


def code_sha256(names: Iterable[str], package: Path = PACKAGE, without: Collection[str] = ()) -> str:
    """A hash over files or folders of `package`, names and bytes: not the commit, so clones agree."""
    digest = hashlib.sha256()
    for name in names:
        files = sorted((package / name).rglob("*.py")) if (package / name).is_dir() else [package / name]
        for file in files:
            place = file.relative_to(package).as_posix()
            if place not in without:
                digest.update(f"{place}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def code_version(package: Path = PACKAGE) -> str:
    """A hash over MODEL_CODE: the same code in two clones is the same version."""
    return code_sha256(MODEL_CODE, package)


def judged_on(config: Config, data_version: str, package: Path = PACKAGE) -> str:
    """A hash of the terms of a score: bars, spans, costs, limits, sizing, judging code. Equal ones compare.

    The horizons are in it because the longest is the purge between the spans.
    """
    terms = {
        "data_version": data_version,
        "horizons_bars": {name: bucket.horizons_bars for name, bucket in config.buckets.items()},
        "code": code_sha256(JUDGING_CODE, package, NO_PART_IN_JUDGING),
        **config.model_dump(mode="json", include={"splits", "market", "risk", "sizing"}),
    }
    return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()
