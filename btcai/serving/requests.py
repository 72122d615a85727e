"""What may be asked of the server: bodies, judged before anything is computed."""

from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from btcai.data.cells import epoch_ms
from btcai.data.frame import BAR_MS, iso
from btcai.errors import DataError
from btcai.inference.pyfunc import bars_of
from btcai.schema import RAW_COLUMNS, Bars

MAX_BODY_BYTES = 5 * 2**19
"""MAX_BARS bars with every digit."""
MAX_BATCH_BYTES = 8 * 2**20
"""MAX_QUESTIONS accounts with all their lots besides."""
MAX_BARS = 20_000
MAX_QUESTIONS = 4_096
MARKET = "btcusdt"
BATCH = "/v1/decide/batch"

Stamp = Annotated[int, Field(ge=0, lt=2**63)]
Row = tuple[Stamp, float, float, float, float, float]
"""open_time (UTC, s, ms, us or ns since 1970), open, high, low, close (USDT), volume (BTC): a row of ccxt's."""

Rows = Annotated[list[Row], Field(min_length=1, max_length=MAX_BARS, fail_fast=True)]
"""fail_fast: of what is wrong the first is told, and a list of all of it took seconds."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Bucket = Literal["scalping", "short", "medium", "long"]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_more_than_there_are(cls, given: Any) -> Any:
        """A million unknown fields would be a million errors; a few are named each."""
        known = ", ".join(cls.model_fields)
        if isinstance(given, dict) and len(given) > len(cls.model_fields):
            raise ValueError(f"there are no more fields than {known}, was given {len(given):,}")
        return given


class Question(_Body):
    """One account of one bucket."""

    bucket: Bucket
    account: dict[str, Any] | None = None
    """As `btcai decide --account` reads it; none is a flat one with the bundle's equity."""


class _OnBars(_Body):
    """Of bars in the body, or of those that a market was given before."""

    bars: Rows | None = None
    market: Name | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "_OnBars":
        if self.bars is not None and self.market is not None:
            raise ValueError("give bars or a market, not both")
        return self


class DecideRequest(Question, _OnBars):
    """A decision at the newest bar on the bucket's clock."""

    explain: bool = False
    """With every step to it."""


class BatchRequest(_OnBars):
    """Decisions of many accounts, of any buckets, on the same bars."""

    questions: Annotated[list[Question], Field(min_length=1, max_length=MAX_QUESTIONS, fail_fast=True)]


class AppendRequest(_Body):
    """Bars that have closed since the last ones of a market; the first ones start it."""

    market: Name = MARKET
    bars: Rows
    allow_gap: bool = False
    """Bars that are not given, before these or between them, were made by no exchange: they are missing."""
    restart: bool = False
    """Forget what the market held and start from these bars."""


def grid(rows: list[Row]) -> Bars:
    """Rows of a body as grid bars, judged as a file of bars is; DataError names the first bad one.

    A grid has a row for each missing bar too, so few rows may ask for many years of them.
    """
    opens_ms, _ = epoch_ms(np.array([row[0] for row in rows], np.int64))
    first, last = int(opens_ms.min()), int(opens_ms.max())
    if (last - first) // BAR_MS >= MAX_BARS:
        raise DataError(
            f"bars must span at most {MAX_BARS:,} of 5 minutes, missing ones counted, were from {iso(first)} to "
            f"{iso(last)}; give only the newest"
        )
    return bars_of(pd.DataFrame(rows, columns=list(RAW_COLUMNS)))
