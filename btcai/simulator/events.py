"""What can happen to a market, bar by bar: events that add up, and the forces on each bar that they make.

An event is a value; forces are arrays; neither knows the generator. Events compose in any order: scales multiply,
pushes add; of ranges that touch, the first one's beginning counts for all. Prices move on while bars are missing or
halted: what trading would have done, the reopening shows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from btcai.errors import DataError
from btcai.schema import BARS_PER_DAY, BoolArray, FloatArray

GRAIN = 2.0**40
"""Forces are whole multiples of 1 / GRAIN: powers differ in their last bits between machines, and bars must not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Forces:
    """On each of T bars; all arrays (T,).

    sigma_scale: of the bar's volatility; push_frac: of the price, as the bar begins; pull: share of the way
    back to where the pull began that the price goes in one bar; volume_scale; funding_frac: added to the funding rate;
    halted: no trade, a bar without volume; missing: no bar.
    """

    sigma_scale: FloatArray
    push_frac: FloatArray
    pull: FloatArray
    volume_scale: FloatArray
    funding_frac: FloatArray
    halted: BoolArray
    missing: BoolArray


class Event(Protocol):
    """Something that happens from a bar on; all durations are in bars."""

    @property
    def start_bar(self) -> int:
        """Counted from the first bar."""

    def act(self, forces: Forces) -> None:
        """Work it into forces, in place."""


def forces_of(events: Iterable[Event], n_bars: int) -> Forces:
    """All events together; those that begin after the last bar do nothing. DataError where one begins before bar 0."""
    forces = Forces(
        sigma_scale=np.ones(n_bars),
        push_frac=np.zeros(n_bars),
        pull=np.zeros(n_bars),
        volume_scale=np.ones(n_bars),
        funding_frac=np.zeros(n_bars),
        halted=np.zeros(n_bars, dtype=np.bool_),
        missing=np.zeros(n_bars, dtype=np.bool_),
    )
    for event in events:
        if event.start_bar < 0:
            raise DataError(f"an event must begin at bar 0 or later, was {event}; mend its start_bar")
        event.act(forces)
    for array in (forces.sigma_scale, forces.push_frac, forces.pull, forces.volume_scale):
        np.multiply(np.rint(array * GRAIN), 1.0 / GRAIN, out=array)
    return forces


@dataclass(frozen=True, kw_only=True)
class NewsJump:
    """The price moves by move_frac within one bar, and volatility and volume stay high for a while."""

    start_bar: int
    move_frac: float
    excitement: float = 3.0
    half_life_bars: float = 12.0

    def act(self, forces: Forces) -> None:
        forces.push_frac[self.start_bar : self.start_bar + 1] += self.move_frac
        _excite(forces, self.start_bar, self.excitement, self.half_life_bars)


@dataclass(frozen=True, kw_only=True)
class VolatilitySpike:
    """Volatility jumps to `scale` times its size and falls back by half of what is left every half-life."""

    start_bar: int
    scale: float = 4.0
    half_life_bars: float = 144.0

    def act(self, forces: Forces) -> None:
        _excite(forces, self.start_bar, self.scale, self.half_life_bars)


@dataclass(frozen=True, kw_only=True)
class FlashCrash:
    """The price falls by depth_frac within fall_bars and wins recovery_frac of that back within recovery_bars."""

    start_bar: int
    depth_frac: float = 0.12
    fall_bars: int = 3
    recovery_frac: float = 0.6
    recovery_bars: int = 24

    def act(self, forces: Forces) -> None:
        trough = 1.0 - self.depth_frac
        fall = trough ** (1.0 / self.fall_bars) - 1.0
        back = ((1.0 - self.depth_frac * (1.0 - self.recovery_frac)) / trough) ** (1.0 / self.recovery_bars) - 1.0
        low = self.start_bar + self.fall_bars
        forces.push_frac[self.start_bar : low] += fall
        forces.push_frac[low : low + self.recovery_bars] += back
        _excite(forces, self.start_bar, 4.0, float(self.recovery_bars))


@dataclass(frozen=True, kw_only=True)
class LiquidityDrought:
    """Little volume: impact grows and fills shrink, for as long as it lasts."""

    start_bar: int
    n_bars: int = BARS_PER_DAY
    volume_scale: float = 0.1

    def act(self, forces: Forces) -> None:
        forces.volume_scale[self.start_bar : self.start_bar + self.n_bars] *= self.volume_scale


@dataclass(frozen=True, kw_only=True)
class Halt:
    """The exchange halts trading: bars at the last price without volume, then the price that the world has come to."""

    start_bar: int
    n_bars: int = 12

    def act(self, forces: Forces) -> None:
        forces.halted[self.start_bar : self.start_bar + self.n_bars] = True


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The exchange is away: no bars at all."""

    start_bar: int
    n_bars: int = 16

    def act(self, forces: Forces) -> None:
        forces.missing[self.start_bar : self.start_bar + self.n_bars] = True


@dataclass(frozen=True, kw_only=True)
class FundingSpike:
    """Longs pay that much more at every settlement meanwhile; below 0 shorts do."""

    start_bar: int
    n_bars: int = 3 * BARS_PER_DAY
    rate_frac: float = 0.002

    def act(self, forces: Forces) -> None:
        forces.funding_frac[self.start_bar : self.start_bar + self.n_bars] += self.rate_frac


@dataclass(frozen=True, kw_only=True)
class Trend:
    """The price drifts by total_frac over the whole of it."""

    start_bar: int
    n_bars: int
    total_frac: float

    def act(self, forces: Forces) -> None:
        push = (1.0 + self.total_frac) ** (1.0 / self.n_bars) - 1.0
        forces.push_frac[self.start_bar : self.start_bar + self.n_bars] += push


@dataclass(frozen=True, kw_only=True)
class Range:
    """The price is drawn back to where it began, half of the way in every half-life."""

    start_bar: int
    n_bars: int
    half_life_bars: float = 0.5 * BARS_PER_DAY

    def act(self, forces: Forces) -> None:
        forces.pull[self.start_bar : self.start_bar + self.n_bars] += 1.0 - 0.5 ** (1.0 / self.half_life_bars)


def _excite(forces: Forces, start: int, scale: float, half_life_bars: float) -> None:
    """Volatility times `scale` at first, then less and less; volume times as much."""
    age = np.arange(max(len(forces.sigma_scale) - start, 0))
    factor = 1.0 + (scale - 1.0) * 0.5 ** (age / half_life_bars)
    forces.sigma_scale[start:] *= factor
    forces.volume_scale[start:] *= factor
