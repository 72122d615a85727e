"""Other people's environments, each run by the interpreter of .bench/, which `make bench-setup` makes."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from btcai.errors import ArtifactError
from btcai.schema import MarketData

INTERPRETER = Path(".bench/bin/python")
GYM_TRADING_ENV = "gym-trading-env 0.3.5"
NO_PEERS = "no .bench/ environment: the reference was not run; make it with: make bench-setup"

PLAIN, WINDOWED = "16 columns", "144 x 16"
"""What its observations are: one row, or a window of rows."""

_SCRIPT = "bench.references.gym_trading_env_speed"
_BARS = 76_948
_FEATURES = 14


@dataclass(frozen=True)
class Peers:
    """Steps a second by configuration as gym_trading_env_speed names it; empty where .bench/ is not there."""

    per_second: dict[str, float]
    idle: bool | None = None
    """Whether the machine was, all the while; None without peers."""

    def fastest(self, *parts: str) -> tuple[str, float | None]:
        """(name, steps a second) of the fastest configuration whose name holds all parts; None without peers."""
        fit = {name: rate for name, rate in self.per_second.items() if all(part in name for part in parts)}
        if not fit:
            return GYM_TRADING_ENV, None
        name = max(fit, key=lambda candidate: fit[candidate])
        return f"{GYM_TRADING_ENV} {name}", fit[name]

    @property
    def note(self) -> str | None:
        return None if self.per_second else NO_PEERS


def measure_peers(data: MarketData, root: Path, repeats: int) -> Peers:
    """Run gym-trading-env on the market's last bars; ArtifactError with its last line where it fails."""
    interpreter = root / INTERPRETER
    if not interpreter.is_file():
        return Peers({})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "market.npz"
        rows = np.flatnonzero(data.bars.present)[-_BARS:]
        prices = (data.bars.open, data.bars.high, data.bars.low, data.bars.close, data.bars.volume)
        bars = np.stack([column[rows] for column in prices], axis=1)
        np.savez(file, bars=bars, features=data.features[rows, :_FEATURES])
        done = subprocess.run(
            [interpreter, "-m", _SCRIPT, str(file), str(repeats)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArtifactError(f"{GYM_TRADING_ENV} must run in .bench/, said: {last}; make it anew with: make bench-setup")
    report = json.loads(done.stdout)
    rates = {name: found["per_second"] for name, found in report.items()}
    return Peers(rates, idle=all(found["idle"] for found in report.values()))
