"""A market made of pieces of another: what is trained on where bars in the middle are kept for judging."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from btcai.config import Config, SplitConfig
from btcai.errors import DataError
from btcai.features.pipeline import build_market
from btcai.features.splits import Splits
from btcai.schema import BAR_NS, BARS_PER_DAY, TOKENS, MarketData, SealedSpan, Span
from btcai.training.augmentation import WEEK, bars_of_moves
from btcai.training.pretraining import HELD_OUT


def market_of(data: MarketData, pieces: Sequence[Span]) -> MarketData:
    """The moves of the pieces' whole weeks, one piece after the other at the price where the one before it ended.

    Nothing between the pieces is read: not even by a feature, for they are computed from what results. Rows of a week
    stay in their place in the week, so that clocks agree. DataError where no piece has a whole week.
    """
    rows = [np.arange(first, stop) for first, stop in (_whole_weeks(piece) for piece in pieces) if first < stop]
    if not rows:
        raise DataError("a market of pieces needs a piece with a whole week of bars; take fewer folds or more bars")
    taken = np.concatenate(rows)
    bars = bars_of_moves(data, taken, np.ones(len(taken)), np.zeros(len(taken)))
    price = data.mark[taken[0]] / bars.close[np.argmax(bars.present)]
    scaled = {name: price * getattr(bars, name) for name in ("open", "high", "low", "close")}
    times = data.bars.close_ts_ns[taken[0]] + BAR_NS * np.arange(len(taken))
    made = build_market(replace(bars, close_ts_ns=times, **scaled))
    return made if data.funding is None else replace(made, funding=data.funding[taken])


def _whole_weeks(piece: Span) -> tuple[int, int]:
    """Its first and last row plus one that begin a week of the grid, counted from row 0; the first row has no move."""
    first = -(-max(piece.first, 1) // WEEK) * WEEK
    return first, piece.stop // WEEK * WEEK


def least_spans(config: Config, warmup_bars: int) -> tuple[int, int]:
    """Bars that every bucket can train on, past the warm-up, and validate on: a day of outcomes of the longest horizon,
    and a lookback of the slowest clock with the decisions that an update draws, or that are held out."""
    day, patch_bars = config.purge_bars + BARS_PER_DAY, max(bucket.patch_bars for bucket in config.buckets.values())
    drawn = max(config.ppo.decisions, config.pretrain.decisions)
    copied = -warmup_bars % WEEK + WEEK if config.augment.copies else 0  # a whole week past the warm-up
    return max(day, (TOKENS + drawn) * patch_bars, copied), max(day, (TOKENS + HELD_OUT) * patch_bars)


def least_bars(config: Config, warmup_bars: int) -> int:
    """Bars that a fold must have before its purge for both of its spans to be long enough."""
    splits, (to_train, to_validate) = config.splits, least_spans(config, warmup_bars)
    share = splits.valid_frac / (splits.train_frac + splits.valid_frac)
    gap = config.purge_bars + splits.embargo_bars
    needed = max((to_train + warmup_bars + 1) / (1 - share), (to_validate + gap + 1) / share)
    return math.ceil(needed) + 2 * WEEK  # of a piece whole weeks alone are shown


def available_bars(pieces: Sequence[Span], config: Config, warmup_bars: int) -> tuple[int, int]:
    """To train on and to validate on, of what `market_of` leaves of the pieces."""
    n = sum(max(0, stop - first) for first, stop in map(_whole_weeks, pieces))
    stop, begin = _cut(n, config.splits, config.purge_bars)
    return max(0, stop - warmup_bars), max(0, n - begin)


def _cut(n_bars: int, config: SplitConfig, purge_bars: int) -> tuple[int, int]:
    """Where training ends and validation begins."""
    stop = round(n_bars * config.train_frac / (config.train_frac + config.valid_frac))
    return stop, stop + purge_bars + config.embargo_bars


def train_and_valid(data: MarketData, config: SplitConfig, purge_bars: int) -> Splits:
    """All of a market to train and validate on, in the proportion of the settings, with the same gap between them."""
    n = len(data)
    stop, begin = _cut(n, config, purge_bars)
    to_train, to_validate, least = stop - data.warmup_bars, n - begin, purge_bars + BARS_PER_DAY
    if min(to_train, to_validate) < least:
        raise DataError(
            f"a fold must have {least:,} bars to train on and as many to validate on, had {max(to_train, 0):,} and "
            f"{max(to_validate, 0):,}; take fewer folds or more bars"
        )
    nothing = Span(n, n)
    return Splits(
        train=Span(data.warmup_bars, stop), valid=Span(begin, n), test=nothing, folds=(), sealed=SealedSpan(n, n)
    )
