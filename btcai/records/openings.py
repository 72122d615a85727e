"""The one ledger of sealed spans that were opened: each look costs some of what the next one can prove."""

from dataclasses import asdict, dataclass
from pathlib import Path

from btcai.errors import ArtifactError, ConfigError
from btcai.records.ledgers import append_line, line_of, lines_of, record_of
from btcai.schema import SealedSpan, Span


@dataclass(frozen=True, kw_only=True)
class Opening:
    """One look at a sealed span.

    first_ts_ns, last_ts_ns: UTC closes of its first and its last bar; models: bucket -> version that was judged there.
    """

    market: str
    data_version: str
    first_ts_ns: int
    last_ts_ns: int
    opened_unix_s: int
    because: str
    models: dict[str, str]


def opened(span: SealedSpan, opening: Opening, ledger: Path) -> tuple[Span, int]:
    """The span, once the look is on record; and how many looks the ledger has at any part of this time, this one too.

    On the disk before it returns: a look that was killed counts. ConfigError without a reason, ArtifactError where the
    ledger cannot be read: an unknown number of looks is not none.
    """
    if not opening.because.strip():
        raise ConfigError("a sealed span is opened for a reason; give it: btcai sealed open --because TEXT")
    before = len(looks_at(opening.market, opening.first_ts_ns, opening.last_ts_ns, ledger))
    append_line(ledger, line_of(asdict(opening)))
    return Span(span.first, span.stop), 1 + before


def looks(ledger: Path) -> list[Opening]:
    """All that are on record, oldest first; ArtifactError where a line is damaged."""
    found = []
    for number, line in enumerate(lines_of(ledger), start=1):
        try:
            found.append(Opening(**record_of(line, f"{ledger} line {number}")))
        except (ValueError, TypeError) as error:
            raise ArtifactError(
                f"{ledger} line {number} must be an opening of a sealed span, was damaged ({error}); mend or restore "
                "that line, for how often the span was looked at must be known; then look again with: btcai doctor"
            ) from error
    return found


def looks_at(market: str, first_ts_ns: int, last_ts_ns: int, ledger: Path) -> list[Opening]:
    """The looks at any part of this time of a market, oldest first."""
    return [other for other in looks(ledger) if _overlap(market, first_ts_ns, last_ts_ns, other)]


def _overlap(market: str, first_ts_ns: int, last_ts_ns: int, other: Opening) -> bool:
    """Whether a look was at the same market and time, wholly or in part; its data may have grown since."""
    return market == other.market and first_ts_ns <= other.last_ts_ns and other.first_ts_ns <= last_ts_ns
