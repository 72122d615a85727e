"""What one run of the pipeline hands to the record, besides its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from btcai.config import Config
from btcai.records.champions import Edge
from btcai.schema import Bars


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What evaluation found about one bucket."""

    score: float
    edge: Edge
    metrics: Mapping[str, float]
    """Figures under the severity that is judged; undefined ones are nan."""
    verdict: str = ""
    """The edge in one sentence with its numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """The bars that the features, and so everything after them, were made from."""

    market: str
    rows: int
    first: str
    """Opening time of the first bar, and of the last one, ISO 8601 in UTC."""
    last: str
    data_version: str
    """Hash of the bars' content."""
    dvc_md5: str | None
    """DVC's hash of the market's folder ("....dir"), where dvc.lock tells it of these very features."""
    tested_ts_ns: tuple[int, int]
    """Closes of the test span's first and last bar."""
    unsealed: Bars
    """What may be shown: nothing of the sealed span."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Submission:
    """Everything that the record of one run says."""

    root: Path
    config: Config
    judged: Mapping[str, Judged]
    history: History
    results: str
    """The table of results and the verdicts, markdown."""
    code_version: str
    judged_on: str
    input_hash: str
    lineage: Mapping[str, str]
    """What the checkout held as the run was recorded (lineage.tags); no part of input_hash."""
