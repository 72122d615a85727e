"""Patterns: four of them, on candles of the bucket's patch, each bullish (1), bearish (-1) or absent (0)."""

import math
from collections.abc import Mapping

import numpy as np

from btcai.compiled import compiled, inlined
from btcai.config import BucketConfig
from btcai.reasoning.records import Component
from btcai.reasoning.situation import Situation, component
from btcai.reasoning.words import capital, lasting
from btcai.schema import TOKENS, FloatArray, IntArray

NAME = "patterns"
PATTERNS = ("breakout", "engulfing", "rejection", "divergence")

LEAST_BODY = 0.5
"""Of a body that can be engulfed, in sigmas of a patch: smaller ones are noise."""
OPEN_SLACK = 0.1
"""Sigmas by which an engulfing candle may open inside: a market that never closes has no gaps."""
BEFORE = 12
"""Patches over which a rejected move must have run, one sigma of them at least (Nison 1991: only after a move)."""
RSI_PATCHES = 14
NEWEST = 24
"""Patches in which the newer of two diverging extremes lies."""
RSI_MARGIN = 0.2
"""Of -1 .. 1, by which momentum must disagree with price."""


def measure(situation: Situation) -> Component:
    """score = tanh(sum / 2) of those found, confidence = |sum| / (|sum| + 1): one alone is half believed.

    breakout    the close leaves the range of the lookback before this patch (Donchian's channel)
    engulfing   a body covers the opposite one before it (Nison 1991)
    rejection   after a move, a wick against it of twice the body and half the candle at least (hammer, shooting star)
    divergence  a new extreme of the lookback on less momentum than the one before it (Wilder 1978; Cutler's RSI)
    """
    bucket, bars = situation.bucket, situation.data.bars
    patch = bucket.patch_bars
    highest, lowest = situation.extremes(bucket.lookback_bars - patch, ago=patch)
    candles = _candles(bars.open, bars.high, bars.low, bars.close, situation.decisions, patch)
    before = _candles(bars.open, bars.high, bars.low, bars.close, situation.decisions - patch, patch)
    mark, sigma = situation.mark, situation.sigma_patch
    earlier = situation.data.mark[np.maximum(situation.decisions - BEFORE * patch, 0)]
    with np.errstate(invalid="ignore", divide="ignore"):  # nan where nothing is known
        moved = np.log(mark / earlier) / (sigma * math.sqrt(BEFORE))
    found = {
        "breakout": (mark > highest) * 1.0 - (mark < lowest) * 1.0,
        "engulfing": _engulfing(candles, before, sigma * mark),
        "rejection": _rejection(candles, sigma * mark, moved),
        "divergence": _divergence(situation.data.mark, situation.decisions, patch),
    }
    total = np.sum(list(found.values()), axis=0)
    return component(situation, NAME, np.tanh(0.5 * total), np.abs(total) / (np.abs(total) + 1.0), found)


@compiled
def _candles(
    open_: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray, ends: IntArray, patch_bars: int
) -> FloatArray:
    """Open, high, low, close (4, D) of the patches that end at bars (D,); nan where no bar is there."""
    out = np.full((4, len(ends)), np.nan)
    for d in range(len(ends)):
        for row in range(max(0, ends[d] - patch_bars + 1), ends[d] + 1):
            if np.isnan(close[row]):
                continue
            if np.isnan(out[0, d]):
                out[0, d], out[1, d], out[2, d] = open_[row], high[row], low[row]
            out[1, d], out[2, d], out[3, d] = max(out[1, d], high[row]), min(out[2, d], low[row]), close[row]
    return out


