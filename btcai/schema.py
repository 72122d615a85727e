"""Columns, units and the frozen records that cross packages. Imports nothing of btcai.

Letters in shapes: T bars, F features, D decision times, B environment batch, H horizons, Q quantiles, A actions.
"""

import math
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BAR_SECONDS = 300
BAR_NS = BAR_SECONDS * 1_000_000_000
BARS_PER_DAY = 86_400 // BAR_SECONDS
BARS_PER_YEAR = 365 * BARS_PER_DAY  # a market that never closes

FUNDING_SECONDS = 8 * 3_600
"""Perpetual swaps settle at 00:00, 08:00 and 16:00 UTC; some also in between, while the market is wild."""

TOKENS = 144
"""Patches in every bucket's lookback: lookback_bars = TOKENS * patch_bars."""

BUCKETS = ("scalping", "short", "medium", "long")
"""Shortest to longest: the order of training."""

RAW_COLUMNS = ("open_time", "open", "high", "low", "close", "volume")
"""Raw bars as the exchange stamps them: open time in UTC (ms), prices in USDT, volume in BTC."""

FEE_TIERS = 4
"""Volume tiers of trading fees at most, beside the fee without one."""

QUANTILE_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of every predicted quantile; the outer pair is the 90 % interval."""

ACCOUNT_FEATURES = (
    "cash_frac",  # equity that is in no lot / equity
    "lots_frac",  # open lots / max_lots, below 0 when they are short
    "open_return_sigmas",  # mean return of the open lots, in sigma of one patch, clipped to +-5
    "oldest_return_sigmas",  # return of the lot that a sell would close, same unit
    "drawdown_frac",  # below the peak of the equity, 0 .. 1
    "goal_progress",  # equity gain since the start / the bucket's goal, clipped to +-1
    "decisions_since_trade",  # log1p, / 5
    "can_buy",  # 1 when BUY would do something: a free lot, cash, no halt, no order pending (or a short lot to close)
    "can_sell",  # 1 when SELL or CLOSE_ALL would: a lot is open (or may be sold short) and no order is pending
)
"""The account half of an observation, in this order, float32."""

CAN_BUY, CAN_SELL = ACCOUNT_FEATURES.index("can_buy"), ACCOUNT_FEATURES.index("can_sell")

MASKED = -1e9
"""Added to the logit of an action that is ruled out: so large that its probability is 0, and finite."""

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Action(IntEnum):
    """What a bucket may do at a decision time."""

    HOLD = 0
    BUY = 1  # open a long lot; while short, close the oldest lot
    SELL = 2  # close the oldest lot; without one, open a short lot where shorts are allowed
    CLOSE_ALL = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Bars:
    """Bars on the full 5-minute grid, oldest first; a missing bar is a row with present = False.

    close_ts_ns (T,) int64 UTC ns, step BAR_NS; open, high, low, close (T,) float64 USDT, nan where missing;
    volume (T,) float64 BTC, 0 where missing; present (T,) bool.
    """

    close_ts_ns: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    present: BoolArray

    def __len__(self) -> int:
        return len(self.close_ts_ns)


@dataclass(frozen=True, kw_only=True, eq=False)
class MarketData:
    """One market ready to train or backtest on: grid bars plus causal features, row t knowable when bar t closed.

    mark (T,) float64 USDT: last known close, what open lots are valued at (never an order's price);
    sigma (T,) float64: standard deviation of one bar's log return as known at t, > 0;
    features (T, F) float32, unscaled, 0 where the bar is missing; the last column is the mask (1 = present);
    funding (T,) float64 of a perpetual swap: what a long pays at the bar's close as a share of its value, 0 where none
    is due, nan where it is due and unknown; None where no rate was recorded.
    """

    bars: Bars
    mark: FloatArray
    sigma: FloatArray
    features: Float32Array
    feature_names: tuple[str, ...]
    warmup_bars: int
    funding: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.bars)

    def until(self, stop: int) -> "MarketData":
        """The market as it was before bar `stop`: its rows 0 .. stop - 1, as views."""
        bars = Bars(**{field.name: getattr(self.bars, field.name)[:stop] for field in fields(Bars)})
        return replace(
            self,
            bars=bars,
            mark=self.mark[:stop],
            sigma=self.sigma[:stop],
            features=self.features[:stop],
            funding=None if self.funding is None else self.funding[:stop],
        )


@dataclass(frozen=True)
class Span:
    """Bars first .. stop - 1 of the grid; decisions, fills and labels of the span all lie inside."""

    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True)
class SealedSpan:
    """Bars that nothing may be chosen on, first .. stop - 1. Not a Span, so that nothing trains or judges on it by
    mistake: openings.opened gives the Span, and counts."""

    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a bundle predicts for the log return over the next horizon_bars, calibrated: mean, std and quantiles are of
    ln(price then / price now), no percentages."""

    horizon_bars: int
    mean: float
    std: float
    quantiles: tuple[float, ...]  # at QUANTILE_LEVELS

    @property
    def simple(self) -> "Forecast":
        """The same of the simple return, price then / price now - 1, as people read percentages.

        Quantiles exactly; mean and std as of a log-normal price, exp(m + s^2/2) - 1 and the root of its variance.
        """
        variance = self.std * self.std
        mean = simple_return(self.mean + variance / 2.0)
        std = (1.0 + mean) * math.sqrt(simple_return(variance))
        return replace(self, mean=mean, std=std, quantiles=tuple(map(simple_return, self.quantiles)))


def simple_return(log_return: float) -> float:
    """ln(b / a) -> b / a - 1; of a return without bounds a large number and no OverflowError."""
    return math.expm1(min(log_return, 700.0))


Intervals = Literal["static", "adaptive"]
"""Form of a decision's quantiles: with the offsets that the bundle was calibrated with, or with offsets that went on to
follow the outcomes of a watched market."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision with everything it rests on."""

    bucket: str
    close_ts_ns: int
    action: Action
    size_frac: float  # of equity, for the lot that the action opens
    probabilities: tuple[float, ...]  # in the order of Action
    value: float
    forecasts: tuple[Forecast, ...]
    unfamiliarity: float  # of the market to the network: 1 is exceeded one time in a hundred on the validation span
    model_version: str
    data_version: str
    intervals: Intervals = "static"
    note: str = ""  # the rule of the market that spoke: why the action is not the likeliest one, or that a halt runs
