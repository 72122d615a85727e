"""Funding of a simulated perpetual swap: what its longs pay, every eight hours."""

import numpy as np
import pandas as pd

from btcai.data.frame import BAR_MS, parts
from btcai.schema import BARS_PER_DAY, FUNDING_SECONDS, FloatArray, IntArray
from btcai.simulator.bars import FIRST_OPEN

BASE_FRAC = 1e-4
"""At a settlement where nobody is in a hurry: interest, as exchanges set it."""

PREMIUM = 0.01
"""Of the price's move over MEMORY_BARS: who chases a rise pays for it."""

NOISE_FRAC = 3e-5
MEMORY_BARS = 3 * BARS_PER_DAY
CAP_FRAC = 0.0075


def simulate_funding(bars: pd.DataFrame, seed: int, added_frac: FloatArray) -> tuple[IntArray, FloatArray]:
    """Times (N,) UTC ms at which bars close and rates (N,); added_frac (T,) of every bar from FIRST_OPEN
    on, as events give it.

    A settlement inside a gap has none: it is missing.
    """
    open_ms, values = parts(bars)
    close_ms = open_ms + BAR_MS
    rng = np.random.default_rng((seed, 1))  # not the noise that scenarios draw from
    noise = NOISE_FRAC * rng.standard_normal(len(open_ms))
    before = np.maximum(np.arange(len(open_ms)) - MEMORY_BARS, 0)
    moved = values[:, 3] / values[before, 3] - 1.0
    rate = BASE_FRAC + PREMIUM * moved + noise + added_frac[(open_ms - FIRST_OPEN.astype(np.int64)) // BAR_MS]
    due = close_ms % (FUNDING_SECONDS * 1000) == 0
    return close_ms[due], np.clip(rate, -CAP_FRAC, CAP_FRAC)[due]
