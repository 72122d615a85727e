"""Entry and exit signals of the market alone; what a held lot adds to the latter is said in chain.py."""

from collections.abc import Mapping

import numpy as np

from btcai.config import BucketConfig
from btcai.reasoning.records import Component
from btcai.reasoning.regime import course
from btcai.reasoning.situation import Situation, component, together, windows_of
from btcai.reasoning.words import lasting, number, signed
from btcai.schema import FloatArray

ENTRY, EXIT = "entry", "exit"

CHANDELIER_PATCHES, CHANDELIER_SIGMAS = 22, 5.0
"""The chandelier exit (Le Beau): as far below the highest high; its 3 average true ranges are about 5 sigmas."""

SAID, SPENT = 0.1, 0.3
"""Sizes from which a sentence speaks of a signal, and of exhaustion: RSI 70 (or 30) at two standard deviations."""


def measure_entry(situation: Situation) -> Component:
    """A pullback (against the band, with regime.course's trend) and a turn of momentum (fast against slow return)."""
    windows = situation.windows
    trend, band = course(situation)[2], situation.feature(f"bollinger_{windows.band}")
    fast, slow = situation.feature(f"return_{windows.fast}"), situation.feature(f"return_{windows.slow}")
    pullback = trend * np.tanh(0.5 * np.maximum(0.0, -np.sign(trend) * band))
    turn = np.tanh(fast) * np.tanh(np.maximum(0.0, -np.sign(fast) * slow))
    score, confidence = together(pullback, turn)
    facts = {
        "pullback": pullback,
        "turn": turn,
        "trend": trend,
        "band_stds": band,
        "fast_sigmas": fast,
        "slow_sigmas": slow,
    }
    return component(situation, ENTRY, score, confidence, facts)


def measure_exit(situation: Situation) -> Component:
    """Exhaustion (beyond the band while nearly all changes went one way) and the chandelier; below 0: leave longs."""
    patch = situation.bucket.patch_bars
    rsi, band = situation.feature("rsi_14"), situation.feature(f"bollinger_{situation.windows.band}")
    exhaustion = np.where(rsi * band > 0.0, -np.abs(rsi) * np.tanh(0.5 * band), 0.0)
    high, low = situation.extremes(CHANDELIER_PATCHES * patch)
    with np.errstate(invalid="ignore", divide="ignore"):  # nan where no price is known
        below = np.log(high / situation.mark) / situation.sigma_patch
        above = np.log(situation.mark / low) / situation.sigma_patch
    trail = _beyond(above) - _beyond(below)
    score, confidence = together(exhaustion, trail)
    facts = {
        "exhaustion": exhaustion,
        "trail": trail,
        "rsi": rsi,
        "band_stds": band,
        "below_high_sigmas": below,
        "above_low_sigmas": above,
    }
    return component(situation, EXIT, score, confidence, facts)


def _beyond(sigmas: FloatArray) -> FloatArray:
    """0 up to the chandelier's distance, 1 from twice that on."""
    return np.clip(sigmas / CHANDELIER_SIGMAS - 1.0, 0.0, 1.0)


def entry_sentence(facts: Mapping[str, float], bucket: BucketConfig) -> str:
    windows = windows_of(bucket.lookback_bars)
    pullback = "A pullback" if abs(facts["pullback"]) >= SAID else "No pullback"
    turn = ("turns up" if facts["turn"] > 0 else "turns down") if abs(facts["turn"]) >= SAID else "does not turn"
    return (
        f"{pullback} in the trend of {lasting(windows.trend)} ({signed(facts['trend'], 2)} of 1), price "
        f"{signed(facts['band_stds'])} standard deviations from its mean; momentum {turn} ({lasting(windows.fast)} "
        f"{signed(facts['fast_sigmas'])} sigma, {lasting(windows.slow)} {signed(facts['slow_sigmas'])} sigma)."
    )


def exit_sentence(facts: Mapping[str, float], bucket: BucketConfig) -> str:
    spent = abs(facts["exhaustion"]) >= SPENT
    state = ("The rise is spent" if facts["exhaustion"] < 0 else "The fall is spent") if spent else "Not exhausted"
    span = lasting(CHANDELIER_PATCHES * bucket.patch_bars)
    return (
        f"{state} (RSI {number(50.0 + 50.0 * facts['rsi'], 0)}, {signed(facts['band_stds'])} standard deviations); "
        f"{number(facts['below_high_sigmas'])} sigma below the high of {span} and "
        f"{number(facts['above_low_sigmas'])} above its low, a trail breaks at {CHANDELIER_SIGMAS:g}."
    )
