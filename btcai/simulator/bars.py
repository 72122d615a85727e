"""A market to train on where none is at hand: 5-minute bars with Bitcoin's stylised facts, the same bits everywhere.

Parameters say what it is like (parameters.py), events what happens to it (events.py).

What it has, and where from: volatility regimes (Markov switching), clustering at two time scales (component GARCH,
Engle & Lee 1999), Student-t bars (Bollerslev 1987), jumps (Merton 1976), hours and weekdays, slow drift regimes, a
slight reversal from bar to bar, bars that run and bars that turn, and volume that follows volatility, moods of days and
tides of months. What it does not have: an edge worth its costs.

Why the bits agree on every CPU: libm's and SIMD exp, log and cos differ in their last bits between machines, so none is
used. Everything is +, -, *, / and sqrt, which IEEE 754 rounds exactly, in loops compiled without fastmath; seasons are
tables; the ziggurat's tail calls libm, so normals are rounded to 2**-24 before anything depends on them.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import njit

from btcai.schema import BAR_SECONDS, BARS_PER_DAY, BARS_PER_YEAR, RAW_COLUMNS, BoolArray, FloatArray, IntArray
from btcai.simulator.events import Event, forces_of
from btcai.simulator.parameters import MarketParameters

DEFAULT_BARS = 341_280  # 1185 days: 2022-01-01 .. 2025-03-30
DEFAULT_SEED = 7
FIRST_OPEN = np.datetime64("2022-01-01T00:00:00", "ms")
TICKS_PER_USDT = 100  # price tick 0.01
LOTS_PER_BTC = 100_000  # volume lot 0.00001

PATH_STEPS = 12  # of a bar, to find its high and low
STUDENT_DF = 6  # of the bar's return given its volatility
STEP_CAP = 0.04  # largest move of one path step
BEYOND = 0.45  # of a step's sigma: what a path reaches beyond its steps (.58 of a Brownian: Broadie et al. 1997)
LEAST_FOLLOW, MOST_FOLLOW = -0.5, 1.0  # of one path step on the next, so that some bars are all body and some all wicks
BURST_RATE, MOOD_RATE, TIDE_RATE = 0.08, 1.0 / 36, 1.0 / (3 * BARS_PER_DAY)
"""By which trading follows its own chance, its moods (3 hours) and its tides (3 days) from bar to bar."""


def simulate_bars(
    n_bars: int,
    seed: int,
    parameters: MarketParameters = MarketParameters(),  # noqa: B008, a value
    events: Iterable[Event] = (),
) -> pd.DataFrame:
    """A market in RAW_COLUMNS: open_time datetime64[ms, UTC], prices USDT, volume BTC; without gaps but for events'.

    The first n bars of a longer market with the same seed are the market of n bars, and with events it is the same
    noise that they act on.
    """
    if n_bars < 1:
        raise ValueError(f"n_bars must be >= 1, was {n_bars}")
    forces = forces_of(events, n_bars)
    season = _season(n_bars, parameters)
    shocks_rng, noise_rng, state_rng, activity_rng = (np.random.Generator(np.random.PCG64(s)) for s in _streams(seed))
    steps = _normals(shocks_rng, (n_bars, PATH_STEPS))
    noise = _normals(noise_rng, (n_bars, STUDENT_DF + 5))
    uniforms = state_rng.random((n_bars, 4))
    regime = _regimes(uniforms[:, 0], parameters.regime_scale, parameters.regime_days)
    sigma = season * (parameters.annual_volatility / np.sqrt(BARS_PER_YEAR)) * regime * forces.sigma_scale
    drift = _regimes(uniforms[:, 1], parameters.drift_per_year, parameters.drift_days) / BARS_PER_YEAR
    trading = season * season * regime * _activity(activity_rng.random((n_bars, 2)), parameters)
    numbers = _numbers(parameters)
    pushed = forces.push_frac, forces.pull, forces.volume_scale, forces.halted
    ticks, lots = _walk(steps, noise, uniforms, sigma, drift, trading, *pushed, numbers)
    prices = ticks / TICKS_PER_USDT
    open_time = pd.DatetimeIndex(FIRST_OPEN + np.arange(n_bars) * np.timedelta64(BAR_SECONDS * 1000, "ms"), tz="UTC")
    columns = (open_time, prices[:, 0], prices[:, 1], prices[:, 2], prices[:, 3], lots / LOTS_PER_BTC)
    bars = pd.DataFrame(dict(zip(RAW_COLUMNS, columns, strict=True)))
    return bars[~forces.missing].reset_index(drop=True) if forces.missing.any() else bars


def _streams(seed: int) -> list[np.random.SeedSequence]:
    """Four independent streams, each drawn row by row, so that a market's beginning does not depend on its length."""
    return np.random.SeedSequence(seed).spawn(4)


