"""What training leaves: a judgement of a policy, and its metrics read strictly."""

import json
from pathlib import Path
from typing import Any

from btcai.training.play import Validation


def not_a_number(constant: str) -> None:
    raise AssertionError(f"{constant} is not strict JSON")


def read_metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"), parse_constant=not_a_number)
    return found


def judged_as(score: float, share_hold: float = 0.9, long_frac: float = 0.5) -> Validation:
    """A policy that waits, else buys, and is long for so much of the time."""
    return Validation(
        score=score,
        net_profit=0.0,
        lots_frac=long_frac,
        orders=0.0,
        share_hold=share_hold,
        share_buy=1 - share_hold,
        share_sell=0.0,
        share_close_all=0.0,
        long_frac=long_frac,
        short_frac=0.0,
    )
