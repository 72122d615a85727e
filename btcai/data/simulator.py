"""A market to train on where none is at hand: 5-minute bars with Bitcoin's stylised facts, the same bits everywhere.

What it has, and where from: volatility regimes (Markov switching), clustering at two time scales (component GARCH,
Engle & Lee 1999), Student-t bars (Bollerslev 1987), jumps (Merton 1976), hours and weekdays, slow drift regimes, a
slight reversal from bar to bar, and volume that follows volatility. What it does not have: an edge worth its costs.

Why the bits agree on every CPU: libm's and SIMD exp, log and cos differ in their last bits between machines, so none is
used. Everything is +, -, *, / and sqrt, which IEEE 754 rounds exactly, in loops compiled without fastmath; seasons are
tables; the ziggurat's tail calls libm, so normals are rounded to 2**-24 before anything depends on them.
"""

import numpy as np
import pandas as pd
from numba import njit

from btcai.schema import BAR_SECONDS, BARS_PER_DAY, BARS_PER_YEAR, RAW_COLUMNS, FloatArray, IntArray

DEFAULT_BARS = 341_280  # 1185 days: 2022-01-01 .. 2025-03-30
DEFAULT_SEED = 7
FIRST_OPEN = np.datetime64("2022-01-01T00:00:00", "ms")
FIRST_PRICE_USDT = 46_000.0
TICKS_PER_USDT = 100  # price tick 0.01
LOTS_PER_BTC = 100_000  # volume lot 0.00001

PATH_STEPS = 12  # of a bar, to find its high and low
STUDENT_DF = 6  # of the bar's return given its volatility
ANNUAL_VOLATILITY = 0.35  # in the normal regime, before jumps
REGIME_SCALE = (0.48, 1.0, 2.0)  # of volatility: calm, normal, stormy
REGIME_DAYS = (6.0, 9.0, 2.5)  # mean stay
DRIFT_PER_YEAR = (-0.60, 0.20, 1.00)
DRIFT_DAYS = (45.0, 60.0, 50.0)
FAST_DECAY, SLOW_DECAY = 0.86, 0.998  # of the variance components: half-lives of 5 bars and 1.2 days
FAST_WEIGHT, SLOW_WEIGHT = 0.56, 0.37  # of variance; the rest is constant
SHOCK_CAP = 200.0  # largest squared shock that feeds back, in mean variances
REVERSAL = 0.02  # share of the last bar's return that the next gives back on average
JUMPS_PER_BAR = 0.0008
JUMP_SIGMAS = 9.0  # standard deviation of a jump, in sigma of the bar
JUMP_MEAN_SIGMAS = -1.5  # down more than up: the skew
STEP_CAP = 0.04  # largest move of one path step
MEAN_VOLUME_BTC = 95.0

# Relative volatility by UTC hour (quiet Asian night, American open) and by weekday, Monday first; about what Binance's
# BTC/USDT bars of 2022 to 2025 show.
HOUR_SCALE = (
    1.06, 1.02, 0.91, 0.80, 0.76, 0.75, 0.78, 0.81, 0.86, 0.82, 0.81, 0.84,
    1.04, 1.22, 1.42, 1.33, 1.24, 1.16, 1.14, 1.14, 1.11, 1.06, 1.02, 0.95,
)  # fmt: skip
DAY_SCALE = (1.13, 1.13, 1.14, 1.10, 1.08, 0.68, 0.75)


def simulate_bars(n_bars: int, seed: int) -> pd.DataFrame:
    """A clean market without gaps, in RAW_COLUMNS: open_time datetime64[ms, UTC], prices USDT, volume BTC.

    The first n bars of a longer market with the same seed are the market of n bars.
    """
    if n_bars < 1:
        raise ValueError(f"n_bars must be >= 1, was {n_bars}")
    season = _season(n_bars)
    shocks_rng, noise_rng, state_rng = (np.random.Generator(np.random.PCG64(s)) for s in _streams(seed))
    steps = _normals(shocks_rng, (n_bars, PATH_STEPS))
    noise = _normals(noise_rng, (n_bars, STUDENT_DF + 4))
    uniforms = state_rng.random((n_bars, 4))
    sigma = season * (ANNUAL_VOLATILITY / np.sqrt(BARS_PER_YEAR)) * _regimes(uniforms[:, 0], REGIME_SCALE, REGIME_DAYS)
    drift = _regimes(uniforms[:, 1], DRIFT_PER_YEAR, DRIFT_DAYS) / BARS_PER_YEAR
    ticks, lots = _walk(steps, noise, uniforms, sigma, drift, season)
    prices = ticks / TICKS_PER_USDT
    open_time = pd.DatetimeIndex(FIRST_OPEN + np.arange(n_bars) * np.timedelta64(BAR_SECONDS * 1000, "ms"), tz="UTC")
    columns = (open_time, prices[:, 0], prices[:, 1], prices[:, 2], prices[:, 3], lots / LOTS_PER_BTC)
    return pd.DataFrame(dict(zip(RAW_COLUMNS, columns, strict=True)))


