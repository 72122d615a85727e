"""One market as it is watched live: of every new bar only its own feature row is computed, of every decision time the
encoder runs once, whoever asks. Windows have the bits of features.build_market over the same bars."""

import threading
from collections.abc import Callable
from dataclasses import fields

import numpy as np

from btcai.errors import DataError
from btcai.features.pipeline import check_bars, fill_features, rows_of
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.inference.bundle import PolicyBundle
from btcai.inference.decision import Seen, look
from btcai.schema import (
    BAR_NS,
    BUCKETS,
    TOKENS,
    Bars,
    BoolArray,
    FloatArray,
    IntArray,
    Intervals,
    MarketData,
)
from btcai.serving.intervals import AdaptiveIntervals

LONGEST_PATCH_BARS = 28
"""Of a bucket; one with a longer lookback than this gives is not served."""

KEPT_BARS = TOKENS * LONGEST_PATCH_BARS + WARMUP_BARS + LONGEST_PATCH_BARS
"""What the longest bucket may still read, wherever the newest bar lies in its patch."""

_CAPACITY = 2 * KEPT_BARS
"""Rows before the last KEPT_BARS are moved to the front: one move in 6,000 bars."""


class NotNextError(DataError):
    """A bar that does not follow the last one of its market."""


class Market:
    """The newest bars of one market with their features; any thread may append, any may look."""

    def __init__(
        self,
        bars: Bars,
        counted: Callable[[str, bool], None] = lambda bucket, encoded: None,
        intervals: Intervals = "static",
    ) -> None:
        """Start from grid bars, oldest first; DataError where they are unsound.

        counted(bucket, encoded) is told of every look: whether the encoder ran for it or had run before. Adaptive
        intervals follow what comes of the decisions asked for, not what would have come of the bars given here.
        """
        self._intervals = intervals
        self._adaptive: dict[str, AdaptiveIntervals] = {}
        self._counted = counted
        self._rows = Bars(
            **{field.name: np.zeros(_CAPACITY, getattr(bars, field.name).dtype) for field in fields(Bars)}
        )
        self._features = np.zeros((_CAPACITY, len(FEATURE_NAMES)), np.float32)
        self._mark, self._sigma = np.full(_CAPACITY, np.nan), np.ones(_CAPACITY)
        self._stop = 0
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}
        self._looking = {bucket: threading.Lock() for bucket in BUCKETS}
        check_bars(bars)
        self._append(rows_of(bars, slice(max(0, len(bars) - KEPT_BARS), None)))

    def __len__(self) -> int:
        """Bars that are kept, missing ones counted."""
        return min(self._stop, KEPT_BARS)

    @property
    def last_close_ts_ns(self) -> int:
        return int(self._rows.close_ts_ns[self._stop - 1])

    def append(self, bars: Bars, *, allow_gap: bool = False) -> None:
        """Go on with grid bars that have closed since; all of them or, where one is refused, none.

        NotNextError where they do not start right after the last one, or leave bars out: those are missing only if
        allow_gap says that the exchange made none. DataError where a bar is unsound.
        """
        check_bars(bars)
        with self._lock:
            missing = self._missing_before(int(bars.close_ts_ns[0]), allow_gap)
            if not allow_gap:
                _refuse_gaps(bars)
            for rows in (missing, bars):
                if rows is not None:
                    self._append(rows)
        for bucket, following in list(self._adaptive.items()):  # here and not while a decision waits
            with self._looking[bucket]:
                following.learn_until(self.last_close_ts_ns, self._marks)

    def seen(self, bundle: PolicyBundle) -> Seen:
        """What the bundle sees at the newest decision time on its clock; encoded once, shared by all who ask.

        DataError where the market has fewer bars than its lookback and the warm-up.
        """
        with self._looking[bundle.bucket]:
            close_ts_ns = self._decision_close(bundle)
            last = self._seen.get(bundle.bucket)
            fresh = last is None or last.bundle is not bundle or last.close_ts_ns != close_ts_ns
            if last is None or fresh:
                last = self._look(bundle)
                self._seen[bundle.bucket] = last
        self._counted(bundle.bucket, fresh)
        return last

    def _look(self, bundle: PolicyBundle) -> Seen:
        """Under the bucket's lock."""
        seen = look(bundle, self._window(bundle))
        if self._intervals == "static":
            return seen
        following = self._adaptive.get(bundle.bucket)
        if following is None or not following.is_of(bundle):
            following = self._adaptive[bundle.bucket] = AdaptiveIntervals(bundle)
        return following.adapted(seen, self._marks)

    def _marks(self, close_ts_ns: IntArray) -> tuple[FloatArray, BoolArray]:
        """Of bars that have closed (n,): their marks, and whether each is kept and was not missing."""
        with self._lock:
            age = (self.last_close_ts_ns - close_ts_ns) // BAR_NS
            rows = self._stop - 1 - np.minimum(age, len(self) - 1)
            return self._mark[rows], self._rows.present[rows] & (age < len(self))

    def _missing_before(self, close_ts_ns: int, allow_gap: bool) -> Bars | None:
        """Missing bars between the last one and the one that closes then; None where there are none."""
        last = self.last_close_ts_ns
        steps, off = divmod(close_ts_ns - last, BAR_NS)
        if off or steps < 1:
            raise NotNextError(
                f"a market's next bar must close after its last one did, at {stamp(last)}, the first given one "
                f"closed at {stamp(close_ts_ns)}: give only bars that are new, or start the market again with restart"
            )
        if steps == 1:
            return None
        if not allow_gap or steps > KEPT_BARS:
            raise NotNextError(
                f"a market's next bar must close at {stamp(last + BAR_NS)}, the first given one closed at "
                f"{stamp(close_ts_ns)}: give the {steps - 1:,} bars between too; where the exchange made none of them "
                f"and they are at most {KEPT_BARS:,}, say allow_gap; else start the market again with restart"
            )
        return _missing(last + BAR_NS, steps - 1)

    def _append(self, bars: Bars) -> None:
        """Rows after the last one, and their features."""
        for first in range(0, len(bars), KEPT_BARS):
            piece = rows_of(bars, slice(first, first + KEPT_BARS))
            if self._stop + len(piece) > _CAPACITY:
                self._make_room()
            rows = slice(self._stop, self._stop + len(piece))
            for field in fields(Bars):
                getattr(self._rows, field.name)[rows] = getattr(piece, field.name)
            warm = rows_of(self._rows, slice(max(0, rows.start - WARMUP_BARS), rows.stop))
            fill_features(warm, self._features[rows], self._sigma[rows])
            self._mark[rows] = _last_known(piece, self._mark[rows.start - 1] if rows.start else np.nan)
            self._stop = rows.stop

    def _make_room(self) -> None:
        """The last KEPT_BARS to the front; what was handed out was a copy."""
        kept = slice(self._stop - KEPT_BARS, self._stop)
        columns = [getattr(self._rows, field.name) for field in fields(Bars)]
        for column in (*columns, self._features, self._mark, self._sigma):
            column[:KEPT_BARS] = column[kept].copy()
        self._stop = KEPT_BARS

    def _decision_close(self, bundle: PolicyBundle) -> int:
        """When the newest bar closed that is on the bundle's clock."""
        last = self.last_close_ts_ns
        return last - last % (bundle.patch_bars * BAR_NS)

    def _window(self, bundle: PolicyBundle) -> MarketData:
        """A copy of lookback and warm-up up to the newest decision time."""
        needed = bundle.lookback_bars + WARMUP_BARS
        with self._lock:
            stop = self._stop - (self.last_close_ts_ns - self._decision_close(bundle)) // BAR_NS
            if stop < needed:
                raise DataError(
                    f"{bundle.bucket} needs {needed} bars (lookback {bundle.lookback_bars} + warm-up {WARMUP_BARS}) up "
                    f"to its last decision time, was {max(0, stop)}; give the market more bars, with restart"
                )
            rows = slice(stop - needed, stop)
            bars = Bars(**{field.name: getattr(self._rows, field.name)[rows].copy() for field in fields(Bars)})
            mark, sigma = self._mark[rows].copy(), self._sigma[rows].copy()
            features = self._features[rows].copy()
        if not bars.present.any():
            raise DataError(f"{bundle.bucket} needs at least one present bar, was none of {needed}; wait for bars")
        return MarketData(
            bars=bars,
            mark=mark,
            sigma=sigma,
            features=features,
            feature_names=FEATURE_NAMES,
            warmup_bars=WARMUP_BARS,
        )


def stamp(close_ts_ns: int) -> str:
    """2022-01-01T00:05:00Z."""
    return f"{np.datetime64(close_ts_ns, 'ns').astype('datetime64[s]')}Z"


def _refuse_gaps(bars: Bars) -> None:
    if (gaps := np.flatnonzero(~bars.present)).size:
        raise NotNextError(
            f"a market's bars must follow each other, {gaps.size:,} of the given ones are missing, the first one would "
            f"have closed at {stamp(int(bars.close_ts_ns[gaps[0]]))}: give them too; where the exchange made none of "
            "them, say allow_gap"
        )


def _missing(first_close_ts_ns: int, n: int) -> Bars:
    blank = np.full(n, np.nan)
    return Bars(
        close_ts_ns=first_close_ts_ns + BAR_NS * np.arange(n, dtype=np.int64),
        open=blank,
        high=blank,
        low=blank,
        close=blank,
        volume=np.zeros(n),
        present=np.zeros(n, np.bool_),
    )


def _last_known(bars: Bars, before: float) -> FloatArray:
    """The last known close (n,) at each bar, `before` until there is one."""
    last = np.maximum.accumulate(np.where(bars.present, np.arange(len(bars)), -1))
    return np.where(last >= 0, bars.close[last], before)
