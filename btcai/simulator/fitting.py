"""Parameters of a simulated market from a history: seasons by averages, the rest by simulated moments.

The method of simulated moments (McFadden 1989; Duffie & Singleton 1993): parameters whose simulated markets, on the
same noise throughout, show the stylised facts of the history.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from btcai.data.frame import BAR_MS, parts
from btcai.errors import DataError
from btcai.schema import FloatArray, IntArray
from btcai.simulator.bars import simulate_bars
from btcai.simulator.facts import BANDS, Fact, stylised_facts
from btcai.simulator.parameters import MarketParameters

VOLATILITY = list(BANDS).index("volatility")

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
FIRST_MONDAY_MS = 4 * DAY_MS  # 1970-01-05

ABOVE_ZERO = ("annual_volatility", "jumps_per_bar", "jump_sigmas", "follow_std", "mood_days", "tide_days")
OUTER = ("regime_scale", "mood_scale", "tide_scale")
"""Calm and stormy beside a normal of 1."""

FRACTIONS = ("fast_decay", "slow_decay", "volume_noise")
PLAIN = ("jump_mean_sigmas", "follow_mean")
"""These are searched for, and the reversal, and the days and weights of volatility; drift is not: years of bars do not
tell it from nothing."""

MOST_JUMPS = 0.05  # per bar: more are no jumps

STEP, REACH = 0.05, 1.0
"""On a scale: for slopes, since simulated facts are a little rough; and how far a fit goes from where it begins."""

TETHER = 0.1
"""Half widths of a fact's band that a change of 1 in a scale must be worth: what no fact tells stays as it was."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a fit found: facts of the history and means over the markets simulated with `parameters`; distances are root
    mean squares of their differences in half widths of the bands, before it with the parameters it began with."""

    parameters: MarketParameters
    history: tuple[Fact, ...]
    simulated: tuple[Fact, ...]
    distance: float
    distance_before: float


def fit(
    bars: pd.DataFrame,
    start: MarketParameters,
    seeds: tuple[int, ...],
    rounds: int,
    advance: Callable[[int], None] = lambda done: None,
) -> Fit:
    """Calibrate to a raw frame by at most that many rounds of Gauss-Newton; a round simulates as many bars with every
    seed, for every number searched for and for its step.

    `advance` hears how many of `trials(rounds)` are done. DataError where stylised_facts cannot be told, or where the
    start lies at an end of what is searched.
    """
    from scipy.optimize import least_squares

    _check_inside(start)
    history = stylised_facts(bars)
    wanted, half_widths = _figures(history), np.array([(most - least) / 2 for least, most in BANDS.values()])
    open_ms, values = parts(bars)
    hours, days = _seasons(open_ms, np.log(values[:, 3]))
    done = 0

    def simulated(parameters: MarketParameters) -> FloatArray:
        facts = [_figures(stylised_facts(simulate_bars(len(bars), seed, parameters))) for seed in seeds]
        return np.asarray(np.mean(facts, axis=0))

    def missed(figures: FloatArray) -> FloatArray:
        return np.asarray(np.nan_to_num((figures - wanted) / half_widths))

    def distance(figures: FloatArray) -> float:
        return float(np.sqrt((missed(figures) ** 2).mean()))

    @lru_cache(maxsize=1)
    def at(numbers: tuple[float, ...]) -> FloatArray:
        nonlocal done
        done += 1
        advance(done)
        point = np.array(numbers)
        return np.concatenate([missed(simulated(_parameters(seasoned, point))), TETHER * (point - first)])

    def residuals(point: FloatArray) -> FloatArray:
        return at(tuple(point.tolist()))

    def slopes(point: FloatArray) -> FloatArray:
        here = residuals(point)
        return np.column_stack([(residuals(point + STEP * axis) - here) / STEP for axis in np.eye(len(point))])

    before = simulated(start)
    volatility = start.annual_volatility * wanted[VOLATILITY] / before[VOLATILITY]
    seasoned = replace(
        start,
        first_price_usdt=float(values[0, 0]),
        annual_volatility=float(volatility),
        hour_scale=hours,
        day_scale=days,
    )
    first = _point(seasoned)
    bounds = first - REACH, first + REACH
    found = least_squares(residuals, first, jac=slopes, bounds=bounds, loss="soft_l1", max_nfev=rounds + 1)
    parameters = _parameters(seasoned, found.x)
    volumes = [simulate_bars(len(bars), seed, parameters)["volume"].mean() for seed in seeds]
    traded = float(values[:, 4].mean() / np.mean(volumes)) or 1.0
    parameters = replace(parameters, mean_volume_btc=parameters.mean_volume_btc * traded)
    after = simulated(parameters)
    return Fit(
        parameters=parameters,
        history=history,
        simulated=tuple(replace(fact, value=float(value)) for fact, value in zip(history, after, strict=True)),
        distance=distance(after),
        distance_before=distance(before),
    )


def _check_inside(start: MarketParameters) -> None:
    """DataError where a search cannot begin at these parameters."""
    rest = 1.0 - start.fast_weight - start.slow_weight
    for name, holds, rule in (
        *((name, getattr(start, name) > 0, "above 0") for name in (*ABOVE_ZERO, "fast_weight", "slow_weight")),
        *((name, 0 < getattr(start, name) < 1, "between 0 and 1") for name in FRACTIONS),
        *((name, getattr(start, name)[1] == 1, "1 in the middle") for name in OUTER),
        ("fast_weight", rest > 0, "less than 1 together with slow_weight"),
        ("jumps_per_bar", start.jumps_per_bar <= MOST_JUMPS, f"at most {MOST_JUMPS:g}"),
    ):
        if not holds:
            raise DataError(f"to begin a fit {name} must be {rule}, was {getattr(start, name)}; mend it: --parameters")


def trials(rounds: int) -> int:
    """Points that a fit tries at most."""
    return (1 + rounds) * (1 + len(_point(MarketParameters())))


def _figures(facts: tuple[Fact, ...]) -> FloatArray:
    return np.array([fact.value for fact in facts])


def _seasons(open_ms: IntArray, log_close: FloatArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean size of returns within half an hour of each full UTC hour, and by weekday, over their means; 1 where a
    history has too few."""
    follows = np.diff(open_ms) == BAR_MS
    size, at_ms = np.abs(np.diff(log_close))[follows], open_ms[1:][follows]
    hour = ((at_ms + HOUR_MS // 2) // HOUR_MS) % 24
    day = ((at_ms - FIRST_MONDAY_MS) // DAY_MS) % 7
    return _relative(size, hour, 24), _relative(size, day, 7)


def _relative(size: FloatArray, group: IntArray, n_groups: int) -> tuple[float, ...]:
    sums, counts = np.bincount(group, size, n_groups), np.bincount(group, minlength=n_groups)
    means = sums / np.maximum(counts, 1)
    scale = np.where(means > 0, means / means[means > 0].mean(), 1.0)
    return tuple((scale / scale.mean()).tolist())


def _point(parameters: MarketParameters) -> FloatArray:
    """What is searched for, without bounds: logs of what is above zero, log odds of fractions, areas of what is
    between -1 and 1."""
    rest = 1.0 - parameters.fast_weight - parameters.slow_weight
    outer = (getattr(parameters, name)[side] for name in OUTER for side in (0, 2))
    fractions = np.array([getattr(parameters, name) for name in FRACTIONS])
    return np.array(
        [
            *np.log([getattr(parameters, name) for name in ABOVE_ZERO]),
            *np.log([*outer, *parameters.regime_days]),
            *np.log(fractions / (1.0 - fractions)),
            *np.log([parameters.fast_weight / rest, parameters.slow_weight / rest]),
            np.arctanh(parameters.reversal),
            *(getattr(parameters, name) for name in PLAIN),
        ]
    )


def _parameters(seasoned: MarketParameters, point: FloatArray) -> MarketParameters:
    """The inverse of _point."""
    given = iter(point.tolist())
    found: dict[str, Any] = {name: math.exp(next(given)) for name in ABOVE_ZERO}
    found["jumps_per_bar"] = min(found["jumps_per_bar"], MOST_JUMPS)
    found |= {name: (math.exp(next(given)), 1.0, math.exp(next(given))) for name in OUTER}
    found["regime_days"] = tuple(math.exp(next(given)) for _ in range(3))
    found |= {name: 1.0 / (1.0 + math.exp(-next(given))) for name in FRACTIONS}
    fast, slow = math.exp(next(given)), math.exp(next(given))
    found |= {"fast_weight": fast / (1 + fast + slow), "slow_weight": slow / (1 + fast + slow)}
    found["reversal"] = math.tanh(next(given))
    found |= {name: next(given) for name in PLAIN}
    return replace(seasoned, **found)