def _engulfing(candles: FloatArray, before: FloatArray, unit_usdt: FloatArray) -> FloatArray:
    """1, -1 or 0 (D,) of candles and those before them (4, D); unit_usdt (D,) is one sigma of a patch."""
    body = before[3] - before[0]
    side = -np.sign(body)  # of the engulfing candle
    covers = side * (candles[3] - before[0]) > 0.0
    begins = side * (candles[0] - before[3]) <= OPEN_SLACK * unit_usdt
    return np.where((np.abs(body) >= LEAST_BODY * unit_usdt) & covers & begins, side, 0.0)


def _rejection(candles: FloatArray, unit_usdt: FloatArray, moved: FloatArray) -> FloatArray:
    """1, -1 or 0 (D,) of candles (4, D) after a move (D,) in sigmas of BEFORE patches."""
    open_, high, low, close = candles
    body, extent = np.abs(close - open_), high - low
    large = extent >= unit_usdt
    hammer = (moved <= -1.0) & _long(np.minimum(open_, close) - low, body, extent)
    star = (moved >= 1.0) & _long(high - np.maximum(open_, close), body, extent)
    return np.where(large & hammer, 1.0, np.where(large & star, -1.0, 0.0))


def _long(wick: FloatArray, body: FloatArray, extent: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return (wick >= 2.0 * body) & (wick >= 0.5 * extent)


@compiled
def _divergence(mark: FloatArray, decisions: IntArray, patch_bars: int) -> FloatArray:
    """1, -1 or 0 (D,): a new low of the lookback's patch ends on more momentum than the low before, or its mirror."""
    found = np.zeros(len(decisions))
    for d in range(len(decisions)):
        if decisions[d] < (TOKENS - 1) * patch_bars:
            continue
        low_new, low_old = _lowest(mark, decisions[d], patch_bars, 1.0)
        high_new, high_old = _lowest(mark, decisions[d], patch_bars, -1.0)
        bullish = mark[low_new] < mark[low_old] and (
            _rsi(mark, low_new, patch_bars) > _rsi(mark, low_old, patch_bars) + RSI_MARGIN
        )
        bearish = mark[high_new] > mark[high_old] and (
            _rsi(mark, high_new, patch_bars) < _rsi(mark, high_old, patch_bars) - RSI_MARGIN
        )
        found[d] = 1.0 * bullish - 1.0 * bearish
    return found


@inlined
def _lowest(mark: FloatArray, decision: int, patch_bars: int, side: float) -> tuple[int, int]:
    """Rows of the lowest side * mark among the NEWEST patch ends and among the older ones of the lookback."""
    newest, older = decision, decision - NEWEST * patch_bars
    for token in range(TOKENS - RSI_PATCHES):  # each needs RSI_PATCHES before it, inside the lookback
        row = decision - token * patch_bars
        if token < NEWEST:
            newest = row if side * mark[row] < side * mark[newest] else newest
        else:
            older = row if side * mark[row] < side * mark[older] else older
    return newest, older


@inlined
def _rsi(mark: FloatArray, row: int, patch_bars: int) -> float:
    """Cutler's RSI of RSI_PATCHES patches, -1 .. 1; 0 where nothing moved."""
    size = 0.0
    for k in range(RSI_PATCHES):
        size += abs(mark[row - k * patch_bars] - mark[row - (k + 1) * patch_bars])
    return (mark[row] - mark[row - RSI_PATCHES * patch_bars]) / size if size > 0.0 else 0.0


def sentence(facts: Mapping[str, float], bucket: BucketConfig) -> str:
    texts = {
        "breakout": f"a breakout {{}} from the range of {lasting(bucket.lookback_bars)}",
        "engulfing": f"a {{}} engulfing candle of {lasting(bucket.patch_bars)}",
        "rejection": "a {} wick after a move",
        "divergence": "a {} divergence of price and momentum",
    }
    sides = {1.0: ("bullish", "up"), -1.0: ("bearish", "down")}
    told = [text.format(sides[facts[name]][name == "breakout"]) for name, text in texts.items() if facts[name] in sides]
    return f"{capital('; '.join(told))}." if told else f"None of the {len(PATTERNS)} patterns."