def _streams(seed: int) -> list[np.random.SeedSequence]:
    """Three independent streams, each drawn row by row, so that a market's beginning does not depend on its length."""
    return np.random.SeedSequence(seed).spawn(3)


def _normals(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Standard normals of that shape, rounded to 2**-24 (the module's docstring says why)."""
    draws = rng.standard_normal(shape)
    return np.rint(draws * 2.0**24, out=draws) * 2.0**-24


def _season(n_bars: int) -> FloatArray:
    """Relative volatility of each bar (T,): hours joined by straight lines, times the weekday."""
    bar = np.arange(n_bars)
    per_hour = BARS_PER_DAY // 24
    hours = np.array(HOUR_SCALE)
    hour, part = bar // per_hour % 24, (bar % per_hour) / per_hour
    weekday = (bar // BARS_PER_DAY + 5) % 7  # 2022-01-01 was a Saturday
    season: FloatArray = (hours[hour] * (1.0 - part) + hours[(hour + 1) % 24] * part) * np.array(DAY_SCALE)[weekday]
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


@njit(cache=True)
def _walk(
    steps: FloatArray, noise: FloatArray, uniforms: FloatArray, sigma: FloatArray, drift: FloatArray, season: FloatArray
) -> tuple[IntArray, IntArray]:
    """Normals (T, PATH_STEPS), (T, STUDENT_DF + 4), uniforms, sigma (T,) -> ticks (T, 4) and lots (T,) int64."""
    n_bars = len(sigma)
    ticks, lots = np.empty((n_bars, 4), dtype=np.int64), np.empty(n_bars, dtype=np.int64)
    price, last_return = FIRST_PRICE_USDT, 0.0
    fast, slow, flow = 1.0, 1.0, 1.0
    close_tick = round(price * TICKS_PER_USDT)
    for t in range(n_bars):
        scale = np.sqrt(1.0 - FAST_WEIGHT - SLOW_WEIGHT + FAST_WEIGHT * fast + SLOW_WEIGHT * slow)
        squares = 0.0
        for k in range(STUDENT_DF):
            squares += noise[t, k] * noise[t, k]
        heavy = np.sqrt((STUDENT_DF - 2) / squares)  # t = normal * sqrt(df / chi2), at unit variance
        bar_sigma = sigma[t] * scale * heavy
        jump_step, jump = -1, 0.0
        if uniforms[t, 2] < JUMPS_PER_BAR:
            jump_step = int(uniforms[t, 2] / JUMPS_PER_BAR * PATH_STEPS)
            jump = sigma[t] * scale * (JUMP_MEAN_SIGMAS + JUMP_SIGMAS * noise[t, STUDENT_DF])
        before = price
        high = low = price
        jump_drift = JUMPS_PER_BAR * JUMP_MEAN_SIGMAS * sigma[t] * scale  # given back, so that jumps move no mean
        step_drift = (drift[t] - jump_drift - REVERSAL * last_return) / PATH_STEPS
        for k in range(PATH_STEPS):
            move = step_drift + bar_sigma * steps[t, k] / np.sqrt(float(PATH_STEPS))
            if k == jump_step:
                move += jump
            price *= 1.0 + min(max(move, -STEP_CAP), STEP_CAP)
            high, low = max(high, price), min(low, price)
        last_return = price / before - 1.0
        shock = last_return / sigma[t]
        shock = min(shock * shock, SHOCK_CAP)
        fast += (1.0 - FAST_DECAY) * (shock - fast)
        slow += (1.0 - SLOW_DECAY) * (shock - slow)
        # a bar's open is the next trade: the last close, or one tick beside it
        open_tick = close_tick + (1 if uniforms[t, 3] < 0.15 else (-1 if uniforms[t, 3] > 0.85 else 0))
        close_tick = round(price * TICKS_PER_USDT)
        ticks[t, 0] = open_tick
        ticks[t, 1] = max(round(high * TICKS_PER_USDT), open_tick, close_tick)
        ticks[t, 2] = min(round(low * TICKS_PER_USDT), open_tick, close_tick)
        ticks[t, 3] = close_tick
        # trading follows this bar's movement and its own recent past; its noise is a chi-square over its mean
        moved = 0.5 * scale * heavy + 0.5 * np.sqrt(shock)
        flow += 0.05 * (moved - flow)
        chi2 = 0.0
        for k in range(STUDENT_DF + 1, STUDENT_DF + 4):
            chi2 += noise[t, k] * noise[t, k]
        volume = MEAN_VOLUME_BTC * season[t] * season[t] * (0.5 * flow + 0.5 * moved) * (0.4 + 0.2 * chi2)
        lots[t] = max(round(volume * LOTS_PER_BTC), 1)
    return ticks, lots
