"""journal/trials.jsonl: every configuration ever tried, so that the luck of the best of them can be counted."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btcai.records.ledgers import append_line, line_of, lines_of, record_of

logger = logging.getLogger(__name__)


def append_trial(path: Path, trial: Mapping[str, object]) -> bool:
    """Append one line to the ledger of configurations ever tried; False when its input_hash is there already.

    A line that a killed process left torn, or a disk damaged, is skipped, never an obstacle to the next one.
    """
    return append_line(path, line_of(trial), unless=lambda lines: trial["input_hash"] in _tried(path, lines))


@dataclass(frozen=True, kw_only=True)
class JudgedSpan:
    """A span of a market that configurations are judged on: closes of its first and last bar; which bars they are."""

    market: str
    first_ts_ns: int
    last_ts_ns: int
    data_version: str


def trial_sharpes(path: Path, span: JudgedSpan, present: Mapping[str, object]) -> list[float]:
    """Annual Sharpe ratio of every bucket of every configuration tried on a time in common with `span`; nan for none.

    None has who did not trade, and a configuration that was compared by another score (`btcai ablate`). Bars that are
    new every day leave most of a span what it was, so looks at it from other days count. Lines of the very bars that
    say all that `present` does are of the configuration that is judged now, which counts itself.
    """
    found: list[float] = []
    for number, line in enumerate(lines_of(path), start=1):
        try:
            trial = record_of(line, f"{path} line {number}")
            its_data = trial.get("data_version") or (trial.get("terms") or {}).get("data_version")
            same_bars = its_data == span.data_version
            same_market = same_bars or trial.get("market") == span.market
            is_present = same_bars and all(trial.get(name) == value for name, value in present.items())
            if same_market and _overlaps(trial, span) and not is_present:
                sharpes = trial.get("sharpes") or {"": None}
                found += [math.nan if sharpe is None else float(sharpe) for sharpe in sharpes.values()]
        except (ValueError, AttributeError, TypeError):
            logger.warning("%s line %d is torn or damaged: it counts as a trial without a score", path, number)
            found.append(math.nan)
    return found


def _overlaps(trial: Mapping[str, Any], span: JudgedSpan) -> bool:
    """Whether it was judged on a time in common; one that does not say when counts."""
    first, last = trial.get("tested_ts_ns") or (span.first_ts_ns, span.last_ts_ns)
    return bool(first <= span.last_ts_ns and last >= span.first_ts_ns)


def _tried(path: Path, lines: list[bytes]) -> set[object]:
    """The input hashes in the ledger's whole lines."""
    hashes: set[object] = set()
    for number, line in enumerate(lines, start=1):
        try:
            hashes.add(record_of(line, f"{path} line {number}")["input_hash"])
        except (ValueError, LookupError, TypeError):
            logger.warning("%s line %d is torn or damaged and is skipped; see: btcai doctor", path, number)
    return hashes
