"""Trades as long, as large and as many as a strategy's, at times drawn by chance: what its timing has to beat."""

import numpy as np

from btcai.evaluation.result import BacktestResult
from btcai.schema import BoolArray, FloatArray, IntArray

_TRADED = 1e-9
"""A holding that changed by less than this share of itself was not traded."""


def random_targets(result: BacktestResult, mark: FloatArray, seed: int) -> FloatArray:
    """Targets (n,): the strategy's own times in the market, in another order and begun at random.

    Each time in the market, from one flat bar to the next, keeps its length and its course of trades, as shares of
    equity, and begins after any of the flat bars. mark (n,): of the strategy's span. Follow the targets with
    band_frac=0. Shorts are left out: targets are long. Who was never flat after the first bar is copied as he is.
    """
    share = np.clip(result.position_frac, 0.0, 1.0)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], share > 0.0, [False]))))
    entered, left = edges[::2], edges[1::2]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(entered))
    course = np.where(_traded(share, result.equity_usdt, mark), share, np.nan)
    targets = np.full(len(share), np.nan)
    for episode, begin in zip(order, _begins((left - entered)[order], len(share), rng), strict=True):
        bars = left[episode] - entered[episode]
        targets[begin : begin + bars] = course[entered[episode] : left[episode]]
        targets[begin + bars : begin + bars + 1] = 0.0
    return targets


def _traded(share: FloatArray, equity_usdt: FloatArray, mark: FloatArray) -> BoolArray:
    """Where (n,) the bitcoin held changed; mark may be nan while nothing is held."""
    btc = np.where(share > 0.0, share * equity_usdt / mark, 0.0)
    traded: BoolArray = np.abs(np.diff(btc, prepend=0.0)) > _TRADED * btc
    return traded


def _begins(lengths: IntArray, n_bars: int, rng: np.random.Generator) -> IntArray:
    """Bars (m,) at whose close episodes of these lengths, in this order, begin: any m of the flat bars, as likely."""
    flat = n_bars - int(lengths.sum())
    chosen = np.sort(rng.choice(flat, len(lengths), replace=False))
    return chosen + np.cumsum(lengths) - lengths
