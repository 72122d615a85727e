"""Other people's packages, each run by the interpreter of .bench/, which `make bench-setup` makes."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btcai.schema import MarketData

ENVIRONMENT = Path(".bench")
INTERPRETER = ENVIRONMENT / "bin/python"
GYM_TRADING_ENV = "gym-trading-env 0.3.5"
NO_PEERS = "no .bench/ environment: the reference was not run; make it with: make bench-setup"
REMAKE = "make it anew with: rm -r .bench && make bench-setup"

PLAIN, WINDOWED = "16 columns", "144 x 16"
"""What its observations are: one row, or a window of rows."""

_BARS = 76_948
"""Nine months: as many as an earlier study ran these environments on, whose figures can thus be held against these."""

_FEATURES = 14  # and two that it adds itself: as many columns as PLAIN says
_START_S, _REPEAT_S = 600.0, 60.0  # several times what it takes on a busy machine: only a hang is ended


@dataclass(frozen=True)
class Peers:
    """Steps a second by configuration as gym_trading_env_speed names it; empty where .bench/ is missing or broken."""

    per_second: dict[str, float]
    idle: bool | None = None
    """Whether the machine was, all the while; None without peers."""
    note: str | None = None
    """Why there are none and what to do about it."""

    def fastest(self, *parts: str) -> tuple[str, float | None]:
        """(name, steps a second) of the fastest configuration whose name holds all parts; None without peers."""
        fit = {name: rate for name, rate in self.per_second.items() if all(part in name for part in parts)}
        if not fit:
            return GYM_TRADING_ENV, None
        name = max(fit, key=lambda candidate: fit[candidate])
        return f"{GYM_TRADING_ENV} {name}", fit[name]


def measure_peers(data: MarketData, root: Path, repeats: int) -> Peers:
    """Run gym-trading-env on the market's last bars; where it cannot run, the note has its last words."""
    report, note = ask("gym_trading_env_speed", GYM_TRADING_ENV, _arrays(data), root, repeats)
    if note:
        return Peers({}, note=note)
    rates = {name: found["per_second"] for name, found in report.items()}
    return Peers(rates, idle=all(found["idle"] for found in report.values()))


def ask(
    script: str, package: str, arrays: Mapping[str, NDArray[Any]], root: Path, repeats: int
) -> tuple[dict[str, dict[str, Any]], str | None]:
    """What bench.references.SCRIPT prints of the arrays, by configuration of `package`; or nothing, and a note why."""
    if not (root / ENVIRONMENT).is_dir():
        return {}, NO_PEERS
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "market.npz"
        np.savez(file, allow_pickle=False, **arrays)
        try:
            return _report(root / INTERPRETER, f"bench.references.{script}", file, repeats), None
        except (OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
            return {}, f"{package} must run in .bench/, said: {_last_words(error)}; {REMAKE}"


def _arrays(data: MarketData) -> dict[str, NDArray[Any]]:
    rows = np.flatnonzero(data.bars.present)[-_BARS:]
    prices = (data.bars.open, data.bars.high, data.bars.low, data.bars.close, data.bars.volume)
    bars = np.stack([column[rows] for column in prices], axis=1)
    return {"bars": bars, "features": data.features[rows, :_FEATURES]}


def _report(interpreter: Path, module: str, file: Path, repeats: int) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [str(interpreter), "-m", module, str(file), str(repeats)],
        cwd=file.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=_START_S + repeats * _REPEAT_S,
    )
    report: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return report


def _last_words(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return str((error.stderr.strip().splitlines() or ["no message"])[-1])
    if isinstance(error, subprocess.TimeoutExpired):
        return f"nothing in {error.timeout:.0f} s"
    return str(error)
