"""What the components read: decision times of one bucket and the bars that they may read, those and no others.

A decision at bar t reads the bars t - lookback_bars - warmup_bars + 1 .. t, so a history gives the numbers that the
last of its bars give alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from btcai.compiled import compiled
from btcai.config import BucketConfig
from btcai.features.columns import RETURN_BARS
from btcai.features.windows import window_extremes, window_mean
from btcai.market.rules import Rules
from btcai.reasoning.records import Component
from btcai.schema import BAR_NS, TOKENS, Bars, BoolArray, FloatArray, IntArray, MarketData

LEAST_SEEN = 0.5
"""Share of every window's bars that must be there: features are undefined below it."""

_FEATURE_WINDOWS = (14, 72, 288, 2016)


class Windows(NamedTuple):
    """Which of the features' windows, in bars, speak to a bucket."""

    trend: int
    fast: int
    slow: int
    band: int
    flow: int


def windows_of(lookback_bars: int) -> Windows:
    """Those nearest to the lookback (trend), to a 36th of it (fast) and to a 9th (slow, band, flow)."""
    slow = lookback_bars / 9
    return Windows(
        trend=_nearest((72, 288, 2016), lookback_bars),
        fast=_nearest(RETURN_BARS, lookback_bars / 36),
        slow=_nearest(RETURN_BARS, slow),
        band=_nearest((20, 144), slow),
        flow=_nearest((12, 72), slow),
    )


def _nearest(windows: Sequence[int], bars: float) -> int:
    """By ratio; the shorter of two as near."""
    return min(windows, key=lambda window: abs(math.log(window / bars)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Situation:
    """D decision times of a bucket in a market cut to what they may read; make one with situation_of."""

    data: MarketData
    decisions: IntArray
    """(D,) rows of data, ascending."""
    bucket: BucketConfig
    rules: Rules
    equity_usdt: float
    """What an account holds: a lot's cost depends on it."""

    def __len__(self) -> int:
        return len(self.decisions)

    @cached_property
    def windows(self) -> Windows:
        return windows_of(self.bucket.lookback_bars)

    @cached_property
    def seen_frac(self) -> FloatArray:
        """(D,): smallest share of present bars in the lookback and in the windows of the features."""
        count = np.concatenate(([0], np.cumsum(self.data.bars.present)))
        stop = self.decisions + 1
        shares = [
            (count[stop] - count[np.maximum(stop - window, 0)]) / window
            for window in (*_FEATURE_WINDOWS, self.bucket.lookback_bars)
        ]
        return np.asarray(np.min(shares, axis=0))

    @cached_property
    def known(self) -> BoolArray:
        """(D,): the bar is there, and so is enough before it."""
        enough = self.decisions >= self.bucket.lookback_bars + self.data.warmup_bars - 1
        return self.data.bars.present[self.decisions] & enough & (self.seen_frac >= LEAST_SEEN)

    @cached_property
    def sigma(self) -> FloatArray:
        """(D,) of one bar's log return."""
        return self.data.sigma[self.decisions]

    @cached_property
    def sigma_patch(self) -> FloatArray:
        """(D,) of the log return from one decision to the next."""
        return self.sigma * math.sqrt(self.bucket.patch_bars)

    @cached_property
    def mark(self) -> FloatArray:
        """(D,) USDT, the last known close."""
        return self.data.mark[self.decisions]

    def feature(self, name: str) -> FloatArray:
        """(D,) a column of the features at the decision times."""
        column = self.data.feature_names.index(name)
        return np.asarray(self.data.features[self.decisions, column], np.float64)

    def mean(self, values: FloatArray, window: int) -> FloatArray:
        """Mean (T,) over the last `window` rows of values (T,), nan where less than half of them are known."""
        return window_mean(values, window, self._grid_row, 0)

    def extremes(self, window: int, ago: int = 0) -> tuple[FloatArray, FloatArray]:
        """Highest high and lowest low (D,) of the `window` bars that end `ago` bars before each decision."""
        bars = self.data.bars
        first = max(0, int(self.decisions[0]) - ago)
        high, low = window_extremes(bars.high, bars.low, window, self._grid_row, first)
        rows = np.maximum(self.decisions - ago, first) - first
        return high[rows], low[rows]

    @property
    def _grid_row(self) -> int:
        return int(self.data.bars.close_ts_ns[0]) // BAR_NS


def situation_of(
    data: MarketData, decisions: IntArray, bucket: BucketConfig, rules: Rules, equity_usdt: float
) -> Situation:
    """The decisions (D,), ascending bar indices of data, with copies of the bars that they may read."""
    needed = bucket.lookback_bars + data.warmup_bars
    first = max(0, int(decisions[0]) - needed + 1)
    rows = slice(first, int(decisions[-1]) + 1)
    bars = Bars(**{name: np.array(getattr(data.bars, name)[rows]) for name in Bars.__dataclass_fields__})
    cut = replace(
        data,
        bars=bars,
        mark=np.array(data.mark[rows]),
        sigma=np.array(data.sigma[rows]),
        features=data.features[rows],
        funding=None if data.funding is None else data.funding[rows],
    )
    return Situation(data=cut, decisions=decisions - first, bucket=bucket, rules=rules, equity_usdt=equity_usdt)


def component(
    situation: Situation, name: str, score: FloatArray, confidence: FloatArray, facts: dict[str, FloatArray]
) -> Component:
    """A Component in its ranges; missing bars in what it rests on take from its confidence, all of it where too few."""
    usable = situation.known & np.isfinite(score) & np.isfinite(confidence)
    return Component(
        name=name,
        score=np.where(usable, np.clip(score, -1.0, 1.0), 0.0),
        confidence=np.where(usable, np.clip(confidence, 0.0, 1.0) * situation.seen_frac, 0.0),
        facts={fact: np.where(situation.known, values, np.nan) for fact, values in facts.items()},
    )


def together(one: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two signals (D,) in -1 .. 1 -> their score and confidence (D,): the stronger's, less where they contradict."""
    total, size = one + other, np.abs(one) + np.abs(other)
    agreement = np.abs(total) / np.where(size > 0.0, size, 1.0)
    return np.clip(total, -1.0, 1.0), agreement * np.maximum(np.abs(one), np.abs(other))


@compiled
def normal_share(z: FloatArray) -> FloatArray:
    """Share (D,) of a standard normal that lies nearer to 0 than z."""
    share = np.empty(len(z))
    for d in range(len(z)):
        share[d] = math.erf(abs(z[d]) / math.sqrt(2.0))
    return share


@compiled
def percentile(values: FloatArray, decisions: IntArray, patch_bars: int) -> FloatArray:
    """Share (D,) of the lookback's TOKENS - 1 earlier patch ends whose value lies below the newest; ties count half.

    values (T,); unknown ones (nan) count nowhere, and without any known the share is nan.
    """
    shares = np.empty(len(decisions))
    for d in range(len(decisions)):
        newest, below, count = values[decisions[d]], 0.0, 0.0
        for token in range(1, TOKENS):
            row = decisions[d] - token * patch_bars
            if row >= 0 and not np.isnan(values[row]):
                count += 1.0
                below += 1.0 if values[row] < newest else (0.5 if values[row] == newest else 0.0)
        shares[d] = below / count if count > 0.0 and not np.isnan(newest) else np.nan
    return shares
