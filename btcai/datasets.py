"""Which market is in use: data/MARKET on disk, data.dvc that pins it, data.market in params.yaml."""

import logging
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from btcai import paths
from btcai.config import Config
from btcai.environment import child_environment
from btcai.errors import DataError
from btcai.file_lock import locked
from btcai.params import set_param
from btcai.records import lineage

if TYPE_CHECKING:
    from btcai.data.store import Written

logger = logging.getLogger(__name__)

SIMULATED = "simulated"
PIN = Path("data.dvc")
LOCK = Path(".dvc/tmp/btcai.lock")


def alone(root: Path) -> AbstractContextManager[None]:
    """DataError where another process changes markets too: each would take the other's half for its own."""
    refusal = DataError(f"another btcai is changing {paths.DATA}/; wait for it, then run this again")
    return locked(root / LOCK, refusal)


def simulate(root: Path) -> str:
    """Write the default simulated market, the same bits on every machine, and pin it; returns what was written."""
    with alone(root):
        written = _write_simulated(root)
        pin(root)
    return written


def check_enough(root: Path, config: Config) -> None:
    """DataError where the market in use has too few bars for the splits of params.yaml."""
    from btcai.data.store import read_market
    from btcai.features.splits import make_splits
    from btcai.features.table import WARMUP_BARS
    from btcai.schema import BAR_SECONDS

    stamps = read_market(root / paths.DATA, config.data.market)["open_time"]
    n_bars = int((stamps.iloc[-1] - stamps.iloc[0]).total_seconds()) // BAR_SECONDS + 1  # the grid: gaps count
    make_splits(n_bars, config.splits, config.purge_bars, WARMUP_BARS)


def folds(root: Path, config: Config, n_groups: int, n_test: int) -> str:
    """Tables of walk-forward and combinatorial folds of the bars before the sealed span, for the market in use."""
    from btcai.cross_validation import combinatorial_folds, combinatorial_paths, printed, walk_forward_folds
    from btcai.data.store import read_market, to_grid
    from btcai.features.splits import make_splits
    from btcai.features.table import WARMUP_BARS
    from btcai.schema import Span

    close_ts_ns = to_grid(read_market(root / paths.DATA, config.data.market)).close_ts_ns
    splits = make_splits(len(close_ts_ns), config.splits, config.purge_bars, WARMUP_BARS)
    span, gap = Span(splits.train.first, splits.test.stop), (config.purge_bars, config.splits.embargo_bars)
    walked = walk_forward_folds(span, n_groups - 1, *gap)
    combined = combinatorial_folds(span, n_groups, n_test, *gap)
    n_paths = len(combinatorial_paths(n_groups, n_test))
    return "\n".join(
        [
            f"{len(walked)} folds walked forward",
            printed(walked, close_ts_ns),
            f"{len(combined)} combinatorial folds, {n_paths} paths",
            printed(combined, close_ts_ns),
        ]
    )


def use(root: Path, market: str) -> tuple[str, str]:
    """Put a market that is there into use; returns the old and the new one."""
    if market not in markets(root):
        there = ", ".join(markets(root)) or "none"
        command = "simulate market" if market == SIMULATED else f"data import PATH --market {market}"
        raise DataError(f"no bars in {paths.DATA / market}, markets here: {there}; get them with: btcai {command}")
    return set_param(root / paths.PARAMS, "data.market", market)


def status(root: Path, config: Config) -> list[str]:
    """A line per market with its bars, the one in use marked, and whether data.dvc names what is there."""
    lines = [_status_line(root, market, config.data.market) for market in markets(root)]
    if config.data.market not in markets(root):
        lines.append(f"* {config.data.market}: no bars; btcai run simulates, btcai data import PATH imports")
    if not markets(root):
        return [*lines, "no bars are here; get them with: btcai simulate market, or dvc pull"]
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
            "or go back to the simulated market with: btcai simulate market"
        )
    with alone(root):
        written = _write_simulated(root)
        held = (root / PIN).read_bytes() if (root / PIN).is_file() else None
        pin(root)  # into DVC's cache too, without which it knows no bars
        if held is not None and (root / PIN).read_bytes() != held:
            (root / PIN).write_bytes(held)  # other bars are on record: that is the user's to change
    return written


def ready(root: Path, config: Config) -> list[str]:
    """See to it that the market in use can be run on, and return what a user should know before.

    A fresh clone's simulated market is made; DataError where there are no bars or too few of them for the splits. Bars
    that nothing has on record are pointed out: `dvc repro` would take them in silence.
    """
    made = ensure(root, config)
    check_enough(root, config)
    notes = [made] if made else []
    if not is_pinned(root):
        notes.append(f"{paths.DATA}/ is not what {PIN} names; this run takes it as it is. Record it with: dvc add data")
    elif lineage.git(root, "status", "--porcelain", "--", str(PIN)):
        notes.append(f"{PIN} has changed since the last commit. Keep it with: git commit {PIN} {paths.PARAMS}")
    return notes


def markets(root: Path) -> list[str]:
    """Names of the markets under data/ that hold bars."""
    from btcai.data.store import list_markets

    return list_markets(root / paths.DATA)


def pin(root: Path) -> None:
    """`dvc add data`: data.dvc then names exactly these bars."""
    _dvc(root, "add", str(paths.DATA))  # quiet, it would not say why it failed


def is_pinned(root: Path) -> bool:
    """True when data.dvc names exactly the bars under data/."""
    return (root / PIN).is_file() and _dvc(root, "status", "--quiet", str(PIN), allowed=(0, 1)) == 0


def _write_simulated(root: Path) -> str:
    """In place of another default's bars, which an older version made."""
    from btcai.data.store import replace_market
    from btcai.simulator.bars import DEFAULT_BARS, DEFAULT_SEED, simulate_bars

    bars = simulate_bars(DEFAULT_BARS, DEFAULT_SEED)
    return line_of(replace_market(root / paths.DATA, SIMULATED, bars, lambda folder: None))


def line_of(written: "Written", remark: str = "") -> str:
    """A market that was just written, in one line; the remark stands before its gaps."""
    return (
        f"{written.market}: {written.rows_added:,} bars added, now {written.rows:,}, {written.first} to "
        f"{written.last}, {remark}{gaps_of(written.gaps, written.missing_bars)}"
    )


def gaps_of(gaps: int, missing_bars: int) -> str:
    """How many, in words."""
    return f"{gaps:,}, {missing_bars:,} bars missing" if gaps else "no gaps"


def _status_line(root: Path, market: str, used: str) -> str:
    from btcai.data.store import market_status

    found = market_status(root / paths.DATA, market)
    return (
        f"{'*' if market == used else ' '} {market}: {found['rows']:,} bars, {found['first']} to {found['last']}, "
        f"{found['missing_bars']:,} missing in {found['gaps']} gaps, {found['zero_volume_bars']:,} without volume, "
        f"version {found['content_sha256'][:12]}"
    )


def _dvc(root: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
    """Run dvc; DataError with its reason when it fails. `dvc status --quiet` answers 1 for a difference."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=child_environment(), text=True, capture_output=True, check=False)
    if done.returncode not in allowed:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [
            f"exit code {done.returncode}, without --quiet it says why"
        ]
        reason = next((line for line in said if line.startswith("ERROR: ")), said[-1]).removeprefix("ERROR: ")
        raise DataError(f"dvc {' '.join(arguments)} failed: {reason}; mend that, then run it again")
    logger.debug("dvc %s: exit code %d", " ".join(arguments), done.returncode)
    return done.returncode
