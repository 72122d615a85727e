"""The decision that a bundle made as it was registered, and whether the same files still make it, here and now.

Equal hashes prove equal files; this proves that this machine's btcai and ONNX Runtime make of them what they made.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from btcai.errors import ArtifactError
from btcai.inference import pyfunc

FOLDER = "self_check"
BARS = "bars.parquet"
ANSWER = "decision.json"
TOLERANCE = 1e-4
"""As far apart as the same graph may be on two machines: processors round otherwise."""


def write(folder: Path, bars: pd.DataFrame, answer: pd.DataFrame) -> None:
    """Keep raw bars and what a bundle decided on them (one row of pyfunc.DecisionModel)."""
    folder.mkdir(parents=True)
    bars.to_parquet(folder / BARS)
    (folder / ANSWER).write_text(json.dumps(figures(answer), indent=2) + "\n", encoding="utf-8")


def figures(answer: pd.DataFrame) -> dict[str, Any]:
    """The action and every number of a decision."""
    row: dict[str, Any] = {str(name): value for name, value in answer.iloc[0].items()}
    return {name: value for name, value in row.items() if name == "action" or isinstance(value, float)}


def repeat(bundle: Path, folder: Path) -> int:
    """Decide again with the bundle; how many numbers were compared. ArtifactError names the first that differs."""
    wanted = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    found = figures(pyfunc._load_pyfunc(str(bundle)).predict(pd.read_parquet(folder / BARS)))
    for name, value in wanted.items():
        same = found.get(name) == value if name == "action" else _close(found.get(name), value)
        if not same:
            raise ArtifactError(
                f"{bundle} must decide as it did when it was registered: {name} was {value}, is {found.get(name)}; "
                "the same files decide otherwise with this btcai or this ONNX Runtime: make setup, or btcai run"
            )
    return len(wanted)


def _close(found: Any, wanted: float) -> bool:
    return isinstance(found, float) and abs(found - wanted) <= TOLERANCE * max(1.0, abs(wanted))
