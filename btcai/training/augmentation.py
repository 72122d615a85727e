"""Markets that might have been, made of the training span alone and trained on beside it.

Blocks of bars in another order (the stationary bootstrap, Politis & Romano 1994), each begun at its own place in the
week, so that hours and weekdays stay what they are; if wanted as often from calm weeks as from stormy ones, with moves
larger or smaller, with noise on returns. Features are computed from the bars that result, as of any market.
"""

from dataclasses import fields, replace

import numpy as np

from btcai.config import AugmentConfig
from btcai.errors import DataError
from btcai.features.pipeline import build_market
from btcai.features.splits import Splits
from btcai.schema import BAR_NS, BARS_PER_DAY, Bars, FloatArray, IntArray, MarketData, Span

WEEK = 7 * BARS_PER_DAY
PRICES = ("open", "high", "low", "close")
REGIMES = 3
"""Thirds of the weeks by volatility."""


def augmented(data: MarketData, splits: Splits, config: AugmentConfig, seed: int) -> tuple[MarketData, Splits]:
    """The market with config.copies others before its first bar, joined at its price, and where the spans are then.

    Each copy has as many whole weeks as the training span, whose moves alone are read; rows past the warm-up of the
    market itself stay what they were, to the bit. Without copies both are given back. DataError where the training
    span has less than a week.
    """
    if not config.copies:
        return data, splits
    first = -(-splits.train.first // WEEK) * WEEK  # a copy's clocks agree with the market's where its weeks do
    weeks = (splits.train.stop - first) // WEEK
    if weeks < 1:
        raise DataError(
            f"augmentation needs a whole week of bars to train on, was {len(splits.train):,} bars; import more "
            "history, or set augment.copies to 0 in params.yaml"
        )
    span = Span(first, first + weeks * WEEK)
    rng = np.random.default_rng(np.random.SeedSequence([seed, *b"augment"]))
    bars, funding = data.bars, [data.funding]
    for _ in range(config.copies):
        rows = first + _order(_volatility(data, span), config, rng)
        bars = _joined(_copy(data, rows, config, rng), bars)
        funding.insert(0, None if data.funding is None else data.funding[rows])
    made = build_market(bars)
    if data.funding is not None:
        made = replace(made, funding=np.concatenate([part for part in funding if part is not None]))
    return made, splits.after(config.copies * len(span), made.warmup_bars)


def _volatility(data: MarketData, span: Span) -> FloatArray:
    """Root mean square of a bar's log return in each week (W,) of the span."""
    returns = np.diff(np.log(data.mark[span.first : span.stop]), prepend=np.nan)
    return np.asarray(np.sqrt(np.nanmean(returns.reshape(-1, WEEK) ** 2, axis=1)))


def _order(volatility: FloatArray, config: AugmentConfig, rng: np.random.Generator) -> IntArray:
    """Rows of the span (W * WEEK,) that a copy shows in turn: blocks of geometric length, in their own week's place."""
    weeks = len(volatility)
    n_bars = weeks * WEEK
    row = np.arange(n_bars)
    if config.block_days == 0:
        return row
    begins = rng.random(n_bars) < 1.0 / (config.block_days * BARS_PER_DAY)
    begins[0] = True
    at = np.flatnonzero(begins)
    if config.balance_regimes:
        regime = np.argsort(np.argsort(volatility)) * REGIMES // weeks
        of_regime = [np.flatnonzero(regime == number) for number in range(REGIMES)]
        there = [found for found in of_regime if len(found)]
        source = np.array([rng.choice(there[rng.integers(len(there))]) for _ in at])
    else:
        source = rng.integers(0, weeks, len(at))
    moved = source * WEEK - at // WEEK * WEEK  # whole weeks
    # a block that runs over the span's end goes on at its beginning, a whole number of weeks away
    return np.asarray((row + np.repeat(moved, np.diff(at, append=n_bars))) % n_bars)


def _copy(data: MarketData, rows: IntArray, config: AugmentConfig, rng: np.random.Generator) -> Bars:
    """Bars with the moves of those rows, larger or smaller block by block, and noise on them."""
    block = np.cumsum(np.diff(rows, prepend=rows[0]) != 1)
    scale = np.exp(config.scale_sigma * rng.standard_normal(block[-1] + 1))[block]
    present = data.bars.present[rows]
    noise = np.where(present, config.jitter_sigmas * data.sigma[rows] * rng.standard_normal(len(rows)), 0.0)
    return bars_of_moves(data, rows, scale, noise)


def bars_of_moves(data: MarketData, rows: IntArray, scale: FloatArray, noise: FloatArray) -> Bars:
    """Bars that show the moves of rows (n,) in turn, each times its scale (n,) and with noise (n,) on its log return.

    They end at a price of 1 and have no times yet.
    """
    source, before = data.bars, data.mark[np.maximum(rows - 1, 0)]
    present = source.present[rows]
    relative = np.log(np.stack([getattr(source, name)[rows] for name in PRICES]) / before)
    relative = np.where(present, relative, 0.0) * scale
    open_, high, low, close = relative
    close = close + noise
    path = np.cumsum(close)
    path -= path[-1]
    previous = np.concatenate([[path[0] - close[0]], path[:-1]])
    high, low = np.maximum(high, close), np.minimum(low, close)
    prices = {
        name: np.where(present, np.exp(previous + moved), np.nan)
        for name, moved in zip(PRICES, (open_, high, low, close), strict=True)
    }
    return Bars(close_ts_ns=np.zeros(len(rows), np.int64), volume=source.volume[rows], present=present, **prices)


def _joined(copy: Bars, bars: Bars) -> Bars:
    """One market: the copy ends where the bars open, its times are counted back from theirs, and clocks agree."""
    price = bars.open[np.argmax(bars.present)]
    scaled = {name: price * getattr(copy, name) for name in PRICES}
    copy = replace(copy, close_ts_ns=bars.close_ts_ns[0] + BAR_NS * np.arange(-len(copy), 0), **scaled)
    return Bars(**{f.name: np.concatenate([getattr(copy, f.name), getattr(bars, f.name)]) for f in fields(Bars)})
