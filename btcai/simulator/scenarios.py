"""Named stories, made of events with chance in where and how hard they strike: for training and for stress."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from btcai.errors import DataError
from btcai.schema import BARS_PER_DAY, BARS_PER_YEAR
from btcai.simulator.events import (
    Event,
    FlashCrash,
    FundingSpike,
    Gap,
    Halt,
    LiquidityDrought,
    NewsJump,
    Range,
    Trend,
    VolatilitySpike,
)

Rng = np.random.Generator

DAY = BARS_PER_DAY


def scenario(name: str, n_bars: int, seed: int) -> tuple[Event, ...]:
    """The events of SCENARIOS[name] on a market of n_bars; DataError names what there is."""
    if name not in SCENARIOS:
        raise DataError(f"a scenario must be one of {', '.join(SCENARIOS)}, was {name}; choose one: --scenario")
    return tuple(SCENARIOS[name](n_bars, np.random.default_rng(seed)))


def _news(n_bars: int, rng: Rng) -> list[Event]:
    """A headline every ten days on average: 1 to 5 % within a bar, down as often as up."""
    return [
        NewsJump(start_bar=start, move_frac=float(rng.choice([-1.0, 1.0]) * rng.uniform(0.01, 0.05)))
        for start in _starts(rng, n_bars, 10 * DAY)
    ]


def _volatility(n_bars: int, rng: Rng) -> list[Event]:
    """Every twenty days volatility jumps to 3 to 6 times its size and halves within half a day to two."""
    return [
        VolatilitySpike(
            start_bar=start, scale=float(rng.uniform(3.0, 6.0)), half_life_bars=float(rng.uniform(0.5, 2.0) * DAY)
        )
        for start in _starts(rng, n_bars, 20 * DAY)
    ]


def _flash_crash(n_bars: int, rng: Rng) -> list[Event]:
    """Every sixty days 8 to 20 % within minutes, most of it won back within hours."""
    return [
        FlashCrash(
            start_bar=start,
            depth_frac=float(rng.uniform(0.08, 0.20)),
            fall_bars=int(rng.integers(2, 7)),
            recovery_frac=float(rng.uniform(0.4, 0.9)),
            recovery_bars=int(rng.integers(12, 73)),
        )
        for start in _starts(rng, n_bars, 60 * DAY)
    ]


def _drought(n_bars: int, rng: Rng) -> list[Event]:
    """Every fifteen days a day or three with a twentieth to a fifth of the volume."""
    return [
        LiquidityDrought(
            start_bar=start, n_bars=int(rng.integers(DAY, 3 * DAY + 1)), volume_scale=float(rng.uniform(0.05, 0.2))
        )
        for start in _starts(rng, n_bars, 15 * DAY)
    ]


def _outages(n_bars: int, rng: Rng) -> list[Event]:
    """Every thirty days the exchange halts for half an hour to four, as often without bars as with empty ones, while
    the market elsewhere is excited."""
    events: list[Event] = []
    for start in _starts(rng, n_bars, 30 * DAY):
        length = int(rng.integers(6, 49))
        events.append(VolatilitySpike(start_bar=start, half_life_bars=float(length)))
        events.append((Gap if rng.random() < 0.5 else Halt)(start_bar=start, n_bars=length))
    return events


def _funding(n_bars: int, rng: Rng) -> list[Event]:
    """Every forty days .1 to .4 % at every settlement for two to six days, paid by longs three times of four."""
    return [
        FundingSpike(
            start_bar=start,
            n_bars=int(rng.integers(2 * DAY, 6 * DAY + 1)),
            rate_frac=float(rng.choice([1.0, 1.0, 1.0, -1.0]) * rng.uniform(0.001, 0.004)),
        )
        for start in _starts(rng, n_bars, 40 * DAY)
    ]


def _trends(n_bars: int, rng: Rng) -> list[Event]:
    """One trend after the other, each of one to eight weeks and up to 60 % either way."""
    events: list[Event] = []
    for start, length in _stretches(rng, n_bars, 7 * DAY, 56 * DAY):
        total = float(np.exp(rng.uniform(-1.0, 1.0) * np.log(1.6)) - 1.0)
        events.append(Trend(start_bar=start, n_bars=length, total_frac=total))
    return events


def _ranges(n_bars: int, rng: Rng) -> list[Event]:
    """One range after the other, each of one to six weeks around where it began, with a free bar between."""
    return [
        Range(start_bar=start, n_bars=length - 1, half_life_bars=float(rng.uniform(0.25, 1.5) * DAY))
        for start, length in _stretches(rng, n_bars, 7 * DAY, 42 * DAY)
    ]


def _collapse(n_bars: int, rng: Rng) -> list[Event]:
    """A year as 2022: a slow fall of two thirds with two crashes of a fortnight in it, outages and dried-up books."""
    year = min(n_bars, BARS_PER_YEAR)
    first, second = int(year * rng.uniform(0.30, 0.45)), int(year * rng.uniform(0.75, 0.90))
    events: list[Event] = [Trend(start_bar=0, n_bars=year, total_frac=-0.40)]
    for start, depth in ((first, float(rng.uniform(0.28, 0.38))), (second, float(rng.uniform(0.18, 0.28)))):
        fortnight = max(min(14 * DAY, n_bars - start), 1)
        events += [
            Trend(start_bar=start, n_bars=fortnight, total_frac=-depth),
            VolatilitySpike(start_bar=start, scale=3.0, half_life_bars=7.0 * DAY),
            FlashCrash(start_bar=start + fortnight // 2, depth_frac=0.10),
            Halt(start_bar=start + fortnight // 2 + 3, n_bars=12),
            LiquidityDrought(start_bar=start + fortnight, n_bars=14 * DAY, volume_scale=0.3),
            FundingSpike(start_bar=start, n_bars=fortnight, rate_frac=-0.001),
        ]
    return events


SCENARIOS: Mapping[str, Callable[[int, Rng], list[Event]]] = MappingProxyType(
    {
        "news": _news,
        "volatility": _volatility,
        "flash_crash": _flash_crash,
        "drought": _drought,
        "outages": _outages,
        "funding": _funding,
        "trends": _trends,
        "ranges": _ranges,
        "collapse": _collapse,
    }
)
"""Each (n_bars, rng) -> events; several compose: give their events together."""


def _starts(rng: Rng, n_bars: int, mean_bars: int) -> list[int]:
    """First bars of a Poisson process."""
    count = max(int(3 * n_bars / mean_bars) + 10, 10)
    starts = np.cumsum(rng.exponential(mean_bars, count)).astype(int)
    return [int(start) for start in starts[starts < n_bars]]


def _stretches(rng: Rng, n_bars: int, least: int, most: int) -> list[tuple[int, int]]:
    """(first bar, number of bars) of stretches that fill the market; the last is cut off."""
    found, start = [], 0
    while start < n_bars:
        length = min(int(rng.integers(least, most + 1)), n_bars - start)
        found.append((start, length))
        start += length
    return found
