"""How a bundle decides: what it sees at a decision time, and what the rules make of an account's likeliest action."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from btcai.config import BucketConfig, SizingConfig
from btcai.errors import DataError
from btcai.features.pipeline import build_market
from btcai.features.table import WARMUP_BARS
from btcai.inference.bundle import Encoded, Policy, PolicyBundle
from btcai.inference.holdings import ACTIONS, BUY, HOLD, NOT_ALLOWED, SELL, account_at_close, settle
from btcai.market.account import OPEN_LONG, OPEN_SHORT, PENDING
from btcai.market.single import observe_one
from btcai.market.sizing import lot_sizes
from btcai.schema import (
    ACCOUNT_FEATURES,
    BAR_NS,
    BAR_SECONDS,
    BARS_PER_DAY,
    Bars,
    Decision,
    Float32Array,
    FloatArray,
    Forecast,
    Intervals,
    MarketData,
)

Account = Mapping[str, Any] | None
"""As holdings.account_at_close reads it; None is a flat one with the bundle's equity."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a bundle sees at one decision time, before any account is known: nothing in it changes, so threads share it.

    data: lookback and warm-up up to the decision's bar; encoded: of that time alone; mark, sigma: of that bar.
    """

    bundle: PolicyBundle
    data: MarketData
    encoded: Encoded
    close_ts_ns: int
    mark: float
    sigma: float
    forecasts: tuple[Forecast, ...]
    intervals: Intervals = "static"

    @cached_property
    def lot(self) -> tuple[float, bool]:
        """Size of a lot as a share of equity, and whether one may be opened; made when an order asks for it."""
        bundle = self.bundle
        size_frac, allowed = sizes(bundle, bundle.settings, bundle.manifest.sizing, self.encoded, self.data.sigma[-1:])
        return size_frac.item(-1), allowed.item(-1)


class AccountHalf(NamedTuple):
    """An account at a decision time: row (N_ACCOUNT,) and lots (max_lots, N_LOT) of the kernel, halts applied, and what
    the policy observes of them (1, A)."""

    row: FloatArray
    lots: FloatArray
    observation: Float32Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Considered:
    """A decision beside what it was taken on.

    data: lookback and warm-up up to the decision's bar; account (N_ACCOUNT,) and lots (max_lots, N_LOT): rows of the
    kernel at its close, before the order.
    """

    decision: Decision
    data: MarketData
    encoded: Encoded
    account: FloatArray
    lots: FloatArray


def decide(bundle: PolicyBundle, bars: Bars, account: Account = None) -> Decision:
    """The decision of `consider`."""
    return consider(bundle, bars, account).decision


def consider(bundle: PolicyBundle, bars: Bars, account: Account = None) -> Considered:
    """Decide at the close of the newest bar that falls on the bucket's clock, under the market's own rules.

    `account` describes the account at that close. DataError when fewer bars than lookback and warm-up are given.
    """
    bars = _until_decision(bars, bundle.patch_bars)
    needed = bundle.lookback_bars + WARMUP_BARS
    if len(bars) < needed:
        raise DataError(
            f"{bundle.bucket} needs {needed} bars (lookback {bundle.lookback_bars} + warm-up {WARMUP_BARS}) up to its "
            f"last decision time, was {len(bars)}; pass a longer file"
        )
    return consider_seen(look(bundle, build_market(_last(bars, needed))), account)


def look(bundle: PolicyBundle, data: MarketData) -> Seen:
    """Encode the decision time at the last bar of `data`, which holds lookback and warm-up."""
    encoded = bundle.encode(data.features[-bundle.lookback_bars :])
    return Seen(
        bundle=bundle,
        data=data,
        encoded=encoded,
        close_ts_ns=data.bars.close_ts_ns.item(-1),
        mark=data.mark.item(-1),
        sigma=data.sigma.item(-1),
        forecasts=_forecasts(bundle.horizons_bars, encoded),
    )


def consider_seen(seen: Seen, account: Account = None) -> Considered:
    """The decision of one account; DataError names what is wrong with its description."""
    half = account_half(seen, account)
    before = half.row.copy()
    decision = decided(seen, half, *seen.bundle.head(seen.encoded.latent[-1:], half.observation))
    return Considered(decision=decision, data=seen.data, encoded=seen.encoded, account=before, lots=half.lots)


def account_half(seen: Seen, account: Account) -> AccountHalf:
    """The account half of a decision, before the head."""
    bundle = seen.bundle
    described = {"cash_usdt": bundle.manifest.equity_usdt} if account is None else account
    day = (seen.close_ts_ns - BAR_NS) // (BAR_NS * BARS_PER_DAY)  # in which the bar opened
    row, lots = account_at_close(described, bundle.book, seen.mark, day)
    observation = np.empty((1, len(ACCOUNT_FEATURES)), np.float32)
    observe_one(row, lots, seen.mark, seen.sigma, bundle.book.record, observation)
    return AccountHalf(row, lots, observation)


def decided(seen: Seen, half: AccountHalf, probabilities: Float32Array, value: Float32Array) -> Decision:
    """What the rules make of the likeliest action; probabilities (1, 4), value (1,). Writes the order into half.row."""
    bundle, row, said = seen.bundle, half.row, probabilities[0].tolist()
    wanted = ACTIONS[said.index(max(said))]
    size_frac, allowed = seen.lot if wanted is BUY or wanted is SELL else (0.0, False)  # no other opens a lot
    action, note = settle(row, half.lots, wanted, size_frac, allowed, bundle.book)
    if note == NOT_ALLOWED:
        note += _doubt(bundle, seen.encoded, seen.sigma)
    return Decision(
        bucket=bundle.bucket,
        close_ts_ns=seen.close_ts_ns,
        action=action,
        size_frac=size_frac if action is not HOLD and row[PENDING] in (OPEN_LONG, OPEN_SHORT) else 0.0,
        probabilities=tuple(said),
        value=value.item(0),
        forecasts=seen.forecasts,
        intervals=seen.intervals,
        model_version=bundle.version,
        unfamiliarity=seen.encoded.unfamiliarity.item(-1),
        data_version=bundle.manifest.versions.data,
        note=note,
    )


def _doubt(bundle: PolicyBundle, encoded: Encoded, sigma: float) -> str:
    """The figure for which market.sizing allows no lot."""
    limits, unfamiliarity = bundle.manifest.sizing, float(encoded.unfamiliarity[-1])
    uncertainty = float(encoded.std[-1, 0]) / (sigma * math.sqrt(bundle.horizons_bars[0]))
    if not math.isfinite(uncertainty) or not np.isfinite(encoded.mean[-1, 0]):
        return ": the forecast is not a finite number"
    if uncertainty > limits.max_uncertainty:
        return f": predicted uncertainty {uncertainty:.3g} is above {limits.max_uncertainty:g}"
    return f": the market's unfamiliarity {unfamiliarity:.3g} is above {limits.max_unfamiliarity:g}"


def sizes(
    policy: Policy, bucket: BucketConfig, sizing: SizingConfig, encoded: Encoded, sigma: FloatArray
) -> tuple[FloatArray, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Lot size (D,) as a share of equity and whether a lot may be opened (D,), from the shortest horizon's forecast."""
    said: Any = (encoded.mean[:, 0], encoded.std[:, 0], encoded.unfamiliarity)  # float32, which lot_sizes widens
    mean, std, unfamiliarity = said
    return lot_sizes(mean, std, sigma, unfamiliarity, policy.horizons_bars[0], bucket.max_lots, sizing)


def _forecasts(horizons_bars: tuple[int, ...], encoded: Encoded) -> tuple[Forecast, ...]:
    means, stds, quantiles = encoded.mean[-1].tolist(), encoded.std[-1].tolist(), encoded.quantiles[-1].tolist()
    return tuple(
        [
            Forecast(horizon_bars=horizon, mean=mean, std=std, quantiles=tuple(levels))
            for horizon, mean, std, levels in zip(horizons_bars, means, stds, quantiles, strict=True)
        ]
    )


def _until_decision(bars: Bars, patch_bars: int) -> Bars:
    """Drop the bars after the last decision time of the absolute clock."""
    if len(bars) == 0:
        raise DataError("no bars to decide on; pass a file with bars")
    past = int(bars.close_ts_ns[-1] // 1_000_000_000 // BAR_SECONDS % patch_bars)
    return _last(bars, len(bars), drop=past)


def _last(bars: Bars, n: int, drop: int = 0) -> Bars:
    """The last n bars before the `drop` newest ones."""
    stop = len(bars) - drop
    rows = slice(max(0, stop - n), max(0, stop))
    return Bars(**{name: getattr(bars, name)[rows] for name in Bars.__dataclass_fields__})