def _normals(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Standard normals of that shape, rounded to 2**-24 (the module's docstring says why)."""
    draws = rng.standard_normal(shape)
    return np.rint(draws * 2.0**24, out=draws) * 2.0**-24


def _season(n_bars: int, parameters: MarketParameters) -> FloatArray:
    """Relative volatility of each bar (T,): hours joined by straight lines, times the weekday."""
    bar = np.arange(n_bars)
    per_hour = BARS_PER_DAY // 24
    hours = np.array(parameters.hour_scale)
    hour, part = bar // per_hour % 24, (bar % per_hour) / per_hour
    weekday = (bar // BARS_PER_DAY + 5) % 7  # 2022-01-01 was a Saturday
    season: FloatArray = (hours[hour] * (1.0 - part) + hours[(hour + 1) % 24] * part) * np.array(parameters.day_scale)[
        weekday
    ]
    return season


def _regimes(uniforms: FloatArray, values: tuple[float, ...], mean_days: tuple[float, ...]) -> FloatArray:
    """A Markov chain's value at each bar (T,), from one uniform a bar; the other two states are equally likely."""
    leave = 1.0 / (np.array(mean_days) * BARS_PER_DAY)
    chain: FloatArray = _chain(uniforms, np.array(values), leave)
    return chain


@njit(cache=True)
def _chain(uniforms: FloatArray, values: FloatArray, leave: FloatArray) -> FloatArray:
    out = np.empty(len(uniforms))
    state = 1
    for t in range(len(uniforms)):
        out[t] = values[state]
        if uniforms[t] < leave[state]:
            upper_half = uniforms[t] < 0.5 * leave[state]
            state = (state + (1 if upper_half else 2)) % 3
    return out


def _activity(uniforms: FloatArray, parameters: MarketParameters) -> FloatArray:
    """How much is traded at each bar (T,) beside what volatility asks for, from uniforms (T, 2): a mood of days on a
    tide of months, both joined smoothly."""
    mood = _regimes(uniforms[:, 0], parameters.mood_scale, (parameters.mood_days,) * 3)
    tide = _regimes(uniforms[:, 1], parameters.tide_scale, (parameters.tide_days,) * 3)
    joined: FloatArray = _smooth(mood, MOOD_RATE) * _smooth(tide, TIDE_RATE)
    return joined


@njit(cache=True)
def _smooth(values: FloatArray, rate: float) -> FloatArray:
    out = np.empty(len(values))
    level = values[0]
    for t in range(len(values)):
        level += rate * (values[t] - level)
        out[t] = level
    return out


class _Numbers(NamedTuple):
    """Of MarketParameters, what the walk reads."""

    first_price_usdt: float
    follow_mean: float
    follow_std: float
    fast_decay: float
    slow_decay: float
    fast_weight: float
    slow_weight: float
    shock_cap: float
    reversal: float
    jumps_per_bar: float
    jump_sigmas: float
    jump_mean_sigmas: float
    mean_volume_btc: float
    volume_noise: float


def _numbers(parameters: MarketParameters) -> _Numbers:
    return _Numbers(*(float(getattr(parameters, name)) for name in _Numbers._fields))


@njit(cache=True)
def _walk(
    steps: FloatArray,
    noise: FloatArray,
    uniforms: FloatArray,
    sigma: FloatArray,
    drift: FloatArray,
    trading: FloatArray,
    push: FloatArray,
    pull: FloatArray,
    volume_scale: FloatArray,
    halted: BoolArray,
    given: _Numbers,
) -> tuple[IntArray, IntArray]:
    """Normals (T, PATH_STEPS), (T, STUDENT_DF + 5), uniforms (T, 4), columns (T,) -> int64 ticks (T, 4), lots (T,)."""
    n_bars = len(sigma)
    ticks, lots = np.empty((n_bars, 4), dtype=np.int64), np.empty(n_bars, dtype=np.int64)
    price, last_return, anchor = given.first_price_usdt, 0.0, given.first_price_usdt
    fast, slow, flow, burst = 1.0, 1.0, 1.0, 1.0
    close_tick = round(price * TICKS_PER_USDT)
    for t in range(n_bars):
        constant = 1.0 - given.fast_weight - given.slow_weight
        scale = np.sqrt(constant + given.fast_weight * fast + given.slow_weight * slow)
        squares = 0.0
        for k in range(STUDENT_DF):
            squares += noise[t, k] * noise[t, k]
        heavy = np.sqrt((STUDENT_DF - 2) / squares)  # t = normal * sqrt(df / chi2), at unit variance
        bar_sigma = sigma[t] * scale * heavy
        jump_step, jump = -1, 0.0
        if uniforms[t, 2] < given.jumps_per_bar:
            jump_step = int(uniforms[t, 2] / given.jumps_per_bar * PATH_STEPS)
            jump = sigma[t] * scale * (given.jump_mean_sigmas + given.jump_sigmas * noise[t, STUDENT_DF])
        before = price
        price *= 1.0 + push[t]
        pushed = price  # what an event does is not what trading did: neither volatility nor the reversal follow it
        high, low = max(before, price), min(before, price)
        # given back, so that jumps move no mean
        jump_drift = given.jumps_per_bar * given.jump_mean_sigmas * sigma[t] * scale
        if pull[t] == 0.0 or (t > 0 and pull[t - 1] == 0.0):
            anchor = before
        drawn = pull[t] * (anchor / before - 1.0)
        step_drift = (drift[t] - jump_drift - given.reversal * last_return + drawn) / PATH_STEPS
        follow = min(max(given.follow_mean + given.follow_std * noise[t, STUDENT_DF + 4], LEAST_FOLLOW), MOST_FOLLOW)
        step_sigma = bar_sigma / np.sqrt((PATH_STEPS - 1) * (1.0 + follow) * (1.0 + follow) + 1.0)
        beyond, followed = min(BEYOND * step_sigma, STEP_CAP), 0.0
        for k in range(PATH_STEPS):
            move = step_drift + step_sigma * (steps[t, k] + follow * followed)
            followed = steps[t, k]
            if k == jump_step:
                move += jump
            price *= 1.0 + min(max(move, -STEP_CAP), STEP_CAP)
            high, low = max(high, price * (1.0 + beyond)), min(low, price * (1.0 - beyond))
        last_return = price / pushed - 1.0
        shock = last_return / sigma[t]
        shock = min(shock * shock, given.shock_cap)
        fast += (1.0 - given.fast_decay) * (shock - fast)
        slow += (1.0 - given.slow_decay) * (shock - slow)
        # trading follows this bar's movement and its own recent past; its noise is a chi-square over its mean
        moved = 0.5 * scale * heavy + 0.5 * np.sqrt(shock)
        flow += 0.05 * (moved - flow)
        chi2 = 0.0
        for k in range(STUDENT_DF + 1, STUDENT_DF + 4):
            chi2 += noise[t, k] * noise[t, k]
        burst += BURST_RATE * (chi2 / 3.0 - burst)
        if halted[t]:  # nobody trades: the last price stands
            ticks[t], lots[t] = close_tick, 0
            continue
        # a bar's open is the next trade: the last close, or one tick beside it; after a halt, where the price has gone
        open_tick = close_tick + (1 if uniforms[t, 3] < 0.15 else (-1 if uniforms[t, 3] > 0.85 else 0))
        if t > 0 and halted[t - 1]:
            open_tick = round(before * TICKS_PER_USDT)
        close_tick = round(price * TICKS_PER_USDT)
        ticks[t, 0] = open_tick
        ticks[t, 1] = max(round(high * TICKS_PER_USDT), open_tick, close_tick)
        ticks[t, 2] = min(round(low * TICKS_PER_USDT), open_tick, close_tick)
        ticks[t, 3] = close_tick
        volume = given.mean_volume_btc * trading[t] * burst * burst * (0.4 * flow + 0.6 * moved)
        volume *= (1.0 - given.volume_noise + given.volume_noise * chi2 / 3.0) * volume_scale[t]
        lots[t] = max(round(volume * LOTS_PER_BTC), 1)
    return ticks, lots
