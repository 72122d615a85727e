"""Which market is in use: data/MARKET on disk, data.dvc that pins it, data.market in params.yaml."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from btcai import paths
from btcai.config import Config, load_config, set_param
from btcai.environment import child_environment
from btcai.errors import DataError

if TYPE_CHECKING:
    from btcai.data.store import ImportReport

logger = logging.getLogger(__name__)

SIMULATED = "simulated"
PIN = Path("data.dvc")


def simulate(root: Path) -> str:
    """Write the default simulated market, the same bits on every machine, and pin it; returns what was written."""
    written = _write_simulated(root)
    pin(root)
    return written


def import_file(root: Path, path: Path, market: str, timeframe: str) -> tuple[str, str, str]:
    """Bars of a file join data/MARKET, pinned and in use; returns what was imported, old market, new."""
    from btcai.data import store

    if market == SIMULATED:
        raise DataError(f"{SIMULATED} is the simulated market's name; choose another: --market btcusdt")
    load_config(root / paths.PARAMS)  # a broken file is found before any bar is written
    report = store.import_file(root / paths.DATA, market, path, timeframe)
    pin(root)
    return (_imported(report), *set_param(root / paths.PARAMS, "data.market", market))


def use(root: Path, market: str) -> tuple[str, str]:
    """Put a market that is there into use; returns the old and the new one."""
    if market not in markets(root):
        there = ", ".join(markets(root)) or "none"
        command = "simulate" if market == SIMULATED else f"import PATH --market {market}"
        raise DataError(f"no bars in {paths.DATA / market}, markets here: {there}; get them with: btcai data {command}")
    return set_param(root / paths.PARAMS, "data.market", market)


def status(root: Path, config: Config) -> list[str]:
    """A line per market with its bars, the one in use marked, and whether data.dvc names what is there."""
    lines = [_status_line(root, market, config.data.market) for market in markets(root)]
    if config.data.market not in markets(root):
        lines.append(f"* {config.data.market}: no bars; btcai run simulates, btcai data import PATH imports")
    pinned = (
        f"{PIN} names these bars" if is_pinned(root) else f"{PIN} does not name these bars; record them: dvc add data"
    )
    return [*lines, pinned]


def ensure(root: Path, config: Config) -> str | None:
    """Make sure that the market in use has bars: a fresh clone simulates its own. Returns what was made."""
    market = config.data.market
    if market in markets(root):
        return None
    if market != SIMULATED:
        raise DataError(
            f"no bars in {paths.DATA / market}; get them with: dvc pull, or btcai data import PATH --market {market}, "
            "or go back to the simulated market with: btcai data simulate"
        )
    written = _write_simulated(root)
    if not (root / PIN).is_file():
        pin(root)
    return written


def markets(root: Path) -> list[str]:
    """Names of the markets under data/ that hold bars."""
    from btcai.data.store import list_markets

    return list_markets(root / paths.DATA)


def pin(root: Path) -> None:
    """`dvc add data`: data.dvc then names exactly these bars."""
    _dvc(root, "add", "--quiet", str(paths.DATA))


def is_pinned(root: Path) -> bool:
    """True when data.dvc names exactly the bars under data/."""
    return (root / PIN).is_file() and _dvc(root, "status", "--quiet", str(PIN), allowed=(0, 1)) == 0


def _write_simulated(root: Path) -> str:
    from btcai.data.simulator import DEFAULT_BARS, DEFAULT_SEED, simulate_bars
    from btcai.data.store import write_market

    return _imported(write_market(root / paths.DATA, SIMULATED, simulate_bars(DEFAULT_BARS, DEFAULT_SEED)))


def _imported(report: "ImportReport") -> str:
    again = f", {report.duplicates_dropped:,} repeated" if report.duplicates_dropped else ""
    gaps = f", {report.missing_bars:,} missing in {report.gaps} gaps" if report.gaps else ", no gaps"
    return (
        f"{report.market}: {report.rows_added:,} bars added of {report.rows_read:,} read{again}; "
        f"now {report.rows:,} bars, {report.first} to {report.last}{gaps}"
    )


def _status_line(root: Path, market: str, used: str) -> str:
    from btcai.data.store import market_status

    found = market_status(root / paths.DATA, market)
    return (
        f"{'*' if market == used else ' '} {market}: {found['rows']:,} bars, {found['first']} to {found['last']}, "
        f"{found['missing_bars']:,} missing in {found['gaps']} gaps, {found['zero_volume_bars']:,} without volume, "
        f"version {found['content_sha256'][:12]}"
    )


def _dvc(root: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
    """Run dvc; DataError with its last line when it fails. `dvc status --quiet` answers 1 for a difference."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=child_environment(), text=True, capture_output=True, check=False)
    if done.returncode not in allowed:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise DataError(f"dvc {' '.join(arguments)} failed: {said[-1].strip()}; mend that, then run it again")
    logger.debug("dvc %s: exit code %d", " ".join(arguments), done.returncode)
    return done.returncode
