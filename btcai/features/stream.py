"""Live features: closed bars one at a time, with the numbers of build_market, to the bit."""

from dataclasses import dataclass, fields

import numpy as np

from btcai.errors import DataError
from btcai.features.pipeline import check_bars, fill_features, rows_of
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.schema import BAR_NS, Bars, Float32Array

CAPACITY_ROWS = 4 * WARMUP_BARS
"""Rows kept before the last WARMUP_BARS are moved to the front: one move in 6,000 bars."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureRow:
    """One row of MarketData: features (F,) float32 unscaled, mark (USDT) and sigma as known when the bar closed."""

    close_ts_ns: int
    features: Float32Array
    mark: float
    sigma: float


class FeatureStream:
    """Features of the newest bar, from the last WARMUP_BARS rows and the very code that fills a whole history."""

    def __init__(self, history: Bars) -> None:
        """Go on after the last row of `history`; DataError where it is unsound or shorter than the warm-up."""
        if len(history) < WARMUP_BARS:
            raise DataError(
                f"features need {WARMUP_BARS} bars of history, was {len(history)}; fetch more with: btcai data"
            )
        check_bars(history)
        warm = rows_of(history, slice(len(history) - WARMUP_BARS, None))
        self._rows = Bars(
            **{
                field.name: np.resize(getattr(warm, field.name), CAPACITY_ROWS)  # filled up with what is overwritten
                for field in fields(Bars)
            }
        )
        self._stop = WARMUP_BARS
        self._mark = float(history.close[history.present][-1])
        self._row_of(rows_of(self._rows, slice(0, WARMUP_BARS)))  # compiled, or loaded, now and not while a bar waits

    @property
    def history(self) -> Bars:
        """A copy of the last WARMUP_BARS rows: a new stream of them goes on with the same numbers.

        Not after an outage as long as they are: then start from bars that reach back before it.
        """
        rows = rows_of(self._rows, slice(self._stop - WARMUP_BARS, self._stop))
        return Bars(**{field.name: getattr(rows, field.name).copy() for field in fields(Bars)})

    def push(
        self, *, close_ts_ns: int, open: float, high: float, low: float, close: float, volume: float
    ) -> FeatureRow:
        """The row of a bar that has just closed; bars missing before it are filled in as missing.

        DataError where the bar is unsound, not after the last one or off its grid; the stream is then as it was.
        """
        prices = (open, high, low, close)
        check_bars(_one_bar(close_ts_ns, prices, volume))
        self._skip_to(close_ts_ns)
        self._append(close_ts_ns, prices, volume, True)
        self._mark = close
        return self._last_row()

    def _skip_to(self, close_ts_ns: int) -> None:
        """Missing rows up to the one before; of a long gap only those that a window can still read."""
        last = int(self._rows.close_ts_ns[self._stop - 1])
        step = close_ts_ns - last
        if step <= 0 or step % BAR_NS:
            raise DataError(
                f"a bar must close a multiple of {BAR_NS} ns after the last one ({last}), was {step} ns after it;"
                " start the stream again from history: btcai data"
            )
        for missing in range(max(last + BAR_NS, close_ts_ns - WARMUP_BARS * BAR_NS), close_ts_ns, BAR_NS):
            self._append(missing, (np.nan,) * 4, 0.0, False)

    def _append(self, close_ts_ns: int, prices: tuple[float, ...], volume: float, present: bool) -> None:
        if self._stop == CAPACITY_ROWS:
            for field in fields(Bars):
                column = getattr(self._rows, field.name)
                column[:WARMUP_BARS] = column[-WARMUP_BARS:]
            self._stop = WARMUP_BARS
        rows, row = self._rows, self._stop
        rows.close_ts_ns[row], rows.volume[row], rows.present[row] = close_ts_ns, volume, present
        rows.open[row], rows.high[row], rows.low[row], rows.close[row] = prices
        self._stop += 1

    def _last_row(self) -> FeatureRow:
        return self._row_of(rows_of(self._rows, slice(self._stop - WARMUP_BARS - 1, self._stop)))

    def _row_of(self, window: Bars) -> FeatureRow:
        features, sigma = np.empty((1, len(FEATURE_NAMES)), np.float32), np.empty(1)
        fill_features(window, features, sigma)
        return FeatureRow(
            close_ts_ns=int(window.close_ts_ns[-1]), features=features[0], mark=self._mark, sigma=float(sigma[0])
        )


def _one_bar(close_ts_ns: int, prices: tuple[float, float, float, float], volume: float) -> Bars:
    open_, high, low, close = (np.array([price]) for price in prices)
    return Bars(
        close_ts_ns=np.array([close_ts_ns]),
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=np.array([volume]),
        present=np.ones(1, np.bool_),
    )
